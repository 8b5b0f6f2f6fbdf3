// The timeline: for every row and part three lanes, of which one is chosen. Over time the chosen lanes draw a line that
// shows at a glance who is better when. A press chooses, a drag along a lane chooses in every part that it crosses.
const LANES = ["left", "tie", "right"];
const WORDS = { left: "left is better", tie: "tie", right: "right is better" };

export class Timeline {
  constructor(root, study, choose, selected) {
    Object.assign(this, { root, study, choose, selected, at: 0, row: 0, painting: null });
    root.addEventListener("pointerdown", (event) => this.press(event));
    root.addEventListener("pointerover", (event) => this.drag(event));
    addEventListener("pointerup", () => (this.painting = null));
    root.addEventListener("click", (event) => this.click(event));
  }

  open(item, choice, keepPlace = false) {
    this.item = item;
    if (!keepPlace) [this.at, this.row] = this.firstOpen(choice) ?? [0, 0];
    this.lanes = {};
    const widths = item.segments.map(([start, stop]) => `${stop - start}fr`).join(" ");
    const rows = this.study.rows.map((name, row) => {
      const line = element("div", { className: "row" });
      const lane = element("div", { className: "lane parts" });
      lane.style.gridTemplateColumns = widths;
      lane.append(...item.segments.map((_, part) => this.cell(name, row, part)));
      line.append(element("span", { className: "name", textContent: name }), lane);
      return line;
    });
    this.heads = rows.map((line) => line.lastChild.appendChild(element("i", { className: "playhead" })));
    if (this.study.clip_answer) rows.push(this.whole());
    this.root.replaceChildren(...rows);
  }

  partName(name, part) {
    const [start, stop] = this.item.segments[part].map((frame) => (frame / this.item.fps).toFixed(1));
    return `${name}, part ${part + 1} of ${this.item.segments.length}, ${start} to ${stop} seconds`;
  }

  // what is selected, in words
  where(choice) {
    const name = this.study.rows[this.row];
    const answer = name === undefined ? choice.clip : choice.answers[name][this.at];
    return `${name === undefined ? "whole clip" : this.partName(name, this.at)}: ${WORDS[answer] ?? "open"}`;
  }

  cell(name, row, part) {
    const cell = element("div", { className: "part" });
    cell.setAttribute("role", "group");
    cell.setAttribute("aria-label", this.partName(name, part));
    cell.append(...LANES.map((answer) => this.button(answer, { row: String(row), part: String(part), answer })));
    this.lanes[`${row}/${part}`] = cell;
    return cell;
  }

  whole() {
    const line = element("div", { className: "row whole" });
    const cell = element("div", { className: "lane part clip" });
    cell.setAttribute("role", "group");
    cell.setAttribute("aria-label", "whole clip");
    cell.append(...LANES.map((answer) => this.button(answer, { whole: "yes", answer })));
    this.lanes.whole = cell;
    line.append(element("span", { className: "name", textContent: "whole clip" }), cell);
    return line;
  }

  button(answer, data) {
    const button = element("button", { type: "button", className: answer });
    Object.assign(button.dataset, data);
    button.setAttribute("aria-label", WORDS[answer]);
    button.append(element("span", { className: "mark", ariaHidden: "true" }));
    return button;
  }

  press(event) {
    const { part, row, answer } = event.target.closest("button")?.dataset ?? {};
    if (part === undefined) return;
    event.target.closest("button").releasePointerCapture?.(event.pointerId);
    this.painting = { row, answer };
  }

  drag(event) {
    const data = event.target.closest("button")?.dataset;
    if (!this.painting || data?.row !== this.painting.row || event.buttons !== 1) return;
    this.place(Number(data.row), Number(data.part), this.painting.answer);
  }

  click(event) {
    const button = event.target.closest("button");
    if (!button) return;
    const { part, row, answer, whole } = button.dataset;
    if (whole) this.choose((choice) => (choice.clip = answer));
    else this.place(Number(row), Number(part), answer);
    if (event.detail > 0) button.blur();
  }

  place(row, part, answer) {
    [this.row, this.at] = [row, part];
    this.choose((choice) => (choice.answers[this.study.rows[row]][part] = answer));
    this.selected();
  }

  // by key: answers the part that is selected and goes on to the next open one
  answer(answer) {
    const last = this.study.rows.length;
    if (this.row === last) return this.choose((choice) => (choice.clip = answer));
    this.choose((choice) => {
      choice.answers[this.study.rows[this.row]][this.at] = answer;
      const ahead = choice.answers[this.study.rows[this.row]].indexOf(null, this.at);
      if (ahead >= 0) this.at = ahead;
      else this.nextRow(choice);
    });
    this.selected();
  }

  nextRow(choice) {
    const open = this.firstOpen(choice);
    if (open) [this.at, this.row] = open;
    else this.at = Math.min(this.at + 1, this.item.segments.length - 1);
  }

  // the part and the row of the first answer that is missing; null: none is
  firstOpen(choice) {
    const row = this.study.rows.findIndex((name) => choice.answers[name].includes(null));
    if (row >= 0) return [choice.answers[this.study.rows[row]].indexOf(null), row];
    return this.study.clip_answer && choice.clip === null ? [0, this.study.rows.length] : null;
  }

  rest() {
    this.choose((choice) => {
      for (const name of this.study.rows) choice.answers[name] = choice.answers[name].map((answer) => answer ?? "tie");
      this.nextRow(choice);
    });
    this.selected();
  }

  move(parts, rows) {
    const last = this.study.rows.length - (this.study.clip_answer ? 0 : 1);
    this.at = Math.max(0, Math.min(this.item.segments.length - 1, this.at + parts));
    this.row = Math.max(0, Math.min(last, this.row + rows));
    this.selected();
  }

  // the selected part, as frames
  part() {
    return this.item.segments[this.at];
  }

  missing(choice) {
    return this.study.rows
      .map((name) => [name, choice.answers[name].filter((answer) => answer === null).length])
      .filter(([, open]) => open)
      .map(([name, open]) => `${open} ${open === 1 ? "part" : "parts"}` + (this.study.rows.length > 1 ? ` of ${name}` : ""));
  }

  render(choice, locked) {
    this.study.rows.forEach((name, row) =>
      choice.answers[name].forEach((answer, part) => {
        this.mark(this.lanes[`${row}/${part}`], answer, row === this.row && part === this.at, locked);
      }),
    );
    if (this.lanes.whole) this.mark(this.lanes.whole, choice.clip, this.row === this.study.rows.length, locked);
  }

  mark(cell, answer, selected, locked) {
    cell.classList.toggle("selected", selected);
    cell.classList.toggle("open", answer === null);
    for (const button of cell.children) {
      button.setAttribute("aria-pressed", String(button.dataset.answer === answer));
      button.tabIndex = selected ? 0 : -1;
      button.disabled = locked;
    }
  }

  playhead(frame) {
    const share = frame / Math.max(1, this.item.num_frames - 1); // where the knob of the slider above is, 16px wide
    for (const head of this.heads) head.style.left = `calc(8px + ${share} * (100% - 16px))`;
  }
}

export function element(tag, properties = {}) {
  return Object.assign(document.createElement(tag), properties);
}

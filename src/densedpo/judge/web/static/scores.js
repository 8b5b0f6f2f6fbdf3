// Scores from 0 to 10 for one clip, category by category.
import { element } from "./timeline.js";

export class Scores {
  constructor(root, study, choose) {
    Object.assign(this, { root, study, choose, row: 0 });
    root.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      this.row = Number(button.dataset.row);
      this.score(Number(button.dataset.score));
      if (event.detail > 0) button.blur();
    });
  }

  open(_item, choice, keepPlace = false) {
    if (!keepPlace) this.row = Math.max(0, this.study.categories.findIndex((name) => !(name in choice.scores)));
    this.rows = this.study.categories.map((name, row) => {
      const line = element("div", { className: "row" });
      const cell = element("div", { className: "lane scores" });
      cell.setAttribute("role", "group");
      cell.setAttribute("aria-label", name);
      for (let score = 0; score <= 10; score++) {
        const button = element("button", { type: "button", textContent: String(score) });
        Object.assign(button.dataset, { row: String(row), score: String(score) });
        cell.append(button);
      }
      line.append(element("span", { className: "name", textContent: name }), cell);
      return line;
    });
    this.root.replaceChildren(...this.rows);
  }

  score(score) {
    this.choose((choice) => {
      choice.scores[this.study.categories[this.row]] = score;
      const open = this.study.categories.findIndex((name) => !(name in choice.scores));
      if (open >= 0) this.row = open;
    });
  }

  move(_parts, rows) {
    this.row = Math.max(0, Math.min(this.study.categories.length - 1, this.row + rows));
  }

  // what is selected, in words
  where(choice) {
    const name = this.study.categories[this.row];
    return `${name}: ${choice.scores[name] ?? "open"}`;
  }

  missing(choice) {
    return this.study.categories.filter((name) => !(name in choice.scores));
  }

  render(choice, locked) {
    this.rows.forEach((line, row) => {
      line.classList.toggle("selected", row === this.row);
      for (const button of line.lastChild.children) {
        const chosen = choice.scores[this.study.categories[row]] === Number(button.dataset.score);
        button.setAttribute("aria-pressed", String(chosen));
        button.tabIndex = row === this.row ? 0 : -1;
        button.disabled = locked;
      }
    });
  }
}

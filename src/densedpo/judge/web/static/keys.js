// Which key does what. People may change every one of them, or switch keys off; it is kept in their browser.
const STORE = "densedpo.keys";

export const ACTIONS = {
  play: ["Play or pause", " "],
  back: ["Back one frame", "ArrowLeft"],
  step: ["Forward one frame", "ArrowRight"],
  part_back: ["Part before", "Shift+ArrowLeft"],
  part_next: ["Next part", "Shift+ArrowRight"],
  row_up: ["Row above", "ArrowUp"],
  row_down: ["Row below", "ArrowDown"],
  left: ["Left is better", "1"],
  right: ["Right is better", "2"],
  tie: ["Tie", "0"],
  rest: ["Rest are ties", "r"],
  submit: ["Submit, next item", "Enter"],
  skip: ["Skip, with a reason", "s"],
  undo: ["Undo; at the start, the item before", "u"],
  redo: ["Redo", "y"],
  note: ["Note", "n"],
  loop: ["Loop the part", "l"],
  slower: ["Slower", "["],
  faster: ["Faster", "]"],
  zoom_in: ["Zoom in", "+"],
  zoom_out: ["Zoom out", "-"],
  pan_left: ["Look further left", "a"],
  pan_right: ["Look further right", "d"],
  pan_up: ["Look further up", "w"],
  pan_down: ["Look further down", "z"],
  help: ["This sheet", "?"],
};
const REPEATING = new Set(["back", "step", "zoom_in", "zoom_out", "pan_left", "pan_right", "pan_up", "pan_down"]);
const NAMES = { " ": "Space", ArrowLeft: "\u2190", ArrowRight: "\u2192", ArrowUp: "\u2191", ArrowDown: "\u2193" };

export class Keys {
  constructor(act) {
    this.act = act;
    this.digits = null; // in a study of scores, digits are scores
    this.capture = null;
    const stored = JSON.parse(localStorage.getItem(STORE) ?? "{}");
    this.on = stored.on ?? true;
    this.map = Object.fromEntries(Object.entries(ACTIONS).map(([action, [, key]]) => [action, key]));
    for (const [action, key] of Object.entries(stored.map ?? {})) {
      if (action in ACTIONS && typeof key === "string") this.map[action] = key;
    }
    // one listener for the whole page: two would step two frames for one press
    document.addEventListener("keydown", (event) => this.press(event));
  }

  name(action) {
    return this.map[action].replace(/[^+]+$|^ $/, (key) => NAMES[key] ?? (key.length > 1 ? key : key.toUpperCase()));
  }

  set(action, key) {
    for (const other of Object.keys(this.map)) if (this.map[other] === key) this.map[other] = this.map[action];
    this.map[action] = key;
    this.keep();
  }

  reset() {
    for (const [action, [, key]] of Object.entries(ACTIONS)) this.map[action] = key;
    this.on = true;
    this.keep();
  }

  keep() {
    localStorage.setItem(STORE, JSON.stringify({ on: this.on, map: this.map }));
  }

  press(event) {
    if (event.isComposing || event.defaultPrevented) return;
    if (this.capture) return this.captured(event);
    if (document.querySelector("dialog[open]") || !document.getElementById("elsewhere").hidden) return;
    const target = event.target;
    if (target.matches("textarea, select, input:not([type=range])")) return;
    const letter = event.key.toLowerCase();
    if ((event.ctrlKey || event.metaKey) && (letter === "z" || letter === "y")) {
      event.preventDefault();
      if (!event.repeat) this.act(letter === "y" || event.shiftKey ? "redo" : "undo");
      return;
    }
    if (!this.on || event.ctrlKey || event.metaKey || event.altKey) return;
    if (["Enter", " "].includes(event.key) && target.closest("button, a, summary")) return; // presses the button
    const action = this.actionOf(event);
    if (action === null) return;
    event.preventDefault();
    if (event.repeat && !REPEATING.has(action)) return;
    this.act(action);
  }

  actionOf(event) {
    const key = written(event);
    if (this.digits && /^[0-9xX]$/.test(key)) return `score:${/x/i.test(key) ? 10 : key}`;
    const found = Object.entries(this.map).find(([, each]) => each.toLowerCase() === key.toLowerCase());
    return found ? found[0] : null;
  }

  captured(event) {
    if (["Shift", "Control", "Alt", "Meta", "Tab"].includes(event.key)) return;
    event.preventDefault();
    const done = this.capture;
    this.capture = null;
    done(event.key === "Escape" ? null : written(event));
  }
}

// Shift counts where it does not make another character; a digit counts on every layout
function written(event) {
  const digit = /^(?:Digit|Numpad)([0-9])$/.exec(event.code);
  const key = digit && !event.shiftKey && !/^[0-9]$/.test(event.key) ? digit[1] : event.key;
  return event.shiftKey && key.length > 1 ? `Shift+${key}` : key;
}

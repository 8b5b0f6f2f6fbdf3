// The labelling screen: what is on it, what was chosen, and what happens next.
import { post } from "./api.js";
import { Clock } from "./clock.js";
import { ACTIONS, Keys } from "./keys.js";
import { Outbox } from "./outbox.js";
import { fetchVideo, Player } from "./player.js";
import { Scores } from "./scores.js";
import { claim, release } from "./tabs.js";
import { Timeline } from "./timeline.js";

const $ = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const player = new Player([...document.querySelectorAll(".pane canvas")]);
const clock = new Clock();
const keys = new Keys(act);
const videos = new Map(); // address -> promise of its bytes: the item on the screen and those that come next
const decided = new Set(); // submitted here, perhaps not yet there
let outbox = null;
let study = null;
let sheet = null; // timeline or scores
let item = null;
let choice = null;
let past = []; // what was chosen before, to undo
let queue = [];
let hold = null; // why nothing can be chosen: the video is not there
let left = 0; // items that the server has for this person
let force = false; // whether to take the item from another tab
let later = null;

async function start() {
  const work = await ask();
  if (!work) return;
  study = work.study;
  outbox = new Outbox(work.person);
  listenToOutbox();
  sheet = study.kind === "scores" ? new Scores($("rows"), study, choose) : new Timeline($("rows"), study, choose, select);
  keys.digits = study.kind === "scores" ? "scores" : null;
  $("choose").hidden = $("rest").hidden = study.kind === "scores";
  $("instructions").textContent = study.instructions;
  $("instructions-version").textContent = `Version ${study.instructions_version}`;
  showKeys();
  fillReasons();
  await outbox.flush(); // what an earlier visit left behind comes first
  take((await ask()) ?? work);
  readInstructions();
}

// null: nothing to go on with
async function ask() {
  const answer = await post("/api/work");
  if (answer.ok) return answer.body;
  if (answer.status === 401) location.reload();
  else notice(answer.status === 0 ? "No connection to the studio. Trying again\u2026" : answer.body.error);
  again(3000);
  return null;
}

function again(ms) {
  clearTimeout(later);
  later = setTimeout(() => (study ? refill() : start()), ms);
}

function take(work) {
  const { num_done: done, num_skipped: skipped } = work.progress;
  left = work.progress.num_left;
  $("progress").textContent = `${done} done` + (skipped ? `, ${skipped} skipped` : "") + `, ${left} left`;
  queue = work.items.filter((each) => !decided.has(each.assignment));
  for (const each of queue) preload(each);
  if (!item) next();
}

async function refill() {
  const work = await ask();
  if (!work) return;
  if ($("notice").textContent.startsWith("No connection")) notice("");
  take(work);
}

function preload(each) {
  if (!videos.has(each.media)) videos.set(each.media, fetchVideo(each.media));
  videos.get(each.media).catch(() => {}); // told when the item is shown
}

function next() {
  const found = queue.find((each) => !decided.has(each.assignment));
  if (found) return show(found);
  const waits = left > 0 || outbox.waiting > 0; // what is submitted here may not have arrived there
  blank(waits ? "Waiting for the next item\u2026" : "Nothing is left for you. Thank you.");
  if (waits) again(2000);
}

function blank(text) {
  item = null;
  release();
  $("stage").hidden = true;
  $("caption").textContent = text;
  document.body.classList.add("idle");
}

function show(each) {
  item = each;
  hold = "loading";
  document.body.classList.remove("idle");
  $("stage").hidden = false;
  $("pane-right").hidden = each.num_panes === 1;
  $("pane-left").querySelector("figcaption").textContent = each.num_panes === 1 ? "Clip" : "Left";
  $("caption").textContent = each.caption;
  choice = each.choice ? structuredClone(each.choice) : fresh(each);
  past = [];
  clock.reset(choice.active_ms);
  sheet.open(each, choice);
  $("scrub").max = each.num_frames - 1;
  $("note").value = choice.note;
  notice("");
  for (const address of videos.keys()) {
    if (address !== each.media && !queue.some((other) => other.media === address)) videos.delete(address);
  }
  claim(each.assignment, elsewhere, force);
  force = false;
  load();
  render();
}

function load() {
  preload(item);
  player.load(item, videos.get(item.media), { watched: choice.watched, replays: choice.replays });
}

function fresh(each) {
  const answers = Object.fromEntries(study.rows.map((row) => [row, each.segments.map(() => null)]));
  return { answers, clip: null, scores: {}, reason: null, note: "", active_ms: 0, replays: 0, watched: false };
}

// applies a change to what is chosen, and saves it
function choose(change) {
  if (!item || hold) return;
  const before = structuredClone(choice);
  change(choice);
  if (JSON.stringify(before) === JSON.stringify(choice)) return;
  past.push(before);
  save("draft");
  render();
}

function select() {
  render();
  if (!player.ready || !sheet.part) return;
  if (player.range) player.range = sheet.part();
  if (!player.playing) player.seek(sheet.part()[0]);
  else if (player.range) player.jump(player.range[0]);
}

function save(kind) {
  Object.assign(choice, { active_ms: clock.ms(), replays: player.replays, watched: choice.watched || player.watched });
  return outbox.add({ id: uuid(), assignment: item.assignment, kind, choice: structuredClone(choice) });
}

function submit() {
  const missing = whatIsMissing();
  if (!item || hold) return;
  if (missing) {
    $("missing").classList.add("urgent");
    return;
  }
  finish("submit");
}

function finish(kind) {
  const stored = save(kind);
  decided.add(item.assignment);
  queue = queue.filter((each) => each.assignment !== item.assignment);
  next();
  stored.then(refill);
}

function whatIsMissing() {
  if (!item) return "";
  const open = sheet.missing(choice);
  if (study.clip_answer && choice.clip === null) open.push("the whole clip");
  if (study.must_watch && !choice.watched && !player.watched) open.push("play it once to the end");
  return open.length ? `Still to do: ${open.join("; ")}.` : "";
}

async function undo() {
  if (!item) return;
  if (past.length) {
    choice = past.pop();
    sheet.open(item, choice, true);
    save("draft");
    return render();
  }
  await outbox.flush(); // what was submitted a moment ago is the item before
  const answer = await post("/api/previous", { assignment: item.assignment });
  if (!answer.ok) return notice(answer.body.error);
  if (!answer.body) return notice("This is the first item.");
  decided.delete(answer.body.assignment);
  show(answer.body);
  notice("Back at an earlier item. Submit it again to change it.");
}

const DOES = {
  play: () => (player.playing ? player.pause() : player.play()),
  back: () => player.seek(player.frame - 1),
  step: () => player.seek(player.frame + 1),
  part_back: () => sheet.move?.(-1, 0),
  part_next: () => sheet.move?.(1, 0),
  row_up: () => sheet.move(0, -1),
  row_down: () => sheet.move(0, 1),
  left: () => sheet.answer?.("left"),
  right: () => sheet.answer?.("right"),
  tie: () => sheet.answer?.("tie"),
  rest: () => sheet.rest?.(),
  submit,
  undo,
  skip: () => $("dialog-skip").showModal(),
  note: () => $("dialog-note").showModal(),
  loop: () => {
    player.range = player.range || !sheet.part ? null : sheet.part();
    if (player.range && !player.playing) player.play();
    render();
  },
  slower: () => player.faster(-1),
  faster: () => player.faster(1),
  zoom_in: () => player.zoomBy(1),
  zoom_out: () => player.zoomBy(-1),
  help: () => $("dialog-help").showModal(),
  instructions: () => $("dialog-instructions").showModal(),
  leave: async () => {
    await outbox.flush();
    await post("/api/leave");
    location.reload();
  },
};

function act(action) {
  clock.touch();
  if (action.startsWith("score:")) sheet.score(Number(action.slice(6)));
  else DOES[action]();
  if (item) render();
}

function render() {
  $("play").textContent = player.playing ? "Pause" : "Play";
  $("loop").setAttribute("aria-pressed", String(player.range !== null));
  $("speed").textContent = `${player.speed}\u00d7`;
  $("zoom").textContent = player.zoom === 1 ? "fit" : `${player.zoom}\u00d7`;
  sheet.render(choice, Boolean(hold));
  const missing = whatIsMissing();
  $("missing").textContent = missing;
  if (!missing) $("missing").classList.remove("urgent");
  $("submit").disabled = Boolean(hold);
  for (const button of $("choose").children) button.disabled = Boolean(hold);
}

function counter() {
  if (!item) return;
  $("scrub").value = player.frame;
  const time = (player.frame / item.fps).toFixed(2);
  $("scrub").setAttribute("aria-valuetext", `frame ${player.frame + 1} of ${item.num_frames}, ${time} seconds`);
  $("counter").textContent = `${player.frame + 1} / ${item.num_frames} \u00b7 ${time} s`;
  sheet.playhead?.(player.frame);
  if (!choice.watched && player.watched) {
    choice.watched = true;
    save("draft");
    render();
  }
}

function listenToOutbox() {
  outbox.addEventListener("change", ({ detail: { waiting, problem } }) => {
    const saved = $("saved");
    saved.textContent = waiting === 0 ? "Saved" : problem ? `${waiting} unsaved \u00b7 ${problem}` : "Saving\u2026";
    saved.dataset.state = waiting === 0 ? "saved" : problem ? "unsaved" : "saving";
  });
  outbox.addEventListener("refused", ({ detail }) => notice(`A choice was not stored: ${detail.error}`));
  outbox.addEventListener("stored", ({ detail: { answer } }) => {
    if (answer.extra) notice("Your time for this item had run out and somebody else has it too. Your work is kept.");
  });
  outbox.addEventListener("signed-out", () => $("dialog-enter").open || $("dialog-enter").showModal());
}

function elsewhere(there, freed = false) {
  $("elsewhere").hidden = !there;
  if (there) {
    player.pause();
    $("take").focus();
  }
  if (freed) workHere(); // much may have happened in the other tab
}

function workHere() {
  force = true;
  item = null;
  refill();
}

function notice(text) {
  $("notice").textContent = text;
}

function readInstructions() {
  const seen = localStorage.getItem("densedpo.instructions");
  if (seen === study.instructions_version) return;
  localStorage.setItem("densedpo.instructions", study.instructions_version);
  $("dialog-instructions").showModal();
}

function fillReasons() {
  for (const reason of study.skip_reasons) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "reason", value: reason });
    label.append(input, ` ${reason}`);
    $("skip-reasons").append(label);
  }
  $("skip-reasons").querySelector("input").checked = true;
}

function showKeys() {
  for (const kbd of document.querySelectorAll("kbd[data-key]")) {
    kbd.textContent = keys.on ? keys.name(kbd.dataset.key) : "";
  }
  $("keys-on").checked = keys.on;
  $("keys").replaceChildren(
    ...Object.entries(ACTIONS).map(([action, [text]]) => {
      const button = document.createElement("button");
      const kbd = Object.assign(document.createElement("kbd"), { textContent: keys.name(action) });
      button.type = "button";
      button.append(`${text} `, kbd);
      button.addEventListener("click", () => {
        kbd.textContent = "press a key";
        keys.capture = (key) => {
          if (key) keys.set(action, key);
          showKeys();
        };
      });
      return button;
    }),
  );
}

// crypto.randomUUID exists on https and on this machine, which is where the studio runs
const uuid = () => crypto.randomUUID();

player.addEventListener("frame", counter);
player.addEventListener("playing", () => item && render());
player.addEventListener("state", ({ detail }) => ($("media-state").textContent = detail));
player.addEventListener("failed", ({ detail }) => {
  hold = detail;
  videos.delete(item?.media);
  render();
  const failed = item;
  if (detail.includes("no connection")) setTimeout(() => item === failed && hold === detail && load(), 3000);
});
player.addEventListener("ready", () => {
  hold = null;
  render();
  if (!calm.matches && !document.hidden && $("elsewhere").hidden && !document.querySelector("dialog[open]")) player.play();
});
document.addEventListener("visibilitychange", () => document.hidden && player.pause());
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-action]");
  if (!button) return;
  act(button.dataset.action);
  if (event.detail > 0) button.blur(); // else Space would press it again instead of playing
});
$("scrub").addEventListener("input", () => player.seek(Number($("scrub").value)));
$("take").addEventListener("click", workHere);
$("note").addEventListener("change", () => choose((now) => (now.note = $("note").value)));
$("keys-on").addEventListener("change", () => {
  keys.on = $("keys-on").checked;
  keys.keep();
  showKeys();
});
$("keys-reset").addEventListener("click", () => {
  keys.reset();
  showKeys();
});
$("skip-cancel").addEventListener("click", () => $("dialog-skip").close());
$("skip-form").addEventListener("submit", () => {
  if (!item) return;
  choice.reason = new FormData($("skip-form")).get("reason");
  finish("skip");
});
$("again").addEventListener("submit", async (event) => {
  event.preventDefault();
  const answer = await post("/api/enter", { token: $("again-token").value.trim() });
  $("again-token").value = "";
  $("again-problem").textContent = answer.ok ? "" : answer.body.error;
  if (answer.ok && answer.body.person !== outbox.person) return location.reload();
  if (answer.ok) {
    $("dialog-enter").close();
    outbox.flush();
  }
});
$("stage").addEventListener("wheel", (event) => {
  if (!event.ctrlKey) return;
  event.preventDefault();
  act(event.deltaY < 0 ? "zoom_in" : "zoom_out");
}, { passive: false });
$("stage").addEventListener("pointermove", (event) => {
  if (event.buttons !== 1 || !event.target.matches("canvas")) return;
  const { width, height } = event.target.getBoundingClientRect();
  player.move(-event.movementX / width / player.zoom, -event.movementY / height / player.zoom);
});
globalThis.studio = { player, get item() { return item; }, get choice() { return choice; } }; // for tests and the curious

start();

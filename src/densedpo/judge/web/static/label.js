// The labelling screen: which item is on it, what was chosen, and what happens next.
import { post } from "./api.js";
import { Clock } from "./clock.js";
import { offerEntry, offerKeys, offerNote, offerReasons, openNote, readInstructions } from "./dialogs.js";
import { Keys } from "./keys.js";
import { Outbox } from "./outbox.js";
import { Player } from "./player.js";
import { Scores } from "./scores.js";
import * as screen from "./screen.js";
import { listenToPointer } from "./stage.js";
import { claim, release } from "./tabs.js";
import { Timeline } from "./timeline.js";
import { Videos } from "./videos.js";

const { $, notice } = screen;
const PAN = 0.25; // of what is seen, for each press
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const player = new Player([...document.querySelectorAll(".pane canvas")]);
const clock = new Clock();
const keys = new Keys(act);
const videos = new Videos();
const decided = new Set(); // submitted here, perhaps not yet there
let outbox = null;
let study = null;
let sheet = null; // timeline or scores
let item = null;
let choice = null;
let past = []; // what was chosen before, to undo
let future = []; // what was undone, to do it again
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
  offerKeys(keys);
  offerReasons(study, (reason) => item && finish("skip", reason));
  offerNote((text) => choose((now) => (now.note = text)));
  await outbox.flush(); // what an earlier visit left behind comes first
  take((await ask()) ?? work);
  readInstructions(study);
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
  left = work.progress.num_left;
  screen.showProgress(work.progress);
  queue = work.items.filter((each) => !decided.has(each.assignment));
  for (const each of queue) videos.get(each.media);
  if (!item) next();
}

async function refill() {
  const work = await ask();
  if (!work) return;
  if ($("notice").textContent.startsWith("No connection")) notice("");
  take(work);
}

function next() {
  const found = queue.find((each) => !decided.has(each.assignment));
  if (found) return show(found);
  const waits = left > 0 || outbox.waiting > 0; // what is submitted here may not have arrived there
  item = null;
  release();
  screen.showNoItem(waits ? "Waiting for the next item\u2026" : "Nothing is left for you. Thank you.");
  if (waits) again(2000);
}

function show(each) {
  item = each;
  hold = "loading";
  screen.showItem(each);
  choice = each.choice ? structuredClone(each.choice) : fresh(each);
  past = [];
  future = [];
  clock.reset(choice.active_ms);
  sheet.open(each, choice);
  notice("");
  screen.say("");
  videos.keepOnly([each, ...queue].map((one) => one.media));
  claim(each.assignment, elsewhere, force);
  force = false;
  load();
  render();
}

function load() {
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
  future = [];
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
  // crypto.randomUUID exists on https and on this machine, which is where the studio runs
  return outbox.add({ id: crypto.randomUUID(), assignment: item.assignment, kind, choice: structuredClone(choice) });
}

function submit() {
  if (hold) return;
  if (whatIsMissing()) $("missing").classList.add("urgent");
  else finish("submit");
}

function finish(kind, reason = null) {
  choice.reason = reason;
  const stored = save(kind);
  decided.add(item.assignment);
  queue = queue.filter((each) => each.assignment !== item.assignment);
  next();
  stored.then(refill);
}

function whatIsMissing() {
  const open = sheet.missing(choice);
  if (study.clip_answer && choice.clip === null) open.push("the whole clip");
  if (study.must_watch && !choice.watched && !player.watched) open.push("play it once to the end");
  return open.length ? `Still to do: ${open.join("; ")}.` : "";
}

async function undo() {
  if (item && past.length) return travel(past, future);
  await outbox?.flush(); // what was submitted a moment ago is the item before
  const answer = await post("/api/previous", { assignment: item?.assignment ?? null });
  if (!answer.ok) return notice(answer.body.error);
  if (!answer.body) return notice("This is the first item.");
  clearTimeout(later);
  decided.delete(answer.body.assignment);
  show(answer.body);
  notice("Back at an earlier item. Submit it again to change it.");
}

// through what was chosen about this item, back or forth
function travel(from, to) {
  if (!from.length) return;
  to.push(choice);
  choice = structuredClone(from.pop());
  sheet.open(item, choice, true);
  save("draft");
  render();
}

const ALWAYS = {
  undo,
  help: () => $("dialog-help").showModal(),
  instructions: () => $("dialog-instructions").showModal(),
  leave: async () => {
    await outbox?.flush();
    await post("/api/leave");
    location.reload();
  },
};
const WITH_AN_ITEM = {
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
  redo: () => travel(future, past),
  skip: () => $("dialog-skip").showModal(),
  note: () => openNote(choice.note),
  loop: () => {
    player.range = player.range || !sheet.part ? null : sheet.part();
    if (player.range && !player.playing) player.play();
  },
  slower: () => player.faster(-1),
  faster: () => player.faster(1),
  zoom_in: () => player.zoomBy(1),
  zoom_out: () => player.zoomBy(-1),
  pan_left: () => player.move(-PAN / player.zoom, 0),
  pan_right: () => player.move(PAN / player.zoom, 0),
  pan_up: () => player.move(0, -PAN / player.zoom),
  pan_down: () => player.move(0, PAN / player.zoom),
};
const SAYS = { left: "left is better", right: "right is better", tie: "tie", part_back: "", part_next: "", row_up: "", row_down: "" };

function act(action) {
  clock.touch();
  if (action in ALWAYS) return void ALWAYS[action]();
  if (!item) return;
  const [score] = /(?<=^score:)\d+$/.exec(action) ?? [];
  const said = score ?? SAYS[action];
  if (score) sheet.score(Number(score));
  else WITH_AN_ITEM[action]();
  if (!item) return; // it was the last one
  if (said !== undefined && !hold) screen.say([said, sheet.where(choice)].filter(Boolean).join(". "));
  render();
}

function render() {
  screen.showPlayback(player);
  sheet.render(choice, Boolean(hold));
  screen.showMissing(whatIsMissing());
  screen.lock(Boolean(hold));
}

function counter() {
  if (!item) return;
  screen.showFrame(item, player.frame);
  sheet.playhead?.(player.frame);
  if (!choice.watched && player.watched) {
    choice.watched = true;
    save("draft");
    render();
  }
}

function listenToOutbox() {
  outbox.addEventListener("change", ({ detail }) => screen.showSaved(detail));
  outbox.addEventListener("refused", ({ detail }) => notice(`A choice was not stored: ${detail.error}`));
  outbox.addEventListener("stored", ({ detail: { answer } }) => {
    if (answer.extra) notice("Your time for this item had run out and somebody else has it too. Your work is kept.");
  });
  offerEntry(outbox);
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

player.addEventListener("frame", counter);
player.addEventListener("playing", () => item && render());
player.addEventListener("state", ({ detail }) => ($("media-state").textContent = detail));
player.addEventListener("failed", ({ detail }) => {
  hold = detail;
  videos.forget(item?.media);
  if (item) render();
  const failed = item;
  if (detail.includes("no connection")) setTimeout(() => item === failed && hold === detail && load(), 3000);
});
player.addEventListener("ready", ({ detail: { flashes } }) => {
  hold = null;
  render();
  if (flashes) notice("This item flashes more than three times in a second. It does not play by itself; skip it if that may harm you.");
  const covered = document.hidden || !$("elsewhere").hidden || document.querySelector("dialog[open]");
  if (!flashes && !calm.matches && !covered) player.play();
});
document.addEventListener("visibilitychange", () => document.hidden && player.pause());
listenToPointer(player, act);
$("take").addEventListener("click", workHere);
globalThis.studio = { player, get item() { return item; }, get choice() { return choice; } }; // for tests and the curious

start();

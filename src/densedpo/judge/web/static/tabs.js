// One item is worked on in one tab: a second tab that opens it waits, and may take it over.
const channel = "BroadcastChannel" in globalThis ? new BroadcastChannel("densedpo-studio") : null;
const tab = crypto.randomUUID();
let mine = null;
let tell = () => {};
let taken = false;

// says that this tab works on an item; `elsewhere` is told true when another tab does, false when it no longer does
export function claim(assignment, elsewhere, force = false) {
  mine = assignment;
  tell = elsewhere;
  taken = false;
  tell(false);
  channel?.postMessage({ tab, assignment, word: force ? "take" : "ask" });
}

export function release() {
  if (mine) channel?.postMessage({ tab, assignment: mine, word: "free" });
  mine = null;
}

function give(to) {
  taken = to;
  tell(to, !to);
}

channel?.addEventListener("message", ({ data }) => {
  if (data.tab === tab || data.assignment !== mine) return;
  if (data.word === "ask" && !taken) channel.postMessage({ tab, assignment: mine, word: "here" });
  else if (data.word === "here" || data.word === "take") give(true);
  else if (data.word === "free" && taken) give(false);
});
addEventListener("pagehide", release);

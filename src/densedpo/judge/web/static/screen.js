// What the labelling screen shows around the clips: playback, progress, what is saved, what is still to do.
export const $ = (id) => document.getElementById(id);

export function notice(text) {
  $("notice").textContent = text;
}

// for who cannot see the timeline: what a key has just done
export function say(text) {
  $("said").textContent = text;
}

export function showPlayback(player) {
  $("play").textContent = player.playing ? "Pause" : "Play";
  $("loop").setAttribute("aria-pressed", String(player.range !== null));
  $("speed").textContent = `${player.speed}\u00d7`;
  $("zoom").textContent = player.zoom === 1 ? "fit" : `${player.zoom}\u00d7`;
}

export function showFrame(item, frame) {
  const time = (frame / item.fps).toFixed(2);
  $("scrub").value = frame;
  $("scrub").setAttribute("aria-valuetext", `frame ${frame + 1} of ${item.num_frames}, ${time} seconds`);
  $("counter").textContent = `${frame + 1} / ${item.num_frames} \u00b7 ${time} s`;
}

export function showProgress({ num_done: done, num_skipped: skipped, num_left: left }) {
  $("progress").textContent = `${done} done` + (skipped ? `, ${skipped} skipped` : "") + `, ${left} left`;
}

export function showSaved({ waiting, problem }) {
  const saved = $("saved");
  saved.textContent = waiting === 0 ? "Saved" : problem ? `${waiting} unsaved \u00b7 ${problem}` : "Saving\u2026";
  saved.dataset.state = waiting === 0 ? "saved" : problem ? "unsaved" : "saving";
}

export function showMissing(text) {
  $("missing").textContent = text;
  if (!text) $("missing").classList.remove("urgent");
}

// nothing can be chosen while there is no video to judge
export function lock(locked) {
  $("submit").disabled = locked;
  for (const button of $("choose").children) button.disabled = locked;
}

export function showItem(item) {
  document.body.classList.remove("idle");
  $("stage").hidden = false;
  $("pane-right").hidden = item.num_panes === 1;
  $("pane-left").querySelector("figcaption").textContent = item.num_panes === 1 ? "Clip" : "Left";
  $("caption").textContent = item.caption;
  $("scrub").max = item.num_frames - 1;
}

export function showNoItem(text) {
  $("stage").hidden = true;
  $("caption").textContent = text;
  document.body.classList.add("idle");
}

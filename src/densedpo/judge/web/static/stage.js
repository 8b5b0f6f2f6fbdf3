// What a mouse or a finger does to the clips and to the buttons around them; everything it can do, keys can too.
import { $ } from "./screen.js";

export function listenToPointer(player, act) {
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-action]");
    if (!button) return;
    act(button.dataset.action);
    if (event.detail > 0) button.blur(); // else Space would press it again instead of playing
  });
  $("scrub").addEventListener("input", () => player.seek(Number($("scrub").value)));
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
}

"use strict";
(() => {
  const videos = [...document.querySelectorAll(".wall video")];
  if (!videos.length) return;
  const wall = document.querySelector(".wall");
  const toggle = document.getElementById("toggle");
  const seek = document.getElementById("seek");
  const clock = document.getElementById("clock");
  const speeds = [...document.querySelectorAll("[data-speed]")];
  const leader = videos[0];
  const frame = 1 / Number(wall.dataset.fps);
  let playing = false;

  document.getElementById("transport").hidden = false;
  for (const video of videos) video.removeAttribute("controls");

  const duration = () => leader.duration || 1;

  // the clips start together; a clip is moved only if it has drifted by half a frame, since each seek costs a decode
  const align = (tolerance) => {
    for (const video of videos) {
      if (video !== leader && Math.abs(video.currentTime - leader.currentTime) > tolerance) video.currentTime = leader.currentTime;
    }
  };

  const show = () => {
    seek.value = Math.round((leader.currentTime / duration()) * 1000);
    clock.textContent = `${leader.currentTime.toFixed(1)} s`;
  };

  const tick = () => {
    if (!playing) return;
    align(frame / 2);
    show();
    requestAnimationFrame(tick);
  };

  const setPlaying = (wanted) => {
    playing = wanted;
    toggle.textContent = wanted ? "Pause" : "Play";
    toggle.setAttribute("aria-pressed", String(wanted));
    if (wanted) {
      Promise.all(videos.map((video) => video.play())).then(tick, () => setPlaying(false));
    } else {
      for (const video of videos) video.pause();
      align(0);
      show();
    }
  };

  const moveTo = (time) => {
    setPlaying(false);
    for (const video of videos) video.currentTime = Math.min(Math.max(time, 0), duration() - frame / 2);
    clock.textContent = `${leader.currentTime.toFixed(1)} s`;
  };

  toggle.addEventListener("click", () => setPlaying(!playing));
  seek.addEventListener("input", () => moveTo((Number(seek.value) / 1000) * duration()));
  for (const video of videos) video.addEventListener("click", () => setPlaying(!playing));
  for (const button of speeds) {
    button.addEventListener("click", () => {
      for (const video of videos) video.playbackRate = Number(button.dataset.speed);
      for (const other of speeds) other.setAttribute("aria-pressed", String(other === button));
    });
  }
  wall.tabIndex = 0;
  wall.addEventListener("keydown", (event) => {
    if (event.key === " ") setPlaying(!playing);
    else if (event.key === "ArrowRight") moveTo(leader.currentTime + frame);
    else if (event.key === "ArrowLeft") moveTo(leader.currentTime - frame);
    else return;
    event.preventDefault();
  });

  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) setPlaying(true);
})();

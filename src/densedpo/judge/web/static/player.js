// Two panes from one video. Every frame is copied once, whole, and both panes are cut from that copy: they cannot
// show different frames, whatever the browser does between two drawings.
const SPEEDS = [0.1, 0.25, 0.5, 0.75, 1, 1.5, 2];
const ZOOMS = [1, 1.5, 2, 3, 4, 6, 8];
const STALLED_MS = 3000;
const LATE_MS = 250; // a frame that is not reported by then is the one that was there before

export class Player extends EventTarget {
  constructor(panes) {
    super();
    this.panes = panes; // canvases, left to right
    this.whole = document.createElement("canvas");
    this.video = document.createElement("video");
    Object.assign(this.video, { muted: true, playsInline: true, preload: "auto", disableRemotePlayback: true });
    this.item = null;
    this.ready = false;
    this.frame = 0;
    this.playing = false;
    this.speed = 1;
    this.zoom = 1;
    this.center = [0.5, 0.5];
    this.range = null; // frames to loop, half open; null: the whole clip
    this.replays = 0;
    this.seen = new Uint8Array(0);
    this.wanted = null;
    this.presented = null; // the frame that can be drawn: "seeked" may come before it is there
    this.observe();
    this.video.addEventListener("seeked", () => this.arrived());
    this.video.addEventListener("ended", () => this.wrap());
    this.video.addEventListener("error", () => this.item && this.fail("This browser cannot play the video."));
    this.video.addEventListener("waiting", () => this.playing && this.say("waiting for the video\u2026"));
    this.video.addEventListener("playing", () => this.ready && this.say(""));
  }

  get fps() {
    return this.item.fps;
  }

  get watched() {
    return this.seen.length > 0 && this.seen.every((value) => value === 1);
  }

  // shows an item from a promise of its video, as `Videos` gives it
  async load(item, video, { watched, replays }) {
    this.pause();
    const generation = (this.generation = (this.generation ?? 0) + 1);
    this.item = item;
    this.ready = false;
    this.range = null;
    this.zoom = 1;
    this.center = [0.5, 0.5];
    this.replays = replays;
    this.seen = new Uint8Array(item.num_frames).fill(watched ? 1 : 0);
    this.say("loading\u2026");
    const slow = setTimeout(() => this.say("still loading\u2026 the connection is slow"), STALLED_MS);
    try {
      const { blob, flashes } = await video;
      if (generation !== this.generation) return;
      if (this.url) URL.revokeObjectURL(this.url);
      this.url = URL.createObjectURL(blob);
      this.presented = null;
      this.video.src = this.url;
      await new Promise((resolve, reject) => {
        this.video.onloadeddata = resolve;
        this.video.addEventListener("error", () => reject(new Error("This browser cannot play the video.")), { once: true });
      });
      if (generation !== this.generation) return;
      this.ready = true;
      this.say("");
      await this.seek(0);
      this.dispatchEvent(new CustomEvent("ready", { detail: { flashes } }));
    } catch (error) {
      if (generation === this.generation) this.fail(error.message);
    } finally {
      clearTimeout(slow);
    }
  }

  fail(text) {
    this.pause();
    this.ready = false;
    for (const pane of this.panes) pane.getContext("2d").clearRect(0, 0, pane.width, pane.height);
    this.say(text);
    this.dispatchEvent(new CustomEvent("failed", { detail: text }));
  }

  say(text) {
    this.dispatchEvent(new CustomEvent("state", { detail: text }));
  }

  play() {
    if (!this.ready || this.playing) return;
    this.playing = true;
    this.video.playbackRate = this.speed;
    this.last = this.frame;
    const [start, stop] = this.bounds();
    if (this.frame < start || this.frame >= stop - 1) this.jump(start);
    this.resume();
    this.dispatchEvent(new CustomEvent("playing"));
  }

  resume() {
    this.video.play().catch(() => this.pause());
    this.watch();
  }

  watch() {
    const generation = this.generation;
    this.video.cancelVideoFrameCallback?.(this.callback);
    this.callback = this.video.requestVideoFrameCallback((_, metadata) => {
      if (!this.playing || generation !== this.generation) return;
      this.show(Math.round(metadata.mediaTime * this.fps));
      const [start, stop] = this.bounds();
      // a browser that is short of time skips frames; those between two that it showed were played
      for (let n = this.last < this.frame ? this.last : this.frame; n <= this.frame; n++) this.seen[n] = 1;
      this.last = this.frame;
      if (this.range && this.frame >= stop - 1) {
        setTimeout(() => this.playing && this.range && this.jump(start), 1000 / this.fps / this.speed);
        this.replays += 1;
      }
      this.watch();
    });
  }

  wrap() {
    if (!this.playing) return;
    this.seen.fill(1, this.last);
    this.replays += 1;
    this.jump(this.bounds()[0]);
    this.resume();
    this.dispatchEvent(new CustomEvent("frame", { detail: this.frame }));
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    this.video.pause();
    this.dispatchEvent(new CustomEvent("playing"));
    if (this.ready) this.seek(this.frame);
  }

  bounds() {
    return this.range ?? [0, this.item.num_frames];
  }

  jump(frame) {
    this.last = this.target = frame;
    this.video.currentTime = (frame + 0.5) / this.fps;
  }

  // goes to a frame, by its middle: its edge may be rounded to the frame before
  seek(frame) {
    if (!this.ready) return Promise.resolve();
    if (this.playing) {
      this.playing = false;
      this.video.pause();
      this.dispatchEvent(new CustomEvent("playing"));
    }
    const wanted = Math.max(0, Math.min(this.item.num_frames - 1, frame));
    this.frame = wanted; // steps that follow each other quickly add up
    this.dispatchEvent(new CustomEvent("frame", { detail: wanted }));
    return new Promise((resolve) => {
      this.wanted?.resolve();
      this.wanted = { frame: wanted, resolve };
      if (!this.video.seeking) this.jump(wanted);
    });
  }

  // what the browser presents, playing or not
  observe() {
    this.video.requestVideoFrameCallback?.((_, metadata) => {
      this.presented = this.item && Math.round(metadata.mediaTime * this.fps);
      if (this.wanted && !this.video.seeking && this.presented === this.wanted.frame) this.settle();
      this.observe();
    });
  }

  arrived() {
    if (!this.wanted) return this.playing || this.show(this.frame);
    const wanted = this.wanted;
    if (this.target !== wanted.frame) return this.jump(wanted.frame); // another was wanted while the video was on its way
    if (this.presented === wanted.frame) return this.settle();
    setTimeout(() => this.wanted === wanted && !this.video.seeking && this.settle(), LATE_MS);
  }

  settle() {
    const { frame, resolve } = this.wanted;
    if (this.target !== frame) return;
    this.wanted = null;
    this.show(frame);
    this.seen[frame] = 1;
    resolve();
  }

  show(frame) {
    this.frame = Math.max(0, Math.min(this.item.num_frames - 1, frame));
    this.draw();
    this.dispatchEvent(new CustomEvent("frame", { detail: this.frame }));
  }

  draw() {
    const { videoWidth: width, videoHeight: height } = this.video;
    if (!this.ready || !width) return;
    if (this.whole.width !== width || this.whole.height !== height) Object.assign(this.whole, { width, height });
    this.whole.getContext("2d").drawImage(this.video, 0, 0, width, height);
    const half = width / this.item.num_panes;
    this.panes.slice(0, this.item.num_panes).forEach((pane, side) => this.cut(pane, side, half, height));
  }

  cut(pane, side, half, height) {
    const crop = this.item.num_panes === 1 ? 0 : (side + this.item.left_crop) % 2;
    if (pane.width !== half || pane.height !== height) Object.assign(pane, { width: half, height });
    const [w, h] = [half / this.zoom, height / this.zoom];
    const [x, y] = [this.center[0] * half - w / 2, this.center[1] * height - h / 2];
    const context = pane.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(this.whole, crop * half + x, y, w, h, 0, 0, half, height);
    pane.dataset.frame = this.frame;
  }

  faster(steps) {
    const at = SPEEDS.indexOf(this.speed) + steps;
    this.speed = SPEEDS[Math.max(0, Math.min(SPEEDS.length - 1, at))];
    this.video.playbackRate = this.speed;
  }

  zoomBy(steps) {
    const at = ZOOMS.indexOf(this.zoom) + steps;
    this.zoom = ZOOMS[Math.max(0, Math.min(ZOOMS.length - 1, at))];
    this.move(0, 0);
  }

  // both panes look at the same place
  move(dx, dy) {
    const margin = 0.5 / this.zoom;
    this.center = [dx, dy].map((by, axis) => Math.max(margin, Math.min(1 - margin, this.center[axis] + by)));
    if (this.ready && !this.video.seeking) this.draw();
  }
}

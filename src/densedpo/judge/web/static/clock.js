// The time that somebody works on an item: not while the page is hidden, nor long after the last sign of life.
const IDLE_MS = 60000;

export class Clock {
  constructor() {
    this.reset(0);
    for (const kind of ["pointermove", "pointerdown", "keydown"]) addEventListener(kind, () => this.touch(), { passive: true });
    document.addEventListener("visibilitychange", () => (document.hidden ? this.stop() : this.touch()));
  }

  reset(ms) {
    this.total = ms;
    this.since = null;
    if (!document.hidden) this.touch();
  }

  touch() {
    if (document.hidden) return;
    this.stop();
    this.since = performance.now();
  }

  stop() {
    if (this.since !== null) this.total += Math.min(performance.now() - this.since, IDLE_MS);
    this.since = null;
  }

  ms() {
    this.touch();
    return Math.round(this.total);
  }
}

// The videos of the item on the screen and of those that come next, each fetched once.
export class Videos {
  constructor() {
    this.found = new Map(); // address -> promise of its video
  }

  get(address) {
    if (!this.found.has(address)) this.found.set(address, fetchVideo(address));
    const video = this.found.get(address);
    video.catch(() => {}); // told when the item is shown
    return video;
  }

  forget(address) {
    this.found.delete(address);
  }

  keepOnly(addresses) {
    for (const address of [...this.found.keys()]) if (!addresses.includes(address)) this.forget(address);
  }
}

// the bytes of a video, and whether it flashes; throws what can be told
async function fetchVideo(address) {
  let answer;
  try {
    answer = await fetch(address);
  } catch {
    throw new Error("The video could not be loaded: no connection.");
  }
  if (!answer.ok) {
    const body = await answer.json().catch(() => ({}));
    throw new Error(body.error ?? `The video could not be loaded (${answer.status}).`);
  }
  return { blob: await answer.blob(), flashes: answer.headers.get("x-flashes") === "yes" };
}

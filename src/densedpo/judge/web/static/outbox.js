// What was chosen and is not yet on the server. It lies in IndexedDB, so that a closed tab or a dead server loses
// nothing; each save has an id of its own, so that sending it twice stores it once. IndexedDB takes a moment, in which a
// tab can be closed: until it has answered, localStorage, which does not, keeps a copy.
import { post } from "./api.js";

const WAITS = [500, 1000, 2000, 4000, 8000, 15000];
const COPY = "densedpo.saving.";

export class Outbox extends EventTarget {
  constructor(person) {
    super();
    this.person = person;
    this.memory = new Map(); // where a browser refuses to keep anything
    this.problem = null;
    this.failures = 0;
    this.timer = null;
    this.running = null;
    this.waiting = 0;
    this.order = 0;
    this.db = openStore().then(adopt);
    addEventListener("online", () => this.flush());
    addEventListener("beforeunload", (event) => {
      if (this.memory.size) event.preventDefault();
    });
  }

  async add(save) {
    const record = { order: Date.now() * 1000 + (this.order++ % 1000), person: this.person, save };
    this.waiting += 1;
    const copied = copy(record);
    this.tell();
    const db = await this.db;
    if (db) {
      await run(db, "readwrite", (store) => store.put(record));
      if (copied) localStorage.removeItem(COPY + record.order);
    } else this.memory.set(record.order, record);
    return this.flush();
  }

  async records() {
    const db = await this.db;
    const all = db ? await run(db, "readonly", (store) => store.getAll()) : [...this.memory.values()];
    return all.filter((record) => record.person === this.person).sort((one, other) => one.order - other.order);
  }

  async drop(record) {
    const db = await this.db;
    if (db) await run(db, "readwrite", (store) => store.delete(record.order));
    else this.memory.delete(record.order);
  }

  // sends what is there, in order; resolves when all of it is stored or when it has to wait
  flush() {
    clearTimeout(this.timer);
    this.again = true;
    this.running ??= this.drain().finally(() => {
      this.running = null;
      this.tell();
    });
    return this.running;
  }

  async drain() {
    while (this.again) {
      this.again = false;
      await exclusively(async () => {
        for (const record of await this.records()) if (!(await this.send(record))) return;
      });
      this.waiting = (await this.records()).length;
    }
  }

  async send(record) {
    const answer = await post("/api/saves", record.save);
    if (answer.ok) {
      await this.drop(record);
      this.failures = 0;
      this.problem = null;
      this.dispatchEvent(new CustomEvent("stored", { detail: { save: record.save, answer: answer.body } }));
      return true;
    }
    if ([404, 409, 410, 413, 422].includes(answer.status)) {
      await this.drop(record); // will never be stored, so the person must know
      this.dispatchEvent(new CustomEvent("refused", { detail: { save: record.save, error: answer.body.error } }));
      return true;
    }
    this.problem = answer.status === 0 ? "offline" : answer.body.error;
    if (answer.status === 401) {
      this.dispatchEvent(new CustomEvent("signed-out"));
      return false;
    }
    this.timer = setTimeout(() => this.flush(), WAITS[Math.min(this.failures++, WAITS.length - 1)]);
    return false;
  }

  tell() {
    this.dispatchEvent(new CustomEvent("change", { detail: { waiting: this.waiting, problem: this.problem } }));
  }
}

function copy(record) {
  try {
    localStorage.setItem(COPY + record.order, JSON.stringify(record));
    return true;
  } catch {
    return false; // full or forbidden: IndexedDB alone has to do
  }
}

function copies() {
  try {
    return Object.keys(localStorage).filter((key) => key.startsWith(COPY));
  } catch {
    return []; // forbidden: there are none
  }
}

// takes over what a tab left that was closed too early
async function adopt(db) {
  // another tab may be at it too: a save that is stored twice has one id
  for (const key of db ? copies() : []) {
    const record = JSON.parse(localStorage.getItem(key) ?? "null");
    if (record) await run(db, "readwrite", (store) => store.put(record));
    localStorage.removeItem(key);
  }
  return db;
}

// tabs take turns: what one sends, the other finds gone
function exclusively(work) {
  return navigator.locks ? navigator.locks.request("densedpo-outbox", work) : work();
}

function openStore() {
  return new Promise((resolve) => {
    const request = indexedDB.open("densedpo", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("outbox", { keyPath: "order" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => resolve(null);
  });
}

function run(db, mode, ask) {
  return new Promise((resolve, reject) => {
    const transaction = db.transaction("outbox", mode, { durability: "strict" });
    const request = ask(transaction.objectStore("outbox"));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

// The dialogs: instructions, keys, the reason of a skip, a note, and signing in again.
import { post } from "./api.js";
import { ACTIONS } from "./keys.js";
import { $ } from "./screen.js";

const SEEN = "densedpo.instructions";

// shows the instructions to whoever has not seen this version of them
export function readInstructions(study) {
  $("instructions").textContent = study.instructions;
  $("instructions-version").textContent = `Version ${study.instructions_version}`;
  if (localStorage.getItem(SEEN) === study.instructions_version) return;
  localStorage.setItem(SEEN, study.instructions_version);
  $("dialog-instructions").showModal();
}

// lists the keys, so that they can be changed or switched off
export function offerKeys(keys) {
  const show = () => showKeys(keys, show);
  $("keys-on").addEventListener("change", () => {
    keys.on = $("keys-on").checked;
    keys.keep();
    show();
  });
  $("keys-reset").addEventListener("click", () => {
    keys.reset();
    show();
  });
  show();
}

function showKeys(keys, again) {
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
          again();
        };
      });
      return button;
    }),
  );
}

// lists the reasons for a skip; `skip` is told the one that was chosen
export function offerReasons(study, skip) {
  for (const reason of study.skip_reasons) {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "reason", value: reason });
    label.append(input, ` ${reason}`);
    $("skip-reasons").append(label);
  }
  $("skip-reasons").querySelector("input").checked = true;
  $("skip-cancel").addEventListener("click", () => $("dialog-skip").close());
  $("skip-form").addEventListener("submit", () => skip(new FormData($("skip-form")).get("reason")));
}

// opens the note as it is now; `write` is told the new one
export function openNote(text) {
  $("note").value = text;
  $("dialog-note").showModal();
}

export function offerNote(write) {
  $("note").addEventListener("change", () => write($("note").value));
}

// when a session has ended: the page and what is on it stay
export function offerEntry(outbox) {
  outbox.addEventListener("signed-out", () => $("dialog-enter").open || $("dialog-enter").showModal());
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
}

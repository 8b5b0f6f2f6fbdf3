// Signs in: by the token in the address's fragment, which no server and no log ever sees, or by the form.
import { post } from "./api.js";

const problem = document.getElementById("problem");

async function enter(token) {
  problem.textContent = "";
  const answer = await post("/api/enter", { token });
  if (answer.ok) {
    location.replace("/");
  } else {
    problem.textContent = answer.status === 0 ? "The studio does not answer." : answer.body.error;
  }
}

document.getElementById("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  enter(document.getElementById("token").value.trim());
});

function enterByFragment() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  history.replaceState(null, "", "/");
  enter(token);
}

addEventListener("hashchange", enterByFragment); // the address was pasted into a page that is open
enterByFragment();

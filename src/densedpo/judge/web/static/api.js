// Asks the server. Never throws: status 0 means that there was no answer.
export async function post(path, content = {}) {
  try {
    const answer = await fetch(path, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(content),
      signal: AbortSignal.timeout(15000),
    });
    const body = await answer.json().catch(() => ({ error: `answer ${answer.status}` }));
    return { ok: answer.ok, status: answer.status, body };
  } catch {
    return { ok: false, status: 0, body: { error: "no connection" } };
  }
}

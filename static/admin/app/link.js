// The way to the daemon: the token, calls, batches, and what is streamed.
//
// The token comes in the address behind the #, which no browser sends anywhere; it is taken out of the address at
// once and kept for this tab and this origin alone. There is no cookie: a cookie of 127.0.0.1 would go to every
// service of this machine that the browser looks at.

/** Why something could not be had. */
export class Trouble extends Error {
  constructor(message, { hint = null, code = null, denied = false, away = false } = {}) {
    super(message);
    Object.assign(this, { hint, code, denied, away });
  }
}

const KEPT = "wharf.token";
/** As many calls as one request may have. */
const BATCH = 50;

let last = 0;

function token() {
  const given = location.hash.slice(1);
  if (/^[0-9a-f]{64}$/.test(given)) {
    sessionStorage.setItem(KEPT, given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(KEPT) ?? "";
}

async function send(path, { body, accept = "application/json", signal } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers: { Authorization: `Bearer ${token()}`, Accept: accept, ...(body && { "Content-Type": "application/json" }) },
      body: body && JSON.stringify(body),
      cache: "no-store",
      signal,
    });
  } catch (why) {
    if (signal?.aborted) throw why;
    throw new Trouble("wharf ui does not answer", { hint: "was it ended? start it again: wharf ui", away: true });
  }
  if (response.ok) return response;
  const said = await response.json().catch(() => null);
  const message = said?.error?.message ?? `HTTP ${response.status}`;
  const away = response.status === 502;
  const denied = response.status === 401 || response.status === 404;
  const hint = said?.error?.data?.hint ?? (denied ? "open the address that wharf ui prints" : null);
  throw new Trouble(message, { hint, away, denied });
}

/** The socket that has a method. */
const socketOf = (method) => (/^(service|rpc)\./.test(method) ? "service" : "rpc");

function outcome(answer) {
  if (!answer.error) return answer.result;
  const { code, message, data } = answer.error;
  throw new Trouble(message, { code, hint: data?.hint ?? null });
}

const request = (method, params) => ({ jsonrpc: "2.0", id: ++last, method, ...(params && { params }) });

/** What this page may do, and of which machine it is. */
export async function session() {
  return (await send("/session")).json();
}

/** Calls one method. */
export async function call(method, params) {
  const response = await send(`/${socketOf(method)}/rpc`, { body: request(method, params) });
  return outcome(await response.json());
}

/** Calls a method with many params; what failed is left out. */
export async function each(method, many) {
  const results = [];
  for (let at = 0; at < many.length; at += BATCH) {
    const body = many.slice(at, at + BATCH).map((params) => request(method, params));
    const answers = await (await send(`/${socketOf(method)}/rpc`, { body })).json();
    results.push(...[answers].flat().filter((answer) => answer.result).map((answer) => answer.result));
  }
  return results;
}

async function* lines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read().catch((why) => {
      if (why.name === "AbortError") throw why;
      throw new Trouble("the connection broke", { away: true });
    });
    if (done) return;
    const all = (rest + value).split("\n");
    rest = all.pop();
    yield* all.filter(Boolean).map((line) => JSON.parse(line));
  }
}

/** Calls one method and hears what is said while it runs. */
export async function hear(method, params, onNotification, signal) {
  const accept = "application/x-ndjson";
  const response = await send(`/${socketOf(method)}/rpc`, { body: request(method, params), accept, signal });
  for await (const line of lines(response)) {
    if (!line.method) return outcome(line);
    onNotification(line.params, line.method);
  }
  throw new Trouble("the daemon ended before it answered", { away: true });
}

/** The events after this one, as long as the daemon lives. */
export async function events({ boot, since }, onRow, signal) {
  const query = new URLSearchParams({ boot, since });
  const response = await send(`/rpc/events?${query}`, { accept: "application/x-ndjson", signal });
  for await (const row of lines(response)) onRow(row);
}

/** The newest events, oldest first, and where the next ones begin. */
export async function newest(limit, units = []) {
  const report = await call("event.watch", { limit, units });
  return report;
}

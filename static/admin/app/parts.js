// Small parts: elements, words, figures. What services wrote is only ever put in as text.

/** An element: attributes, listeners (`onclick`), then children; what is null is left out. */
export function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

/** Terms and what they are; those without a value are left out. */
export function facts(pairs) {
  const there = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return el("dl", {}, there.flatMap(([term, value]) => [el("dt", {}, term), el("dd", {}, value)]));
}

const KINDS = {
  running: "good", degraded: "warn", unhealthy: "bad", failed: "bad", backoff: "warn", blocked: "warn",
  starting: "move", stopping: "move", stopped: "idle", not_installed: "idle", unknown: "warn",
};

export const isTrouble = (phase) => ["warn", "bad"].includes(KINDS[phase]);
export const lives = (phase) => ["running", "degraded", "unhealthy", "starting", "backoff", "blocked"].includes(phase);

/** A phase, as a dot and a word: colour is never all there is. */
export const phase = (word) => el("span", { class: `state ${KINDS[word] ?? "idle"}` }, word.replace("_", " "));

/** Bytes, as people read them. */
export function bytes(count) {
  if (count === null || count === undefined) return "?";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  let value = count;
  while (value >= 1024 && at < units.length - 1) [value, at] = [value / 1024, at + 1];
  return `${at === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[at]}`;
}

/** So many milliseconds, in its two largest parts. */
export function span(ms) {
  const s = Math.floor(ms / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}

/** A time of the clock, in seconds since 1970. */
export const clock = (seconds) =>
  seconds ? new Date(seconds * 1000).toLocaleTimeString([], { hourCycle: "h23" }) : null;

/** How a run ended. */
export function ended(exit, reason) {
  const how = {
    exited: `exited with code ${exit.code}`,
    signaled: `ended by signal ${exit.signal}`,
    start_failed: `never began: ${exit.stage}`,
  }[exit.kind];
  return `${how ?? exit.kind} (${reason})`.replaceAll("_", " ");
}

/** Control codes of a terminal mean nothing here, and hide what is written. */
export const plain = (text) => text.replace(/\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)|.)/g, "").replace(/[\x00-\x08\x0b-\x1f\x7f]/g, "·");

/** How far something is. */
export const progress = ({ stage, done, total }) => (total ? `${stage} (${Math.floor((100 * done) / total)} %)` : stage);

/** What an event says, in a line. */
export function event(row) {
  const { kind, operation } = row;
  if (kind === "unit.phase") return `${row.from} → ${row.to}${row.why ? `: ${row.why}` : ""}`;
  if (operation) {
    const failed = operation.failure?.message;
    return `${operation.kind} ${operation.outcome}${failed ? `: ${failed}` : ""}`;
  }
  if (kind === "op.progress") return progress(row);
  if (row.text) return row.text;
  if (kind === "unit.ended") return ended(row.exit, row.reason);
  if (kind === "unit.retry") return `again in ${span(row.after_ms)}, attempt ${row.attempt}`;
  const { seq, boot, at_ms, unit, run, kind: _, ...rest } = row;
  return Object.entries(rest)
    .filter(([, value]) => value !== null)
    .map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`)
    .join(", ");
}

/** Something went wrong: it is said until it is put away, and said once. */
export function alarm(trouble) {
  const said = el("span", {}, trouble.message, trouble.hint ? el("div", { class: "hint" }, trouble.hint) : null);
  const all = document.getElementById("alerts");
  const again = [...all.children].find((there) => there.firstChild.textContent === said.textContent);
  again?.remove();
  const shown = el("div", {}, said, el("button", { type: "button", onclick: () => shown.remove() }, "Put away"));
  all.append(shown);
}

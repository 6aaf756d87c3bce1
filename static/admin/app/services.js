// The services: a row each, what can be done with it, and one of them in detail.

import { Trouble, call, each, hear, newest } from "./link.js";
import { alarm, clock, el, ended, event, facts, isTrouble, lives, phase, plain, progress, span } from "./parts.js";

/** Lines of a log that are shown at first, and kept while it is followed. */
const LINES = 200;
const KEPT_LINES = 2000;
/** How many events of a unit, and how many ended operations, are kept. */
const KEPT_EVENTS = 100;

const FILTERS = [
  ["here", "Here", (unit) => unit.state !== "not_installed"],
  ["running", "Running", (unit) => lives(unit.state)],
  ["trouble", "In trouble", (unit) => isTrouble(unit.state)],
  ["catalogue", "Catalogue", (unit) => unit.state === "not_installed"],
];

/** What may be done with a unit in a phase: the verb, and what it is called. */
function deedsOf(state) {
  if (state === "not_installed") return [["install", "Install"], ["start", "Start"]];
  if (lives(state)) return [["stop", "Stop"], ["restart", "Restart"]];
  return state === "stopping" ? [] : [["start", "Start"]];
}

export class Services {
  constructor(root, mayChange) {
    this.mayChange = mayChange;
    /** By name: how it is, and the row that shows it. */
    this.units = new Map();
    this.rows = new Map();
    /** By name: what this page does with it, and how far somebody is. */
    this.busy = new Map();
    this.steps = new Map();
    /** Operations that have ended, by number: the answer to who began one may come later than its end. */
    this.ended = new Map();
    /** Answers come in any order: an older one is not painted over a newer one. */
    this.turn = 0;
    this.painted = new Map();
    this.filter = "here";
    this.chips = FILTERS.map(([key, title]) =>
      el("button", { type: "button", "data-filter": key, "aria-pressed": String(key === this.filter),
        onclick: () => this.choose(key) }, title));
    this.search = el("input", { type: "search", placeholder: "Filter (/)", "aria-label": "Filter by name",
      oninput: () => this.arrange() });
    this.body = el("tbody");
    this.none = el("p", { class: "quiet" });
    const heads = [["Service"], ["State"], ["Version", "wide"], ["Ports"], ["Up", "wide"], ["Restarts", "wide"], [""]];
    this.list = el("section", { "aria-label": "Services" },
      el("div", { class: "bar" }, this.chips, this.search),
      el("div", { class: "sheet" },
        el("table", { class: "units" }, el("thead", {}, el("tr", {}, heads.map(([text, kind]) => el("th", { class: kind }, text)))), this.body)),
      this.none);
    this.split = el("div", { class: "split" }, this.list);
    root.replaceChildren(this.split);
    this.detail = null;
    this.keys = (press) => this.key(press);
    document.addEventListener("keydown", this.keys);
    this.clock = setInterval(() => this.tick(), 1000);
  }

  close() {
    document.removeEventListener("keydown", this.keys);
    clearInterval(this.clock);
    this.detail?.close();
  }

  /** Everything anew. */
  async load() {
    const list = await call("service.list", {});
    const there = new Set(list.map((row) => row.name));
    for (const name of this.units.keys()) if (!there.has(name)) this.forget(name);
    for (const row of list.filter((row) => row.status === "not_installed" || !this.units.has(row.name))) {
      this.show({ name: row.name, state: row.status, version: row.version_installed, healthy: row.healthy, ports: {} });
    }
    const moving = new Set([...this.busy.keys(), ...this.steps.keys()]);
    const asked = list.filter((row) => row.status !== "not_installed" || moving.has(row.name));
    await this.look(asked.map((row) => row.name));
    // What was under way when nobody looked has ended, or goes on and is told.
    for (const name of moving) if (!this.units.get(name)?.operation) this.rest(name);
    this.detail?.again();
    const wanted = new URLSearchParams(location.search).get("unit");
    if (wanted && !this.detail && there.has(wanted)) this.open(wanted);
  }

  /** How these are now. */
  async look(names) {
    const turn = ++this.turn;
    for (const status of await each("service.status", names.map((name) => ({ name })))) {
      if ((this.painted.get(status.name) ?? 0) > turn) continue;
      this.painted.set(status.name, turn);
      this.show({ ...status, seen_at: Date.now() });
    }
    this.arrange();
  }

  /** Something has happened to a unit. */
  async touched(rows) {
    for (const row of rows) {
      if (row.kind === "op.progress") this.steps.set(row.unit, progress(row));
      if (row.kind === "op.ended") this.over(row.operation);
    }
    const gone = rows.filter((row) => row.kind === "unit.gone");
    const names = new Set(rows.map((row) => row.unit).filter(Boolean));
    if (gone.length > 0) await this.load();
    else await this.look([...names]);
    for (const row of rows) this.detail?.happened(row);
  }

  /** Those that are here, once more: health has no event while it stays as it is. */
  again() {
    return this.look([...this.units.values()].filter((unit) => unit.state !== "not_installed").map((unit) => unit.name));
  }

  show(unit) {
    this.units.set(unit.name, unit);
    let row = this.rows.get(unit.name);
    if (!row) {
      row = { cells: Array.from({ length: 7 }, () => el("td")) };
      [2, 4, 5].forEach((at) => row.cells[at].classList.add("wide"));
      row.cells[4].classList.add("figure");
      row.cells[6].classList.add("deeds");
      row.name = el("button", { type: "button", class: "name", onclick: () => this.open(unit.name) }, unit.name);
      row.says = el("span", { class: "says" });
      row.cells[0].append(row.name, row.says);
      row.line = el("tr", { "data-unit": unit.name }, row.cells);
      this.rows.set(unit.name, row);
    }
    this.paint(unit, row);
    this.detail?.shown(unit);
  }

  paint(unit, row) {
    const busy = this.busy.has(unit.name);
    row.says.textContent = this.steps.get(unit.name) ?? unit.error_message ?? unit.status_text ?? "";
    row.cells[1].replaceChildren(phase(unit.state));
    row.cells[2].textContent = unit.version ?? "";
    row.cells[3].textContent = Object.values(unit.ports ?? {}).join(" ");
    row.cells[5].textContent = unit.restart_count || "";
    const state = busy ? `busy ${unit.state}` : unit.state;
    if (row.state !== state) {
      row.state = state;
      row.cells[6].replaceChildren(...this.deeds(unit));
    }
    this.age(unit, row);
  }

  age(unit, row) {
    const now = unit.uptime_ms ? unit.uptime_ms + Date.now() - unit.seen_at : 0;
    row.cells[4].textContent = now ? span(now) : "";
  }

  tick() {
    for (const [name, row] of this.rows) this.age(this.units.get(name), row);
  }

  deeds(unit) {
    if (!this.mayChange) return [];
    return deedsOf(unit.state).map(([verb, title]) =>
      el("button", { type: "button", "data-deed": verb, disabled: this.busy.has(unit.name) && verb !== "stop",
        "aria-label": `${title} ${unit.name}`, onclick: () => this.do(verb, unit.name) }, title));
  }

  /** Begins it, and waits for its end among the events: a call that is open for minutes is a connection less. */
  async do(verb, name) {
    this.says(name, `${verb} …`);
    try {
      const { operation } = await call(`service.${verb}`, { name, wait: false });
      if (!operation) this.rest(name);
      else if (this.ended.has(operation.id)) this.told(this.ended.get(operation.id));
      else this.busy.set(name, operation.id);
    } catch (why) {
      alarm(why);
      this.rest(name);
    }
  }

  /** An operation has ended, this page's or another's. */
  over(operation) {
    this.steps.delete(operation.name);
    this.ended.set(operation.id, operation);
    while (this.ended.size > KEPT_EVENTS) this.ended.delete(this.ended.keys().next().value);
    if (this.busy.get(operation.name) === operation.id) this.told(operation);
  }

  /** How an operation of this page's came out. */
  told({ name, failure }) {
    if (failure) alarm(new Trouble(failure.message, { hint: failure.hint }));
    this.rest(name);
  }

  rest(name) {
    this.busy.delete(name);
    this.steps.delete(name);
    this.says(name, null);
  }

  says(name, text) {
    if (text !== null) {
      this.steps.set(name, text);
      this.busy.set(name, null);
    }
    const row = this.rows.get(name);
    if (row) this.paint(this.units.get(name), row);
  }

  forget(name) {
    this.units.delete(name);
    this.rows.get(name)?.line.remove();
    this.rows.delete(name);
    if (this.detail?.name === name) this.shut();
  }

  choose(key) {
    this.filter = key;
    this.chips.forEach((chip) => chip.setAttribute("aria-pressed", String(chip.dataset.filter === key)));
    this.arrange();
  }

  /** The rows that are asked for, in the order of their names. */
  arrange() {
    for (const [at, [key, title, has]] of FILTERS.entries()) {
      const count = [...this.units.values()].filter(has).length;
      this.chips[at].textContent = `${title} ${count}`;
      if (key === this.filter) this.has = has;
    }
    const typed = this.search.value.trim().toLowerCase();
    const shown = [...this.units.values()]
      .filter((unit) => this.has(unit) && unit.name.toLowerCase().includes(typed))
      .sort((one, other) => one.name.localeCompare(other.name))
      .map((unit) => this.rows.get(unit.name).line);
    const same = shown.length === this.body.children.length && shown.every((line, at) => this.body.children[at] === line);
    // What has the focus keeps it, where nothing moves.
    if (!same) this.body.replaceChildren(...shown);
    this.none.textContent = shown.length ? "" : typed ? `Nothing here is called ${typed}.` : "Nothing here yet.";
  }

  open(name) {
    this.shut();
    this.detail = new Detail(this, name);
    this.split.append(this.detail.sheet);
    this.split.classList.add("open");
    this.rows.get(name)?.line.setAttribute("aria-selected", "true");
    history.replaceState(null, "", `/services?${new URLSearchParams({ unit: name })}`);
  }

  shut() {
    if (!this.detail) return;
    this.detail.close();
    this.rows.get(this.detail.name)?.line.removeAttribute("aria-selected");
    this.rows.get(this.detail.name)?.name.focus();
    this.detail = null;
    this.split.classList.remove("open");
    history.replaceState(null, "", "/services");
  }

  key(press) {
    const typing = press.target.matches?.("input, select, textarea");
    if (press.key === "Escape") {
      if (typing) press.target.blur();
      else this.shut();
    } else if (typing || press.ctrlKey || press.metaKey || press.altKey) {
      return;
    } else if (press.key === "/") {
      press.preventDefault();
      this.search.focus();
    } else if (["j", "k", "ArrowDown", "ArrowUp"].includes(press.key)) {
      const lines = [...this.body.children];
      const at = lines.findIndex((line) => line.contains(document.activeElement));
      // Elsewhere the arrows scroll: the page, the log.
      if (press.key.startsWith("Arrow") && at < 0) return;
      const next = lines[Math.max(0, at + (["j", "ArrowDown"].includes(press.key) ? 1 : -1))];
      if (next) {
        press.preventDefault();
        next.querySelector(".name").focus();
      }
    }
  }
}

/** One unit: what it is, why it is so, what it wrote, what happened to it. */
class Detail {
  constructor(services, name) {
    Object.assign(this, { services, name, leaving: new AbortController() });
    this.head = el("span", {}, name);
    this.state = el("span");
    this.facts = el("div");
    this.why = el("div");
    this.log = el("pre", { tabindex: "0", "aria-label": `Log of ${name}` });
    this.grep = el("input", { type: "search", placeholder: "regular expression", "aria-label": "Search the log",
      onchange: () => this.read() });
    this.events = el("ul", { class: "plain" });
    this.sheet = el("aside", { class: "sheet", "aria-label": name },
      el("h2", {}, this.head, this.state,
        el("button", { type: "button", "aria-label": "Close", onclick: () => services.shut() }, "×")),
      this.facts, el("h3", {}, "Why it is so"), this.why, el("h3", {}, "Log", this.grep), this.log,
      el("h3", {}, "What happened"), this.events);
    this.asked = 0;
    this.shown(services.units.get(name));
    this.again();
    // As the events: a tab that nobody looks at holds no connection.
    document.addEventListener("visibilitychange", () => (document.hidden ? this.reading.abort() : this.read()),
      { signal: this.leaving.signal });
  }

  /** All of it anew: the daemon is another one, or nobody looked for a while. */
  again() {
    this.ask();
    this.read();
    newest(30, [this.name]).then((report) => {
      this.events.replaceChildren();
      report.events.forEach((row) => this.happened(row));
    }).catch((why) => why.away || alarm(why));
  }

  close() {
    this.leaving.abort();
    this.sheet.remove();
  }

  async ask() {
    const turn = ++this.asked;
    const answers = Promise.all([call("service.inspect", { name: this.name }), call("deps.why", { name: this.name })]);
    const [made, why] = await answers.catch((why) => {
      if (!why.away) alarm(why);
      return [];
    });
    // Meanwhile it was asked again, or there is no answer.
    if (!made || turn !== this.asked) return;
    this.made = made;
    this.shown(this.services.units.get(this.name));
    const because = why.because.map((text) => el("li", {}, text));
    const remedies = why.remedies.map(({ effect, command }) =>
      el("li", {}, `${effect}${command ? ": " : ""}`, command ? el("code", {}, command) : null));
    const others = facts([
      ["needs", why.needs.map((need) => need.unit).join(", ")], ["needed by", why.needed_by.map((need) => need.unit).join(", ")],
    ]);
    this.why.replaceChildren(el("p", {}, why.answer), el("ul", { class: "plain quiet" }, because, remedies), others);
  }

  shown(unit) {
    if (unit?.name !== this.name) return;
    const { made } = this;
    const stands = `${unit.state} ${unit.error_message}`;
    const moved = this.was !== undefined && this.was !== stands;
    this.was = stands;
    this.state.replaceChildren(phase(unit.state));
    const exit = unit.last_exit && unit.last_end ? ended(unit.last_exit, unit.last_end) : null;
    this.facts.replaceChildren(facts([
      ["what", made?.definition.summary],
      ["wrong", unit.error_message],
      ["says", unit.status_text],
      ["healthy", unit.healthy === null || unit.healthy === undefined ? null : unit.healthy ? `yes, at ${clock(unit.last_health_check)}` : "no"],
      ["wanted", unit.want],
      ["version", unit.version],
      ["process", unit.pid],
      ["ports", Object.entries(unit.ports ?? {}).map(([name, port]) => `${name} ${port}`).join(", ")],
      ["last end", exit],
      ["restarts", unit.restart_count || null],
      ["runs next", clock(unit.next_due)],
      ["data", made?.data_dir],
      ["log", made?.log_file],
    ]));
    if (moved) this.ask();
  }

  happened(row) {
    if (row.unit !== this.name || this.events.querySelector(`[data-seq="${row.boot}-${row.seq}"]`)) return;
    this.events.prepend(el("li", { "data-seq": `${row.boot}-${row.seq}` },
      el("span", { class: "quiet" }, `${clock(row.at_ms / 1000)} `), event(row)));
    while (this.events.children.length > KEPT_EVENTS) this.events.lastChild.remove();
  }

  /** The last lines, then what is written from now on; with a search those that match, without a follow. */
  async read() {
    this.reading?.abort();
    this.reading = new AbortController();
    const signal = AbortSignal.any([this.leaving.signal, this.reading.signal]);
    const grep = this.grep.value || undefined;
    this.log.replaceChildren();
    try {
      const first = await call("service.logs", { name: this.name, lines: LINES, ...(grep && { grep }) });
      if (signal.aborted) return;
      // A line without its end comes again, whole, with what follows.
      this.write(first.entries.filter((entry) => grep || entry.ended).map((entry) => entry.text));
      if (first.entries.length === 0) this.log.dataset.empty = grep ? "nothing matches" : "nothing was written yet";
      const from = first.cursor ? { cursor: first.cursor, lines: LINES } : { lines: 0 };
      if (!grep) await hear("service.logs", { name: this.name, follow: true, ...from }, (said) => this.heard(said), signal);
    } catch (why) {
      if (!signal.aborted && !why.away) alarm(why);
    }
  }

  heard(said) {
    if (said.gap_bytes) this.write([`… ${said.gap_bytes} bytes are no longer there`]);
    this.write([said.line]);
  }

  write(texts) {
    const atEnd = this.log.scrollTop + this.log.clientHeight >= this.log.scrollHeight - 4;
    for (const text of texts) this.log.append(el("div", {}, plain(text) || " "));
    while (this.log.children.length > KEPT_LINES) this.log.firstChild.remove();
    if (atEnd) this.log.scrollTop = this.log.scrollHeight;
  }
}

// The machine: its GPUs with who has what of them and who waits, and what has happened.

import { call, newest } from "./link.js";
import { bytes, clock, el, event, span } from "./parts.js";

/** How many events are shown. */
const SHOWN = 300;

export class Gpus {
  constructor(root) {
    this.cards = el("div", { class: "cards" });
    this.queue = el("section", { "aria-label": "Queue" });
    root.replaceChildren(this.cards, this.queue);
  }

  close() {}

  async load() {
    const [list, queue] = await Promise.all([call("gpu.list", {}), call("gpu.queue", {})]);
    this.cards.replaceChildren(...list.devices.map(device));
    if (list.devices.length === 0) {
      const problems = list.problems.map((problem) => problem.message ?? String(problem));
      this.cards.append(el("p", { class: "quiet" }, ["No GPU was found on this machine.", ...problems].join(" ")));
    }
    this.queue.replaceChildren(...waiting(queue.waiting));
  }

  async touched(rows) {
    if (rows.some((row) => row.kind.startsWith("gpu."))) await this.load();
  }

  again() {
    return this.load();
  }
}

function device(row) {
  const part = (amount, kind, title) =>
    el("span", { class: kind, title, "data-share": ((100 * amount) / row.total_bytes).toFixed(2) });
  const shares = [
    ...row.charges.map((charge) => part(charge.charge_bytes, "", `${charge.holder}: ${bytes(charge.charge_bytes)}`)),
    ...(row.foreign_bytes ? [part(row.foreign_bytes, "foreign", `without a lease: ${bytes(row.foreign_bytes)}`)] : []),
  ];
  // The policy of this page forbids styles in attributes; the object model may set them.
  shares.forEach((share) => (share.style.width = `${share.dataset.share}%`));
  const holders = row.charges.map((charge) =>
    el("li", {}, `${charge.holder} `, el("span", { class: "quiet" }, `${bytes(charge.charge_bytes)}, ${charge.state}`)));
  const strangers = row.foreign.map((process) =>
    el("li", { class: "warn" }, `${process.program ?? "a process"} (pid ${process.pid}) ${bytes(process.used_bytes)}, no lease`));
  const age = row.stale ? `measured ${span(row.measured_age_ms)} ago: nothing is handed out` : null;
  return el("article", { class: "sheet card", "data-device": row.id },
    el("h2", {}, row.name), el("div", { class: "quiet" }, `${row.id}${row.kind === "mig" ? ", a part" : ""}`),
    el("div", { class: "meter", role: "img", "aria-label": `${bytes(row.headroom_bytes)} of ${bytes(row.total_bytes)} can be handed out` }, shares),
    el("div", {}, `${bytes(row.headroom_bytes)} of ${bytes(row.total_bytes)} can be handed out`),
    age ? el("div", { class: "bad" }, age) : null,
    el("ul", { class: "plain" }, holders, strangers));
}

function waiting(rows) {
  if (rows.length === 0) return [];
  const lines = rows.map((row) =>
    el("tr", {}, el("td", {}, String(row.position)), el("td", {}, row.holder), el("td", {}, row.wants),
      el("td", {}, span(row.waited_ms)), el("td", {}, row.est_ms === null ? "" : span(row.est_ms)), el("td", {}, row.why?.message ?? "")));
  const heads = ["", "Who waits", "for", "since", "still", "why"];
  return [el("h3", {}, "Queue"), el("div", { class: "sheet" },
    el("table", {}, el("thead", {}, el("tr", {}, heads.map((text) => el("th", {}, text)))), el("tbody", {}, lines)))];
}

export class Events {
  constructor(root) {
    this.body = el("tbody");
    this.last = { boot: null, seq: 0 };
    root.replaceChildren(el("div", { class: "sheet" }, el("table", {}, this.body)));
  }

  close() {}

  async load() {
    const report = await newest(SHOWN);
    this.body.replaceChildren();
    this.last = { boot: null, seq: 0 };
    await this.touched(report.events);
  }

  async touched(rows) {
    for (const row of rows) {
      // What was loaded, and what is told meanwhile, overlap.
      if (row.boot === this.last.boot && row.seq <= this.last.seq) continue;
      this.last = row;
      this.body.prepend(el("tr", {}, el("td", { class: "quiet figure" }, clock(row.at_ms / 1000)), el("td", {}, row.unit ?? ""),
        el("td", { class: "quiet" }, row.kind), el("td", {}, event(row))));
    }
    while (this.body.children.length > SHOWN) this.body.lastChild.remove();
  }

  async again() {}
}

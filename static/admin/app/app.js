// The page: which view is shown, and whether the daemon is there. A view is told of every event; when the daemon
// was away, or is another one, it is loaded anew.

import { call, events, newest, session } from "./link.js";
import { alarm } from "./parts.js";
import { Events, Gpus } from "./machine.js";
import { Services } from "./services.js";

/** Events that come together are told together. */
const TOGETHER_MS = 80;
const AGAIN_MS = [250, 500, 1000, 2000, 5000];
const LOOK_MS = 15_000;

const VIEWS = { "/gpus": Gpus, "/events": Events };

const link = document.getElementById("link");

function tell(state, text) {
  link.className = state;
  link.textContent = text;
}

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

/** When this tab is looked at. A browser has six connections for all tabs of one address: who is hidden has none. */
const looked = () => new Promise((done) => {
  const look = () => {
    if (document.hidden) return;
    document.removeEventListener("visibilitychange", look);
    done();
  };
  document.addEventListener("visibilitychange", look);
  look();
});

/** A signal that this tab is not looked at any more. */
function hidden() {
  const leaving = new AbortController();
  document.addEventListener("visibilitychange", () => leaving.abort(), { once: true });
  return leaving.signal;
}

/** Hands events on, some at a time and in order; what a view cannot load now it loads later. */
function gatherer(view, leaving) {
  let rows = [];
  let busy = false;
  const pass = async () => {
    if (busy) return;
    busy = true;
    while (rows.length > 0) {
      await sleep(TOGETHER_MS);
      const now = rows;
      rows = [];
      try {
        await view.touched(now);
      } catch (why) {
        if (!why.away) alarm(why);
        else if (leaving.aborted) break;
        else {
          rows = [...now, ...rows];
          await sleep(AGAIN_MS[2]);
        }
      }
    }
    busy = false;
  };
  return (row) => {
    rows.push(row);
    pass();
  };
}

async function run() {
  const rights = await session();
  const root = document.getElementById("view");
  const Shown = VIEWS[location.pathname] ?? Services;
  const view = new Shown(root, !rights.read_only);
  const here = Shown === Services ? "/services" : location.pathname;
  document.querySelector(`nav a[href="${here}"]`)?.setAttribute("aria-current", "page");
  setInterval(() => document.hidden || view.again().catch(() => {}), LOOK_MS);
  let failed = 0;
  for (;;) {
    await looked();
    const leaving = hidden();
    try {
      // Where the events stand before anything is looked at: nothing that happens meanwhile is missed.
      const { boot, next: since } = await newest(1);
      const daemon = await call("rpc.health", {});
      const name = daemon.machine.hostname ?? "this machine";
      document.title = `${name}: Wharf`;
      document.getElementById("machine").textContent = `${name}, Wharf ${daemon.version}${rights.read_only ? ", read only" : ""}`;
      await view.load();
      tell("live", "live");
      failed = 0;
      await events({ boot, since }, gatherer(view, leaving), leaving);
    } catch (why) {
      if (leaving.aborted) continue;
      if (why.denied) throw why;
      if (!why.away && failed === 0) console.warn(why);
    }
    tell("lost", "the daemon does not answer; what is shown may be old");
    await sleep(AGAIN_MS[Math.min(failed++, AGAIN_MS.length - 1)]);
  }
}

// Another address that is put into this tab changes what is behind the # alone.
addEventListener("hashchange", () => location.reload());

run().catch((why) => {
  tell("lost", "not connected");
  alarm(why);
});

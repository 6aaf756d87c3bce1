//! What is written down of a world: each deed, each step that followed, what came out of it.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use wharf_core::{Act, Core, Effects, Event, Notice, Now, Record};

use crate::{deed::Deed, world::Broken};

/// One line of an event log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "line")]
pub enum Line {
    /// The first line: where it comes from.
    Head {
        /// The seed, where there was one.
        seed: Option<u64>,
        /// The rule that does not hold at the end, and what was seen.
        broken: Option<(String, String)>,
    },
    /// Something happened.
    Deed {
        /// What.
        deed: Deed,
    },
    /// A step of the core.
    Step {
        /// The how-manieth.
        step: u64,
        /// Its time.
        boot_ms: u64,
        /// Its time, for people.
        wall_ms: i64,
        /// What it was stepped with.
        event: Box<Event>,
        /// What came out, in words.
        effects: Vec<String>,
        /// The units that it touched, as they were then.
        units: Vec<String>,
        /// A digest of the units that it touched, as they were then.
        digest: String,
    },
}

/// The lines of a world, from its beginning.
#[derive(Debug, Default)]
pub struct Trace {
    /// In order.
    pub lines: Vec<Line>,
}

impl Trace {
    pub(crate) fn deed(&mut self, deed: &Deed) {
        self.lines.push(Line::Deed { deed: deed.clone() });
    }

    pub(crate) fn step(&mut self, step: u64, now: Now, event: &Event, fx: &Effects, core: &Core) {
        let mut text = String::new();
        let mut units = vec![];
        for unit in fx.touched.iter().filter_map(|name| core.unit(name)) {
            let _ = write!(text, "{:?}", (unit.saved(), &unit.life, unit.busy_with()));
            units.push(format!("{}: {:?}, {:?}", unit.name, unit.want, unit.life));
        }
        let digest = format!("{:016x}", fnv(&text));
        let (boot_ms, wall_ms) = (now.boot_ms, now.wall_ms);
        let event = Box::new(event.clone());
        self.lines.push(Line::Step { step, boot_ms, wall_ms, event, effects: in_words(fx), units, digest });
    }

    /// As a file: one line each.
    pub fn to_jsonl(&self, seed: Option<u64>, broken: Option<&Broken>) -> String {
        let broken = broken.map(|b| (b.rule.to_owned(), b.text.clone()));
        let head = Line::Head { seed, broken };
        let lines = std::iter::once(&head).chain(&self.lines);
        let mut text: String = lines.filter_map(|l| serde_json::to_string(l).ok()).map(|l| l + "\n").collect();
        text.shrink_to_fit();
        text
    }
}

/// FNV-1a, 64 bits.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, b| (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// What came out of a step, a line each.
pub fn in_words(fx: &Effects) -> Vec<String> {
    let records = fx.records.iter().map(|record| match record {
        Record::Unit(s) => {
            let run = s.run.map_or_else(|| "no run".into(), |run| format!("run {run}"));
            format!("record {}: {:?}, {}, {run}", s.name, s.want, s.phase)
        }
        Record::Gone(name) => format!("record {name}: gone"),
        Record::Lease(lease) => format!("record {} {:?}: {:?}", lease.id, lease.holder, lease.state),
        Record::LeaseGone(id) => format!("record {id}: gone"),
        Record::Book(book) => format!("record the book: {} leases, {} epochs", book.last_lease, book.last_epoch),
        Record::Op(op) => format!("record operation {} {} {}: {:?}", op.id, op.kind, op.name, op.outcome),
    });
    let acts = fx.acts.iter().map(|act| match act {
        Act::Place { unit, op, what } => format!("place {unit} {what:?} for {op}"),
        Act::Abandon { unit, op } => format!("abandon what is placed for {unit} for {op}"),
        Act::Launch { unit, run } => format!("launch {unit} as run {run}"),
        Act::Probe { unit, run } => format!("probe {unit} run {run}"),
        Act::Terminate { unit, run } => format!("terminate {unit} run {run}"),
        Act::Kill { unit, run } => format!("kill {unit} run {run}"),
        Act::Look { unit, run } => format!("look {unit} run {run}"),
        Act::Change { unit, run, change } => format!("change {unit} run {run} {change:?}"),
        Act::PostStart { unit, run } => format!("post_start {unit} run {run}"),
        Act::Forget { unit, run } => format!("forget {unit} run {run}"),
        Act::Remove { unit, op, .. } => format!("remove {unit} for {op}"),
    });
    let notices = fx.notices.iter().map(|notice| match notice {
        Notice::Phase { unit, from, to, why, .. } => format!("tell {unit}: {from} -> {to} ({why})"),
        Notice::Ended { unit, run, exit, reason } => format!("tell {unit}: run {run} {exit} ({reason:?})"),
        Notice::Skipped { unit } => format!("tell {unit}: passed over"),
        Notice::Retry { unit, attempt, after_ms } => format!("tell {unit}: try {attempt} in {after_ms} ms"),
    });
    let answers = fx.answers.iter().map(|answer| match &answer.result {
        Ok(op) => format!("answer {}: operation {} {:?}", answer.ticket.0, op.id, op.outcome),
        Err(failure) => format!("answer {}: {failure}", answer.ticket.0),
    });
    records.chain(acts).chain(notices).chain(answers).collect()
}

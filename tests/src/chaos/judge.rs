//! What is wrong, by promise. A list that stays empty is a promise that was kept.

use std::collections::BTreeMap;

/// What the loop promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Promise {
    /// A service that nobody asked to end has not ended.
    Died,
    /// A process belongs to a unit that has it.
    Orphan,
    /// Nothing runs twice.
    Double,
    /// A unit that nobody asked to stop gets no signal, and no other signal than the one to stop.
    WrongSignal,
    /// Each line is read back once, whole, in order.
    Lines,
    /// An exit status is exact, or unknown where the shim was killed.
    Exit,
    /// What was acknowledged is so.
    Acknowledged,
    /// A new daemon comes up.
    Daemon,
}

impl Promise {
    const ALL: [(Self, &str); 8] = [
        (Self::Died, "services that died, or were not brought back"),
        (Self::Orphan, "orphans"),
        (Self::Double, "second copies"),
        (Self::WrongSignal, "signals to a unit that nobody asked to stop"),
        (Self::Lines, "lines lost, doubled, torn or out of order"),
        (Self::Exit, "exit statuses that were invented"),
        (Self::Acknowledged, "acknowledged starts and stops lost"),
        (Self::Daemon, "daemons that did not come up again"),
    ];
}

/// What was found.
#[derive(Debug, Default, Clone)]
pub struct Verdict(BTreeMap<Promise, Vec<String>>);

impl Verdict {
    /// One more thing that is wrong.
    pub fn broken(&mut self, promise: Promise, what: impl Into<String>) {
        self.0.entry(promise).or_default().push(what.into());
    }

    /// Nothing is.
    pub fn is_clean(&self) -> bool {
        self.0.is_empty()
    }

    /// A line a promise, with its number; below it what it was.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (promise, words) in Promise::ALL {
            let faults = self.0.get(&promise).map_or(&[][..], Vec::as_slice);
            text.push_str(&format!("  {:>3} {words}\n", faults.len()));
            for fault in faults.iter().take(5) {
                text.push_str(&format!("        {fault}\n"));
            }
        }
        text
    }
}

//! Whether the kernel has ended processes for want of memory: of one run, by its group's counters;
//! of anybody, by the machine's.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
};

use wharf_sys::clock;

/// The machine's counter is read anew for a start this long after it was read, in milliseconds: a batch
/// of starts reads it once.
const FRESH_MS: i64 = 1_000;

/// The machine's counter, as it was read last.
#[derive(Debug, Default)]
pub struct OomCount {
    seen: AtomicU64,
    read_at_ms: AtomicI64,
}

impl OomCount {
    /// The counter as of now, or of a second ago.
    pub fn mark(self: &Arc<Self>) -> OomSeen {
        let now = clock::boottime_ms();
        if now - self.read_at_ms.load(Ordering::Acquire) > FRESH_MS {
            // The count first: who finds the new time must not find the old count, which is 0 in a new daemon, and
            // take all that the machine has ever ended for want of memory for something that has just happened.
            self.seen.store(counted_by_machine(), Ordering::Relaxed);
            self.read_at_ms.store(now, Ordering::Release);
        }
        OomSeen { before: self.seen.load(Ordering::Relaxed) }
    }
}

/// The machine's counter at a run's start.
#[derive(Debug, Clone, Copy)]
pub struct OomSeen {
    before: u64,
}

/// What a run's groups have counted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted {
    /// Kills of the whole group.
    pub groups: u64,
    /// Kills of single processes, also below the group: perhaps not of the main one.
    pub processes: u64,
}

impl OomSeen {
    /// What the run's own groups have counted since they were made.
    pub fn counted(&self, cgroup: Option<&Path>, limit_groups: &[PathBuf]) -> Counted {
        let new_kind = cgroup.map(|dir| dir.join("memory.events"));
        let old_kind = limit_groups.iter().map(|dir| dir.join("memory.oom_control"));
        let texts = new_kind.into_iter().chain(old_kind).filter_map(|path| fs::read_to_string(path).ok());
        texts.fold(Counted::default(), |sum, text| Counted {
            groups: sum.groups + field(&text, "oom_group_kill"),
            processes: sum.processes + field(&text, "oom_kill"),
        })
    }

    /// Whether any process of the machine was ended since the run's start.
    pub fn happened_anywhere(&self) -> bool {
        counted_by_machine() > self.before
    }
}

fn counted_by_machine() -> u64 {
    field(&fs::read_to_string("/proc/vmstat").unwrap_or_default(), "oom_kill")
}

/// The number after a name that stands alone; 0 where there is none.
fn field(text: &str, name: &str) -> u64 {
    let value = |line: &str| line.split_once(' ').filter(|(n, _)| *n == name)?.1.trim().parse().ok();
    text.lines().find_map(value).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_at_one_moment_all_know_what_was_counted_before_them() {
        for _ in 0..200 {
            let count = Arc::new(OomCount::default());
            let least = counted_by_machine();
            let marks: Vec<_> = (0..4)
                .map(|_| {
                    let count = count.clone();
                    std::thread::spawn(move || count.mark().before)
                })
                .collect();
            assert!(marks.into_iter().all(|mark| mark.join().unwrap() >= least));
        }
    }

    #[test]
    fn counters_are_read_by_their_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 7\noom_kill 3\n";
        assert_eq!((field(text, "oom_kill"), field(text, "oom_group_kill")), (3, 0));
    }
}

//! What must hold in a world of leases, after every deed and when everything comes to rest.

use std::collections::BTreeSet;

use wharf_model::{Holder, LeaseId, LeaseState};

use super::{WAIT_MS, World};

impl World {
    /// What must hold after every deed.
    pub(super) fn judge(&mut self) -> Result<(), String> {
        self.arbiter.check()?;
        for at in 0..self.totals.len() {
            let taken = self.taken(at);
            if taken > self.totals[at] && !self.strangers {
                return Err(format!("device {at}: {taken} bytes taken of {}", self.totals[at]));
            }
        }
        // The journal is the state.
        let recorded: BTreeSet<LeaseId> = self.leases.keys().copied().collect();
        let there: BTreeSet<LeaseId> = self.arbiter.leases().map(|lease| lease.id).collect();
        if recorded != there {
            return Err(format!("recorded: {recorded:?}, there: {there:?}"));
        }
        if let Some((id, since)) = self.waiting.iter().find(|(_, since)| self.now_ms > *since + 2 * WAIT_MS) {
            return Err(format!("{id} waits since {since}, it is {}", self.now_ms));
        }
        Ok(())
    }

    /// No more faults, no more requests: everything must come to rest, and nothing may be left.
    pub(super) fn come_to_rest(&mut self) -> Result<(), String> {
        for _ in 0..4_000 {
            let over = self.arbiter.leases().count() == 0;
            if over {
                return Ok(());
            }
            self.live(250);
            let fx = self.arbiter.due(self.now());
            self.take(fx);
            self.look();
            self.judge()?;
            // Holders end one after the other; those that wait get their turn.
            let oldest = self.arbiter.leases().find(|l| l.is_granted() || l.state == LeaseState::Expired).cloned();
            if let Some(lease) = oldest
                && self.now_ms > lease.since_ms + 2_000
                && let Holder::Process { pid, .. } = lease.holder
            {
                let helpers: Vec<i32> =
                    self.processes.iter().filter(|(_, p)| p.parent == Some(pid)).map(|(pid, _)| *pid).collect();
                for helper in helpers {
                    self.dies(helper, None);
                }
                self.dies(pid, Some(lease.id));
            }
            // And helpers whose first process is gone.
            let orphans: Vec<i32> =
                self.processes.iter().filter(|(_, p)| p.lives && p.parent.is_some()).map(|(pid, _)| *pid).collect();
            for orphan in orphans {
                self.dies(orphan, None);
            }
        }
        let left: Vec<String> = self.arbiter.leases().map(|l| format!("{} {:?}", l.id, l.state)).collect();
        Err(format!("never came to rest: {}", left.join(", ")))
    }
}

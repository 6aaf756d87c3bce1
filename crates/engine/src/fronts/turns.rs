//! Turns: when a unit holds its requests back, so that another gets its GPU.
//!
//! A unit under load is never idle, and only who is idle is asked to leave. So it stops taking requests when its time
//! in peace is over and somebody waits whom its leaving may help. Where that one does not come after all, it goes on,
//! and does not offer it again for as long as it was in peace.

use std::time::Duration;

use wharf_core::arbiter::{Arbiter, Lease};
use wharf_model::{LeaseState, Preempt, UnitName};

/// Having nothing to do, a unit offers its place for this long, in milliseconds.
const OFFER_MS: u64 = 3_000;
/// The shortest time between two offers, in milliseconds.
const PAUSE_MS: u64 = 5_000;
/// While somebody waits, it is looked at again after this.
const LOOK: Duration = Duration::from_millis(100);

/// What is remembered of one unit.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Since when it offers its place and has nothing to do.
    idle_since_ms: Option<u64>,
    /// Nobody took it: until then it is not offered again.
    not_until_ms: u64,
}

impl Turns {
    /// Whether the unit takes no new requests just now.
    pub(super) fn yields(&mut self, arbiter: &Arbiter, unit: &UnitName, in_flight: usize, now_ms: u64) -> bool {
        let own = arbiter.of_unit(unit).filter(|lease| lease.state == LeaseState::Active);
        let Some(own) = own.filter(|own| self.may(own, now_ms) && waits_for(arbiter, own)) else {
            self.idle_since_ms = None;
            return false;
        };
        if in_flight > 0 {
            self.idle_since_ms = None;
            return true;
        }
        let since_ms = *self.idle_since_ms.get_or_insert(now_ms);
        if now_ms.saturating_sub(since_ms) < OFFER_MS {
            return true;
        }
        self.idle_since_ms = None;
        self.not_until_ms = now_ms.saturating_add(own.request.min_residency_ms.max(PAUSE_MS));
        false
    }

    /// When to look again, though nothing has changed.
    pub(super) fn again(&self, arbiter: &Arbiter, unit: &UnitName) -> Option<Duration> {
        let own = arbiter.of_unit(unit).filter(|lease| lease.state == LeaseState::Active)?;
        waits_for(arbiter, own).then_some(LOOK)
    }

    fn may(&self, own: &Lease, now_ms: u64) -> bool {
        let ready_ms = own.ready_ms.unwrap_or(own.since_ms);
        let pinned = own.pinned_until_ms.is_some_and(|until| until > now_ms);
        let over = now_ms.saturating_sub(ready_ms) >= own.request.min_residency_ms;
        own.request.evictable && !pinned && over && now_ms >= self.not_until_ms
    }
}

/// Somebody waits who could use a device of this holder, and may ask it to leave when it has nothing to do.
fn waits_for(arbiter: &Arbiter, own: &Lease) -> bool {
    arbiter.leases().any(|lease| {
        let asks = match lease.request.preempt {
            Preempt::Never => false,
            Preempt::Idle | Preempt::Lower => own.request.importance <= lease.request.importance,
            Preempt::Force => true,
        };
        // Who has devices promised already is waiting for others.
        let waits = lease.state == LeaseState::Queued && lease.unit() != own.unit();
        let could = lease.request.needs().any(|need| {
            own.shares.iter().any(|share| {
                let named = need.only.is_empty() || need.only.contains(&share.device);
                named && !need.avoid.contains(&share.device)
            })
        });
        waits && asks && could
    })
}

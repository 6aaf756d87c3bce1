//! Whose turn it is.
//!
//! The order is priority plus age, then the smaller share of the machine, then arrival; so whoever waits long enough
//! is first. A later request may take what an earlier one waits for only if it fits there now, and only so often:
//! then the devices are kept for the earlier one. On other devices nobody is held up.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use wharf_model::{DeviceId, LeaseId, LeaseState};

use super::{
    Arbiter, GpuAct, Lease, Outcome,
    board::{Asker, Board, Leave, Placement, Verdict},
    plan::plan,
};
use crate::Now;

/// What is to be done for a waiting request.
enum Move {
    Grant(usize, Placement),
    Empty(usize, Placement),
    Wait(usize, Verdict),
    Refuse(Verdict),
}

impl Arbiter {
    /// Looks at all that wait, in order, and does for each what can be done now.
    pub(super) fn pass(&mut self, now: Now, fx: &mut Outcome) {
        self.passed_ms = now.boot_ms;
        if !self.leases.values().any(Lease::waits) {
            return;
        }
        if self.is_bare() {
            let ids: Vec<LeaseId> = self.leases.values().filter(|lease| lease.waits()).map(|lease| lease.id).collect();
            for id in ids {
                let failure = self.no_gpu();
                self.refuse(now, id, failure, fx);
            }
            return;
        }
        if now.boot_ms.saturating_sub(self.looked_ms()) > self.settings.fresh_ms || !self.seen {
            // What is handed out is handed out by what is, not by what was.
            if !fx.acts.contains(&GpuAct::Measure) {
                fx.acts.push(GpuAct::Measure);
            }
            return;
        }
        let looked_ms = self.looked_ms();
        let mut measure = false;
        let mut held: BTreeMap<DeviceId, LeaseId> = BTreeMap::new();
        let mut ahead: Vec<(LeaseId, BTreeSet<DeviceId>)> = vec![];
        for id in self.order(now) {
            let Some(lease) = self.leases.get(&id).cloned() else { continue };
            if lease.asked_ms > looked_ms && !self.settings.is_dry() {
                // What has come since the last look is met by the next one: a stranger may have come, too.
                measure = true;
                continue;
            }
            let board = self.board(now.boot_ms, &lease, &held);
            match self.decide(&lease, &board) {
                Move::Grant(alternative, placement) => {
                    let on = devices(&board, placement.on.iter().map(|(place, _)| *place));
                    self.count_bypass(&ahead, &on, &mut held, fx);
                    if let Some(lease) = self.leases.get_mut(&id) {
                        lease.alternative = alternative;
                    }
                    self.grant(now, id, &board, &placement, fx);
                }
                Move::Empty(alternative, placement) => {
                    let on = devices(&board, placement.on.iter().map(|(place, _)| *place));
                    self.count_bypass(&ahead, &on, &mut held, fx);
                    let why = self.emptying(&lease, &board, &placement);
                    if let Some(lease) = self.leases.get_mut(&id) {
                        lease.alternative = alternative;
                        lease.why = Some(why);
                        if lease.at_once {
                            // Others leave for it: that takes its time, as the request allowed.
                            lease.wait_until_ms = None;
                        }
                    }
                    // What it needs is set aside from now on: who fits beside it does not pass it over.
                    self.reserve(now, id, &board, &placement, fx);
                }
                Move::Wait(alternative, verdict) => {
                    let on = match &verdict {
                        Verdict::Waits { on, .. } => devices(&board, on.iter().copied()),
                        Verdict::Fits(_) | Verdict::Never { .. } => {
                            lease.shares.iter().map(|share| share.device.clone()).collect()
                        }
                    };
                    let why = self.waiting(now, &lease, alternative, &board, &verdict);
                    if lease.at_once && lease.state == LeaseState::Queued && !self.is_about_to_fit(&verdict) {
                        self.refuse(now, id, why, fx);
                        continue;
                    }
                    self.keep_waiting(now, id, &board, Some(why), fx);
                    if self.leases.get(&id).is_none_or(|lease| lease.state != LeaseState::Queued) {
                        continue;
                    }
                    if lease.bypassed >= self.settings.bypass_limit {
                        held.extend(on.iter().map(|device| (device.clone(), id)));
                    }
                    ahead.push((id, on));
                }
                Move::Refuse(verdict) => {
                    let failure = self.refusal(now, &lease, &board, &verdict);
                    self.refuse(now, id, failure, fx);
                }
            }
        }
        if measure && !fx.acts.contains(&GpuAct::Measure) {
            fx.acts.push(GpuAct::Measure);
        }
    }

    /// All that it waits for is on its way out: also who does not want to wait has the patience.
    fn is_about_to_fit(&self, verdict: &Verdict) -> bool {
        let goes = |id: &LeaseId| {
            let leaves = |lease: &Lease| {
                matches!(lease.state, LeaseState::Draining | LeaseState::Reclaiming) || lease.makes_room().is_some()
            };
            self.leases.get(id).is_some_and(leaves)
        };
        matches!(verdict, Verdict::Waits { behind, .. } if !behind.is_empty() && behind.iter().all(goes))
    }

    /// Who waits, the next first.
    pub fn order(&self, now: Now) -> Vec<LeaseId> {
        let mut waiting: Vec<&Lease> = self.leases.values().filter(|lease| lease.waits()).collect();
        let step = self.settings.age_step_ms.max(1);
        waiting.sort_by_key(|lease| {
            let aged = now.boot_ms.saturating_sub(lease.asked_ms) / step;
            let rank = lease.request.priority as u64 + aged;
            // Whoever others leave for already is not overtaken any more.
            let promised = lease.state == LeaseState::Reserved;
            (Reverse(promised), Reverse(rank), self.share_of(lease.owner), lease.asked_ms, lease.id)
        });
        waiting.iter().map(|lease| lease.id).collect()
    }

    /// The largest part of any device that a user's leases count for, in thousandths.
    fn share_of(&self, owner: u32) -> u64 {
        let of = |slot: &super::Slot| {
            let charge: u64 = self
                .leases
                .values()
                .filter(|lease| lease.owner == owner && lease.state.is_charged())
                .flat_map(|lease| &lease.shares)
                .filter(|share| share.device == slot.device.id)
                .map(|share| share.charge_bytes)
                .sum();
            u64::try_from(u128::from(charge) * 1000 / u128::from(slot.device.total_bytes.max(1))).unwrap_or(u64::MAX)
        };
        self.slots.values().map(of).max().unwrap_or(0)
    }

    /// What can be done for one request on this board: what fits as it is first, by preference; then what fits when
    /// others have left; then waiting for the first that can come at all.
    fn decide(&self, lease: &Lease, board: &Board) -> Move {
        let verdicts: Vec<Verdict> = lease
            .request
            .needs()
            .map(|need| plan(board, &Asker { need, unit: lease.unit(), lease: Some(lease.id) }, self.settings.budget))
            .collect();
        let fits = |empty: bool| {
            verdicts.iter().enumerate().find_map(|(at, verdict)| match verdict {
                Verdict::Fits(placement) if placement.victims.is_empty() == empty => Some((at, placement.clone())),
                Verdict::Fits(_) | Verdict::Waits { .. } | Verdict::Never { .. } => None,
            })
        };
        if let Some((at, placement)) = fits(true) {
            return Move::Grant(at, placement);
        }
        // Its devices are being emptied already: no second set is.
        if lease.state == LeaseState::Reserved && self.is_being_emptied(lease, board) {
            let verdict = verdicts.into_iter().nth(lease.alternative);
            return Move::Wait(lease.alternative, verdict.unwrap_or(NOTHING));
        }
        if let Some((at, placement)) = fits(false) {
            return Move::Empty(at, placement);
        }
        let mut verdicts = verdicts.into_iter().enumerate();
        let first = verdicts.find(|(_, verdict)| matches!(verdict, Verdict::Waits { .. }));
        if let Some((at, verdict)) = first {
            return Move::Wait(at, verdict);
        }
        let need = Asker { need: &lease.request.need, unit: lease.unit(), lease: Some(lease.id) };
        Move::Refuse(plan(board, &need, self.settings.budget))
    }

    /// Somebody on the devices that were chosen for it is going.
    fn is_being_emptied(&self, lease: &Lease, board: &Board) -> bool {
        let chosen = |place: usize| {
            board.places.get(place).is_some_and(|place| lease.shares.iter().any(|share| share.device == place.id))
        };
        board.residents.iter().any(|resident| {
            matches!(resident.leave, Leave::Going { .. }) && resident.shares.iter().any(|(place, _)| chosen(*place))
        })
    }

    /// It waits on; what was chosen for it is given up when nobody leaves it any more.
    fn keep_waiting(
        &mut self,
        now: Now,
        id: LeaseId,
        board: &Board,
        why: Option<wharf_model::Failure>,
        fx: &mut Outcome,
    ) {
        let Some(lease) = self.leases.get(&id) else { return };
        let emptied = self.is_being_emptied(lease, board);
        let back = lease.state == LeaseState::Reserved && !emptied;
        let Some(lease) = self.leases.get_mut(&id) else { return };
        let moved = lease.why.as_ref().map(|why| &why.message) != why.as_ref().map(|why| &why.message);
        lease.why = why;
        if moved && let Some(unit) = lease.unit().cloned() {
            fx.woken.push(unit);
        }
        if back {
            if std::mem::take(&mut lease.at_once) {
                // Others left for it: it waits on as long as memory may take to come back, and not for ever.
                lease.wait_until_ms = Some(now.boot_ms.saturating_add(self.settings.reclaim_ms));
            }
            lease.shares.clear();
            self.go(now, id, LeaseState::Queued, "what was freed for it is taken", fx);
        }
    }

    /// A later request gets what earlier ones wait for too. Whoever was passed over often enough is owed its devices.
    fn count_bypass(
        &mut self,
        ahead: &[(LeaseId, BTreeSet<DeviceId>)],
        on: &BTreeSet<DeviceId>,
        held: &mut BTreeMap<DeviceId, LeaseId>,
        fx: &mut Outcome,
    ) {
        for (id, planned) in ahead {
            if planned.is_disjoint(on) {
                continue;
            }
            if let Some(lease) = self.leases.get_mut(id) {
                lease.bypassed += 1;
                fx.leases.insert(*id);
                if lease.bypassed >= self.settings.bypass_limit {
                    held.extend(planned.iter().map(|device| (device.clone(), *id)));
                }
            }
        }
    }
}

/// A verdict that says nothing: for a request whose needs have none.
const NOTHING: Verdict = Verdict::Waits { on: vec![], short_by: 0, behind: vec![] };

fn devices(board: &Board, places: impl Iterator<Item = usize>) -> BTreeSet<DeviceId> {
    places.filter_map(|place| board.places.get(place)).map(|place| place.id.clone()).collect()
}

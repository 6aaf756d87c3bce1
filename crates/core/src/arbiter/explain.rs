//! Why: what stands in the way, what would help, and what a request would come to, in sentences and as data.

use serde_json::json;
use wharf_model::{
    Blocker, BlockingLease, DeviceId, DeviceProcess, ErrorKind, Failure, ForeignProcess, GpuNeed, GpuRequest, Holder,
    LeaseId, LeaseState, MakeRoom, Plan, PlanStep, Remedy, size,
};

use super::{
    Arbiter, Lease, Slot, Terms,
    board::{Bar, Board, Leave, Placement, Verdict},
};
use crate::Now;

fn wants(need: &GpuNeed) -> String {
    let much = match need.vram_bytes {
        Some(bytes) => size(bytes),
        None => "a whole device".to_owned(),
    };
    let alone = if need.exclusive && need.vram_bytes.is_some() { ", alone" } else { "" };
    match need.devices {
        1 => format!("{much} on one device{alone}"),
        many => format!("{much} on each of {many} devices{alone}"),
    }
}

/// What waking is taken to cost, in milliseconds.
const WAKE_MS: u64 = 1_000;

impl Arbiter {
    /// What the request would come to. It is the same code that would grant it, run on a copy.
    pub fn plan(&self, now: Now, owner: u32, holder: Holder, request: GpuRequest) -> Plan {
        let mut copy = self.clone();
        copy.keys.clear();
        if let Holder::Unit { name } = &holder {
            copy.units.remove(name);
        }
        // A plan is made of what is known: it asks nobody for a new measurement.
        copy.settings.fresh_ms = u64::MAX;
        let mut fx = copy.acquire(now, Some(crate::Ticket(0)), owner, holder, request, Terms::default());
        let refused = fx.answers.drain(..).find_map(|(_, result)| result.err());
        let id = LeaseId(copy.book.last_lease);
        let state_version = self.version;
        let nothing = Plan {
            feasible: false,
            at_once: false,
            placement: vec![],
            alternative: 0,
            actions: vec![],
            position: None,
            failure: refused.clone(),
            explain: refused.iter().flat_map(sentences).collect(),
            state_version,
        };
        let Some(lease) = copy.leases.get(&id).filter(|_| refused.is_none()) else { return nothing };
        let actions: Vec<PlanStep> =
            copy.leases.values().filter(|l| l.leaves_for == Some(id)).map(|l| copy.step(l)).collect();
        let position = lease.waits().then(|| 1 + copy.leases.values().filter(|l| l.waits() && l.id < id).count());
        let why = lease.why.clone();
        let names: Vec<String> = lease.shares.iter().map(|share| copy.name_of(&share.device)).collect();
        let mut explain = vec![];
        let placed = lease.state != LeaseState::Queued;
        if lease.is_granted() {
            explain.push(format!("fits on {}", names.join(" and ")));
        } else if placed {
            let who: Vec<String> = actions
                .iter()
                .map(|step| {
                    let (r#do, frees, reload) = (step.r#do.word(), size(step.frees_bytes), seconds(step.reload_ms));
                    match step.r#do {
                        MakeRoom::Downsize => format!("{do} {} (by {frees})", step.holder),
                        MakeRoom::Park => format!("{do} {} ({frees}, wakes in {reload})", step.holder),
                        MakeRoom::Stop => format!("{do} {} ({frees}, reload {reload})", step.holder),
                    }
                })
                .collect();
            explain.push(format!("would {}, and then fit on {}", who.join(" and "), names.join(" and ")));
        } else {
            explain.extend(why.iter().flat_map(sentences));
        }
        Plan {
            feasible: placed,
            at_once: lease.is_granted(),
            placement: lease.shares.clone(),
            alternative: lease.alternative,
            actions,
            position: position.filter(|_| !placed),
            failure: why.filter(|_| !placed),
            explain,
            state_version,
        }
    }

    fn step(&self, lease: &Lease) -> PlanStep {
        let how = lease.makes_room_by();
        let reload_ms = match how {
            MakeRoom::Stop => self.worth(0, lease).reload_ms,
            // What waking costs is not learned: far less than loading.
            MakeRoom::Park => WAKE_MS,
            MakeRoom::Downsize => 0,
        };
        let keeps = lease.makes_room().unwrap_or(0);
        let frees_bytes = lease.shares.iter().map(|share| share.charge_bytes.saturating_sub(keeps)).sum();
        PlanStep {
            lease: lease.id,
            holder: lease.called(),
            r#do: how,
            frees_bytes,
            est_ms: lease.request.drain_ms.min(2_000),
            reload_ms,
        }
    }

    /// A device, for people: its name and its id.
    pub fn name_of(&self, id: &DeviceId) -> String {
        match self.slots.get(id) {
            Some(slot) if slot.device.name != *id.0 => format!("{} ({id})", slot.device.name),
            Some(_) => id.to_string(),
            None => id.to_string(),
        }
    }

    /// Processes on a device that belong to no lease.
    pub fn strangers<'a>(&'a self, slot: &'a Slot) -> impl Iterator<Item = ForeignProcess> + 'a {
        let strange = |owner: Option<LeaseId>| owner.is_none_or(|id| !self.leases.contains_key(&id));
        slot.owned().filter(move |(_, owner)| strange(*owner)).map(|(p, _): (&DeviceProcess, _)| ForeignProcess {
            pid: p.pid,
            program: p.program.clone(),
            uid: p.uid,
            used_bytes: p.used_bytes,
            belongs_to: p.belongs_to.clone(),
            ignored: self.is_ignored(p),
        })
    }

    pub(super) fn no_gpu(&self) -> Failure {
        Failure::new(ErrorKind::Precondition, "host has no GPU")
            .hint("see what was looked for: wharf gpu; a file gpus.toml describes simulated devices")
    }

    pub(super) fn stale_probe(&self) -> Failure {
        let text = "the driver does not say what its devices are doing, so nothing new is handed out";
        Failure::new(ErrorKind::ProbeStale, text).hint("see since when: wharf gpu; wharf doctor")
    }

    /// The devices that are to be emptied for it.
    pub(super) fn emptying(&self, lease: &Lease, board: &Board, placement: &Placement) -> Failure {
        let who: Vec<String> = placement
            .victims
            .iter()
            .filter_map(|victim| self.leases.get(&victim.lease))
            .map(|lease| lease.called())
            .collect();
        let on: Vec<String> = placement
            .on
            .iter()
            .filter_map(|(place, _)| board.places.get(*place))
            .map(|place| self.name_of(&place.id))
            .collect();
        let text = format!("waits for {} to leave {}", who.join(" and "), on.join(" and "));
        Failure::new(ErrorKind::GpuBusy, text).about_holder(lease)
    }

    /// Why it waits: the failure that it is told if it does not want to.
    pub(super) fn waiting(
        &self,
        now: Now,
        lease: &Lease,
        alternative: usize,
        board: &Board,
        verdict: &Verdict,
    ) -> Failure {
        let need = lease.request.needs().nth(alternative).unwrap_or(&lease.request.need);
        let blockers = self.blockers(board, need);
        let best = board.places.iter().filter(|place| place.bar.is_none()).max_by_key(|place| place.free);
        let (on, behind): (&[usize], &[LeaseId]) = match verdict {
            Verdict::Waits { on, behind, .. } => (on, behind),
            Verdict::Fits(_) | Verdict::Never { .. } => (&[], &[]),
        };
        let on_these = |blocker: &&Blocker| {
            on.is_empty() || on.iter().filter_map(|at| board.places.get(*at)).any(|place| place.id == blocker.device)
        };
        let foreign: Vec<String> =
            blockers.iter().filter(on_these).flat_map(|b| &b.foreign).map(ToString::to_string).collect();
        let holders: Vec<String> =
            behind.iter().filter_map(|id| self.leases.get(id)).map(|lease| self.how_it_stands(lease)).collect();
        let stale = !board.places.is_empty() && board.places.iter().all(|place| place.bar == Some(Bar::Stale));
        let pinned = |id: &LeaseId| self.leases.get(id).is_some_and(|lease| lease.is_pinned(now.boot_ms));
        let best = best
            .map_or_else(String::new, |place| format!("; best is {} on {}", size(place.free), self.name_of(&place.id)));
        let failure = if stale {
            self.stale_probe()
        } else if !behind.is_empty() {
            let kind = if behind.iter().all(pinned) { ErrorKind::GpuPinned } else { ErrorKind::GpuBusy };
            Failure::new(kind, format!("needs {}{best}: held by {}", wants(need), holders.join(", ")))
        } else if !foreign.is_empty() {
            let text = format!("needs {}{best}: taken by {}, without a lease", wants(need), foreign.join(", "));
            Failure::new(ErrorKind::ForeignHolds, text)
        } else {
            Failure::new(ErrorKind::GpuBusy, format!("needs {}{best}", wants(need)))
        };
        let remedies = self.remedies(board, need, &lease.request, behind);
        let hint = remedies.iter().map(|remedy| remedy.text.clone()).collect::<Vec<_>>().join("; or ");
        let failure = if failure.hint.is_none() && !hint.is_empty() { failure.hint(hint) } else { failure };
        failure.detail(json!({ "blockers": blockers, "remedies": remedies })).about_holder(lease)
    }

    fn how_it_stands(&self, lease: &Lease) -> String {
        let state = serde_json::to_value(lease.state).ok();
        let state = state.as_ref().and_then(|state| state.as_str()).unwrap_or_default();
        format!("{} ({}, {state})", lease.called(), size(lease.charge()))
    }

    fn blockers(&self, board: &Board, need: &GpuNeed) -> Vec<Blocker> {
        let wanted = |id: &DeviceId| (need.only.is_empty() || need.only.contains(id)) && !need.avoid.contains(id);
        let mut all = vec![];
        for (at, place) in board.places.iter().enumerate().filter(|(_, place)| wanted(&place.id)) {
            let Some(slot) = self.slots.get(&place.id) else { continue };
            let leases = board
                .residents
                .iter()
                .filter_map(|resident| {
                    let (_, charge_bytes) = resident.shares.iter().find(|(on, _)| *on == at)?;
                    let lease = self.leases.get(&resident.lease)?;
                    Some(BlockingLease {
                        lease: lease.id,
                        holder: lease.called(),
                        state: lease.state,
                        charge_bytes: *charge_bytes,
                        importance: lease.request.importance,
                        busy: lease.busy,
                        stays: match &resident.leave {
                            Leave::No(why) => Some(why.clone()),
                            Leave::May { .. } | Leave::Going { .. } => None,
                        },
                    })
                })
                .collect();
            all.push(Blocker {
                device: place.id.clone(),
                total_bytes: slot.device.total_bytes,
                headroom_bytes: place.free,
                bar: place.bar.as_ref().map(|bar| self.told(bar)),
                foreign_bytes: place.foreign,
                foreign: self.strangers(slot).collect(),
                leases,
            });
        }
        all
    }

    fn told(&self, bar: &Bar) -> String {
        let called = |id: &LeaseId| self.leases.get(id).map_or_else(|| id.to_string(), Lease::called);
        match bar {
            Bar::Tainted(why) => why.clone(),
            Bar::CutUp => "it is cut up: its parts are handed out".into(),
            Bar::Stale => "the driver does not say what it is doing".into(),
            Bar::Foreign => "programs without a lease have more than a quarter of it".into(),
            Bar::WarmingUp(id) => format!("{} loads there just now", called(id)),
            Bar::Kept(id) => format!("it is kept for {}, which has waited long enough", called(id)),
        }
    }

    fn remedies(&self, board: &Board, need: &GpuNeed, request: &GpuRequest, behind: &[LeaseId]) -> Vec<Remedy> {
        let mut all = vec![];
        let none = |r#do: &str, text: String| Remedy {
            r#do: r#do.into(),
            text,
            holder: None,
            to_bytes: None,
            est_ms: None,
            reload_ms: None,
        };
        all.push(none("wait", "wait for your turn".into()));
        for lease in behind.iter().filter_map(|id| self.leases.get(id)) {
            let step = self.step(lease);
            let text = format!("stop {} (reload {})", step.holder, seconds(step.reload_ms));
            let preempt = Remedy {
                holder: Some(step.holder),
                est_ms: Some(step.est_ms),
                reload_ms: Some(step.reload_ms),
                ..none("preempt", text)
            };
            all.push(preempt);
        }
        let room = board.places.iter().filter(|place| place.bar.is_none()).map(|place| place.free).max().unwrap_or(0);
        if need.devices == 1 && need.vram_bytes.is_some_and(|bytes| bytes > room) && room > 1 << 30 {
            all.push(Remedy { to_bytes: Some(room), ..none("shrink", format!("do with {}", size(room))) });
        }
        if request.alternatives.is_empty() && need.devices == 1 && board.places.len() > 1 {
            all.push(none("alternative", "name an alternative, as two smaller devices".into()));
        }
        all
    }

    /// Why it is refused for good.
    pub(super) fn refusal(&self, now: Now, lease: &Lease, board: &Board, verdict: &Verdict) -> Failure {
        let need = &lease.request.need;
        let blockers = self.blockers(board, need);
        let tainted: Vec<String> = board
            .places
            .iter()
            .filter_map(|place| match &place.bar {
                Some(Bar::Tainted(why)) => Some(format!("{}: {why}", self.name_of(&place.id))),
                Some(Bar::CutUp | Bar::Stale | Bar::Foreign | Bar::WarmingUp(_) | Bar::Kept(_)) | None => None,
            })
            .collect();
        let Verdict::Never { largest, short_by, why } = verdict else {
            return self.waiting(now, lease, 0, board, verdict);
        };
        let would_do = board
            .places
            .iter()
            .filter(|place| matches!(place.bar, Some(Bar::Tainted(_))))
            .any(|place| need.vram_bytes.is_none_or(|bytes| bytes <= place.capacity));
        let failure = if would_do {
            Failure::new(ErrorKind::DeviceTainted, format!("needs {}: {}", wants(need), tainted.join("; ")))
                .hint("see what is wrong: wharf gpu")
        } else {
            let text = format!("needs {}, which this machine never has: {why}", wants(need));
            let hint = if *largest > 0 {
                format!("the most that one device gives is {}", size(*largest))
            } else {
                "see the devices: wharf gpu".to_owned()
            };
            Failure::new(ErrorKind::Infeasible, text).hint(hint)
        };
        failure
            .detail(json!({ "blockers": blockers, "largest_bytes": largest, "short_by_bytes": short_by }))
            .about_holder(lease)
    }

    /// Its time is over.
    pub(super) fn not_in_time(&self, id: LeaseId) -> Failure {
        let Some(lease) = self.leases.get(&id) else {
            return Failure::new(ErrorKind::QueueTimeout, "its turn did not come in time");
        };
        match &lease.why {
            // It did not want to wait: that its patience is over is not the reason.
            Some(why) if lease.at_once => why.clone(),
            Some(why) => Failure {
                kind: ErrorKind::QueueTimeout,
                message: format!("its turn did not come in time: {}", why.message),
                ..why.clone()
            },
            None => self.stale_probe().about_holder(lease),
        }
    }
}

trait AboutHolder {
    fn about_holder(self, lease: &Lease) -> Self;
}

impl AboutHolder for Failure {
    fn about_holder(self, lease: &Lease) -> Self {
        match lease.unit() {
            Some(unit) => self.about(unit),
            None => self,
        }
    }
}

fn seconds(ms: u64) -> String {
    if ms < 10_000 { format!("{}.{} s", ms / 1000, ms % 1000 / 100) } else { format!("{} s", ms / 1000) }
}

fn sentences(failure: &Failure) -> Vec<String> {
    std::iter::once(failure.message.clone()).chain(failure.hint.clone()).collect()
}

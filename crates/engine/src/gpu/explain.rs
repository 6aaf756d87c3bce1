//! Why a lease or a request stands as it does, in sentences and as data.

use serde::de::DeserializeOwned;
use wharf_api::rpc::gpu::{GpuExplanation, ValueTerms};
use wharf_core::{
    Now,
    arbiter::{Arbiter, Lease, value::Known},
};
use wharf_model::{Blocker, Enforced, Failure, GpuRequest, LeaseId, LeaseState, Plan, Remedy, size};

use super::{account, rows};

/// What stands in the way, as a failure of the arbiter has it.
pub fn blockers(why: Option<&Failure>) -> Vec<Blocker> {
    part(why, "blockers")
}

fn part<T: DeserializeOwned>(why: Option<&Failure>, name: &str) -> Vec<T> {
    let detail = why.and_then(|why| why.detail.as_ref()?.get(name).cloned());
    detail.and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default()
}

pub fn lease(arbiter: &Arbiter, now: Now, lease: &Lease) -> GpuExplanation {
    let why = lease.why.as_ref();
    let awaited_by = arbiter
        .leases()
        .filter(|other| other.waits() && other.id != lease.id)
        .filter(|other| {
            let stands_in_the_way = |one: &Blocker| one.leases.iter().any(|held| held.lease == lease.id);
            lease.leaves_for == Some(other.id) || blockers(other.why.as_ref()).iter().any(stands_in_the_way)
        })
        .map(|other| other.id);
    GpuExplanation {
        lease: Some(rows::lease(lease, now.boot_ms)),
        request: lease.request.clone(),
        explain: sentences(arbiter, now, lease),
        blockers: blockers(why),
        remedies: part(why, "remedies"),
        awaited_by: awaited_by.collect(),
        value: lease.state.is_charged().then(|| value(arbiter, now, lease)),
        state_version: arbiter.version(),
    }
}

/// Of a unit that has no lease: what asking for one would come to.
pub fn plan(plan: Plan, request: GpuRequest) -> GpuExplanation {
    let why = plan.failure.as_ref();
    let mut explain = vec!["it has no GPU, and waits for none".to_owned()];
    explain.extend(plan.explain.iter().map(|text| format!("if it were started now: {text}")));
    GpuExplanation {
        lease: None,
        request,
        explain,
        blockers: blockers(why),
        remedies: part::<Remedy>(why, "remedies"),
        awaited_by: Vec::<LeaseId>::new(),
        value: None,
        state_version: plan.state_version,
    }
}

fn sentences(arbiter: &Arbiter, now: Now, lease: &Lease) -> Vec<String> {
    let who = lease.called();
    let since = seconds(now.boot_ms.saturating_sub(lease.since_ms));
    let mut all = vec![match lease.state {
        LeaseState::Queued => {
            let order = arbiter.order(now);
            let place = order.iter().position(|id| *id == lease.id).map_or(0, |at| at + 1);
            format!("{who} waits for {}: it is number {place} of {}", rows::wants(lease), order.len())
        }
        LeaseState::Reserved => format!("{who} waits until its devices are empty: they are its own from then on"),
        LeaseState::Starting => format!("{who} has loaded for {since}: until it is ready nobody else loads there"),
        LeaseState::Active => format!("{who} has its devices and is ready since {since}"),
        LeaseState::Parked => format!("{who} sleeps since {since}, and keeps only a rest of its memory"),
        LeaseState::Draining => {
            let left = lease.drain_until_ms.unwrap_or(now.boot_ms).saturating_sub(now.boot_ms);
            let by = lease
                .leaves_for
                .and_then(|by| arbiter.lease(by))
                .map_or_else(|| "by hand".into(), |by| format!("for {} ({})", by.called(), by.id));
            format!("{who} was asked to leave {since} ago, {by}; it is killed in {}", seconds(left))
        }
        LeaseState::Reclaiming => {
            format!("nothing of {who} lives since {since}; what it had counts as taken until it is seen to be back")
        }
        LeaseState::Expired => {
            format!(
                "nobody has renewed {who}'s lease since {since}, and it lives: it counts, and is the first to be asked to leave"
            )
        }
        LeaseState::Quarantined => {
            format!("{who} is gone, and its memory did not come back: it counts as measured, and is not handed out")
        }
        LeaseState::Gone => format!("{who} has nothing any more"),
    }];
    for share in lease.shares.iter().filter(|_| lease.state.is_charged()) {
        let measured = share.measured_bytes.map_or_else(
            || "the driver does not say what it has".into(),
            |bytes| format!("it was seen to have {}", size(bytes)),
        );
        let device = arbiter.name_of(&share.device);
        let (charge, declared) = (size(share.charge_bytes), size(share.declared_bytes));
        all.push(format!("on {device} it counts as {charge}: {declared} were promised, {measured}"));
    }
    if !lease.request.limit.is_none() && lease.state.is_charged() {
        let by = match lease.enforced {
            Enforced::Dmem => "the kernel keeps it to that",
            Enforced::Nvml => "NVIDIA's driver keeps it to that",
            Enforced::None => "it is to be kept to that, and nothing here does: it is watched",
        };
        all.push(by.to_owned());
    }
    if let Some(why) = &lease.why {
        all.push(why.message.clone());
        all.extend(why.hint.clone());
    }
    if lease.bypassed > 0 {
        let most = arbiter.settings.bypass_limit;
        all.push(format!("it was passed over {} times; after {most} its devices are kept for it", lease.bypassed));
    }
    all
}

fn value(arbiter: &Arbiter, now: Now, lease: &Lease) -> ValueTerms {
    let learned = arbiter.book().learned.get(&lease.label()).copied().unwrap_or_default();
    let worth = arbiter.worth(now.boot_ms, lease);
    ValueTerms {
        reload_ms: worth.reload_ms,
        reload_is_measured: worth.known == Known::Measured,
        uses_an_hour_milli: account::uses_an_hour_milli(&learned, now.boot_ms),
        expected_uses_micro: worth.expected_micro,
        credit_ms: worth.credit_ms,
        importance: lease.request.importance,
        weight: worth.weight,
        value: worth.value,
    }
}

fn seconds(ms: u64) -> String {
    match ms / 1000 {
        0 => format!("{ms} ms"),
        s @ 1..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s => format!("{} h", s / 3600),
    }
}

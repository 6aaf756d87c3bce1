//! From the core's effects to what others are told: events on the bus, ended operations in their file.
//!
//! It decides nothing: each notice and each record has its event, and that is all.

use wharf_api::Happened;
use wharf_core::{Core, Effects, Notice, Record, arbiter::GpuNotice};
use wharf_model::{Holder, OpOutcome, RunId, UnitName};

use crate::{bus::News, engine::Shared};

/// What one step is news of: that an operation began, what came of it, that it ended. `core` is as that step
/// left it.
pub fn of(fx: &Effects, core: &Core) -> Vec<News> {
    let run_of = |unit: &UnitName| core.unit(unit).and_then(|unit| unit.life.run());
    let (mut news, mut ended, mut gone) = (vec![], vec![], vec![]);
    for record in &fx.records {
        match record {
            Record::Unit(_) | Record::Lease(_) | Record::LeaseGone(_) | Record::Book(_) => {}
            Record::Gone(unit) => gone.push(about(unit, None, Happened::UnitGone)),
            Record::Op(op) => {
                let (unit, operation) = (&op.name, op.clone());
                match op.outcome {
                    OpOutcome::Running => news.push(about(unit, run_of(unit), Happened::OpBegan { operation })),
                    OpOutcome::Done | OpOutcome::Failed { .. } | OpOutcome::Interrupted => {
                        ended.push(about(unit, run_of(unit), Happened::OpEnded { operation }));
                    }
                }
            }
        }
    }
    news.extend(fx.notices.iter().map(|notice| of_notice(notice, run_of)));
    news.extend(fx.gpu_notices.iter().map(|notice| of_gpu(notice, run_of)));
    news.append(&mut ended);
    news.append(&mut gone);
    news
}

fn of_notice(notice: &Notice, run_of: impl Fn(&UnitName) -> Option<RunId>) -> News {
    match notice {
        Notice::Phase { unit, run, from, to, why } => {
            let why = (!why.is_empty()).then(|| why.clone());
            about(unit, *run, Happened::UnitPhase { from: *from, to: *to, why })
        }
        Notice::Ended { unit, run, exit, reason } => {
            about(unit, Some(*run), Happened::UnitEnded { exit: exit.clone(), reason: *reason })
        }
        Notice::Skipped { unit } => about(unit, run_of(unit), Happened::UnitSkipped),
        Notice::Retry { unit, attempt, after_ms } => {
            about(unit, None, Happened::UnitRetry { attempt: *attempt, after_ms: *after_ms })
        }
    }
}

fn of_gpu(notice: &GpuNotice, run_of: impl Fn(&UnitName) -> Option<RunId>) -> News {
    let of_holder = |holder: &Holder, happened: Happened| match holder {
        Holder::Unit { name } => about(name, run_of(name), happened),
        Holder::Process { .. } => News { unit: None, run: None, happened },
    };
    match notice {
        GpuNotice::Lease { lease, holder, state, devices, why } => {
            let why = (!why.is_empty()).then(|| why.clone());
            let (lease, state, devices) = (*lease, *state, devices.clone());
            of_holder(holder, Happened::GpuLease { lease, holder: holder.label(), state, devices, why })
        }
        GpuNotice::Asked { lease, holder, change, by } => {
            let happened = Happened::GpuAsked {
                lease: *lease,
                holder: holder.label(),
                r#do: change.word().into(),
                to_bytes: change.keeps(),
                by: by.clone(),
            };
            of_holder(holder, happened)
        }
        GpuNotice::OverDeclared { lease, holder, device, declared_bytes, measured_bytes } => {
            let happened = Happened::GpuOverDeclared {
                lease: *lease,
                holder: holder.label(),
                device: device.clone(),
                declared_bytes: *declared_bytes,
                measured_bytes: *measured_bytes,
            };
            of_holder(holder, happened)
        }
        GpuNotice::Foreign { device, bytes, who } => {
            let happened = Happened::GpuForeign { device: device.clone(), bytes: *bytes, who: who.clone() };
            News { unit: None, run: None, happened }
        }
        GpuNotice::Leak { lease, holder, device, bytes } => {
            let (lease, device, bytes) = (*lease, device.clone(), *bytes);
            of_holder(holder, Happened::GpuLeak { lease, holder: holder.label(), device, bytes })
        }
        GpuNotice::Headroom { device, headroom_bytes, total_bytes } => {
            let (device, headroom_bytes, total_bytes) = (device.clone(), *headroom_bytes, *total_bytes);
            News { unit: None, run: None, happened: Happened::GpuHeadroomLow { device, headroom_bytes, total_bytes } }
        }
        GpuNotice::Device { device, what } => {
            News { unit: None, run: None, happened: Happened::GpuDevice { device: device.clone(), what: what.clone() } }
        }
    }
}

fn about(unit: &UnitName, run: Option<RunId>, happened: Happened) -> News {
    News { unit: Some(unit.clone()), run, happened }
}

/// Tells everybody. What it is news of is committed and published before.
pub fn tell(shared: &Shared, news: Vec<News>, has_room: bool) {
    for News { happened, .. } in &news {
        if let Happened::OpEnded { operation } = happened {
            shared.ops.append(operation);
        }
    }
    shared.bus.publish(news);
    shared.bus.disk(has_room);
}

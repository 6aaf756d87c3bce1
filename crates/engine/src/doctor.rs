//! The doctor: what Wharf rests on, looked at on the live machine and compared with the journal.
//!
//! With a daemon it looks with the daemon's eyes; without one it reads the state folder. It changes nothing:
//! what can be cleared away without harm is a [`Cure`](report::Cure) of its finding, and `mend` does it.
//!
//! A check is a function over a [`Ground`] that adds to a [`Report`]; a new one is that function, its line in
//! `checks`, its id in `ids.rs` and its paragraph in docs/doctor.md.

mod daemon;
mod ground;
mod ids;
mod kernel;
mod left;
mod listeners;
mod machine;
mod mend;
mod modes;
mod report;
mod runs;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use wharf_api::{
    Caller,
    rpc::infra::{Diagnosis, DoctorParams, InfraApi, MendParams, Mended},
};
use wharf_model::{ErrorKind, Failure};
use wharf_runtime::Layout;

use crate::engine::{Engine, Shared};
use ground::{Ground, Silent};
use report::{Found, Report};

/// What changes while it is looked at is looked at once more after this.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// Looks where no daemon answers. Blocks, for a second at most.
pub fn offline(layout: &Layout, all: bool) -> Diagnosis {
    diagnosis(examine(|| Ground::offline(layout)), all)
}

/// Looks where a daemon runs that does not answer. Blocks, for a second at most.
pub fn beside_silent(layout: &Layout, all: bool, pid: Option<i32>) -> Diagnosis {
    diagnosis(examine(|| Ground { silent: Some(Silent { pid }), ..Ground::offline(layout) }), all)
}

/// Clears away where no daemon runs. The caller holds the daemon's locks meanwhile.
pub async fn mend_offline(layout: &Layout, params: &MendParams) -> Mended {
    let layout = layout.clone();
    let looked = tokio::task::spawn_blocking(move || {
        let found = examine(|| Ground::offline(&layout));
        (found, Ground::offline(&layout))
    });
    match looked.await {
        Ok((found, ground)) => mend::all(&ground, found, params.ids.as_deref()).await,
        Err(_) => Mended { mended: vec![] },
    }
}

/// Each looks at one side of the house.
fn checks(ground: &Ground, report: &mut Report) {
    daemon::check(ground, report);
    runs::check(ground, report);
    left::check(ground, report);
    listeners::check(ground, report);
    modes::check(ground, report);
    kernel::check(ground, report);
    machine::check(ground, report);
}

/// What is seen twice, a moment apart: a unit that starts or stops meanwhile is no finding.
fn examine(look: impl Fn() -> Ground) -> Report {
    let first = examined(&look());
    let is_fleeting = |found: &Found| found.is_fleeting && found.is_amiss();
    if !first.found.iter().any(is_fleeting) {
        return first;
    }
    std::thread::sleep(LOOK_AGAIN);
    let mut second = examined(&look());
    let key = |found: &Found| (found.finding.id.clone(), found.finding.objects.clone());
    let before: BTreeSet<_> = first.found.iter().map(key).collect();
    second.found.retain(|found| !is_fleeting(found) || before.contains(&key(found)));
    second
}

fn examined(ground: &Ground) -> Report {
    let mut report = Report::default();
    checks(ground, &mut report);
    report
}

fn diagnosis(report: Report, all: bool) -> Diagnosis {
    use wharf_api::rpc::infra::Severity;
    let checked = report.checked;
    let mut findings: Vec<_> = report.found.into_iter().map(|found| found.finding).collect();
    findings.sort_by(|a, b| (b.severity, &a.id, &a.objects).cmp(&(a.severity, &b.id, &b.objects)));
    let ok = findings.iter().all(|f| f.severity != Severity::Error);
    findings.retain(|f| all || f.severity != Severity::Ok);
    Diagnosis { ok, findings, checked }
}

async fn blocking<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(look).await.map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))
}

#[async_trait]
impl InfraApi for Engine {
    async fn doctor(&self, _: &Caller, p: DoctorParams) -> Result<Diagnosis, Failure> {
        let shared: Arc<Shared> = self.shared.clone();
        blocking(move || diagnosis(examine(|| Ground::of(&shared)), p.all)).await
    }

    async fn mend(&self, _: &Caller, p: MendParams) -> Result<Mended, Failure> {
        let shared: Arc<Shared> = self.shared.clone();
        let looked = shared.clone();
        let (found, ground) = blocking(move || (examine(|| Ground::of(&looked)), Ground::of(&shared))).await?;
        Ok(mend::all(&ground, found, p.ids.as_deref()).await)
    }
}

#[cfg(test)]
mod tests;

//! `wharf rollback`: the version before.

use wharf_api::{UpgradeReport, rpc::op::{OpPlanParams, RollbackParams}};
use wharf_model::OpKind;

use crate::{dry_run, given, session::Session, several, trouble::Outcome, words};

/// Run the version before; once more, and the later one is back
///
/// Where the version before does not get ready, the present one comes back by itself.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf rollback redis
  wharf rollback redis --dry-run     which version that is
  wharf versions redis               which versions lie there")]
pub(crate) struct Rollback {
    #[command(flatten)]
    name: given::Name,
    #[command(flatten)]
    dry_run: dry_run::Flag,
    #[command(flatten)]
    wait: given::Wait,
}

impl Rollback {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let names = [self.name.name];
        if self.dry_run.dry_run {
            return dry_run::plans(session, &names, |name| OpPlanParams::new(name, OpKind::Rollback));
        }
        let calls = given::calls(&names, |name| {
            given::params(&RollbackParams { name: name.clone(), wait: !self.wait.no_wait })
        })?;
        several::operations::<UpgradeReport>(session, "op.rollback", calls, |report| {
            let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "nothing".into());
            let took = words::duration(report.duration_ms);
            let (from, to) = (version(&report.from), version(&report.to));
            format!("{} is back from {from} to {to}, after {took}", report.name)
        })
    }
}

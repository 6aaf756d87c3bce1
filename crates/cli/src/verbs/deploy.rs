//! `wharf deploy`: from nothing to a checked, running service, in one step.

use wharf_api::{
    Mode,
    rpc::op::{DeployParams, DeployReport, OpPlanParams},
};
use wharf_model::OpKind;

use crate::{dry_run, given, session::Session, several, trouble::Outcome, with::With, words};

/// Build or fetch, place, start anew and verify: all in one, or back to what was there
///
/// Where the new version does not get ready, the version before comes back, and runs if it ran.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf deploy redis
  wharf deploy my-service --mode source
  wharf deploy redis --version 7.2.4 --dry-run")]
pub(crate) struct Deploy {
    #[command(flatten)]
    name: given::Name,
    /// Where it comes from
    #[arg(long, value_enum, default_value_t = given::From::Download)]
    mode: given::From,
    /// This version, instead of the known good one
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    #[command(flatten)]
    with: With,
    #[command(flatten)]
    dry_run: dry_run::Flag,
    #[command(flatten)]
    wait: given::Wait,
}

impl Deploy {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let (names, with) = ([self.name.name], self.with.value()?);
        if self.dry_run.dry_run {
            return dry_run::plans(session, &names, |name| OpPlanParams {
                version: self.version.clone(),
                with: with.clone(),
                mode: self.mode.into(),
                ..OpPlanParams::new(name, OpKind::Deploy)
            });
        }
        let calls = given::calls(&names, |name| {
            given::params(&DeployParams {
                name: name.clone(),
                mode: Mode::from(self.mode),
                version: self.version.clone(),
                with: with.clone(),
                wait: !self.wait.no_wait,
            })
        })?;
        several::operations::<DeployReport>(session, "op.deploy", calls, text)
    }
}

fn text(report: &DeployReport) -> String {
    let version = report.to.as_deref().map_or_else(String::new, |version| format!(" {version}"));
    let pid = report.pid.map_or_else(String::new, |pid| format!(" with PID {pid}"));
    let took = words::duration(report.duration_ms);
    let mut text = format!("{}{version} is deployed and runs{pid}, after {took}", report.name);
    for row in report.checks.iter().filter(|row| !row.ok) {
        text.push_str(&format!("\nnot ok: {}: {}", row.check, row.detail));
    }
    text
}

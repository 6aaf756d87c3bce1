//! `wharf install`: place it on this machine.

use std::path::PathBuf;

use wharf_api::{InstallParams, InstallReport, Mode, rpc::op::OpPlanParams};
use wharf_model::OpKind;

use crate::{dry_run, given, policy::PolicyFlags, session::Session, several, trouble::Outcome, with::With, words};

/// Fetch, check and place services, without starting them
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wharf install redis\n  wharf install redis --reset\n  wharf install redis --dry-run\n  wharf install caddy --from ./caddy_2.11.8_linux_amd64.tar.gz --version 2.11.8\n  wharf install python-api --mode source"
)]
pub(crate) struct Install {
    #[command(flatten)]
    names: given::Names,
    /// Where it comes from
    #[arg(long, value_enum, default_value_t = given::From::Download)]
    mode: given::From,
    /// This version, instead of the known good one
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    /// Fetch and place again, even where the same version lies there
    #[arg(long)]
    reset: bool,
    /// A program or an archive on this machine, instead of what the service would fetch
    #[arg(long, value_name = "FILE", conflicts_with = "mode", value_hint = clap::ValueHint::FilePath)]
    from: Option<PathBuf>,
    #[command(flatten)]
    with: With,
    #[command(flatten)]
    policy: PolicyFlags,
    #[command(flatten)]
    dry_run: dry_run::Flag,
    #[command(flatten)]
    wait: given::Wait,
}

impl Install {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let (with, policy) = (self.with.value()?, self.policy.value()?);
        // The daemon is in another folder.
        let from = self.from.as_ref().map(std::path::absolute).transpose()?;
        if self.dry_run.dry_run {
            let kind = if self.mode == given::From::Source { OpKind::Build } else { OpKind::Install };
            return dry_run::plans(session, &self.names.names, |name| OpPlanParams {
                name,
                kind,
                version: self.version.clone(),
                with: with.clone(),
                mode: self.mode.into(),
                from: from.clone(),
            });
        }
        let calls = given::calls(&self.names.names, |name| {
            given::params(&InstallParams {
                name: name.clone(),
                mode: Mode::from(self.mode),
                version: self.version.clone(),
                reset: self.reset,
                from: from.clone(),
                with: with.clone(),
                policy: policy.clone(),
                wait: !self.wait.no_wait,
            })
        })?;
        several::operations::<InstallReport>(session, "service.install", calls, text)
    }
}

fn text(report: &InstallReport) -> String {
    let version = report.version.as_deref().map_or_else(String::new, |version| format!(" {version}"));
    let took = words::duration(report.duration_ms);
    let mut text = format!("{}{version} is installed from {}, after {took}", report.name, report.source);
    for warning in &report.warnings {
        text.push_str(&format!("\nwarning: {warning}"));
    }
    text
}

//! `wharf upgrade`: a newer version, or back to the old one.

use wharf_api::{UpgradeParams, UpgradeReport};

use crate::{given, session::Session, several, trouble::Outcome, words};

/// Place a newer version and run it; goes back to the old one where it does not get ready
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf upgrade redis\n  wharf upgrade redis --version 7.2.4")]
pub(crate) struct Upgrade {
    #[command(flatten)]
    name: given::Name,
    /// This version, instead of the known good one
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    #[command(flatten)]
    wait: given::Wait,
}

impl Upgrade {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let calls = given::calls(&[self.name.name], |name| {
            given::params(&UpgradeParams { name: name.clone(), version: self.version.clone(), wait: !self.wait.no_wait })
        })?;
        several::operations::<UpgradeReport>(session, "service.upgrade", calls, text)
    }
}

fn text(report: &UpgradeReport) -> String {
    let version = |version: &Option<String>| version.clone().unwrap_or_else(|| "nothing".into());
    if report.changed {
        let took = words::duration(report.duration_ms);
        format!("{} is upgraded from {} to {}, after {took}", report.name, version(&report.from), version(&report.to))
    } else if report.to.is_none() {
        format!("{} has no versions: nothing to upgrade", report.name)
    } else {
        format!("{} stays at {}", report.name, version(&report.to))
    }
}

//! `wharf upgrade`: a newer version, or back to the old one.

use wharf_api::{
    UpgradeParams, UpgradeReport,
    rpc::op::OpPlanParams,
    rpc::store::{Freshness, OutdatedParams},
};
use wharf_model::{OpKind, UnitName};

use crate::{
    Exit, complete, dry_run, given,
    session::{self, Session},
    several,
    trouble::{Outcome, Trouble},
    words,
};

/// Place a newer version and run it; goes back to the old one where it does not get ready
///
/// With --all every service that has a newer version is upgraded, one by one, those first that others need. The first
/// that fails ends it: it runs in its old version again, and those behind it are not touched.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf upgrade redis
  wharf upgrade redis --version 7.2.4
  wharf upgrade redis --dry-run      what would be fetched, placed and restarted
  wharf upgrade --all                see first: wharf outdated")]
pub(crate) struct Upgrade {
    /// The unit: redis, python-api@vault
    #[arg(
        value_name = "NAME",
        required_unless_present = "all",
        conflicts_with = "all",
        add = clap_complete::engine::ArgValueCompleter::new(complete::units)
    )]
    name: Option<UnitName>,
    /// Every service that has a newer version
    #[arg(long)]
    all: bool,
    /// This version, instead of the known good one
    #[arg(long, value_name = "VERSION", conflicts_with = "all")]
    version: Option<String>,
    #[command(flatten)]
    dry_run: dry_run::Flag,
    #[command(flatten)]
    wait: given::Wait,
}

impl Upgrade {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let names = match &self.name {
            Some(name) => vec![name.clone()],
            None => outdated(session)?,
        };
        if names.is_empty() {
            return nothing(session);
        }
        if self.dry_run.dry_run {
            return dry_run::plans(session, &names, |name| OpPlanParams {
                version: self.version.clone(),
                ..OpPlanParams::new(name, OpKind::Upgrade)
            });
        }
        let calls = given::calls(&names, |name| {
            given::params(&UpgradeParams { name: name.clone(), version: self.version.clone(), wait: !self.wait.no_wait })
        })?;
        if self.all {
            return several::one_by_one::<UpgradeReport>(session, "service.upgrade", calls, text);
        }
        several::operations::<UpgradeReport>(session, "service.upgrade", calls, text)
    }
}

fn nothing(session: &Session) -> Outcome {
    if session.json {
        session.say_json("[]")?;
    } else {
        session.say("everything is as new as it can be")?;
    }
    Ok(Exit::Done)
}

/// Those that an upgrade would change, or that could not be looked up; what others need comes first.
fn outdated(session: &Session) -> Result<Vec<UnitName>, Trouble> {
    let (client, params) = (session.client.rpc(), given::params(&OutdatedParams::default())?);
    let raw = session.block_on(async { Ok(client.raw("store.outdated", params).await?) })?;
    let found: Freshness = session::read(&raw)?;
    Ok(found.units.into_iter().filter(|row| row.is_fresh != Some(true)).map(|row| row.name).collect())
}

pub(crate) fn text(report: &UpgradeReport) -> String {
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

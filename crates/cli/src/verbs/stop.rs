//! `wharf stop`: end all of its processes.

use clap_complete::engine::ArgValueCompleter;
use serde_json::json;
use wharf_api::{ListRow, StopParams, StopReport};
use wharf_model::UnitName;

use crate::{complete, given, session::Session, several, trouble::Outcome, words};

/// Stop services; answers when none of their processes lives
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  wharf stop redis\n  wharf stop redis postgres\n  wharf stop --all\n  wharf stop redis --keep-want    the next start of the daemon starts it again"
)]
pub(crate) struct Stop {
    /// The units: redis, python-api@vault
    #[arg(value_name = "NAME", required_unless_present = "all", add = ArgValueCompleter::new(complete::units))]
    names: Vec<UnitName>,
    /// All that run or wait to run, at once; what is needed ends last
    #[arg(long, conflicts_with = "names")]
    all: bool,
    /// It stays wanted: the next start of the daemon starts it again
    #[arg(long)]
    keep_want: bool,
    /// It is kept for the record only, and refuses to start until it is installed again
    #[arg(long, conflicts_with = "keep_want")]
    retire: bool,
    #[command(flatten)]
    wait: given::Wait,
}

impl Stop {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let names = if self.all { all(session)? } else { self.names.clone() };
        if names.is_empty() {
            session.note("nothing is running");
        }
        let calls = given::calls(&names, |name| {
            given::params(&StopParams {
                name: name.clone(),
                keep_want: self.keep_want,
                retire: self.retire,
                wait: !self.wait.no_wait,
            })
        })?;
        if self.all {
            return several::side_by_side::<StopReport>(session, "service.stop", calls, text);
        }
        several::operations::<StopReport>(session, "service.stop", calls, text)
    }
}

/// What runs, or waits for its next try: it could begin while the others end.
fn all(session: &Session) -> Result<Vec<UnitName>, crate::trouble::Trouble> {
    let raw = session.block_on(async { Ok(session.client.raw("service.list", json!({})).await?) })?;
    let rows: Vec<ListRow> = crate::session::read(&raw)?;
    Ok(rows.into_iter().filter(|row| super::down::may_run(row.status)).map(|row| row.name).collect())
}

/// What a person reads when nothing of it runs any more.
pub(crate) fn text(report: &StopReport) -> String {
    let took = words::duration(report.duration_ms);
    match &report.last_exit {
        Some(exit) => format!("{} is stopped ({exit}) after {took}", report.name),
        None => format!("{} is stopped", report.name),
    }
}

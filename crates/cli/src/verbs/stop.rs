//! `wharf stop`: end all of its processes.

use wharf_api::{StopParams, StopReport};

use crate::{given, session::Session, several, trouble::Outcome, words};

/// Stop services; answers when none of their processes lives
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf stop redis\n  wharf stop redis postgres\n  wharf stop redis --keep-want    the next start of the daemon starts it again")]
pub(crate) struct Stop {
    #[command(flatten)]
    names: given::Names,
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
        let calls = given::calls(&self.names.names, |name| {
            given::params(&StopParams {
                name: name.clone(),
                keep_want: self.keep_want,
                retire: self.retire,
                wait: !self.wait.no_wait,
            })
        })?;
        several::operations::<StopReport>(session, "service.stop", calls, text)
    }
}

/// What a person reads when nothing of it runs any more.
pub(crate) fn text(report: &StopReport) -> String {
    let took = words::duration(report.duration_ms);
    match &report.last_exit {
        Some(exit) => format!("{} is stopped ({exit}) after {took}", report.name),
        None => format!("{} is stopped", report.name),
    }
}

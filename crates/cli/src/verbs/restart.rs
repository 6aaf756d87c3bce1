//! `wharf restart`: stop, then start.

use wharf_api::{RestartParams, RestartReport};

use crate::{given, session::Session, several, trouble::Outcome, words};

/// Stop and start services; answers when they are ready
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf restart redis\n  wharf restart redis postgres")]
pub(crate) struct Restart {
    #[command(flatten)]
    names: given::Names,
    /// Where another holder has the GPU that it needs: stop that one first
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    wait: given::Wait,
}

impl Restart {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let calls = given::calls(&self.names.names, |name| {
            given::params(&RestartParams { name: name.clone(), force: self.force, wait: !self.wait.no_wait })
        })?;
        several::operations::<RestartReport>(session, "service.restart", calls, |report| {
            let pid = report.pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            format!("{} is running again{pid}, ready after {}", report.name, words::duration(report.duration_ms))
        })
    }
}

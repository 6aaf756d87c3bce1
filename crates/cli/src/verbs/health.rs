//! `wharf health`: ask it now.

use wharf_api::{HealthReport, NameParams};
use wharf_model::Verdict;

use crate::{Exit, given, session::Session, several, trouble::Outcome, words};

/// Ask services now whether they are well
///
/// The exit code is 8 where one does not answer as it should.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf health redis\n  wharf health redis postgres --json")]
pub(crate) struct Health {
    #[command(flatten)]
    names: given::Names,
}

impl Health {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let calls = given::calls(&self.names.names, |name| given::params(&NameParams { name: name.clone() }))?;
        several::questions::<HealthReport>(session, "service.health", calls, |report| {
            (text(report), if report.healthy { Exit::Done } else { Exit::Unwell })
        })
    }
}

fn text(report: &HealthReport) -> String {
    let (word, style) = match report.verdict {
        Verdict::Healthy => ("healthy", words::good()),
        Verdict::Degraded => ("degraded", words::bad()),
        Verdict::Unhealthy => ("unhealthy", words::bad()),
    };
    let took = format!("{:.1} ms", report.duration_ms);
    format!("{} is {style}{word}{style:#}: {} ({took})", report.name, report.detail)
}

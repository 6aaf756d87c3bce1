//! `wharf verify`: compare with what was promised.

use wharf_api::{NameParams, VerifyReport};

use crate::{
    Exit, given,
    session::Session,
    several,
    table::{Cell, Table},
    trouble::Outcome,
    words,
};

/// Compare what is placed, and what listens, with what was promised
///
/// The exit code is 8 where something is not as it should be.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf verify redis")]
pub(crate) struct Verify {
    #[command(flatten)]
    name: given::Name,
}

impl Verify {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let calls = given::calls(&[self.name.name], |name| given::params(&NameParams { name: name.clone() }))?;
        several::questions::<VerifyReport>(session, "service.verify", calls, |report| {
            (text(report), if report.ok { Exit::Done } else { Exit::Unwell })
        })
    }
}

fn text(report: &VerifyReport) -> String {
    let mut table = Table::bare();
    for row in &report.checks {
        let word = if row.ok { Cell::styled("  ok", words::good()) } else { Cell::styled("  not ok", words::bad()) };
        table.row([word, row.check.as_str().into(), row.detail.as_str().into()]);
    }
    let wrong = report.checks.iter().filter(|row| !row.ok).count();
    let verdict = match wrong {
        0 if report.ok => "is as it should be".to_owned(),
        1 => "has 1 thing that is not as it should be".to_owned(),
        n => format!("has {n} things that are not as they should be"),
    };
    format!("{} {verdict}\n{}", report.name, table.text())
}

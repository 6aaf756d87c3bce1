//! `wharf delete`: stop it and forget it.

use std::io::{self, BufRead, IsTerminal, Write};

use wharf_api::{DeleteParams, DeleteReport};
use wharf_model::UnitName;

use crate::{
    given,
    session::Session,
    several,
    trouble::{Outcome, Trouble},
};

/// Stop services and forget them; their data stays unless it is purged
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf delete redis\n  wharf delete redis --purge-binaries\n  wharf delete redis --purge --yes    data and logs too; cannot be undone")]
pub(crate) struct Delete {
    #[command(flatten)]
    names: given::Names,
    /// Remove what was placed, unless another unit uses it
    #[arg(long)]
    purge_binaries: bool,
    /// Remove its data and its logs; cannot be undone
    #[arg(long)]
    purge_data: bool,
    /// Both of these
    #[arg(long)]
    purge: bool,
    /// Do not ask before data is removed
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    wait: given::Wait,
}

impl Delete {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let purge_data = self.purge || self.purge_data;
        if purge_data && !self.yes {
            confirm(&self.names.names)?;
        }
        let calls = given::calls(&self.names.names, |name| {
            given::params(&DeleteParams {
                name: name.clone(),
                purge_binaries: self.purge || self.purge_binaries,
                purge_data,
                wait: !self.wait.no_wait,
            })
        })?;
        several::operations::<DeleteReport>(session, "service.delete", calls, text)
    }
}

fn confirm(names: &[UnitName]) -> Result<(), Trouble> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Trouble::Usage("data is removed only with --yes where nobody can be asked".into()));
    }
    let names: Vec<&str> = names.iter().map(UnitName::as_str).collect();
    let mut err = io::stderr();
    write!(err, "This removes all data and logs of {}. It cannot be undone. Go on? [y/N] ", names.join(", "))?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Trouble::Usage("nothing was deleted; --yes goes on without a question".into())),
    }
}

fn text(report: &DeleteReport) -> String {
    let mut gone = vec![];
    if report.purged_binaries {
        gone.push("its binaries");
    }
    if report.purged_data {
        gone.push("its data");
    }
    let gone = if gone.is_empty() { String::new() } else { format!(", {} too", gone.join(" and ")) };
    let kept = report.data_kept_in.as_ref().map_or_else(String::new, |path| format!("; its data stays in {path}"));
    format!("{} is deleted{gone}{kept}", report.name)
}

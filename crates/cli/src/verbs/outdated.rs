//! `wharf outdated`: which services an upgrade would change.

use clap_complete::engine::ArgValueCompleter;
use wharf_api::rpc::store::{Freshness, OutdatedParams};
use wharf_model::UnitName;

use crate::{
    Exit, complete, given,
    session::{self, Session},
    table::{Cell, Table},
    trouble::Outcome,
    words,
};

/// Show which services have a newer version than the one that is placed
///
/// Looks where an install would look, and places nothing. The exit code is 8 where something is not fresh.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf outdated
  wharf outdated redis caddy
  wharf upgrade --all              upgrade what is shown")]
pub(crate) struct Outdated {
    /// The units; all that are placed unless some are named
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::units))]
    names: Vec<UnitName>,
}

impl Outdated {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let params = given::params(&OutdatedParams { names: self.names })?;
        let client = session.client.rpc();
        let raw = session.block_on(async { Ok(client.raw("store.outdated", params).await?) })?;
        let found: Freshness = session::read(&raw)?;
        session.show(&raw, text)?;
        let fresh = found.units.iter().all(|row| row.is_fresh == Some(true));
        Ok(if fresh { Exit::Done } else { Exit::Unwell })
    }
}

fn text(found: &Freshness) -> String {
    if found.units.is_empty() {
        return "nothing is placed".into();
    }
    let mut table = Table::new(&["SERVICE", "HAS", "NEWEST", "FRESH", "WHY"]);
    for row in &found.units {
        let fresh = match row.is_fresh {
            Some(true) => Cell::styled("yes", words::good()),
            Some(false) => Cell::styled("no", words::bad()),
            None => Cell::from("?"),
        };
        table.row([
            row.name.as_str().into(),
            row.installed.as_str().into(),
            row.newest.as_deref().unwrap_or("?").into(),
            fresh,
            row.why.as_deref().unwrap_or_default().into(),
        ]);
    }
    table.text()
}

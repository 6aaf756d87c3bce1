//! `wharf versions`: what lies in the store.

use wharf_api::rpc::store::{StoreListParams, VersionList};

use wharf_model::size;

use crate::{
    Exit, given,
    session::Session,
    table::Table,
    trouble::Outcome,
    words,
};

/// Show the versions that lie on the disk, and who has them
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf versions                   of every service
  wharf versions redis
  wharf gc --dry-run               which of them nobody needs")]
pub(crate) struct Versions {
    /// Only those of this service
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
}

impl Versions {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let params = given::params(&StoreListParams { service: self.service })?;
        let client = session.client.rpc();
        let raw = session.block_on(async { Ok(client.raw("store.list", params).await?) })?;
        session.show(&raw, text)?;
        Ok(Exit::Done)
    }
}

fn text(list: &VersionList) -> String {
    if list.versions.is_empty() {
        return "nothing is placed".into();
    }
    let mut table = Table::new(&["SERVICE", "VERSION", "FROM", "SIZE", "PLACED", "IS", "UNITS"]);
    for row in &list.versions {
        let is = match (row.is_current, row.is_previous, row.is_runtime) {
            (_, _, true) => "shared",
            (true, _, false) => "current",
            (false, true, false) => "previous",
            (false, false, false) => "",
        };
        let units: Vec<String> = row.used_by.iter().map(ToString::to_string).collect();
        table.row([
            row.service.as_str().into(),
            row.version.as_str().into(),
            row.source.as_str().into(),
            size(row.bytes).into(),
            words::ago(row.placed_at).into(),
            is.into(),
            units.join(", ").into(),
        ]);
    }
    format!("{}\n{} together", table.text(), size(list.bytes))
}

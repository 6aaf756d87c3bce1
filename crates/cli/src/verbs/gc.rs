//! `wharf gc`: what nobody needs any more goes.

use wharf_api::rpc::store::{CollectParams, Collected};

use wharf_model::size;

use crate::{
    Exit, given,
    session::Session,
    table::Table,
    trouble::Outcome,
};

/// Remove versions that nobody needs, and halves of installs
///
/// What a service has now and what it had before stays, as does every version that a unit runs or can go back to.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf gc --dry-run               what would go, and what that frees
  wharf gc")]
pub(crate) struct Gc {
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
}

impl Gc {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let params = given::params(&CollectParams { dry_run: self.dry_run })?;
        let client = session.client.rpc();
        let raw = session.block_on(async { Ok(client.raw("store.gc", params).await?) })?;
        session.show(&raw, text)?;
        Ok(Exit::Done)
    }
}

fn text(collected: &Collected) -> String {
    if collected.garbage.is_empty() {
        return "nothing to remove: everything that lies there is needed".into();
    }
    let mut table = Table::bare();
    for row in &collected.garbage {
        table.row([row.what.as_str().into(), size(row.bytes).into(), row.path.as_str().into()]);
    }
    let would = if collected.dry_run { "would be freed" } else { "freed" };
    format!("{}\n{} {would}", table.text(), size(collected.bytes))
}

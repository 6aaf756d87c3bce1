//! `wharf cancel`: give an operation up.

use wharf_api::rpc::op::CancelParams;
use wharf_model::{OpId, OpOutcome, Operation};

use crate::{Exit, given, session::Session, trouble::Outcome};

/// Give an operation up that is under way: an install, a build, an upgrade, a start
///
/// What was being placed is thrown away. An upgrade that is being tried goes back to the version before. A stop that
/// has begun cannot be cancelled.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf cancel 42
  wharf ops                        which are under way")]
pub(crate) struct Cancel {
    /// The operation, by its number
    #[arg(value_name = "ID")]
    op: u64,
}

impl Cancel {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let params = given::params(&CancelParams { op: OpId(self.op) })?;
        let client = session.client.rpc();
        let raw = session.block_on(async { Ok(client.raw("op.cancel", params).await?) })?;
        session.show(&raw, text)?;
        Ok(Exit::Done)
    }
}

fn text(op: &Operation) -> String {
    let (kind, name) = (op.kind, &op.name);
    match op.outcome {
        OpOutcome::Running => format!("{kind} of {name} is being taken back; `wharf status {name}` says how it is"),
        OpOutcome::Done | OpOutcome::Failed { .. } | OpOutcome::Interrupted => {
            format!("{kind} of {name} is cancelled (operation {})", op.id)
        }
    }
}

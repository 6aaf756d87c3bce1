//! `wharf cancel`: give an operation up.

use clap_complete::engine::ArgValueCompleter;
use wharf_api::{NameParams, Status, rpc::op::CancelParams};
use wharf_model::{BadName, ErrorKind, Failure, OpId, OpOutcome, Operation, UnitName};

use crate::{
    Exit, complete, given,
    session::{self, Session},
    trouble::{Outcome, Trouble},
};

/// Give an operation up that is under way: an install, a build, an upgrade, a start
///
/// What was being placed is thrown away. An upgrade that is being tried goes back to the version before. A stop that
/// has begun cannot be cancelled.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf cancel litellm             what is under way with it
  wharf cancel 42
  wharf ops                        which are under way")]
pub(crate) struct Cancel {
    /// The operation, by its number; or the unit that it is of
    #[arg(value_name = "ID|NAME", value_parser = which, add = ArgValueCompleter::new(complete::units))]
    which: Which,
}

#[derive(Debug, Clone)]
enum Which {
    Op(OpId),
    Of(UnitName),
}

fn which(text: &str) -> Result<Which, String> {
    // Of a unit that is called by a number alone the operation's is to be named.
    match text.parse() {
        Ok(number) => Ok(Which::Op(OpId(number))),
        Err(_) => text.parse().map(Which::Of).map_err(|e: BadName| e.to_string()),
    }
}

impl Cancel {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let raw = session.block_on(async {
            let op = match self.which {
                Which::Op(op) => op,
                Which::Of(name) => under_way(session, name).await?,
            };
            Ok(session.client.rpc().raw("op.cancel", given::params(&CancelParams { op })?).await?)
        })?;
        session.show(&raw, text)?;
        Ok(Exit::Done)
    }
}

async fn under_way(session: &Session, name: UnitName) -> Result<OpId, Trouble> {
    let raw = session.client.raw("service.status", given::params(&NameParams { name: name.clone() })?).await?;
    session::read::<Status>(&raw)?.operation.ok_or_else(|| {
        let failure = Failure::new(ErrorKind::Conflict, format!("nothing is under way with {name}"));
        Trouble::Failure(failure.hint(format!("what was: wharf ops {name}")))
    })
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

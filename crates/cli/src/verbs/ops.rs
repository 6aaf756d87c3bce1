//! `wharf ops`: what was asked for, and what came of it.

use clap_complete::engine::ArgValueCompleter;
use wharf_api::{OpList, OpListParams};
use wharf_model::{OpOutcome, Operation, UnitName};

use crate::{
    Exit, complete, given,
    session::Session,
    table::{Cell, Table},
    trouble::Outcome,
    words,
};

/// Show the last operations: what was asked for, when, and what came of it
///
/// Of each service the last 32 are at hand. Every one that has ended is kept in a file as well.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf ops                        the last 100 of all services, the newest first
  wharf ops redis                  those of redis
  wharf ops --all -n 1000          also the older ones, and those of deleted services
  wharf ops --json | jq '.operations[] | select(.outcome == \"failed\")'")]
pub(crate) struct Ops {
    /// Only those of this unit: redis, python-api@vault
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::units))]
    name: Option<UnitName>,
    /// Also the older ones, from the file
    #[arg(long)]
    all: bool,
    /// How many, 10000 at most
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 100)]
    lines: u32,
}

impl Ops {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let params = given::params(&OpListParams { unit: self.name, limit: Some(self.lines), all: self.all })?;
        let client = session.client.rpc();
        let raw = session.block_on(async { Ok(client.raw("op.list", params).await?) })?;
        session.show(&raw, |list: &OpList| text(&list.operations))?;
        Ok(Exit::Done)
    }
}

fn text(operations: &[Operation]) -> String {
    if operations.is_empty() {
        return "nothing was asked for yet".into();
    }
    let mut table = Table::new(&["ID", "BEGAN", "SERVICE", "OPERATION", "OUTCOME", "TOOK", "WHY"]);
    for op in operations {
        let took = op
            .ended_at_ms
            .map_or_else(String::new, |end| words::duration((end - op.began_at_ms).max(0).unsigned_abs()));
        let (outcome, why) = match &op.outcome {
            OpOutcome::Running => (Cell::from("running"), String::new()),
            OpOutcome::Done => (Cell::styled("done", words::good()), String::new()),
            OpOutcome::Failed { failure } => (Cell::styled("failed", words::bad()), failure.message.clone()),
            OpOutcome::Interrupted => (Cell::from("interrupted"), String::new()),
        };
        table.row([
            op.id.to_string().into(),
            words::moment(op.began_at_ms).into(),
            op.name.as_str().into(),
            op.kind.verb().into(),
            outcome,
            took.into(),
            why.into(),
        ]);
    }
    table.text()
}

//! `--dry-run`: what an operation would come to, in sentences, and nothing is done.

use serde_json::Value;
use wharf_api::{
    Mode,
    rpc::op::{OpPlan, OpPlanParams},
};
use wharf_model::{OpKind, UnitName};

use crate::{Exit, given, session::Session, several, trouble::Outcome};

/// Whether it is only said.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Flag {
    /// Only say what would be fetched from where, placed where, and restarted
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The plans of operations without parameters.
pub(crate) fn plans(session: &Session, names: &[UnitName], kind: OpKind, version: Option<&String>) -> Outcome {
    with(session, names, kind, version, None, Mode::Download)
}

/// The plans of operations.
pub(crate) fn with(
    session: &Session,
    names: &[UnitName],
    kind: OpKind,
    version: Option<&String>,
    with: Option<Value>,
    mode: Mode,
) -> Outcome {
    let calls = given::calls(names, |name| {
        let (name, version, with) = (name.clone(), version.cloned(), with.clone());
        given::params(&OpPlanParams { name, kind, version, with, mode })
    })?;
    several::questions::<OpPlan>(session, "op.plan", calls, |plan| (text(plan), Exit::Done))
}

fn text(plan: &OpPlan) -> String {
    let lines: Vec<String> = plan.explain.iter().map(|line| format!("  {line}")).collect();
    format!("{} of {} would come to:\n{}", plan.kind, plan.name, lines.join("\n"))
}

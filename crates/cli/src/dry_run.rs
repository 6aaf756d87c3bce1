//! `--dry-run`: what an operation would come to, in sentences, and nothing is done.

use wharf_api::rpc::op::{OpPlan, OpPlanParams};
use wharf_model::UnitName;

use crate::{Exit, given, session::Session, several, trouble::Outcome};

/// Whether it is only said.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Flag {
    /// Only say what would be fetched from where, placed where, and restarted
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The plans of operations, one a name.
pub(crate) fn plans(session: &Session, names: &[UnitName], params: impl Fn(UnitName) -> OpPlanParams) -> Outcome {
    let calls = given::calls(names, |name| given::params(&params(name.clone())))?;
    several::questions::<OpPlan>(session, "op.plan", calls, |plan| (text(plan), Exit::Done))
}

fn text(plan: &OpPlan) -> String {
    let lines: Vec<String> = plan.explain.iter().map(|line| format!("  {line}")).collect();
    format!("{} of {} would come to:\n{}", plan.kind, plan.name, lines.join("\n"))
}

//! `wharf gpu plan`: what a request would come to, in sentences.

use clap_complete::engine::ArgValueCompleter;
use serde_json::{Map, Value};
use wharf_model::{Plan as Report, UnitName};

use super::{ask, need::Need};
use crate::{
    Exit, complete,
    session::{Session, read},
    trouble::Outcome,
};

/// Say what a request would come to now: where it fits, who would be stopped for it, or why not
///
/// Nothing is changed. The exit code is 4 where it could not be had, now or ever.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf gpu plan --vram 22GiB
  wharf gpu plan --vram 22GiB --preempt lower --importance 80
  wharf gpu plan --devices 2 --vram 40GiB --or 1x79GiB
  wharf gpu plan --unit command@chat")]
pub(crate) struct Plan {
    #[command(flatten)]
    need: Need,
    /// What this service asks for, by its policy
    #[arg(long, value_name = "NAME", add = ArgValueCompleter::new(complete::units))]
    #[arg(conflicts_with_all = ["vram", "devices", "exclusive", "same_island", "only", "avoid", "or", "priority"])]
    #[arg(conflicts_with_all = ["importance", "preempt", "stay", "drain"])]
    unit: Option<UnitName>,
}

impl Plan {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let mut params = Map::new();
        match self.unit {
            Some(unit) => params.insert("unit".into(), unit.to_string().into()),
            None => params.insert("request".into(), self.need.request(session)?),
        };
        let raw = ask(session, "gpu.plan", Value::Object(params))?;
        session.show(&raw, text)?;
        let plan: Report = read(&raw)?;
        Ok(plan.failure.as_ref().map_or(Exit::Done, |failure| Exit::of(failure.kind)))
    }
}

fn text(plan: &Report) -> String {
    let mut lines = vec![match (plan.feasible, plan.position) {
        (true, _) if plan.at_once => "yes, at once".to_owned(),
        (true, _) => "yes, when others have left".to_owned(),
        (false, Some(position)) => format!("not now: it would wait, as number {position} of the queue"),
        (false, None) => "no".to_owned(),
    }];
    lines.extend(plan.explain.iter().map(|sentence| format!("  {sentence}")));
    if plan.feasible && plan.alternative > 0 {
        lines.push(format!("  by its alternative {}", plan.alternative));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_said_in_sentences() {
        let plan = |feasible, at_once, position, explain: &[&str]| Report {
            feasible,
            at_once,
            placement: vec![],
            alternative: 0,
            actions: vec![],
            position,
            failure: None,
            explain: explain.iter().map(|text| (*text).to_owned()).collect(),
            state_version: 1,
        };
        let all = [
            plan(true, true, None, &["fits on NVIDIA L4 (GPU-1)"]),
            plan(true, false, None, &["would stop chat (12.0 GiB, reload 12 s), and then fit on NVIDIA L4 (GPU-1)"]),
            plan(false, false, Some(2), &["needs 22.0 GiB on one device; best is 9.4 GiB", "wait for your turn"]),
            plan(false, false, None, &["needs 90.0 GiB on one device, which this machine never has"]),
        ];
        insta::assert_snapshot!(all.iter().map(text).collect::<Vec<_>>().join("\n"), @r"
        yes, at once
          fits on NVIDIA L4 (GPU-1)
        yes, when others have left
          would stop chat (12.0 GiB, reload 12 s), and then fit on NVIDIA L4 (GPU-1)
        not now: it would wait, as number 2 of the queue
          needs 22.0 GiB on one device; best is 9.4 GiB
          wait for your turn
        no
          needs 90.0 GiB on one device, which this machine never has
        ");
    }
}

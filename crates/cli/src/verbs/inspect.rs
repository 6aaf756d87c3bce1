//! `wharf inspect`: what a unit is made of.

use serde_json::Value;
use wharf_api::{Inspection, NameParams};

use crate::{Exit, given, session::Session, several, table::Block, trouble::Outcome, words};

/// Show what a service is made of, its parameters and its last operations
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf inspect redis\n  wharf inspect redis --json | jq .params_schema")]
pub(crate) struct Inspect {
    #[command(flatten)]
    name: given::Name,
}

impl Inspect {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let calls = given::calls(&[self.name.name], |name| given::params(&NameParams { name: name.clone() }))?;
        several::questions::<Inspection>(session, "service.inspect", calls, |found| (text(found), Exit::Done))
    }
}

fn text(found: &Inspection) -> String {
    let facts = &found.definition;
    let some = |list: &[String]| (!list.is_empty()).then(|| list.join(", "));
    let mut block = Block::default();
    block.line("is", facts.summary.as_str());
    block.line("state", words::phase(found.status.state));
    block.line("source", facts.source.as_str());
    block.maybe("build", facts.build.clone());
    block.maybe("commands", some(&facts.commands));
    let ports: Vec<String> = facts.ports.iter().map(|port| format!("{} {}", port.name, port.default)).collect();
    block.maybe("ports", some(&ports));
    block.maybe("uses", some(&facts.uses));
    block.maybe("instances", some(&facts.instances));
    block.maybe("environment", some(&facts.env));
    block.maybe("keeps", facts.data.clone());
    block.line("takes", takes(&found.params_schema));
    if found.with.as_object().is_some_and(|with| !with.is_empty()) {
        block.line("with", found.with.to_string());
    }
    match &found.installed {
        Some(placed) => block.line("installed", format!("{} from {}, in {}", placed.version, placed.source, placed.path.display())),
        None => block.line("installed", "no"),
    };
    block.line("data", found.data_dir.as_str());
    block.maybe("log", found.log_file.clone());
    let policy = &found.policy;
    let need = |need: &wharf_model::Need| format!("{}{}", need.unit, if need.soft { " (soft)" } else { "" });
    let needs: Vec<String> = policy.needs.iter().map(need).collect();
    block.maybe("needs", some(&needs));
    block.maybe("schedule", policy.schedule.clone());
    if found.policy_changes.as_object().is_some_and(|changes| !changes.is_empty()) {
        block.line("changed", found.policy_changes.to_string());
    }
    block.line("restarts", match policy.restart.budget {
        0 => "never".to_owned(),
        budget => format!("at most {budget} in {}", words::duration(policy.restart.window_s * 1000)),
    });
    block.line("time", format!(
        "{} to be ready, {} to end",
        words::duration(policy.start_timeout_ms),
        words::duration(policy.stop_timeout_ms)
    ));
    for limitation in &facts.limitations {
        block.line("cannot", limitation.as_str());
    }
    let mut text = block.text(found.name.as_str());
    if !found.recent_ops.is_empty() {
        text.push_str("\nlast operations\n");
        text.push_str(&words::operations(&found.recent_ops));
    }
    text
}

/// The names of the parameters; their schema is in the JSON.
fn takes(schema: &Value) -> String {
    match schema.get("properties").and_then(Value::as_object) {
        Some(fields) if !fields.is_empty() => {
            let names: Vec<&str> = fields.keys().map(String::as_str).collect();
            format!("{} (`--json` has their schema)", names.join(", "))
        }
        _ => "no parameters".into(),
    }
}

//! `--policy` and `--needs` on the command line: what an operator changes in how a unit is supervised.

use serde_json::{Map, Value, json};

use crate::{
    trouble::Trouble,
    with::{lenient, pair, put},
};

/// Changes to a unit's policy.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct PolicyFlags {
    /// Change how it is supervised; dots lead into objects (`restart.budget=3`, `preset=observe`,
    /// `exits.78=fail`, `limits.memory_bytes=1073741824`), null takes a change back. Kept for the unit;
    /// `wharf inspect` shows all fields
    #[arg(long = "policy", value_name = "KEY=VALUE")]
    policy: Vec<String>,
    /// Units that it needs: they are started first and stopped last. NAME? for one that it can do
    /// without. `--needs ''` takes all back
    #[arg(long, value_name = "NAME[?]", value_delimiter = ',')]
    needs: Vec<String>,
    /// Memory of a GPU that it needs (8GiB), or whole for a device of its own; it does not start without.
    /// none takes it back. More of it with --policy: `gpu.devices=2`, `gpu.preempt=lower`, `gpu.importance=80`
    #[arg(long, value_name = "SIZE|whole", value_parser = crate::amount::gpu_policy)]
    gpu: Option<Value>,
}

impl PolicyFlags {
    /// The `policy` of a call; `None` leaves the unit's changes as they are.
    pub(crate) fn value(&self) -> Result<Option<Value>, Trouble> {
        if self.policy.is_empty() && self.needs.is_empty() && self.gpu.is_none() {
            return Ok(None);
        }
        let mut changes = Map::new();
        changes.extend(self.gpu.iter().map(|gpu| ("gpu".to_owned(), gpu.clone())));
        for text in &self.policy {
            let (key, value) = pair("--policy", text)?;
            put(&mut changes, key, lenient(value))?;
        }
        let needs: Vec<Value> = self.needs.iter().filter(|name| !name.is_empty()).map(|name| need(name)).collect();
        if !self.needs.is_empty() {
            let needs = if needs.is_empty() { Value::Null } else { needs.into() };
            changes.insert("needs".into(), needs);
        }
        Ok(Some(changes.into()))
    }
}

fn need(text: &str) -> Value {
    match text.strip_suffix('?') {
        Some(unit) => json!({ "unit": unit, "soft": true }),
        None => json!({ "unit": text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(policy: &[&str], needs: &[&str]) -> Option<Value> {
        let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
        PolicyFlags { policy: owned(policy), needs: owned(needs), gpu: None }.value().unwrap()
    }

    #[test]
    fn nothing_given_changes_nothing() {
        assert_eq!(value(&[], &[]), None);
    }

    #[test]
    fn dots_lead_inside_and_needs_are_hard_or_soft() {
        let expected = json!({
            "preset": "bounded", "restart": {"budget": 3}, "needs": [{"unit": "redis"}, {"unit": "nats", "soft": true}]
        });
        assert_eq!(value(&["preset=bounded", "restart.budget=3"], &["redis", "nats?"]), Some(expected));
        assert_eq!(value(&[], &[""]), Some(json!({"needs": null})));
    }
}

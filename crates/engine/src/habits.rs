//! The policy of a unit: what its service says, with its operator's changes laid over it and checked.

use serde_json::{Map, Value, json};
use wharf_model::{ErrorKind, Failure, Policy, Preset, UnitName};

use crate::defer::Other;

/// What an operator changed so far, with new changes laid over it: null takes a field back.
pub fn changed(kept: &Value, given: Option<Value>) -> Value {
    let mut all = if kept.is_object() { kept.clone() } else { json!({}) };
    match given {
        None | Some(Value::Null) => {}
        Some(given) => lay(&mut all, given),
    }
    all
}

/// Objects field by field, all else whole.
fn lay(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (field, value) in over {
                match value {
                    Value::Null => drop(under.remove(&field)),
                    value => lay(under.entry(field).or_insert(Value::Null), value),
                }
            }
        }
        (under, Value::Object(over)) => {
            *under = Value::Object(Map::new());
            lay(under, Value::Object(over));
        }
        (under, over) => *under = over,
    }
}

/// The service's policy with the changes.
pub fn policy(name: &UnitName, of_service: Policy, changes: &Value) -> Result<Policy, Failure> {
    let wrong = |text: String| Failure::new(ErrorKind::InvalidParams, format!("policy{text}")).about(name);
    let Some(fields) = changes.as_object().filter(|fields| !fields.is_empty()) else { return Ok(of_service) };
    let mut base = of_service;
    if let Some(preset) = fields.get("preset") {
        let preset: Preset = serde_json::from_value(preset.clone())
            .map_err(|e| wrong(format!(".preset: {e}")).hint("supervised, bounded or observe"))?;
        base = base.preset(preset);
    }
    let mut whole = serde_json::to_value(&base).map_err(|e| wrong(format!(": {e}")))?;
    lay(&mut whole, changes.clone());
    let known: Vec<&str> = changes_hint();
    let mut unknown = None;
    let ignored = |path: serde_ignored::Path<'_>| {
        unknown.get_or_insert_with(|| path.to_string());
    };
    let policy: Policy = serde_path_to_error::deserialize(&whole).map_err(|e| {
        wrong(format!(".{}: {}", e.path(), e.inner())).hint(format!("its fields are: {}", known.join(", ")))
    })?;
    let _: Result<Policy, _> = serde_ignored::deserialize(&whole, ignored);
    if let Some(field) = unknown {
        return Err(wrong(format!(" has no field {field:?}")).hint(format!("its fields are: {}", known.join(", "))));
    }
    sound(name, &policy)?;
    Ok(policy)
}

/// The fields, for a hint.
fn changes_hint() -> Vec<&'static str> {
    vec![
        "preset",
        "restart",
        "exits",
        "needs",
        "requires",
        "preflight",
        "post_start",
        "defer",
        "notify",
        "job",
        "schedule",
        "on_demand",
        "start_timeout_ms",
        "ready_after_ms",
        "stop_signal",
        "stop_timeout_ms",
        "probe_timeout_ms",
        "probe_early_ms",
        "probe_steady_ms",
        "early_ms",
        "failure_threshold",
        "watchdog_ms",
        "limits",
        "logs",
        "secrets",
        "run_as",
    ]
}

/// What can be said about it before anything runs.
fn sound(name: &UnitName, policy: &Policy) -> Result<(), Failure> {
    let wrong = |text: String, hint: &str| {
        Err(Failure::new(ErrorKind::InvalidParams, format!("policy.{text}")).hint(hint).about(name))
    };
    if policy.needs.iter().any(|need| need.unit == *name) {
        return wrong(format!("needs: {name} cannot need itself"), "leave it out");
    }
    if let Some(bad) = policy.exits.keys().find(|key| !is_exit(key)) {
        return wrong(format!("exits: {bad:?} is no exit"), "a code from 0 to 255, a signal as SIGSEGV, or oom");
    }
    if let Some(schedule) = &policy.schedule {
        wharf_runtime::calendar::Schedule::parse(schedule).map_err(|f| f.about(name))?;
    }
    if let Some(defer) = policy.defer.as_deref().filter(|text| Other::parse(text).is_none()) {
        return wrong(
            format!("defer: {defer:?} names no other supervisor"),
            "systemd:UNIT, systemd-user:UNIT or pid_file:PATH",
        );
    }
    if policy.schedule.is_some() && policy.on_demand.is_some() {
        return wrong("on_demand: a unit with a schedule does not run on demand".into(), "leave one of them out");
    }
    if let Some(umask) = &policy.limits.umask
        && !(umask.len() <= 4 && u32::from_str_radix(umask, 8).is_ok_and(|mask| mask <= 0o777))
    {
        return wrong(format!("limits.umask: {umask:?} is no umask"), "three octal digits: \"027\"");
    }
    if policy.limits.nice.is_some_and(|nice| !(-20..=19).contains(&nice)) {
        return wrong("limits.nice is out of range".into(), "from -20 to 19");
    }
    if policy.limits.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
        return wrong("limits.oom_score_adj is out of range".into(), "from -1000 to 1000");
    }
    for (secret, from) in &policy.secrets {
        let named = !secret.is_empty()
            && secret.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
            && !secret.starts_with('.');
        if !named {
            return wrong(format!("secrets: {secret:?} is no name"), "letters, digits, '_', '-' and '.'");
        }
        if let Err(mut failure) = wharf_runtime::Reference::parse(&from.from) {
            failure.message = format!("policy.secrets.{secret}.from: {}", failure.message);
            return Err(failure.about(name));
        }
        let is_variable = !secret.contains(['-', '.']) && !secret.starts_with(|c: char| c.is_ascii_digit());
        if from.env && !is_variable {
            return wrong(
                format!("secrets.{secret}: no variable can be called so"),
                "letters, digits and '_'; or leave out `env`, and the program reads a file of that name",
            );
        }
    }
    for (field, argv) in [("preflight", &policy.preflight), ("post_start", &policy.post_start)] {
        if argv.first().is_some_and(String::is_empty) {
            return wrong(format!("{field}: the program is empty"), "[\"/usr/bin/true\"]");
        }
    }
    Ok(())
}

fn is_exit(key: &str) -> bool {
    let signal = |n| wharf_model::Signal::name(n) == Some(key);
    key == "oom" || key.parse::<u8>().is_ok() || (1..=31).any(signal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid(changes: Value) -> Result<Policy, Failure> {
        policy(&"redis".parse().unwrap(), Policy::default(), &changes)
    }

    #[test]
    fn changes_are_laid_over_field_by_field_and_null_takes_back() {
        let first = changed(&Value::Null, Some(json!({"restart": {"budget": 3, "delay_ms": 0}})));
        let second = changed(&first, Some(json!({"restart": {"delay_ms": null}, "preset": "bounded"})));
        assert_eq!(second, json!({"restart": {"budget": 3}, "preset": "bounded"}));
        let policy = laid(second).unwrap();
        assert_eq!((policy.restart.budget, policy.restart.delay_ms), (3, 1_000));
        assert_eq!((policy.failure_threshold, policy.restart.slow_retry_s), (1, 0));
    }

    #[test]
    fn what_no_policy_has_is_named() {
        for (changes, named) in [
            (json!({"restrat": {}}), "restrat"),
            (json!({"restart": {"bugdet": 1}}), "restart.bugdet"),
            (json!({"restart": {"budget": "many"}}), "restart.budget"),
            (json!({"preset": "wild"}), "preset"),
            (json!({"needs": [{"unit": "redis"}]}), "needs"),
            (json!({"schedule": "61 * * * *"}), "schedule"),
            (json!({"exits": {"SIGFOO": "stop"}}), "exits"),
            (json!({"limits": {"umask": "9"}}), "umask"),
            (json!({"secrets": {"KEY": {"from": "gopher:x"}}}), "secrets.KEY"),
        ] {
            let failure = laid(changes.clone()).expect_err(&changes.to_string());
            assert!(failure.message.contains(named), "{changes}: {failure}");
            assert!(failure.hint.is_some(), "{changes}: no hint");
        }
    }

    #[test]
    fn the_hint_names_every_field() {
        let mut all = serde_json::to_value(Policy {
            exits: [("0".to_owned(), wharf_model::OnExit::Stop)].into(),
            ..Policy::default()
        })
        .unwrap();
        for skipped in ["needs", "requires", "preflight", "post_start", "defer", "schedule", "on_demand", "stop_signal"]
        {
            all[skipped] = Value::Null;
        }
        for skipped in ["watchdog_ms", "secrets", "run_as"] {
            all[skipped] = Value::Null;
        }
        let mut fields: Vec<String> = all.as_object().unwrap().keys().cloned().collect();
        let mut hinted: Vec<&str> = changes_hint();
        fields.sort();
        hinted.sort_unstable();
        assert_eq!(fields, hinted);
    }
}

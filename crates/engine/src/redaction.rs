//! The two boundaries at which secrets are taken out: what goes into the core, and what goes out to callers.
//!
//! What the core is told is kept by the journal, the log of operations and the events: it is clean before.
//! What does not come from the core (logs, a fresh probe, a refusal) is clean when it leaves.

use jsonrpsee_types::ErrorObjectOwned;
use serde_json::{Value, value::RawValue};
use wharf_core::{Fact, News};
use wharf_runtime::{
    logs::Entry,
    redact::{Redactor, redactor},
};

/// Under these names stand words by which things are called: a weak password can be the same.
const NAMES: [&str; 7] = ["name", "unit", "service", "state", "status", "kind", "boot"];

/// What stands in the place of a variable that looks like a secret.
const HIDDEN: &str = "•••";

/// What is in the name of a variable that is a secret.
const SECRET_NAMES: [&str; 8] = ["passw", "pwd", "token", "secret", "key", "credential", "auth", "cookie"];

/// A fact as the core may be told it.
pub fn fact(mut fact: Fact) -> Fact {
    let redactor = redactor();
    match &mut fact {
        Fact::Placed { result: Err(failure), .. }
        | Fact::Changed { result: Err(failure), .. }
        | Fact::Removed { result: Err(failure), .. }
        | Fact::NotLaunched { failure, .. } => redactor.failure(failure),
        Fact::Probed { health, .. } => redactor.clean(&mut health.detail),
        Fact::Exited { last_words, .. } => last_words.iter_mut().for_each(|line| redactor.clean(line)),
        Fact::LogFault { line: Some(line), .. } | Fact::Notified { news: News::Status(line), .. } => {
            redactor.clean(line);
        }
        // No text of a program's own is in these.
        Fact::Placed { .. }
        | Fact::Changed { .. }
        | Fact::Removed { .. }
        | Fact::Launched { .. }
        | Fact::Learned { .. }
        | Fact::Notified { .. }
        | Fact::LogFault { .. }
        | Fact::Used { .. }
        | Fact::Unused { .. }
        | Fact::Scheduled { .. }
        | Fact::Due { .. }
        | Fact::Emptied { .. }
        | Fact::Found { .. }
        | Fact::Booted => {}
    }
    fact
}

/// The outcome of a call as its caller may see it.
pub fn outcome(outcome: Result<Box<RawValue>, ErrorObjectOwned>) -> Result<Box<RawValue>, ErrorObjectOwned> {
    let redactor = redactor();
    match outcome {
        Ok(reply) => Ok(redactor.json(&reply, &NAMES).unwrap_or(reply)),
        Err(error) => Err(refusal(redactor, error)),
    }
}

fn refusal(redactor: &Redactor, error: ErrorObjectOwned) -> ErrorObjectOwned {
    let data = error.data().and_then(|data| redactor.json(data, &NAMES));
    if data.is_none() && !redactor.is_told_by(error.message()) {
        return error;
    }
    let message = redactor.text(error.message()).into_owned();
    let data = data.or_else(|| error.data().map(ToOwned::to_owned));
    ErrorObjectOwned::owned(error.code(), message, data)
}

/// A line of a log as its reader may see it.
pub fn entry(entry: &mut Entry) {
    let redactor = redactor();
    redactor.clean(&mut entry.text);
    entry.said.message.iter_mut().for_each(|message| redactor.clean(message));
    for value in entry.said.fields.iter_mut().flat_map(|fields| fields.values_mut()) {
        redactor.value(value, &[]);
    }
}

/// What the audit log may keep.
pub fn record(mut says: Value) -> Value {
    redactor().value(&mut says, &NAMES);
    says
}

/// Parameters as they are shown: of variables that look like secrets only the names.
pub fn shown(mut with: Value) -> Value {
    let env = with.get_mut("env").and_then(Value::as_object_mut);
    for (name, value) in env.into_iter().flatten() {
        let name = name.to_lowercase();
        let is_empty = value.as_str().is_some_and(str::is_empty);
        if !value.is_null() && !is_empty && SECRET_NAMES.iter().any(|part| name.contains(part)) {
            *value = HIDDEN.into();
        }
    }
    with
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use wharf_model::{Failure, Health, RunId};

    use super::*;

    const CANARY: &str = "canary-of-the-boundaries";

    #[test]
    fn what_the_core_is_told_holds_no_secret() {
        redactor().learn(CANARY.as_bytes());
        let (unit, run): (wharf_model::UnitName, _) = ("command@web".parse().unwrap(), RunId(1));
        let failure =
            Failure::new(wharf_model::ErrorKind::ServiceFailed, format!("it said {CANARY}")).hint(CANARY).cause(CANARY);
        let said = format!("x {CANARY}");
        for fact in [
            Fact::NotLaunched { unit: unit.clone(), run, failure },
            Fact::Probed { unit: unit.clone(), run, health: Health::unhealthy(said.clone()) },
            Fact::LogFault { unit: unit.clone(), run, line: Some(said.clone()) },
            Fact::Notified { unit: unit.clone(), run, news: News::Status(said.clone()) },
            Fact::Exited {
                unit,
                run,
                exit: wharf_model::Exit::Unknown,
                empty: true,
                last_words: vec!["innocent".into(), said],
            },
        ] {
            let before = format!("{fact:?}");
            let after = format!("{:?}", super::fact(fact));
            assert!(before.contains(CANARY) && !after.contains(CANARY) && after.contains("[redacted]"), "{after}");
        }
    }

    #[test]
    fn what_a_caller_is_told_holds_no_secret() {
        redactor().learn(CANARY.as_bytes());
        let error = ErrorObjectOwned::owned(-32006, format!("it said {CANARY}"), Some(json!({ "causes": [CANARY] })));
        let error = outcome(Err(error)).unwrap_err();
        assert_eq!((error.code(), error.message()), (-32006, "it said [redacted]"));
        assert_eq!(error.data().unwrap().get(), r#"{"causes":["[redacted]"]}"#);
        let reply = serde_json::value::to_raw_value(&json!({ "detail": CANARY, "name": CANARY })).unwrap();
        let kept = outcome(Ok(reply)).unwrap();
        assert_eq!(kept.get(), format!(r#"{{"detail":"[redacted]","name":"{CANARY}"}}"#));
    }

    #[test]
    fn variables_that_look_like_secrets_are_shown_by_name_alone() {
        let with = json!({ "argv": ["x"], "env": { "API_KEY": "1", "DB_PASSWORD": "2", "PORT": "3", "NO_TOKEN": "" } });
        let env = json!({ "API_KEY": "•••", "DB_PASSWORD": "•••", "PORT": "3", "NO_TOKEN": "" });
        assert_eq!(shown(with)["env"], env);
        assert_eq!(shown(json!({ "port": 1 })), json!({ "port": 1 }));
    }
}

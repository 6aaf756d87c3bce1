//! Params as the audit log may keep them: without what looks like a secret, and bounded in length.
//!
//! By name, not by value: what stands under a name that sounds like a secret, all of an environment,
//! what follows such a name in a command line, and who a URL logs in as. A secret under an innocent
//! name is not seen: that is what references (`file:`, `env:`) are for.

use serde_json::{Map, Value, json, value::RawValue};
use wharf_model::UnitName;

const REDACTED: &str = "[redacted]";

/// Params that are longer are left out as a whole: reading them would cost many times their length.
const MOST_BYTES: usize = 16 * 1024;

/// A text that is longer is cut.
const MOST_CHARS: usize = 512;

/// What is in the name of a secret.
const SECRET_NAMES: [&str; 10] =
    ["passw", "passphrase", "secret", "token", "key", "credential", "authorization", "cookie", "private", "pwd"];

/// What is kept of the params of a call.
pub fn params(raw: Option<&RawValue>) -> Value {
    let Some(raw) = raw else { return Value::Null };
    if raw.get().len() > MOST_BYTES {
        return json!({ "omitted_bytes": raw.get().len() });
    }
    serde_json::from_str(raw.get()).map_or(Value::Null, value)
}

/// The unit that they name, by its name or in the first place.
pub fn unit(params: &Value) -> Option<UnitName> {
    let named = params.get("name").or_else(|| params.get("unit")).or_else(|| params.get(0));
    named?.as_str()?.parse().ok()
}

fn is_secret(name: &str) -> bool {
    let name = name.to_lowercase();
    SECRET_NAMES.iter().any(|part| name.contains(part))
}

fn value(given: Value) -> Value {
    match given {
        Value::Object(fields) => fields.into_iter().map(field).collect::<Map<_, _>>().into(),
        Value::Array(values) => list(values).into(),
        Value::String(said) => text(&said).into(),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
    }
}

fn field((name, given): (String, Value)) -> (String, Value) {
    let kept = match given {
        Value::Null => Value::Null,
        given if name == "env" => environment(given),
        _ if is_secret(&name) => REDACTED.into(),
        given => value(given),
    };
    (name, kept)
}

/// Names without values.
fn environment(given: Value) -> Value {
    match given {
        Value::Object(fields) => {
            fields.into_iter().map(|(name, _)| (name, REDACTED.into())).collect::<Map<_, _>>().into()
        }
        Value::Array(_) | Value::String(_) | Value::Null | Value::Bool(_) | Value::Number(_) => REDACTED.into(),
    }
}

/// In a command line the secret often follows its name as an argument of its own.
fn list(values: Vec<Value>) -> Vec<Value> {
    let mut follows = false;
    let mut kept = Vec::with_capacity(values.len());
    for given in values {
        let names_one = given.as_str().is_some_and(|s| s.starts_with('-') && !s.contains(['=', ' ']) && is_secret(s));
        kept.push(match given {
            Value::String(_) if follows && !names_one => REDACTED.into(),
            given => value(given),
        });
        follows = names_one;
    }
    kept
}

/// Word for word; blanks stay as they are.
fn text(said: &str) -> String {
    let mut kept = String::with_capacity(said.len());
    let mut follows = false;
    for part in said.split_inclusive(char::is_whitespace) {
        let word = part.trim_end();
        let blank = &part[word.len()..];
        if follows && !word.is_empty() && !word.eq_ignore_ascii_case("bearer") && !word.eq_ignore_ascii_case("basic") {
            kept.push_str(REDACTED);
            follows = false;
        } else {
            kept.push_str(&one_word(word));
            let says_what_follows = word.ends_with(':') || (word.starts_with('-') && !word.contains('='));
            follows = follows || (says_what_follows && is_secret(word));
        }
        kept.push_str(blank);
    }
    if kept.chars().count() > MOST_CHARS {
        let begin: String = kept.chars().take(MOST_CHARS).collect();
        return format!("{begin}… ({} bytes)", said.len());
    }
    kept
}

/// `NAME=value`, `--name=value`, `scheme://user:value@host`.
fn one_word(word: &str) -> String {
    if let Some((name, given)) = word.split_once('=')
        && is_secret(name)
        && !given.is_empty()
    {
        return format!("{name}={REDACTED}");
    }
    if let Some((scheme, rest)) = word.split_once("://") {
        let host = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        if let Some(at) = rest[..host].rfind('@') {
            return format!("{scheme}://{REDACTED}{}", query(&rest[at..]));
        }
        return format!("{scheme}://{}", query(rest));
    }
    word.to_owned()
}

/// The values of a URL's query that have a secret's name.
fn query(rest: &str) -> String {
    let Some((path, query)) = rest.split_once('?') else { return rest.to_owned() };
    let pairs: Vec<String> = query
        .split('&')
        .map(|pair| match pair.split_once('=') {
            Some((name, _)) if is_secret(name) => format!("{name}={REDACTED}"),
            _ => pair.to_owned(),
        })
        .collect();
    format!("{path}?{}", pairs.join("&"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(given: Value) -> Value {
        params(Some(&serde_json::value::to_raw_value(&given).unwrap()))
    }

    #[test]
    fn no_secret_is_kept_wherever_it_stands() {
        let secret = "hunter2-canary";
        let given = json!({
            "name": "command@web",
            "with": {
                "env": { "PLAIN": secret, "OTHER": secret },
                "password": secret, "api_key": { "deep": secret }, "Authorization": [secret],
                "argv": [
                    "./server", "--token", secret, format!("--secret={secret}"), "--port", "80",
                    format!("postgres://app:{secret}@db:5432/x"), format!("http://a/?access_token={secret}&b=1"),
                    "-c", format!("export API_KEY={secret} && curl -H 'Authorization: Bearer {secret}' x"),
                ],
                "nested": [{ "client_secret": secret }],
            },
        });
        let kept = kept(given);
        assert!(!kept.to_string().contains("canary"), "{kept:#}");
        let argv = &kept["with"]["argv"];
        assert_eq!((&argv[0], &argv[4], &argv[5]), (&json!("./server"), &json!("--port"), &json!("80")));
        assert_eq!(argv[6], "postgres://[redacted]@db:5432/x");
        assert_eq!(kept["with"]["env"]["PLAIN"], REDACTED, "names stay");
    }

    #[test]
    fn innocent_params_stay_as_they_are() {
        let given = json!({ "name": "redis", "wait": false, "with": { "ports": { "main": 6379 }, "dir": null } });
        assert_eq!(kept(given.clone()), given);
        assert_eq!(kept(json!(["redis", true])), json!(["redis", true]));
        assert_eq!(unit(&json!(["redis"])), unit(&given));
        assert_eq!(params(None), Value::Null);
    }

    #[test]
    fn what_is_long_is_cut() {
        let long = kept(json!({ "version": "x".repeat(4000) }));
        assert!(long.to_string().len() < 600 && long.to_string().contains("(4000 bytes)"), "{long}");
        let huge = kept(json!({ "version": "x".repeat(20_000) }));
        assert_eq!(huge, json!({ "omitted_bytes": 20_014 }));
    }
}

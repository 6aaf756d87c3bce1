//! `key=value` on the command line as JSON: parameters of services, and params of calls.

use serde_json::{Map, Value};

use crate::trouble::Trouble;

/// `--with`, `--with-json` and `--port`.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct With {
    /// A parameter of the service; dots lead into objects (`log.level=debug`). The value is JSON where
    /// it can be read as that, else a text. Kept for the unit
    #[arg(long = "with", value_name = "KEY=VALUE")]
    pub(crate) pairs: Vec<String>,
    /// The parameters as one JSON object; --with and --port change it
    #[arg(long, value_name = "JSON")]
    pub(crate) with_json: Option<String>,
    /// A port by its name; auto lets Wharf choose a free one
    #[arg(long = "port", value_name = "NAME=NUMBER|auto")]
    pub(crate) ports: Vec<String>,
}

impl With {
    /// The `with` of a call; `None` leaves the unit's as it is.
    pub(crate) fn value(&self) -> Result<Option<Value>, Trouble> {
        if self.pairs.is_empty() && self.with_json.is_none() && self.ports.is_empty() {
            return Ok(None);
        }
        let mut with = match &self.with_json {
            None => Map::new(),
            Some(text) => match serde_json::from_str(text) {
                Ok(Value::Object(with)) => with,
                Ok(_) => return Err(Trouble::Usage("--with-json takes a JSON object".into())),
                Err(e) => return Err(Trouble::Usage(format!("--with-json is no JSON: {e}"))),
            },
        };
        for text in &self.pairs {
            let (key, value) = pair("--with", text)?;
            put(&mut with, key, lenient(value))?;
        }
        for text in &self.ports {
            let (name, choice) = pair("--port", text)?;
            put_plain(&mut with, "ports", name, port(choice)?)?;
        }
        Ok(Some(Value::Object(with)))
    }
}

/// The two sides of `KEY=VALUE`.
pub(crate) fn pair<'a>(flag: &str, text: &'a str) -> Result<(&'a str, &'a str), Trouble> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key, value)),
        _ => Err(Trouble::Usage(format!("{flag} takes KEY=VALUE, not {text:?}"))),
    }
}

/// A port's number, or the word `auto`.
pub(crate) fn port(text: &str) -> Result<Value, Trouble> {
    match text.parse::<u16>() {
        Ok(number) if number > 0 => Ok(number.into()),
        _ if text == "auto" => Ok(text.into()),
        _ => Err(Trouble::Usage(format!("a port is a number from 1 to 65535, or auto, not {text:?}"))),
    }
}

/// JSON where it can be read as that, else a text.
pub(crate) fn lenient(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| text.into())
}

/// Puts a value where a path of names with dots leads.
pub(crate) fn put(root: &mut Map<String, Value>, path: &str, value: Value) -> Result<(), Trouble> {
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    if first.is_empty() {
        return Err(Trouble::Usage(format!("{path:?} has an empty name")));
    }
    let Some(rest) = rest else {
        root.insert(first.to_owned(), value);
        return Ok(());
    };
    match root.entry(first).or_insert_with(|| Map::new().into()) {
        Value::Object(inner) => put(inner, rest, value),
        _ => Err(Trouble::Usage(format!("{first} is given a value and fields; it can have one of both"))),
    }
}

/// Puts a value into the object at `field`, under a name whose dots mean nothing.
pub(crate) fn put_plain(root: &mut Map<String, Value>, field: &str, name: &str, value: Value) -> Result<(), Trouble> {
    let held = root.entry(field).or_insert(Value::Null);
    if held.is_null() {
        *held = Map::new().into();
    }
    match held {
        Value::Object(inner) => match inner.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(Trouble::Usage(format!("{name} is given twice"))),
        },
        _ => Err(Trouble::Usage(format!("{field} is given a value and fields; it can have one of both"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(pairs: &[&str], with_json: Option<&str>, ports: &[&str]) -> Result<Option<Value>, Trouble> {
        let owned = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
        With { pairs: owned(pairs), with_json: with_json.map(Into::into), ports: owned(ports) }.value()
    }

    #[test]
    fn nothing_leaves_the_units_parameters_alone() {
        assert_eq!(with(&[], None, &[]).unwrap(), None);
    }

    #[test]
    fn values_are_json_where_they_can_be_and_dots_lead_inside() {
        let given = with(
            &["maxmemory=64mb", "log.level=debug", "log.keep=3", "tags=[\"a\"]", "url=http://a.b/?x=1"],
            None,
            &[],
        );
        let expected = json!({
            "maxmemory": "64mb", "log": {"level": "debug", "keep": 3}, "tags": ["a"], "url": "http://a.b/?x=1"
        });
        assert_eq!(given.unwrap(), Some(expected));
    }

    #[test]
    fn flags_change_the_object_and_ports_have_their_field() {
        let given = with(&["b=2"], Some(r#"{"a":1,"b":1}"#), &["main=6380", "admin=auto"]);
        assert_eq!(given.unwrap(), Some(json!({"a": 1, "b": 2, "ports": {"main": 6380, "admin": "auto"}})));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (pairs, json, ports) in [
            (&["novalue"][..], None, &[][..]),
            (&["a..b=1"], None, &[]),
            (&["a=1", "a.b=2"], None, &[]),
            (&[], Some("[1]"), &[]),
            (&[], None, &["main=0"]),
            (&[], None, &["main=70000"]),
            (&[], None, &["6379"]),
        ] {
            assert!(with(pairs, json, ports).is_err(), "{pairs:?} {json:?} {ports:?} were taken");
        }
    }
}

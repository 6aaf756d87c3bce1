//! Values of YAML and JSON as these files have them: a number or a text, one or several, a mapping or a list of pairs.

use serde_json::{Map, Value};

/// A field that is not null.
pub(crate) fn field<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    map.get(name).filter(|value| !value.is_null())
}

/// As text: numbers and booleans too.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A field as text.
pub(crate) fn text_of(map: &Map<String, Value>, name: &str) -> Option<String> {
    field(map, name).and_then(text)
}

/// A field as a number that is not negative.
pub(crate) fn number_of(map: &Map<String, Value>, name: &str) -> Option<f64> {
    let value = field(map, name)?;
    value.as_f64().or_else(|| value.as_str()?.trim().parse().ok()).filter(|n| n.is_finite() && *n >= 0.0)
}

/// A field that is yes or no.
pub(crate) fn flag_of(map: &Map<String, Value>, name: &str) -> Option<bool> {
    match field(map, name)? {
        Value::Bool(is) => Some(*is),
        Value::String(word) => match word.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Some(true),
            "false" | "no" | "off" | "0" => Some(false),
            _ => None,
        },
        Value::Number(n) => n.as_i64().map(|n| n != 0),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// One text or several.
pub(crate) fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().filter_map(text).collect(),
        one => text(one).into_iter().collect(),
    }
}

/// Variables: a mapping, or a list of `NAME=value`.
pub(crate) fn variables(value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Object(map) => map.iter().filter_map(|(name, value)| Some((name.clone(), text(value)?))).collect(),
        Value::Array(items) => {
            let pair = |item: &Value| {
                let line = text(item)?;
                line.split_once('=').map(|(name, value)| (name.trim().to_owned(), value.to_owned()))
            };
            items.iter().filter_map(pair).collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => vec![],
    }
}

/// Seconds as milliseconds.
pub(crate) fn ms(seconds: f64) -> u64 {
    // Saturates: a week is more than anybody means.
    (seconds.max(0.0) * 1000.0).round() as u64
}

/// An amount of memory: `300M`, `1G`, `512K`, `2048`.
pub(crate) fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let shift = match text[digits..].trim().to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// A path from the folder that its file lies in.
pub(crate) fn whole(folder: &str, path: &str) -> String {
    if path.starts_with('/') {
        return path.to_owned();
    }
    let path = path.strip_prefix("./").unwrap_or(path);
    match path {
        "" | "." => folder.to_owned(),
        path => format!("{}/{path}", folder.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_read_in_all_their_shapes() {
        assert_eq!(variables(&json!(["A=1", "B=x=y", "C"])), [("A".into(), "1".into()), ("B".into(), "x=y".into())]);
        assert_eq!(variables(&json!({ "A": 1, "B": true, "C": null })).len(), 2);
        assert_eq!(
            (bytes("300M"), bytes("1G"), bytes("2048"), bytes("1GiB")),
            (Some(300 << 20), Some(1 << 30), Some(2048), Some(1 << 30))
        );
        assert_eq!((bytes("50%"), bytes("infinity")), (None, None));
        assert_eq!(
            (whole("/a", "./b"), whole("/a/", "/b"), whole("/a", ".")),
            ("/a/b".into(), "/b".into(), "/a".into())
        );
        let map = json!({ "n": "2.5", "f": "no", "neg": -1 });
        let map = map.as_object().unwrap();
        assert_eq!((number_of(map, "n"), flag_of(map, "f"), number_of(map, "neg")), (Some(2.5), Some(false), None));
    }
}

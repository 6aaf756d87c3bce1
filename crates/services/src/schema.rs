//! Parameters that are described by a JSON Schema instead of a Rust struct.
//!
//! It owns the part of JSON Schema that can be held against a value here: types, required and unknown fields, enums and
//! limits of numbers. The rest (patterns, `oneOf`) is for people, and for the service itself to check.

use serde_json::{Map, Value};

/// Where a value does not fit, and why: `a.b[2]`, `is no integer`.
pub(crate) type Misfit = (String, String);

/// Whether this value fits. The first misfit is told.
pub(crate) fn check(schema: &Value, value: &Value) -> Result<(), Misfit> {
    at(schema, value, "")
}

/// The value with the defaults of the fields that it does not have.
pub(crate) fn with_defaults(schema: &Value, value: &Value) -> Value {
    let mut all = value.as_object().cloned().unwrap_or_default();
    for (name, field) in properties(schema).into_iter().flatten() {
        if let (false, Some(usual)) = (all.contains_key(name), field.get("default")) {
            all.insert(name.clone(), usual.clone());
        }
    }
    Value::Object(all)
}

/// What is wrong with a schema: it must be that of an object.
pub(crate) fn fault(schema: &Value) -> Option<String> {
    match schema.get("type").and_then(Value::as_str) {
        Some("object") if schema.get("properties").is_none_or(Value::is_object) => None,
        Some("object") => Some("params.properties is no object".into()),
        _ => Some("params is no JSON Schema of an object: {\"type\": \"object\", \"properties\": {…}}".into()),
    }
}

fn properties(schema: &Value) -> Option<&Map<String, Value>> {
    schema.get("properties").and_then(Value::as_object)
}

fn at(schema: &Value, value: &Value, path: &str) -> Result<(), Misfit> {
    let misfit = |why: String| Err((path.to_owned(), why));
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => vec![],
    };
    if !types.is_empty() && !types.iter().any(|t| is_of(t, value)) {
        return misfit(format!("{value} is no {}", types.join(" or ")));
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array)
        && !words.contains(value)
    {
        let words: Vec<String> = words.iter().map(Value::to_string).collect();
        return misfit(format!("{value} is none of {}", words.join(", ")));
    }
    for (limit, is_beyond) in
        [("minimum", (|v, l| v < l) as fn(f64, f64) -> bool), ("maximum", (|v, l| v > l) as fn(f64, f64) -> bool)]
    {
        if let (Some(limit_at), Some(number)) = (schema.get(limit).and_then(Value::as_f64), value.as_f64())
            && is_beyond(number, limit_at)
        {
            return misfit(format!("{value} is beyond the {limit}, {limit_at}"));
        }
    }
    match value {
        Value::Object(fields) => object(schema, fields, path),
        Value::Array(items) => {
            let Some(each) = schema.get("items") else { return Ok(()) };
            items.iter().enumerate().try_for_each(|(n, item)| at(each, item, &format!("{path}[{n}]")))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn object(schema: &Value, fields: &Map<String, Value>, path: &str) -> Result<(), Misfit> {
    let known = properties(schema);
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    let owed = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    if let Some(missing) = owed.into_iter().find(|name| !fields.contains_key(*name)) {
        return Err((path.to_owned(), format!("the field {missing} is missing")));
    }
    for (name, value) in fields {
        match (known.and_then(|known| known.get(name)), schema.get("additionalProperties")) {
            (Some(field), _) => at(field, value, &below(name))?,
            (None, Some(Value::Bool(true))) => {}
            (None, Some(Value::Object(other))) => at(&Value::Object(other.clone()), value, &below(name))?,
            // A schema that names no fields says nothing about them; one that does means these.
            (None, Some(_) | None) if known.is_none() && !path.is_empty() => {}
            (None, Some(_) | None) => return Err((below(name), "there is no such field".into())),
        }
    }
    Ok(())
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_i64() || value.is_u64(),
        // A word of a newer schema: not for us to judge.
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_misfit_is_named_by_its_place() {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": { "type": "string" },
                "level": { "enum": ["low", "high"] },
                "count": { "type": ["integer", "null"], "minimum": 1, "maximum": 9 },
                "paths": { "type": "array", "items": { "type": "string" } },
                "env": { "type": "object", "additionalProperties": { "type": "string" } },
                "free": { "type": "object" },
            },
            "required": ["name"],
        });
        let fits =
            json!({ "name": "x", "level": "low", "count": 9, "paths": ["/"], "env": { "A": "1" }, "free": { "y": 1 } });
        assert_eq!(check(&schema, &fits), Ok(()));
        for (misfit, place) in [
            (json!({}), ""),
            (json!({ "name": 1 }), "name"),
            (json!({ "name": "x", "nmae": 1 }), "nmae"),
            (json!({ "name": "x", "level": "mid" }), "level"),
            (json!({ "name": "x", "count": 1.5 }), "count"),
            (json!({ "name": "x", "count": 10 }), "count"),
            (json!({ "name": "x", "paths": ["/", 2] }), "paths[1]"),
            (json!({ "name": "x", "env": { "A": 1 } }), "env.A"),
            (json!([]), ""),
        ] {
            assert_eq!(check(&schema, &misfit).unwrap_err().0, place, "{misfit}");
        }
    }

    #[test]
    fn defaults_fill_what_is_not_given() {
        let schema =
            json!({ "type": "object", "properties": { "a": { "default": 1 }, "b": { "default": 2 }, "c": {} } });
        assert_eq!(with_defaults(&schema, &json!({ "a": 5 })), json!({ "a": 5, "b": 2 }));
        assert_eq!(with_defaults(&schema, &Value::Null), json!({ "a": 1, "b": 2 }));
    }

    #[test]
    fn only_an_objects_schema_is_one() {
        assert_eq!(fault(&json!({ "type": "object" })), None);
        for bad in [json!({ "type": "string" }), json!({}), json!([]), json!({ "type": "object", "properties": [] })] {
            assert!(fault(&bad).is_some(), "{bad}");
        }
    }
}

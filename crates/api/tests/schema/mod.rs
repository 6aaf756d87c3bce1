//! Two schemas that mean the same are made equal; what is left differs.

use std::{collections::HashSet, fmt};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

/// What says nothing of the values that fit.
const ANNOTATIONS: [&str; 9] =
    ["$schema", "$defs", "definitions", "$comment", "title", "description", "format", "default", "examples"];

/// Fails with the first difference between two schemas, each given with the document that its references are of.
#[track_caller]
pub fn assert_same(path: &str, document: (&Value, &Value), code: (&Value, &Value)) {
    assert_equal(path, &normal(document.0, document.1, 0), &normal(code.0, code.1, 0));
}

/// Fails with the first difference between two values.
#[track_caller]
pub fn assert_equal(path: &str, document: &Value, code: &Value) {
    if let Some((at, document, code)) = difference(path.to_owned(), document, code) {
        panic!("{at}\n  document: {document}\n  code:     {code}");
    }
}

fn difference(path: String, document: &Value, code: &Value) -> Option<(String, String, String)> {
    match (document, code) {
        (Value::Object(d), Value::Object(c)) => {
            let keys = d.keys().chain(c.keys().filter(|k| !d.contains_key(*k)));
            keys.map(|key| (key, d.get(key), c.get(key))).find_map(|(key, d, c)| match (d, c) {
                (Some(d), Some(c)) => difference(format!("{path}.{key}"), d, c),
                (d, c) => Some((format!("{path}.{key}"), shown(d), shown(c))),
            })
        }
        (Value::Array(d), Value::Array(c)) if d.len() == c.len() => {
            d.iter().zip(c).enumerate().find_map(|(n, (d, c))| difference(format!("{path}[{n}]"), d, c))
        }
        (d, c) => (d != c).then(|| (path, d.to_string(), c.to_string())),
    }
}

fn shown(value: Option<&Value>) -> String {
    value.map_or_else(|| "(nothing)".into(), Value::to_string)
}

/// One form for all schemas that mean the same: annotations and `x-` keys go, references are
/// replaced by what they name, a null beside a type becomes an `anyOf`, constants become an `enum`,
/// and what has no order is sorted.
fn normal(schema: &Value, root: &Value, depth: usize) -> Value {
    assert!(depth < 64, "a schema contains itself: {schema}");
    let object = match schema {
        Value::Bool(true) => return json!({}),
        Value::Object(object) => object,
        other => return other.clone(),
    };
    let mut rest: Map<String, Value> = object
        .iter()
        .filter(|(key, _)| !ANNOTATIONS.contains(&key.as_str()) && !key.starts_with("x-"))
        .map(|(key, value)| (key.clone(), below(key, value, root, depth + 1)))
        .collect();

    let mut parts: Vec<Value> = vec![];
    if let Some(Value::String(reference)) = rest.remove("$ref") {
        let target = reference.strip_prefix('#').and_then(|path| root.pointer(path));
        parts.push(normal(target.unwrap_or_else(|| panic!("{reference} leads nowhere")), root, depth + 1));
    }
    if let Some(Value::Array(all)) = rest.remove("allOf") {
        parts.extend(all);
    }
    one_enum(&mut rest);
    let nullable = null_apart(&mut rest);
    if !rest.is_empty() || parts.is_empty() {
        parts.push(Value::Object(rest));
    }
    let whole = if parts.len() == 1 { parts.remove(0) } else { json!({ "allOf": sorted(parts) }) };
    if nullable { json!({ "anyOf": sorted(vec![whole, json!({ "type": "null" })]) }) } else { whole }
}

/// What is below a keyword.
fn below(key: &str, value: &Value, root: &Value, depth: usize) -> Value {
    let each = |list: &Vec<Value>| list.iter().map(|s| normal(s, root, depth)).collect::<Vec<_>>();
    match (key, value) {
        ("properties", Value::Object(fields)) => {
            fields.iter().map(|(name, schema)| (name.clone(), normal(schema, root, depth))).collect()
        }
        ("items" | "additionalProperties", schema) => normal(schema, root, depth),
        ("anyOf" | "oneOf", Value::Array(list)) => sorted(each(list)),
        ("allOf", Value::Array(list)) => each(list).into(),
        ("required" | "enum" | "type", Value::Array(list)) => sorted(list.clone()),
        (_, other) => other.clone(),
    }
}

/// `const` and a `oneOf` of constants become an `enum`; the type of words goes without saying.
fn one_enum(schema: &mut Map<String, Value>) {
    if let Some(value) = schema.remove("const") {
        schema.insert("enum".into(), json!([value]));
    }
    if let Some(Value::Array(list)) = schema.get("oneOf") {
        let words: Option<Vec<Value>> = list
            .iter()
            .map(|s| s.as_object().filter(|o| o.len() == 1)?.get("enum")?.as_array().cloned())
            .collect::<Option<Vec<_>>>()
            .map(|lists| lists.concat());
        if let Some(words) = words {
            schema.remove("oneOf");
            schema.insert("enum".into(), sorted(words));
        }
    }
    let all_words = |v: &Value| v.as_array().is_some_and(|l| l.iter().all(Value::is_string));
    if schema.get("type").is_some_and(|t| t == "string") && schema.get("enum").is_some_and(all_words) {
        schema.remove("type");
    }
}

/// Takes the null out of `type: [X, "null"]` and of an `anyOf` or `oneOf` with one other schema.
fn null_apart(schema: &mut Map<String, Value>) -> bool {
    if let Some(Value::Array(types)) = schema.get_mut("type")
        && let Some(at) = types.iter().position(|t| t == "null")
    {
        types.remove(at);
        if let [one] = &types[..] {
            let one = one.clone();
            schema.insert("type".into(), one);
        }
        return true;
    }
    for key in ["anyOf", "oneOf"] {
        let is_pair = |l: &&Vec<Value>| l.len() == 2 && schema.len() == 1;
        let Some(list) = schema.get(key).and_then(Value::as_array).filter(is_pair) else { continue };
        let null = json!({ "type": "null" });
        if let Some(Value::Object(other)) = list.iter().find(|s| **s != null).filter(|_| list.contains(&null)) {
            *schema = other.clone();
            return true;
        }
    }
    false
}

fn sorted(mut list: Vec<Value>) -> Value {
    list.sort_by_key(Value::to_string);
    list.into()
}

/// The default of a schema, or of what it refers to.
pub fn default_of<'a>(schema: &'a Value, root: &'a Value) -> Option<&'a Value> {
    match schema["$ref"].as_str() {
        Some(reference) => root.pointer(&reference[1..]).and_then(|target| default_of(target, root)),
        None => schema.get("default"),
    }
}

/// A value for a param of the document that is not its default and not another param's.
pub fn sample(param: &Value, root: &Value) -> Value {
    let name = param["name"].as_str().unwrap();
    let schema = normal(&param["schema"], root, 0);
    let schema = match schema["anyOf"].as_array() {
        Some(list) => list.iter().find(|s| s["type"] != "null").cloned().unwrap_or(schema),
        None => schema,
    };
    if let (Some("object"), Some(fields)) = (schema["type"].as_str(), schema["properties"].as_object()) {
        let field = |(name, schema): (&String, &Value)| {
            (name.clone(), sample(&json!({ "name": name, "schema": schema }), root))
        };
        return fields.iter().map(field).collect();
    }
    let default = default_of(&param["schema"], root);
    match (schema["enum"].as_array(), schema["type"].as_str()) {
        (Some(words), _) => words.iter().find(|w| Some(*w) != default).unwrap().clone(),
        (None, Some("boolean")) => json!(default != Some(&json!(true))),
        (None, Some("integer")) => json!(7),
        (None, Some("number")) => json!(7.5),
        (None, Some("string")) if schema["pattern"].is_string() => json!(name.replace('_', "-")),
        (None, Some("string")) => json!(name),
        (None, Some("array")) => json!([sample(&json!({ "name": name, "schema": schema["items"] }), root)]),
        (None, None) => json!({ "param": name }),
        (None, Some(other)) => panic!("{name}: what is a sample of {other}?"),
    }
}

/// A runtime expression, `${params.name}` or `${result[0].name}`, over what is known.
pub fn evaluate(expression: &str, known: &Value) -> Option<Value> {
    let path = expression.strip_prefix("${")?.strip_suffix('}')?;
    let pointer = path.replace('[', ".").replace(']', "").replace('.', "/");
    known.pointer(&format!("/{pointer}")).cloned()
}

/// Calls with every value that is part of the document itself, and its path. What examples and
/// defaults hold is not.
pub fn walk<'a>(value: &'a Value, visit: &mut impl FnMut(&str, &'a Value)) {
    fn go<'a>(path: &str, value: &'a Value, visit: &mut impl FnMut(&str, &'a Value)) {
        visit(path, value);
        match value {
            Value::Object(object) => {
                let is_field = path.ends_with("/properties");
                for (key, below) in object {
                    if is_field || !matches!(key.as_str(), "value" | "default") {
                        go(&format!("{path}/{key}"), below, visit);
                    }
                }
            }
            Value::Array(list) => {
                list.iter().enumerate().for_each(|(n, below)| go(&format!("{path}/{n}"), below, visit));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    go("", value, visit);
}

/// A parser keeps the last of two equal keys and says nothing.
#[track_caller]
pub fn assert_keys_are_unique(text: &str) {
    if let Err(e) = serde_json::from_str::<Unique>(text) {
        panic!("{e}");
    }
}

struct Unique;

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = Self;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON with each key once")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if keys.contains(&key) {
                return Err(serde::de::Error::custom(format!("the key {key:?} is there twice")));
            }
            keys.insert(key);
            map.next_value::<Self>()?;
        }
        Ok(self)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }
    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }
    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }
}

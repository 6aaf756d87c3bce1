//! The parameters of a service: a Rust struct, its schema, and the ports in it.

use std::{collections::BTreeMap, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use wharf_model::{ErrorKind, Failure};

use crate::{
    Result,
    schema::{self, Misfit},
};

/// A number, or `"auto"`: let Wharf choose a free one, and keep it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "not a port: a number from 1 to 65535, or \"auto\"")]
pub enum PortChoice {
    /// This port.
    Number(u16),
    /// A free one, chosen at the first start and kept.
    Auto(Auto),
}

/// The word `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Auto {
    /// Let Wharf choose.
    Auto,
}

/// The field `ports` of a service's parameters: name and choice.
pub type Ports = BTreeMap<String, PortChoice>;

/// A port that a unit will listen on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortWish {
    /// What it is called.
    pub name: String,
    /// Which one.
    pub choice: PortChoice,
}

impl PortChoice {
    /// What `with.ports` says.
    pub(crate) fn all_of(with: &Value) -> Result<Ports> {
        match with.get("ports") {
            None | Some(Value::Null) => Ok(Ports::new()),
            Some(ports) => {
                let ports = Ports::deserialize(ports).map_err(|_| {
                    Failure::new(ErrorKind::InvalidParams, "with.ports is not an object of port numbers")
                        .hint("for example: {\"ports\": {\"main\": 6380}} or {\"ports\": {\"main\": \"auto\"}}")
                })?;
                let sound = |name: &str| {
                    let mut bytes = name.bytes();
                    bytes.next().is_some_and(|b| b.is_ascii_alphabetic())
                        && name.len() <= 63
                        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
                };
                match ports.keys().find(|name| !sound(name)) {
                    Some(bad) => {
                        Err(Failure::new(ErrorKind::InvalidParams, format!("with.ports: {bad:?} is no name of a port"))
                            .hint("a letter, then letters, digits, '_' and '-'"))
                    }
                    None => Ok(ports),
                }
            }
        }
    }
}

impl fmt::Display for PortChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Auto(Auto::Auto) => f.write_str("auto"),
        }
    }
}

/// The parameters that a service takes: their schema, and the check of a given value.
#[derive(Clone)]
pub struct Params {
    schema: Value,
    check: Check,
}

/// How a value is held against it.
#[derive(Clone, Copy)]
enum Check {
    /// It must be read as a struct.
    Struct(fn(&Value) -> std::result::Result<(), Misfit>),
    /// It must fit the schema.
    Schema,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "No parameters")]
struct Nothing {}

impl Params {
    /// None at all.
    pub fn none() -> Self {
        Self::of::<Nothing>()
    }

    /// The fields of `T`, which should deny unknown fields and have a default for each that is not owed.
    pub fn of<T: JsonSchema + DeserializeOwned>() -> Self {
        Self {
            schema: schemars::schema_for!(T).to_value(),
            check: Check::Struct(|v| {
                let misfit =
                    |e: serde_path_to_error::Error<serde_json::Error>| (e.path().to_string(), e.inner().to_string());
                serde_path_to_error::deserialize::<_, T>(v).map(drop).map_err(misfit)
            }),
        }
    }

    /// The fields that this JSON Schema of an object names, for services that are not written in Rust.
    pub fn of_schema(schema: Value) -> Self {
        Self { schema, check: Check::Schema }
    }

    /// JSON Schema of the object.
    pub fn schema(&self) -> &Value {
        &self.schema
    }

    /// Whether this value fits. The failure names the field.
    pub fn check(&self, with: &Value) -> Result<()> {
        let empty = json!({});
        let with = if with.is_null() { &empty } else { with };
        let checked = match self.check {
            Check::Struct(check) => check(with),
            Check::Schema => schema::check(&self.schema, with),
        };
        checked.map_err(|(path, why)| {
            let known: Vec<&str> = self
                .schema
                .get("properties")
                .and_then(Value::as_object)
                .map(|p| p.keys().map(String::as_str).collect())
                .unwrap_or_default();
            let hint = if known.is_empty() {
                "it takes no parameters".to_owned()
            } else {
                format!("it takes: {}; `wharf inspect NAME` shows their schema", known.join(", "))
            };
            let at = if path.is_empty() || path == "." { String::new() } else { format!(".{path}") };
            Failure::new(ErrorKind::InvalidParams, format!("with{at}: {why}")).hint(hint)
        })
    }
}

//! A manifest: what a folder's `service.yaml` says about a service that is kept there.
//!
//! These are the fields that have a meaning. A manifest may have others, which are kept beside this
//! and never looked at.

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::UnitName;

/// The known fields of a manifest. One that is there without a value counts as absent.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Manifest {
    /// Unique on a machine; it can stand in a unit's name.
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// It needs a GPU.
    #[serde(default, deserialize_with = "or_default")]
    pub gpu_required: bool,
    /// How much of a GPU's memory it takes, in GB. None: nobody knows.
    #[serde(default, deserialize_with = "vram")]
    pub vram_gb: Option<f64>,
    /// The port that it is asked at.
    #[serde(default, deserialize_with = "port")]
    pub port: Option<u16>,
    /// Where its health is asked: a path on its port, or a whole URL.
    #[serde(default)]
    pub health_endpoint: Option<String>,
    /// How long it may take to become healthy, in seconds.
    #[serde(default, deserialize_with = "seconds")]
    pub health_timeout: Option<f64>,
    /// Its own MCP server.
    #[serde(default)]
    pub mcp: Option<Mcp>,
    /// The services that it needs.
    #[serde(default, deserialize_with = "or_default")]
    pub dependencies: Vec<Dependency>,
    /// What it may use.
    #[serde(default, deserialize_with = "or_default")]
    pub resources: Resources,
    /// When it runs.
    #[serde(default, deserialize_with = "or_default")]
    pub scheduling: Scheduling,
}

/// The MCP server of a service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Mcp {
    /// It has one.
    #[serde(default, deserialize_with = "or_default")]
    pub enabled: bool,
    /// The port of the server.
    #[serde(default, deserialize_with = "port")]
    pub port: Option<u16>,
    /// The tools that it offers.
    #[serde(default, deserialize_with = "or_default")]
    pub tools: Vec<McpTool>,
}

/// A tool of a service's MCP server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct McpTool {
    /// Its name.
    pub name: String,
    /// What it does.
    #[serde(default)]
    pub description: Option<String>,
    /// What it is given.
    #[serde(default, deserialize_with = "or_default")]
    pub parameters: Vec<McpParameter>,
}

/// A parameter of a tool.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct McpParameter {
    /// Its name.
    pub name: String,
    /// Its type, a word of JSON Schema.
    #[serde(default, rename = "type")]
    pub kind: Option<String>,
    /// It must be given.
    #[serde(default, deserialize_with = "or_default")]
    pub required: bool,
}

/// A service that another one needs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Dependency {
    /// Which.
    pub service: String,
    /// It cannot do without.
    #[serde(default, deserialize_with = "or_default")]
    pub required: bool,
}

/// What a service may use: texts as the manifest has them (`4.0`, `16GB`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Resources {
    /// So many processors.
    #[serde(default, deserialize_with = "amount")]
    pub cpu_limit: Option<String>,
    /// So much memory.
    #[serde(default, deserialize_with = "amount")]
    pub memory_limit: Option<String>,
}

/// When a service runs.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Scheduling {
    /// It starts with Wharf.
    #[serde(default, deserialize_with = "or_default")]
    pub auto_start: bool,
    /// It is stopped when nobody used it for so many seconds.
    #[serde(default, deserialize_with = "seconds")]
    pub auto_stop_after: Option<f64>,
}

/// A field without a value is an absent one.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

fn name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = String::deserialize(from)?;
    match name.parse::<UnitName>() {
        Ok(unit) if unit.instance().is_none() => Ok(name),
        _ => Err(D::Error::custom(format!(
            "{:?} is no name: use a-z, 0-9, '.', '_' and '-', starting with a letter or digit, at most 63 long",
            name.chars().take(80).collect::<String>()
        ))),
    }
}

/// A number or a text; what it is, is said in words that fit a YAML file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Number(serde_json::Number),
    Text(String),
    Other(serde_json::Value),
}

impl Scalar {
    fn shown(&self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => format!("{:?}", text.chars().take(80).collect::<String>()),
            Self::Other(serde_json::Value::Bool(value)) => value.to_string(),
            Self::Other(serde_json::Value::Array(_)) => "a list".into(),
            Self::Other(_) => "a mapping".into(),
        }
    }

    /// The number, where it is finite and not below zero.
    fn number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => number.as_f64().filter(|n| n.is_finite() && *n >= 0.0),
            Self::Text(_) | Self::Other(_) => None,
        }
    }
}

fn port<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
    let Some(given) = Option::<Scalar>::deserialize(from)? else { return Ok(None) };
    match &given {
        Scalar::Number(number) => match number.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0) {
            Some(port) => Ok(Some(port)),
            None => Err(D::Error::custom(format!("a port is a number from 1 to 65535, not {number}"))),
        },
        Scalar::Text(_) | Scalar::Other(_) => {
            Err(D::Error::custom(format!("a port is a number from 1 to 65535, not {}", given.shown())))
        }
    }
}

fn seconds<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    let Some(given) = Option::<Scalar>::deserialize(from)? else { return Ok(None) };
    let wrong = || D::Error::custom(format!("it is a number of seconds, 0 or more, not {}", given.shown()));
    given.number().ok_or_else(wrong).map(Some)
}

/// A number of GB; `?`, `unknown` and nothing say that nobody knows.
fn vram<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    match Option::<Scalar>::deserialize(from)? {
        None => Ok(None),
        Some(Scalar::Text(text)) if ["?", "unknown"].contains(&text.trim()) => Ok(None),
        Some(given) => given.number().map(Some).ok_or_else(|| {
            D::Error::custom(format!(
                "it is a number of GB, 0 or more, or \"?\" where nobody knows, not {}",
                given.shown()
            ))
        }),
    }
}

/// A text, or a number as a text.
fn amount<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    match Option::<Scalar>::deserialize(from)? {
        None => Ok(None),
        Some(Scalar::Text(text)) => Ok(Some(text)),
        Some(Scalar::Number(number)) => Ok(Some(number.to_string())),
        Some(given) => Err(D::Error::custom(format!("it is an amount (\"4.0\", \"16GB\"), not {}", given.shown()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(value: Value) -> Result<Manifest, String> {
        Manifest::deserialize(value).map_err(|e| e.to_string())
    }

    #[test]
    fn all_fields_have_their_meaning_and_unknown_ones_do_no_harm() {
        let manifest = read(json!({
            "name": "minimal-sd-api", "gpu_required": true, "vram_gb": 8, "port": 8000, "health_endpoint": "/health",
            "health_timeout": 90, "docker": { "image": "x" },
            "mcp": { "enabled": true, "port": 9000, "tools": [{ "name": "generate_image", "description": "draws",
                "parameters": [{ "name": "prompt", "type": "string", "required": true }] }] },
            "dependencies": [{ "service": "vector-db", "required": false }, { "service": "cache-redis", "required": true }],
            "resources": { "cpu_limit": "4.0", "memory_limit": "16GB", "disk": 3 },
            "scheduling": { "auto_start": true, "auto_stop_after": 3600 },
        }))
        .unwrap();
        assert_eq!((manifest.gpu_required, manifest.vram_gb, manifest.port), (true, Some(8.0), Some(8000)));
        let mcp = manifest.mcp.unwrap();
        assert_eq!((mcp.port, mcp.tools[0].parameters[0].required), (Some(9000), true));
        assert_eq!(manifest.dependencies.iter().map(|d| d.required).collect::<Vec<_>>(), [false, true]);
        assert_eq!(manifest.resources.memory_limit.as_deref(), Some("16GB"));
        assert_eq!(manifest.scheduling, Scheduling { auto_start: true, auto_stop_after: Some(3600.0) });
    }

    #[test]
    fn what_is_absent_or_empty_is_usual_and_unknown_memory_can_be_said() {
        for vram in [json!(null), json!("?"), json!("unknown")] {
            let manifest = read(json!({ "name": "a", "vram_gb": vram, "dependencies": null, "mcp": null })).unwrap();
            assert_eq!((manifest.vram_gb, manifest.dependencies.len(), manifest.mcp), (None, 0, None));
        }
        assert!(!read(json!({ "name": "a" })).unwrap().gpu_required);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_in_words() {
        for (field, value, says) in [
            ("name", json!("Big Name"), "is no name"),
            ("name", json!("a@b"), "is no name"),
            ("port", json!(0), "from 1 to 65535, not 0"),
            ("port", json!("8000"), "not \"8000\""),
            ("port", json!(70000), "not 70000"),
            ("vram_gb", json!(-1), "not -1"),
            ("vram_gb", json!("lots"), "or \"?\" where nobody knows"),
            ("health_timeout", json!("1m"), "number of seconds"),
            ("gpu_required", json!("maybe"), "expected a boolean"),
            ("dependencies", json!([{ "required": true }]), "missing field `service`"),
            ("resources", json!({ "cpu_limit": [] }), "an amount"),
        ] {
            let mut whole = json!({ "name": "a" });
            whole[field] = value;
            let refused = read(whole).unwrap_err();
            assert!(refused.contains(says), "{field}: {refused}");
        }
    }
}

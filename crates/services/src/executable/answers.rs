//! What a service's executable answers, word for word: the protocol of docs/adding/executable.md.
//!
//! Unknown fields are refused, so that a slip of the pen is told and not passed over.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use wharf_model::Signal;

/// The version of the protocol. It grows only when an executable of today would not be understood any more.
pub const PROTOCOL: u32 = 1;

/// The answer to `facts`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// The protocol that it speaks.
    #[serde(default = "first")]
    pub protocol: u32,
    /// The service's name. Without, the file's, up to its first dot.
    #[serde(default)]
    pub name: Option<String>,
    /// One line for people.
    pub summary: String,
    /// Where its program comes from.
    #[serde(default)]
    pub source: String,
    /// The programs that it runs.
    #[serde(default)]
    pub commands: Vec<String>,
    /// The environment variables that it sets.
    #[serde(default)]
    pub env: Vec<String>,
    /// Names and usual numbers of its ports.
    #[serde(default)]
    pub ports: BTreeMap<String, u16>,
    /// What it keeps in its data folder.
    #[serde(default)]
    pub data: Option<String>,
    /// Services that it uses and can do without.
    #[serde(default)]
    pub uses: Vec<String>,
    /// The instances that it has.
    #[serde(default)]
    pub instances: BTreeSet<String>,
    /// What it cannot do.
    #[serde(default)]
    pub limitations: Vec<String>,
    /// JSON Schema of its parameters. Without, it takes none but `ports`.
    #[serde(default)]
    pub params: Option<Value>,
    /// Something must be placed before it can start: `install` is asked.
    #[serde(default)]
    pub installs: bool,
    /// Fields of its policy that differ from the usual ones.
    #[serde(default)]
    pub policy: Value,
}

fn first() -> u32 {
    PROTOCOL
}

/// The answer to `install`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InstallAnswer {
    /// The version that is in the staging folder now.
    pub version: String,
    /// The programs in it: paths below that folder.
    #[serde(default)]
    pub paths: Vec<String>,
}

/// The answer to `start`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StartAnswer {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Environment variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// A file of `NAME=value` lines.
    #[serde(default)]
    pub env_file: Option<PathBuf>,
    /// Its working folder. Usually its data folder.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// Where Wharf is root: run it as the unprivileged service user.
    #[serde(default)]
    pub unprivileged: bool,
}

/// The answer to `stop`; an empty one: the usual signal.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct StopAnswer {
    /// The signal to send.
    #[serde(default)]
    pub signal: Option<Signal>,
    /// It has asked its program itself; no signal is to be sent.
    #[serde(default)]
    pub done: bool,
}

/// The answer to `health`; an empty one: healthy while its process lives.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HealthAnswer {
    /// It does what it is there for.
    #[serde(default)]
    pub ok: Option<bool>,
    /// It does, with a fault that a restart does not mend.
    #[serde(default)]
    pub degraded: bool,
    /// The evidence, for people.
    #[serde(default)]
    pub why: String,
}

/// What any verb may answer instead.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Refusal {
    /// Why it could not be done.
    pub error: String,
    /// The next thing to do.
    #[serde(default)]
    pub hint: Option<String>,
}

/// One JSON object and nothing else.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it answered nothing".into());
    }
    let value: Value = serde_json::from_str(text)
        .map_err(|e| format!("its answer is not one JSON object ({e}): {}", beginning(text)))?;
    if !value.is_object() {
        return Err(format!("its answer is no JSON object: {}", beginning(text)));
    }
    serde_path_to_error::deserialize(&value).map_err(|e| match e.path().to_string().as_str() {
        "." => format!("its answer is wrong: {}", e.inner()),
        path => format!("its answer is wrong at {path}: {}", e.inner()),
    })
}

/// Enough of a text to know it again.
fn beginning(text: &str) -> String {
    let line: String = text.chars().take(80).map(|c| if c.is_control() { ' ' } else { c }).collect();
    format!("{line:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_object_with_known_fields() {
        assert_eq!(read::<StopAnswer>(" {} \n").unwrap(), StopAnswer::default());
        assert_eq!(read::<StopAnswer>("{\"signal\": \"INT\"}").unwrap().signal, Some(Signal::Int));
        for (nonsense, says) in [
            ("", "answered nothing"),
            ("starting…\n{}", "not one JSON object"),
            ("{}{}", "not one JSON object"),
            ("[]", "no JSON object"),
            ("{\"signal\": \"LOUD\"}", "wrong at signal"),
            ("{\"sginal\": \"INT\"}", "sginal"),
        ] {
            let why = read::<StopAnswer>(nonsense).unwrap_err();
            assert!(why.contains(says), "{nonsense}: {why}");
        }
    }

    #[test]
    fn a_card_needs_a_summary_and_no_more() {
        let card: Card = read("{\"summary\": \"says hello\"}").unwrap();
        assert_eq!((card.protocol, card.installs, card.name), (1, false, None));
        assert!(read::<Card>("{}").unwrap_err().contains("summary"));
    }
}

//! What an install leaves behind, and how far it is.

use std::{collections::BTreeMap, path::PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One placed version of a service: what the receipt in its store folder says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Installed {
    /// The version, as its publisher writes it.
    pub version: String,
    /// sha256 over everything that was fetched, in hex.
    pub digest: String,
    /// Where it lies: a folder of the store that is never changed once it is there.
    pub path: PathBuf,
    /// The programs that it brought: name and path.
    pub binaries: BTreeMap<String, PathBuf>,
    /// Where it came from: `debian`, `pypi`, `built-in`, `source`.
    pub source: String,
}

/// Each thing that was fetched, as recorded beside what was placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Placed {
    /// The package or file: `redis-server_7.0.15_amd64.deb`.
    pub name: String,
    /// Its sha256 in hex.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

/// How far an operation is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Progress {
    /// What is being done, for people: `downloading redis-server 7.0.15`.
    pub stage: String,
    /// Done so far, in bytes or steps.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub done: Option<u64>,
    /// All there is to do, in the same unit, where it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub total: Option<u64>,
}

impl Progress {
    /// A stage without a measure.
    pub fn stage(stage: impl Into<String>) -> Self {
        Self { stage: stage.into(), done: None, total: None }
    }
}

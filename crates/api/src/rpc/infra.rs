//! `infra.*`: what the machine and the installation are like, and what is not as it should be.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Caller, table::methods};

methods! {
    /// What the engine does for the namespace `infra`.
    trait InfraApi, client InfraClient, dispatch dispatch, schemas schemas;

    /// Looks at everything that Wharf rests on, and names what is not as it should be.
    Read "infra.doctor" doctor(DoctorParams) -> Diagnosis;
    /// Clears away what can be cleared without harm: left-overs of runs that do not live, wrong modes of own folders.
    Control "infra.mend" mend(MendParams) -> Mended;
}

/// Params of `infra.doctor`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DoctorParams {
    /// Also what is as it should be.
    #[serde(default)]
    pub all: bool,
}

/// Params of `infra.mend`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MendParams {
    /// Only findings with one of these ids. All that can be mended unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<String>>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Good to know.
    Note,
    /// It can hurt some day.
    Warning,
    /// It hurts now.
    Error,
}

/// The next thing to do about a finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fix {
    /// What to do.
    pub text: String,
    /// A command that does it.
    pub command: Option<String>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DoctorFinding {
    /// What kind of thing it is: a stable name, described in docs/doctor.md.
    pub id: String,
    /// How bad it is.
    pub severity: Severity,
    /// One line.
    pub title: String,
    /// What was seen.
    pub detail: String,
    /// What it is about: units, runs, paths, ports, pids.
    pub objects: Vec<String>,
    /// What to do.
    pub fix: Option<Fix>,
    /// `infra.mend` does it.
    pub mendable: bool,
}

/// The result of `infra.doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnosis {
    /// No finding is an error.
    pub ok: bool,
    /// The findings, the worst first.
    pub findings: Vec<DoctorFinding>,
    /// How many things were looked at.
    pub checked: u32,
}

/// Something that was cleared away, or could not be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MendRow {
    /// The finding's id.
    pub id: String,
    /// What was done, or what it was tried on.
    pub object: String,
    /// Why it could not be; null: it was.
    pub failed: Option<String>,
}

/// The result of `infra.mend`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mended {
    /// What was tried.
    pub mended: Vec<MendRow>,
}

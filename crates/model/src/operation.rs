//! A request that takes time.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Failure, OpId, UnitName};

/// What an operation does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OpKind {
    /// Compile from source and place.
    Build,
    /// Place a version.
    Install,
    /// Make it run and be ready.
    Start,
    /// End all of its processes.
    Stop,
    /// Stop, then start.
    Restart,
    /// Stop and forget.
    Delete,
    /// Place a newer version and run it, or go back.
    Upgrade,
    /// Run the version before, or go forward again.
    Rollback,
    /// Place, run and check: a new version from nothing to ready, or back.
    Deploy,
}

impl OpKind {
    /// Whether it puts another version in the place of the present one, and takes that back if it does not get ready.
    pub const fn changes_version(self) -> bool {
        match self {
            Self::Upgrade | Self::Rollback | Self::Deploy => true,
            Self::Build | Self::Install | Self::Start | Self::Stop | Self::Restart | Self::Delete => false,
        }
    }

    /// The verb, as in `could not start redis`.
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Build => "build",
            Self::Install => "install",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Restart => "restart",
            Self::Delete => "delete",
            Self::Upgrade => "upgrade",
            Self::Rollback => "roll back",
            Self::Deploy => "deploy",
        }
    }
}

impl fmt::Display for OpKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.verb())
    }
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum OpOutcome {
    /// Not ended yet.
    Running,
    /// What was asked for is true.
    Done,
    /// It is not, and why.
    Failed {
        /// The reason.
        failure: Failure,
    },
    /// The daemon ended before it did; what became of it is in the unit's state.
    Interrupted,
}

/// One operation, as the ops log keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Operation {
    /// Its number.
    pub id: OpId,
    /// The unit.
    pub name: UnitName,
    /// What it does.
    pub kind: OpKind,
    /// When it began, in milliseconds since 1970.
    pub began_at_ms: i64,
    /// When it ended, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended_at_ms: Option<i64>,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: OpOutcome,
}

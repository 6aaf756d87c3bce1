//! The answer to a probe.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What one probe found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It answers as it should.
    Healthy,
    /// It answers, and says that something is wrong that a restart does not mend.
    Degraded,
    /// It does not answer, or says that it is unhealthy.
    Unhealthy,
}

/// One probe's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Health {
    /// What it means.
    pub verdict: Verdict,
    /// The evidence, for people: `HTTP 200`, `connection refused`, a quoted body.
    pub detail: String,
}

impl Health {
    /// Answers as it should.
    pub fn healthy(detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Healthy, detail: detail.into() }
    }

    /// Answers, with a known fault.
    pub fn degraded(detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Degraded, detail: detail.into() }
    }

    /// Does not answer as it should.
    pub fn unhealthy(detail: impl Into<String>) -> Self {
        Self { verdict: Verdict::Unhealthy, detail: detail.into() }
    }

    /// Ready to be used.
    pub fn is_ready(&self) -> bool {
        match self.verdict {
            Verdict::Healthy | Verdict::Degraded => true,
            Verdict::Unhealthy => false,
        }
    }
}

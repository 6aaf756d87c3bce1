//! `wharf start`: make it run, and be ready.

use wharf_api::{StartParams, StartReport};

use crate::{given, policy::PolicyFlags, session::Session, several, trouble::Outcome, with::With, words};

/// Start services; answers when they are ready
///
/// A unit that runs already is left as it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf start redis
  wharf start redis --port main=auto --with maxmemory=64mb
  wharf start redis postgres --no-wait
  wharf start command@chat --force          stop whoever has the GPU that it needs")]
pub(crate) struct Start {
    #[command(flatten)]
    names: given::Names,
    /// Stop it first, where it runs
    #[arg(long)]
    reset: bool,
    /// Where another holder has the GPU that it needs: stop that one first
    #[arg(long)]
    force: bool,
    /// Refuse unless this version is the installed one
    #[arg(long, value_name = "VERSION")]
    version: Option<String>,
    #[command(flatten)]
    with: With,
    #[command(flatten)]
    policy: PolicyFlags,
    #[command(flatten)]
    wait: given::Wait,
}

impl Start {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let (with, policy) = (self.with.value()?, self.policy.value()?);
        let calls = given::calls(&self.names.names, |name| {
            given::params(&StartParams {
                name: name.clone(),
                reset: self.reset,
                version: self.version.clone(),
                with: with.clone(),
                policy: policy.clone(),
                force: self.force,
                wait: !self.wait.no_wait,
            })
        })?;
        several::operations::<StartReport>(session, "service.start", calls, text)
    }
}

/// What a person reads when something runs.
pub(crate) fn text(report: &StartReport) -> String {
    let pid = report.pid.map(|pid| format!("pid {pid}"));
    let ports = words::ports(&report.ports).map(|ports| format!("port {ports}"));
    let facts: Vec<String> = pid.into_iter().chain(ports).collect();
    let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
    format!("{} is running{facts}, ready after {}", report.name, words::duration(report.duration_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_says_pid_and_port() {
        let report: StartReport = serde_json::from_value(serde_json::json!({
            "name": "redis", "started_at": 1.0, "pid": 4121, "ports": {"main": 6379}, "duration_ms": 312
        }))
        .unwrap();
        assert_eq!(text(&report), "redis is running (pid 4121, port 6379), ready after 312 ms");
    }
}

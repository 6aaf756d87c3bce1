//! `wharf status`: how a unit is.

use clap_complete::engine::ArgValueCompleter;
use wharf_api::{NameParams, Status as Report};
use wharf_model::{Phase, UnitName};

use super::list::List;
use crate::{Exit, complete, given, session::Session, several, trouble::Outcome, words};

/// Show how services are; without a name, all of them
///
/// The exit code is 0 for every state, because the question was answered. With --check it is 8
/// unless everything that was named is running and healthy.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf status\n  wharf status redis\n  wharf status --check redis && echo ready")]
pub(crate) struct Status {
    /// The units: redis, python-api@vault
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::units))]
    names: Vec<UnitName>,
    /// End with exit code 8 where one is not running and healthy
    #[arg(long, requires = "names")]
    check: bool,
}

impl Status {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        if self.names.is_empty() {
            return List::of_here(session);
        }
        let calls = given::calls(&self.names, |name| given::params(&NameParams { name: name.clone() }))?;
        several::questions::<Report>(session, "service.status", calls, |status| {
            let exit = if self.check { check(status) } else { Exit::Done };
            (words::status(status), exit)
        })
    }
}

fn check(status: &Report) -> Exit {
    // A unit whose first probe is not answered yet is `starting`: nothing found by a running one is good news.
    let is_well = status.state == Phase::Running && status.healthy != Some(false);
    if is_well { Exit::Done } else { Exit::Unwell }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn report(fields: Value) -> Report {
        let mut report = json!({
            "name": "redis", "state": "running", "status": "running", "want": "up", "uptime_ms": 7_500_000,
            "restart_count": 0, "port": 6379, "ports": {"main": 6379}, "pid": 4121, "run": 3, "version": "7.0.15",
            "started_at": null, "health_check_url": null, "healthy": true, "last_health_check": null,
            "last_healthy_at": null, "error_message": null, "last_restart": null, "restart_backoff": null,
            "last_exit": null, "operation": null
        });
        for (key, value) in fields.as_object().unwrap() {
            report[key] = value.clone();
        }
        serde_json::from_value(report).unwrap()
    }

    fn text(report: &Report) -> String {
        anstream::adapter::strip_str(&words::status(report)).to_string()
    }

    #[test]
    fn a_unit_that_runs_shows_where() {
        insta::assert_snapshot!(text(&report(json!({}))), @r"
        redis
          state    running
          wanted   up: it runs, also after a restart of the machine
          health   healthy
          uptime   2 h 5 min
          pid      4121
          ports    6379
          version  7.0.15
        ");
    }

    #[test]
    fn a_unit_that_does_not_run_shows_why_and_when_it_tries_again() {
        let report = report(json!({
            "state": "backoff", "status": "error", "healthy": false, "pid": null, "uptime_ms": 0, "restart_count": 4,
            "error_message": "redis exited with code 1", "restart_backoff": 4.25, "operation": 12,
            "last_exit": {"kind": "exited", "code": 1}
        }));
        insta::assert_snapshot!(text(&report), @r"
        redis
          state      backoff
          wanted     up: it runs, also after a restart of the machine
          ports      6379
          version    7.0.15
          restarts   4
          error      redis exited with code 1
          last run   exited with code 1
          next try   in 4.2 s
          operation  12 is under way
        ");
        assert_eq!(check(&report), Exit::Unwell);
    }
}

//! The probes of process-compose: `readiness_probe` and `liveness_probe`.

use serde_json::{Map, Value};

use super::Vars;
use crate::{
    Program,
    program::Question,
    value::{field, flag_of, ms, number_of, text_of, whole},
};

pub(super) fn read(program: &mut Program, fields: &Map<String, Value>, vars: &Vars) {
    let probe = |name: &str| field(fields, name).and_then(Value::as_object);
    if let Some(ready) = probe("readiness_probe") {
        program.ready = question(program, ready, vars);
        times(program, ready);
    }
    if let Some(live) = probe("liveness_probe") {
        program.live = question(program, live, vars);
        // What decides over a restart is what the steady questions are.
        times(program, live);
    }
}

fn question(program: &mut Program, probe: &Map<String, Value>, vars: &Vars) -> Option<Question> {
    if let Some(http) = field(probe, "http_get").and_then(Value::as_object) {
        return http_get(program, http);
    }
    let exec = field(probe, "exec").and_then(Value::as_object)?;
    let line = text_of(exec, "command")?;
    let line = match text_of(exec, "working_dir") {
        None => line,
        Some(dir) => {
            let here = program.cwd.as_ref().and_then(crate::program::Text::plain).unwrap_or_default();
            let dir = whole(&here, &dir);
            format!("cd {} && {line}", shlex::try_quote(&dir).unwrap_or_default())
        }
    };
    let script = vars.fill(&super::unescaped(&line), program);
    Some(Question::Exec(vec!["/bin/sh".into(), "-c".into(), script]))
}

fn http_get(program: &mut Program, http: &Map<String, Value>) -> Option<Question> {
    let host = text_of(http, "host").unwrap_or_else(|| "127.0.0.1".into());
    let is_here = matches!(host.as_str(), "127.0.0.1" | "localhost" | "::1" | "0.0.0.0");
    let is_plain = text_of(http, "scheme").is_none_or(|scheme| scheme.eq_ignore_ascii_case("http"));
    let number = number_of(http, "port").filter(|n| *n >= 1.0 && *n <= 65_535.0).map(|n| n as u16);
    let path = text_of(http, "path").unwrap_or_else(|| "/".into());
    let path = if path.starts_with('/') { path } else { format!("/{path}") };
    match number {
        Some(port) if is_here && is_plain => {
            let status = number_of(http, "status_code").unwrap_or(200.0) as u16;
            program.add_port("http", port, 0, None);
            if field(http, "headers").is_some() {
                program.note("the headers of its probe were left out: `health` can send them with Probe::Http");
            }
            Some(Question::Http { port, path, status })
        }
        Some(_) | None => {
            let port = text_of(http, "port").unwrap_or_default();
            program.note(format!(
                "its probe of {host}:{port}{path} is not plain HTTP on this machine: write it into `health`"
            ));
            None
        }
    }
}

fn times(program: &mut Program, probe: &Map<String, Value>) {
    // Theirs where nothing is said.
    let period = number_of(probe, "period_seconds").filter(|s| *s > 0.0).unwrap_or(10.0);
    let timeout = number_of(probe, "timeout_seconds").filter(|s| *s > 0.0).unwrap_or(1.0);
    let failures = number_of(probe, "failure_threshold").filter(|n| *n > 0.0).unwrap_or(3.0);
    let first = number_of(probe, "initial_delay_seconds").unwrap_or(0.0);
    let policy = &mut program.policy;
    policy.probe_early_ms = policy.probe_early_ms.min(ms(period));
    policy.probe_steady_ms = ms(period);
    policy.probe_timeout_ms = ms(timeout);
    policy.failure_threshold = failures as u32;
    // As long as it would take there until it is given up, and never less than usual.
    policy.start_timeout_ms = policy.start_timeout_ms.max(ms(first + (period + timeout) * failures));
    if number_of(probe, "success_threshold").is_some_and(|n| n > 1.0) {
        program.note("success_threshold: here one good answer is enough");
    }
    if flag_of(probe, "disabled") == Some(true) {
        program.note("its probe is disabled there");
    }
}

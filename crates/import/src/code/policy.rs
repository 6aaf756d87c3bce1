//! The method `policy`: the fields that differ from the usual ones.

use wharf_model::{Limits, OnExit, Policy, Requirement, Restart, Signal};

use super::text::literal;
use crate::Program;

pub(super) fn method(program: &Program) -> String {
    let fields = fields(program);
    let body = match fields.is_empty() {
        true => "        Policy::default()\n".to_owned(),
        false => format!("        Policy {{\n{}            ..Policy::default()\n        }}\n", lines(&fields, 12)),
    };
    format!("    fn policy(&self, _with: &Value) -> Policy {{\n{body}    }}\n")
}

fn lines(fields: &[(&str, String)], indent: usize) -> String {
    fields.iter().map(|(name, value)| format!("{:indent$}{name}: {value},\n", "")).collect()
}

fn fields(program: &Program) -> Vec<(&'static str, String)> {
    let (policy, usual) = (&program.policy, Policy::default());
    let mut all = vec![];
    let restart = restart(&policy.restart);
    if !restart.is_empty() {
        all.push(("restart", block("Restart", &restart)));
    }
    if !policy.exits.is_empty() {
        let exits = policy.exits.iter().map(|(exit, means)| format!("({}.into(), {})", literal(exit), on_exit(*means)));
        all.push(("exits", format!("{}.into()", list("[", exits.collect()))));
    }
    if !program.needs.is_empty() {
        let needs = program
            .needs
            .iter()
            .map(|need| format!("Need::{}({})", if need.soft { "soft" } else { "hard" }, literal(&need.name)));
        all.push(("needs", format!("{}.into_iter().flatten().collect()", list("[", needs.collect()))));
    }
    if !policy.requires.is_empty() {
        let all_required: Vec<String> = policy.requires.iter().filter_map(requirement).collect();
        all.push(("requires", list("vec![", all_required)));
    }
    for (name, argv) in [("preflight", &policy.preflight), ("post_start", &policy.post_start)] {
        if !argv.is_empty() {
            let words: Vec<String> = argv.iter().map(|word| format!("{}.into()", literal(word))).collect();
            all.push((name, list("vec![", words)));
        }
    }
    for (name, is) in [("notify", policy.notify), ("job", policy.job)] {
        if is {
            all.push((name, "true".into()));
        }
    }
    if let Some(schedule) = &policy.schedule {
        all.push(("schedule", format!("Some({}.into())", literal(schedule))));
    }
    for (name, value, usual) in [
        ("start_timeout_ms", policy.start_timeout_ms, usual.start_timeout_ms),
        ("ready_after_ms", policy.ready_after_ms, usual.ready_after_ms),
        ("stop_timeout_ms", policy.stop_timeout_ms, usual.stop_timeout_ms),
        ("probe_timeout_ms", policy.probe_timeout_ms, usual.probe_timeout_ms),
        ("probe_early_ms", policy.probe_early_ms, usual.probe_early_ms),
        ("probe_steady_ms", policy.probe_steady_ms, usual.probe_steady_ms),
    ] {
        if value != usual {
            all.push((name, number(value)));
        }
    }
    if policy.failure_threshold != usual.failure_threshold {
        all.push(("failure_threshold", policy.failure_threshold.to_string()));
    }
    if let Some(signal) = policy.stop_signal {
        all.push(("stop_signal", format!("Some(Signal::{})", signal_name(signal))));
    }
    if let Some(ms) = policy.watchdog_ms {
        all.push(("watchdog_ms", format!("Some({})", number(ms))));
    }
    let limits = limits(&policy.limits);
    if !limits.is_empty() {
        all.push(("limits", block("Limits", &limits)));
    }
    if let Some(user) = &policy.run_as {
        all.push(("run_as", format!("Some({}.into())", literal(user))));
    }
    all
}

/// A list, a line each where they are many.
fn list(open: &str, items: Vec<String>) -> String {
    let one = format!("{open}{}]", items.join(", "));
    if one.len() <= 70 {
        return one;
    }
    let lines: String = items.iter().map(|item| format!("{:16}{item},\n", "")).collect();
    format!("{open}\n{lines}{:12}]", "")
}

fn block(name: &str, fields: &[(&str, String)]) -> String {
    format!("{name} {{\n{}{:16}..{name}::default()\n{:12}}}", lines(fields, 16), "", "")
}

fn restart(restart: &Restart) -> Vec<(&'static str, String)> {
    let usual = Restart::default();
    [
        ("budget", u64::from(restart.budget), u64::from(usual.budget)),
        ("window_s", restart.window_s, usual.window_s),
        ("stable_s", restart.stable_s, usual.stable_s),
        ("delay_ms", restart.delay_ms, usual.delay_ms),
        ("max_delay_s", restart.max_delay_s, usual.max_delay_s),
        ("slow_retry_s", restart.slow_retry_s, usual.slow_retry_s),
    ]
    .into_iter()
    .filter(|(_, value, usual)| value != usual)
    .map(|(name, value, _)| (name, number(value)))
    .collect()
}

fn limits(limits: &Limits) -> Vec<(&'static str, String)> {
    let some = |value: String| format!("Some({value})");
    [
        ("memory_bytes", limits.memory_bytes.map(|n| some(number(n)))),
        ("cpu_percent", limits.cpu_percent.map(|n| some(n.to_string()))),
        ("pids", limits.pids.map(|n| some(number(n.into())))),
        ("open_files", limits.open_files.map(|n| some(number(n)))),
        ("umask", limits.umask.as_ref().map(|mask| some(format!("{}.into()", literal(mask))))),
        ("nice", limits.nice.map(|n| some(n.to_string()))),
        ("oom_score_adj", limits.oom_score_adj.map(|n| some(n.to_string()))),
        ("core_bytes", limits.core_bytes.map(|n| some(number(n)))),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect()
}

/// No file names another kind of requirement.
fn requirement(requirement: &Requirement) -> Option<String> {
    match requirement {
        Requirement::File(path) => Some(format!("Requirement::File({}.into())", literal(&path.to_string_lossy()))),
        Requirement::Device(_)
        | Requirement::Env(_)
        | Requirement::Program(_)
        | Requirement::Version { .. }
        | Requirement::Gpu(_)
        | Requirement::System(_)
        | Requirement::Display => None,
    }
}

fn on_exit(means: OnExit) -> &'static str {
    match means {
        OnExit::Restart => "OnExit::Restart",
        OnExit::Stop => "OnExit::Stop",
        OnExit::Fail => "OnExit::Fail",
    }
}

pub(super) fn signal_name(signal: Signal) -> &'static str {
    match signal {
        Signal::Term => "Term",
        Signal::Int => "Int",
        Signal::Quit => "Quit",
        Signal::Hup => "Hup",
        Signal::Usr1 => "Usr1",
        Signal::Usr2 => "Usr2",
        Signal::Kill => "Kill",
    }
}

/// A number with `_` between its thousands.
fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

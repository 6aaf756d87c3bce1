//! When systemd starts a unit again, and how it ends one.

use wharf_model::OnExit;

use super::{unit::Unit, values};
use crate::{Program, supervisord::signal};

pub(super) const READ: [&str; 20] = [
    "Restart",
    "RestartSec",
    "RestartSteps",
    "RestartMaxDelaySec",
    "StartLimitInterval",
    "StartLimitBurst",
    "SuccessExitStatus",
    "RestartPreventExitStatus",
    "RestartForceExitStatus",
    "TimeoutStartSec",
    "TimeoutStopSec",
    "TimeoutSec",
    "TimeoutAbortSec",
    "KillSignal",
    "KillMode",
    "SendSIGKILL",
    "SendSIGHUP",
    "WatchdogSec",
    "FinalKillSignal",
    "RestartMode",
];

/// Signals after which systemd takes a unit for ended well.
const CLEAN: [&str; 4] = ["SIGHUP", "SIGINT", "SIGTERM", "SIGPIPE"];

pub(super) fn read(program: &mut Program, unit: &Unit) {
    let get = |key: &str| unit.last("Service", key);
    let how = get("Restart").unwrap_or("no");
    match how {
        "always" => {}
        "on-failure" => clean_ends(program),
        "on-abnormal" | "on-abort" | "on-watchdog" => {
            clean_ends(program);
            program.note(format!("Restart={how}: here it is also started again after an exit code that is not 0"));
        }
        "on-success" => {
            program.restart_never();
            program.note("Restart=on-success has no counterpart: it is not started again");
        }
        _ => program.restart_never(),
    }
    if let Some(delay) = get("RestartSec").and_then(values::span_ms) {
        program.restart_after(delay);
    }
    if let Some(most) = get("RestartMaxDelaySec").and_then(values::span_ms) {
        program.policy.restart.max_delay_s = most.div_ceil(1000);
    }
    limit(program, unit);
    exits(program, unit, how == "always");
    ending(program, unit);
}

fn clean_ends(program: &mut Program) {
    program.restart_on_failure();
    for signal in CLEAN {
        program.policy.exits.insert(signal.into(), OnExit::Stop);
    }
}

fn limit(program: &mut Program, unit: &Unit) {
    let of_unit =
        |key: &str, old: &str| unit.last("Unit", key).or_else(|| unit.last("Service", old)).map(str::to_owned);
    let burst = of_unit("StartLimitBurst", "StartLimitBurst").and_then(|n| n.parse::<u32>().ok());
    let interval = of_unit("StartLimitIntervalSec", "StartLimitInterval");
    if interval.as_deref().and_then(values::span_ms) == Some(0) || interval.as_deref() == Some("infinity") {
        program.note("it is started again without a limit there; here it is given up after some deaths, and tried again every 5 minutes");
        return;
    }
    if burst.is_none() && interval.is_none() {
        return;
    }
    // The first start counts there.
    program.policy.restart.budget = burst.unwrap_or(5).saturating_sub(1);
    program.policy.restart.window_s = interval.as_deref().and_then(values::span_ms).unwrap_or(10_000).div_ceil(1000);
    program.policy.restart.slow_retry_s = 0;
}

fn exits(program: &mut Program, unit: &Unit, always: bool) {
    for (key, means) in [
        ("SuccessExitStatus", OnExit::Stop),
        ("RestartPreventExitStatus", OnExit::Fail),
        ("RestartForceExitStatus", OnExit::Restart),
    ] {
        // A unit that is always started again is that after a success, too.
        if always && means == OnExit::Stop {
            continue;
        }
        for word in unit.all("Service", key).iter().flat_map(|list| list.split_whitespace()) {
            let code = word.parse::<u8>().ok().map(|code| code.to_string());
            let named = signal(word).and_then(|signal| wharf_model::Signal::name(signal.number())).map(str::to_owned);
            match code.or(named) {
                Some(exit) => drop(program.policy.exits.insert(exit, means)),
                None => program.note(format!("{key}={word} was left out: name its number in the policy's `exits`")),
            }
        }
    }
}

fn ending(program: &mut Program, unit: &Unit) {
    let get = |key: &str| unit.last("Service", key);
    let span = |key: &str| get(key).or_else(|| get("TimeoutSec")).and_then(values::span_ms).filter(|ms| *ms > 0);
    if let Some(ms) = span("TimeoutStartSec") {
        program.policy.start_timeout_ms = ms;
    }
    if let Some(ms) = span("TimeoutStopSec") {
        program.policy.stop_timeout_ms = ms;
    }
    if let Some(word) = get("KillSignal") {
        match signal(word) {
            Some(signal) => program.policy.stop_signal = Some(signal),
            None => program.note(format!("KillSignal={word} is none that Wharf sends: it gets SIGTERM")),
        }
    }
    if let Some(mode) = get("KillMode").filter(|mode| *mode != "control-group") {
        program.note(format!("KillMode={mode}: Wharf asks the main process and its group, and leaves nothing behind"));
    }
    if get("SendSIGKILL").is_some_and(|is| !values::is_yes(is)) {
        program.note("SendSIGKILL=no: Wharf ends what does not end in time");
    }
    for key in ["SendSIGHUP", "FinalKillSignal", "TimeoutAbortSec", "RestartMode"] {
        if get(key).is_some() {
            program.note(format!("{key} has no counterpart"));
        }
    }
}

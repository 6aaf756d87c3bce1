//! A systemd service unit, with its drop-ins and its timer.

mod exec;
mod limits;
mod restart;
mod unit;
pub(crate) mod values;

use wharf_model::{Failure, Requirement, Signal};

use crate::{
    File, Imported, Kind, Note, Program, names,
    program::{EnvFile, Needed, Piece, Text},
    wrong,
};
use exec::Specifiers;
use unit::Unit;

/// Settings that confine a unit in ways that Wharf does not.
const CONFINING: [&str; 16] = [
    "IPAddress",
    "Device",
    "RemoveIPC",
    "Protect",
    "Private",
    "Restrict",
    "SystemCall",
    "Capability",
    "AmbientCapabilities",
    "NoNewPrivileges",
    "ReadOnly",
    "ReadWrite",
    "Inaccessible",
    "Bind",
    "LockPersonality",
    "MemoryDeny",
];
/// Settings of `[Service]` that are read here.
const READ: [&str; 17] = [
    "Type",
    "ExecStart",
    "ExecStartPre",
    "ExecStartPost",
    "ExecStop",
    "User",
    "DynamicUser",
    "WorkingDirectory",
    "Environment",
    "EnvironmentFile",
    "RuntimeDirectory",
    "StateDirectory",
    "RemainAfterExit",
    "RuntimeDirectoryMode",
    "StateDirectoryMode",
    "RuntimeDirectoryPreserve",
    "NotifyAccess",
];
/// What each of these means here.
const REMARKS: [(&str, &str); 21] = [
    ("ExecReload", "ExecReload has no verb here: `wharf restart`, or send the signal yourself"),
    ("ExecStopPost", "ExecStopPost has no counterpart"),
    ("ExecCondition", "ExecCondition has no counterpart: a preflight that fails blocks the start"),
    ("PIDFile", "PIDFile is not needed: Wharf holds the process by its pidfd"),
    ("BusName", "BusName has no counterpart: it counts as ready when it lives"),
    ("Group", "Group was left out: it has all groups of its user"),
    ("SupplementaryGroups", "SupplementaryGroups was left out: it has all groups of its user"),
    ("PassEnvironment", "PassEnvironment: Wharf passes nothing of its own environment on; set it in `start`"),
    ("UnsetEnvironment", "UnsetEnvironment is not needed: a unit gets only what its service sets"),
    ("RuntimeMaxSec", "RuntimeMaxSec has no counterpart"),
    ("CacheDirectory", "CacheDirectory was left out: its data folder is the place"),
    ("LogsDirectory", "LogsDirectory was left out: its output is kept by Wharf"),
    ("ConfigurationDirectory", "ConfigurationDirectory was left out"),
    ("LoadCredential", "LoadCredential: name it in the policy's `secrets`"),
    ("SetCredential", "SetCredential: name it in the policy's `secrets`"),
    ("Slice", "Slice has no counterpart: each run has a cgroup of its own"),
    ("Delegate", "Delegate has no counterpart"),
    ("Sockets", "Sockets: the policy's `on_demand` with `pass_sockets` gives it its ports open"),
    ("StandardInput", "StandardInput was left out: it reads nothing"),
    ("TTYPath", "it has a terminal there; under Wharf it has none"),
    ("RootDirectory", "RootDirectory has no counterpart"),
];

/// Reads one.
pub(crate) fn read(file: &File<'_>) -> Result<Imported, Failure> {
    let own = |name: &str| name.ends_with(".conf");
    let drop_ins = file.beside.iter().filter(|(name, _)| own(name)).map(|(_, text)| text.as_str());
    let unit = Unit::read(file.text, drop_ins).map_err(|why| wrong(file, Kind::Systemd, why))?;
    if !unit.has_section("Service") {
        return Err(wrong(file, Kind::Systemd, "it has no section [Service]"));
    }
    let called = file.name.strip_suffix(".service").unwrap_or(file.name);
    let mut program = program(file, called, &unit);
    let mut notes = vec![];
    for (name, text) in &file.beside {
        if name.ends_with(".timer") {
            timer(&mut program, text);
        } else if name.ends_with(".socket") {
            program.note(format!("{name}: the policy's `on_demand` with `pass_sockets` does the same for ports"));
        }
    }
    if unit.last("Install", "WantedBy").is_some() {
        let text = "[Install] is not needed: what was started is wanted, and starts again with the machine";
        notes.push(Note { service: None, text: text.into() });
    }
    Ok(Imported { services: vec![program], notes })
}

fn program(file: &File<'_>, called: &str, unit: &Unit) -> Program {
    let (prefix, instance) = called.split_once('@').map_or((called, None), |(prefix, i)| (prefix, Some(i)));
    let mut program = Program::new(prefix, file.name.to_owned());
    let summary = unit.last("Unit", "Description").unwrap_or(prefix);
    program.summary = ["%i", "%I"].iter().fold(summary.to_owned(), |text, which| text.replace(which, "NAME"));
    match instance {
        None => {}
        Some("") => {
            program.is_template = true;
            program
                .note(format!("it is a template: name the instances that you want in `facts`, or start {prefix}@NAME"));
        }
        Some(one) => program.instances = vec![names::instance(one)],
    }
    let specifiers = Specifiers::of(file, called, unit);
    surroundings(&mut program, unit, &specifiers);
    commands(&mut program, unit, &specifiers);
    restart::read(&mut program, unit);
    limits::read(&mut program, unit);
    kind(&mut program, unit);
    order(&mut program, unit);
    conditions(&mut program, unit, &specifiers);
    remarks(&mut program, unit);
    program
}

/// User, folders, environment.
fn surroundings(program: &mut Program, unit: &Unit, specifiers: &Specifiers<'_>) {
    let get = |key: &str| unit.last("Service", key);
    program.policy.run_as = get("User").and_then(|user| specifiers.fill(user, program).plain()).filter(|u| u != "root");
    program.unprivileged = get("DynamicUser").is_some_and(values::is_yes);
    let folder = get("WorkingDirectory").map(|dir| dir.trim_start_matches('-').to_owned());
    let home = specifiers.home.clone();
    let usual = if specifiers.is_user { home.clone() } else { "/".to_owned() };
    let folder = folder.map_or(usual, |dir| if dir == "~" { home } else { dir });
    program.cwd = Some(specifiers.fill(&folder, program));
    for (setting, variable, piece) in
        [("RuntimeDirectory", "RUNTIME_DIRECTORY", Piece::Run), ("StateDirectory", "STATE_DIRECTORY", Piece::Data)]
    {
        if let Some(names) = get(setting) {
            program.set(variable, Text(vec![piece]));
            program
                .note(format!("{setting}={names}: here that is a folder of Wharf's, which it is told by {variable}"));
        }
    }
    for list in unit.all("Service", "Environment") {
        for pair in exec::split(list) {
            if let Some((name, value)) = pair.split_once('=') {
                let value = specifiers.fill(value, program);
                program.set(name, value);
            }
        }
    }
    let files = unit.all("Service", "EnvironmentFile");
    if let Some(first) = files.first() {
        let path = specifiers.fill(first.trim_start_matches('-'), program);
        program.env_file = Some(EnvFile { path, is_optional: first.starts_with('-') });
    }
    for other in files.iter().skip(1) {
        program.note(format!("a unit has one env file: {other} was left out; put its lines into the first"));
    }
}

/// What is run at the start, beside it, and to end it.
fn commands(program: &mut Program, unit: &Unit, specifiers: &Specifiers<'_>) {
    let starts = unit.all("Service", "ExecStart");
    if starts.len() > 1 {
        program.argv = exec::several(program, &starts, specifiers);
    } else if let Some(line) = starts.first() {
        if line.starts_with('-') {
            program.note("ExecStart with -: there its failure counts as success; here it is a failure");
        }
        program.argv = exec::argv(program, line, specifiers);
    }
    program.port_of_variable("PORT", 0);
    for (key, is_before) in [("ExecStartPre", true), ("ExecStartPost", false)] {
        let lines = unit.all("Service", key);
        let words = match &lines[..] {
            [] => continue,
            [line] if !line.starts_with('-') => exec::argv(program, line, specifiers),
            several => exec::several(program, several, specifiers),
        };
        match words.iter().map(Text::plain).collect::<Option<Vec<String>>>() {
            Some(words) if is_before => program.policy.preflight = words,
            Some(words) => program.policy.post_start = words,
            None => program.note(format!(
                "{key} names the instance or a folder of Wharf's: run it in `start`, with cx.run(…).success()"
            )),
        }
    }
    stop(program, &unit.all("Service", "ExecStop"), specifiers);
}

fn stop(program: &mut Program, lines: &[&str], specifiers: &Specifiers<'_>) {
    let Some(first) = lines.first() else { return };
    let words = exec::split(first.trim_start_matches(['-', '+', '!', ':', '@']));
    let names: Vec<&str> = words.iter().map(String::as_str).collect();
    let is_kill = names.first().is_some_and(|program| program.rsplit('/').next() == Some("kill"));
    if is_kill && names.iter().any(|word| word.contains("MAINPID")) {
        let mut signals = names
            .iter()
            .skip(1)
            .filter_map(|word| crate::supervisord::signal(word.trim_start_matches('-').trim_start_matches("signal=")));
        program.policy.stop_signal = signals.next_back();
        return;
    }
    if lines.iter().any(|line| line.contains("MAINPID")) {
        program.note(format!(
            "ExecStop {first:?} needs the main process's number: write it into `stop`, or name a stop_signal"
        ));
        return;
    }
    program.stop_then = Some(Signal::Term);
    program.stop = Some(if lines.len() == 1 && !first.starts_with('-') {
        exec::argv(program, first, specifiers)
    } else {
        exec::several(program, lines, specifiers)
    });
}

/// When it counts as started.
fn kind(program: &mut Program, unit: &Unit) {
    match unit.last("Service", "Type").unwrap_or("simple") {
        "notify" | "notify-reload" => program.policy.notify = true,
        "oneshot" => program.policy.job = true,
        "forking" => program.note(
            "Type=forking: it puts itself into the background; under Wharf it must stay in the foreground, so give it that option",
        ),
        "dbus" | "simple" | "exec" | "idle" => {}
        other => program.note(format!("Type={other} is not known: it counts as started when it lives")),
    }
    if let Some(time) = unit.last("Service", "WatchdogSec").and_then(values::span_ms).filter(|ms| *ms > 0) {
        program.policy.watchdog_ms = Some(time);
    }
}

/// What it needs, and what it starts after.
fn order(program: &mut Program, unit: &Unit) {
    for (key, soft) in [("Requires", false), ("BindsTo", false), ("Requisite", false), ("Wants", true), ("After", true)]
    {
        for name in unit.all("Unit", key).iter().flat_map(|list| list.split_whitespace()) {
            let Some(service) = name.strip_suffix(".service") else {
                let is_usual = name.ends_with(".target") || name.ends_with(".slice");
                if !is_usual {
                    program.note(format!("{key}={name} was left out: it is no service"));
                }
                continue;
            };
            let known = program.needs.iter_mut().find(|need| need.name == service);
            match known {
                Some(need) => need.soft &= soft,
                None => program.needs.push(Needed { name: service.to_owned(), soft }),
            }
        }
    }
    for (key, what) in [
        ("Before", "is the other's business here: let that one need it"),
        ("Conflicts", "has no counterpart"),
        ("PartOf", "has no counterpart: a unit that is stopped stops those that need it"),
        ("OnFailure", "has no counterpart: `wharf events -f` tells of failures"),
    ] {
        let names: Vec<&str> = unit.all("Unit", key).iter().flat_map(|list| list.split_whitespace()).collect();
        let names: Vec<&str> = names.into_iter().filter(|name| !name.ends_with(".target")).collect();
        if !names.is_empty() {
            program.note(format!("{key}={} {what}", names.join(" ")));
        }
    }
}

/// What must be there before a start.
fn conditions(program: &mut Program, unit: &Unit, specifiers: &Specifiers<'_>) {
    for key in ["ConditionPathExists", "AssertPathExists"] {
        for path in unit.all("Unit", key) {
            match specifiers.fill(path, program).plain().filter(|path| path.starts_with('/')) {
                Some(path) => program.policy.requires.push(Requirement::File(path.into())),
                None => program.note(format!("{key}={path} has no counterpart")),
            }
        }
    }
}

fn remarks(program: &mut Program, unit: &Unit) {
    let keys = unit.keys("Service");
    for (key, what) in REMARKS {
        if keys.contains(&key) {
            program.note(what);
        }
    }
    if keys.iter().any(|key| key.starts_with("Standard") || key.starts_with("Syslog") || key.starts_with("Log")) {
        program
            .note(format!("its output is in `wharf logs {}`, not in the journal or a file of its own", program.name));
    }
    let confining: Vec<&str> =
        keys.iter().copied().filter(|key| CONFINING.iter().any(|begin| key.starts_with(begin))).collect();
    if !confining.is_empty() {
        program.note(format!("Wharf does not confine a unit in these ways: {}", confining.join(", ")));
    }
    let is_read = |key: &str| {
        READ.contains(&key)
            || restart::READ.contains(&key)
            || limits::READ.contains(&key)
            || REMARKS.iter().any(|(known, _)| *known == key)
            || confining.contains(&key)
            || ["Standard", "Syslog", "Log", "X-"].iter().any(|begin| key.starts_with(begin))
    };
    let unread: Vec<&str> = keys.into_iter().filter(|key| !is_read(key)).collect();
    if !unread.is_empty() {
        program.note(format!("not read: {}", unread.join(", ")));
    }
}

/// A timer of the same name says when it runs.
fn timer(program: &mut Program, text: &str) {
    let Ok(unit) = Unit::read(text, std::iter::empty()) else { return };
    let calendar = unit.last("Timer", "OnCalendar");
    let every = unit.last("Timer", "OnUnitActiveSec").or_else(|| unit.last("Timer", "OnUnitInactiveSec"));
    let schedule = match (calendar, every) {
        (Some(calendar), _) => values::cron_of_calendar(calendar),
        (None, Some(every)) => values::cron_of_interval(every),
        (None, None) => None,
    };
    match (schedule, calendar.or(every)) {
        (Some(cron), _) => program.policy.schedule = Some(cron),
        (None, Some(when)) => program.note(format!("its timer's {when:?} is no line of cron: give it a `schedule`")),
        (None, None) => program.note("its timer says no time of a calendar: give it a `schedule`"),
    }
    for key in ["RandomizedDelaySec", "Persistent", "OnBootSec", "OnStartupSec"] {
        if unit.last("Timer", key).is_some() {
            program.note(format!("{key} of its timer has no counterpart"));
        }
    }
}

#[cfg(test)]
mod tests;

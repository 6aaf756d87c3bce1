//! supervisord's `[program:x]` sections.

mod ini;

use std::collections::BTreeMap;

use wharf_model::{Failure, Signal};

use crate::{
    File, Imported, Kind, Note, Program,
    program::{Needed, Piece, Text},
    shell,
    value::whole,
    wrong,
};
use ini::Section;

/// What is read of a program.
const READ: [&str; 23] = [
    "command",
    "process_name",
    "numprocs",
    "numprocs_start",
    "priority",
    "autostart",
    "startsecs",
    "startretries",
    "autorestart",
    "exitcodes",
    "stopsignal",
    "stopwaitsecs",
    "stopasgroup",
    "killasgroup",
    "user",
    "directory",
    "umask",
    "environment",
    "serverurl",
    "redirect_stderr",
    "events",
    "buffer_size",
    "result_handler",
];

/// Reads one.
pub(crate) fn read(file: &File<'_>) -> Result<Imported, Failure> {
    let sections = ini::sections(file.text).map_err(|why| wrong(file, Kind::Supervisord, why))?;
    let (mut services, mut notes) = (vec![], vec![]);
    let mut priorities: BTreeMap<i64, Vec<String>> = BTreeMap::new();
    for section in &sections {
        let Some((kind, name)) = section.name.split_once(':') else {
            note_of_whole(section, &mut notes);
            continue;
        };
        match kind {
            "program" => {
                let program = program(file, name.trim(), section);
                if let Some(priority) = section.get("priority").and_then(|text| text.trim().parse().ok()) {
                    priorities.entry(priority).or_default().push(program.called.clone());
                }
                services.push(program);
            }
            "group" => {
                let text = format!("the group {name} was left out: a unit's name stands for itself");
                notes.push(Note { service: None, text });
            }
            kind => {
                let text = format!("[{kind}:{name}] was left out: Wharf has no such thing");
                notes.push(Note { service: None, text });
            }
        }
    }
    order(&mut services, &priorities);
    Ok(Imported { services, notes })
}

fn note_of_whole(section: &Section, notes: &mut Vec<Note>) {
    if section.name == "include" {
        let files = section.get("files").unwrap_or_default();
        notes.push(Note { service: None, text: format!("it includes {files}: import those files too") });
    }
}

/// Lower numbers start first, where the file says numbers.
fn order(services: &mut [Program], priorities: &BTreeMap<i64, Vec<String>>) {
    let groups: Vec<&Vec<String>> = priorities.values().collect();
    for pair in groups.windows(2) {
        for program in services.iter_mut().filter(|program| pair[1].contains(&program.called)) {
            program.needs.extend(pair[0].iter().map(|name| Needed { name: name.clone(), soft: true }));
        }
    }
}

fn program(file: &File<'_>, name: &str, section: &Section) -> Program {
    let mut program = Program::new(name, format!("[program:{name}] of {}", file.name));
    program.summary = format!("{name} of {}", file.name);
    let count: u32 = section.get("numprocs").and_then(|n| n.trim().parse().ok()).unwrap_or(1);
    let first: u32 = section.get("numprocs_start").and_then(|n| n.trim().parse().ok()).unwrap_or(0);
    if count > 1 {
        program.instances = (first..first.saturating_add(count.min(1000))).map(|n| n.to_string()).collect();
    }
    let world = World { file, name, first };
    run(&mut program, section, &world);
    keeping(&mut program, section);
    stopping(&mut program, section);
    program.policy.run_as = section.get("user").map(|user| user.trim().to_owned());
    program.policy.limits.umask = section.get("umask").map(|mask| mask.trim().to_owned());
    remarks(&mut program, section);
    program
}

fn run(program: &mut Program, section: &Section, world: &World<'_>) {
    // `%(here)s` is a whole path.
    let folder = match section.get("directory").unwrap_or_default() {
        "" => world.file.folder.to_owned(),
        here if here.starts_with('%') => here.to_owned(),
        folder => whole(world.file.folder, folder),
    };
    program.cwd = Some(world.fill(&folder, program));
    for (name, value) in ini::environment(section.get("environment").unwrap_or_default()) {
        let value = world.fill(&value, program);
        program.set(&name, value);
    }
    let line = section.get("command").unwrap_or_default().to_owned();
    // No shell is between there: a `$` is a `$`.
    match shlex::split(&line) {
        Some(words) => program.argv = words.iter().map(|word| world.fill(word, program)).collect(),
        None => {
            program.note("the quotes of its command do not match: look at it");
            shell::command(program, &line);
        }
    }
    program.port_of_variable("PORT", 0);
}

fn keeping(program: &mut Program, section: &Section) {
    let number = |name: &str| section.get(name).and_then(|text| text.trim().parse::<u64>().ok());
    program.policy.ready_after_ms = number("startsecs").unwrap_or(1).saturating_mul(1000);
    if let Some(most) = number("startretries") {
        program.policy.restart.budget = most as u32;
        program.policy.restart.slow_retry_s = 0;
    }
    let codes = section.get("exitcodes").unwrap_or("0").split(',').filter_map(|code| code.trim().parse().ok());
    let codes: Vec<i32> = codes.collect();
    match section.get("autorestart").unwrap_or("unexpected").trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => {}
        "false" | "no" | "off" | "0" => {
            program.restart_never();
            program.exits_well(&codes);
        }
        _ => program.exits_well(&codes),
    }
    if section.get("autostart").is_some_and(|is| matches!(is.trim(), "false" | "no" | "off" | "0")) {
        program.note("autostart is off there; here it runs when somebody starts it");
    }
}

fn stopping(program: &mut Program, section: &Section) {
    if let Some(seconds) = section.get("stopwaitsecs").and_then(|text| text.trim().parse::<u64>().ok()) {
        program.policy.stop_timeout_ms = seconds.saturating_mul(1000);
    }
    let Some(word) = section.get("stopsignal").map(str::trim) else { return };
    match signal(word) {
        Some(signal) => program.policy.stop_signal = Some(signal),
        None => program.note(format!("stopsignal {word} is none that Wharf sends: it gets SIGTERM")),
    }
}

/// A signal by its name or number.
pub(crate) fn signal(word: &str) -> Option<Signal> {
    use Signal::{Hup, Int, Kill, Quit, Term, Usr1, Usr2};
    let word = word.to_ascii_uppercase();
    let word = word.strip_prefix("SIG").unwrap_or(&word).to_owned();
    [Term, Int, Quit, Hup, Usr1, Usr2, Kill].into_iter().find(|signal| {
        let name = Signal::name(signal.number()).unwrap_or_default();
        name.strip_prefix("SIG") == Some(&word) || signal.number().to_string() == word
    })
}

fn remarks(program: &mut Program, section: &Section) {
    let keys: Vec<&str> = section.keys().collect();
    if keys.iter().any(|key| key.starts_with("stdout_") || key.starts_with("stderr_")) {
        program.note(format!(
            "its log files are not written: its output, both streams in one, is in `wharf logs {}`",
            program.name
        ));
    }
    if keys.contains(&"serverurl") {
        program.note("serverurl has no counterpart");
    }
    let unread = keys
        .into_iter()
        .filter(|key| !READ.contains(key) && !key.starts_with("stdout_") && !key.starts_with("stderr_"));
    let unread: Vec<&str> = unread.collect();
    if !unread.is_empty() {
        program.note(format!("not read: {}", unread.join(", ")));
    }
}

/// What `%(name)s` stands for.
struct World<'a> {
    file: &'a File<'a>,
    name: &'a str,
    first: u32,
}

impl World<'_> {
    fn fill(&self, text: &str, program: &mut Program) -> Text {
        let mut filled = Text::default();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            filled.push(before);
            if let Some(after) = after.strip_prefix('%') {
                filled.push("%");
                rest = after;
                continue;
            }
            let Some((name, after)) = after.strip_prefix('(').and_then(|t| t.split_once(')')) else {
                filled.push("%");
                rest = after;
                continue;
            };
            let end = after.find(|c: char| c.is_ascii_alphabetic()).map_or(after.len(), |at| at + 1);
            let (format, after) = after.split_at(end);
            self.expand(name, format, &mut filled, program);
            rest = after;
        }
        filled.push(rest);
        filled
    }

    fn expand(&self, name: &str, format: &str, filled: &mut Text, program: &mut Program) {
        match name {
            "program_name" | "group_name" => filled.push(self.name),
            "here" => filled.push(self.file.folder),
            "process_num" if program.instances.is_empty() => filled.push(&self.first.to_string()),
            "process_num" => {
                let width = format.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_start_matches('0');
                filled.0.push(Piece::Instance(width.parse().unwrap_or(0)));
            }
            "numprocs" => filled.push(&program.instances.len().max(1).to_string()),
            other => {
                let what = match other.strip_prefix("ENV_") {
                    Some(variable) => {
                        format!("it takes {variable} from supervisord's environment: %({other})s was left as it stands")
                    }
                    None => format!("%({other})s was left as it stands: fill it in by hand"),
                };
                program.note(what);
                filled.push(&format!("%({other}){format}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "; ours
[supervisord]
logfile=/tmp/supervisord.log

[program:cache]
command=/usr/bin/redis-server --port 6390
priority=10
autorestart=true
startsecs=5

[program:worker]
command=python3 -u worker.py --number %(process_num)02d --name \"%(program_name)s 100%%\" --key %(ENV_KEY)s
process_name=%(program_name)s_%(process_num)02d
numprocs=2
numprocs_start=1
directory=%(here)s/app
environment=A=\"1,2\",B=two,NUMBER=%(process_num)d
user=www-data
stopsignal=QUIT
stopwaitsecs=20
exitcodes=0,2
startretries=4
umask=027
priority=20
stdout_logfile=/var/log/%(program_name)s.log
colour=red
    blue

[group:all]
programs=cache,worker
[include]
files = conf.d/*.conf
[eventlistener:mail]
command=x
";

    #[test]
    fn each_section_is_a_service() {
        let file = File { name: "supervisord.conf", text: TEXT, folder: "/etc/app", ..File::default() };
        let imported = read(&file).unwrap();
        let [cache, worker] = &imported.services[..] else { panic!("{imported:?}") };
        assert_eq!(cache.argv.len(), 3);
        assert_eq!((cache.policy.ready_after_ms, cache.policy.exits.len()), (5_000, 0));
        assert_eq!(worker.instances, ["1", "2"]);
        let text = |at: usize| worker.argv[at].clone();
        assert_eq!(text(4), Text(vec![Piece::Instance(2)]));
        assert_eq!(text(6).plain().as_deref(), Some("worker 100%"));
        assert_eq!(text(8).plain().as_deref(), Some("%(ENV_KEY)s"));
        assert_eq!(worker.value("A").as_deref(), Some("1,2"));
        assert!(worker.env.iter().any(|(name, value)| name == "NUMBER" && value.has_instance()));
        assert_eq!(worker.cwd.as_ref().unwrap().plain().as_deref(), Some("/etc/app/app"));
        let policy = &worker.policy;
        assert_eq!((policy.stop_signal, policy.stop_timeout_ms), (Some(Signal::Quit), 20_000));
        assert_eq!((policy.exits.len(), policy.restart.budget), (2, 4));
        assert_eq!((policy.run_as.as_deref(), policy.limits.umask.as_deref()), (Some("www-data"), Some("027")));
        assert_eq!(worker.needs, [Needed { name: "cache".into(), soft: true }]);
        for says in ["KEY", "wharf logs worker", "colour"] {
            assert!(worker.notes.iter().any(|note| note.contains(says)), "{says}: {:?}", worker.notes);
        }
        assert_eq!(imported.notes.len(), 3, "{:?}", imported.notes);
    }

    #[test]
    fn signals_have_names_and_numbers() {
        assert_eq!(
            (signal("SIGINT"), signal("quit"), signal("1")),
            (Some(Signal::Int), Some(Signal::Quit), Some(Signal::Hup))
        );
        assert_eq!(signal("WINCH"), None);
    }
}

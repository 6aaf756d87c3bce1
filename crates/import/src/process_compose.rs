//! A process-compose file: `processes:`, each with a command, its dependencies and its probes.

mod probes;

use serde_json::{Map, Value};
use wharf_model::{Failure, Signal};

use crate::{
    File, Imported, Kind, Note, Program,
    program::{Needed, Piece, Question, Text},
    shell,
    value::{field, flag_of, ms, number_of, text_of, texts, variables, whole},
    wrong,
};

/// What a process has there that means nothing to a supervisor without a screen, or is as Wharf does it anyway.
const AS_ALWAYS: [&str; 6] =
    ["description", "disable_ansi_colors", "is_foreground", "namespace", "is_dotenv_disabled", "mcp"];
/// What is read.
const READ: [&str; 20] = [
    "command",
    "entrypoint",
    "args",
    "working_dir",
    "environment",
    "env_file",
    "depends_on",
    "readiness_probe",
    "liveness_probe",
    "ready_log_line",
    "availability",
    "shutdown",
    "replicas",
    "disabled",
    "is_daemon",
    "schedule",
    "launch_timeout_seconds",
    "vars",
    "is_tty",
    "is_elevated",
];

/// Reads one.
pub(crate) fn read(file: &File<'_>) -> Result<Imported, Failure> {
    let all: Value = serde_saphyr::from_str(file.text)
        .map_err(|e| wrong(file, Kind::ProcessCompose, e.to_string().lines().next().unwrap_or_default()))?;
    let Some(all) = all.as_object() else { return Err(wrong(file, Kind::ProcessCompose, "it is no mapping")) };
    let Some(processes) = field(all, "processes").and_then(Value::as_object) else {
        return Err(wrong(file, Kind::ProcessCompose, "it has no processes"));
    };
    let world = World::of(file, all);
    let mut notes = vec![];
    for (name, what) in [
        ("extends", "it extends another file, which was not read: import that one too"),
        ("env_cmds", "env_cmds are not run: set these variables in `start`"),
    ] {
        if field(all, name).is_some() {
            notes.push(Note { service: None, text: what.into() });
        }
    }
    let ordered = flag_of(all, "ordered_shutdown") == Some(true);
    if !ordered && processes.len() > 1 {
        let text = "process-compose ends all at once; Wharf ends a unit before those that it needs, always";
        notes.push(Note { service: None, text: text.into() });
    }
    let services = processes.iter().filter_map(|(name, fields)| Some(process(&world, name, fields.as_object()?)));
    let mut services: Vec<Program> = services.collect();
    jobs(&mut services, processes);
    Ok(Imported { services, notes })
}

/// Whose end others wait for, does its work and ends.
fn jobs(services: &mut [Program], processes: &Map<String, Value>) {
    let needs = processes.values().filter_map(|fields| fields.get("depends_on")?.as_object());
    for (name, how) in needs.flatten() {
        let condition = how.as_object().and_then(|how| text_of(how, "condition")).unwrap_or_default();
        let is_end = ["process_completed", "process_completed_successfully"].contains(&condition.as_str());
        if let (true, Some(program)) = (is_end, services.iter_mut().find(|program| program.called == *name)) {
            program.policy.job = true;
        }
    }
}

/// What all processes of a file have in common.
struct World<'a> {
    file: &'a File<'a>,
    env: Vec<(String, String)>,
    vars: Map<String, Value>,
    shell: (String, String),
}

impl<'a> World<'a> {
    fn of(file: &'a File<'a>, all: &Map<String, Value>) -> Self {
        let vars = field(all, "vars").and_then(Value::as_object).cloned().unwrap_or_default();
        let shell = field(all, "shell").and_then(Value::as_object).cloned().unwrap_or_default();
        let command = text_of(&shell, "shell_command").unwrap_or_else(|| "/bin/sh".into());
        let argument = text_of(&shell, "shell_argument").unwrap_or_else(|| "-c".into());
        let env = field(all, "environment").map(variables).unwrap_or_default();
        Self { file, env, vars, shell: (command, argument) }
    }
}

fn process(world: &World<'_>, name: &str, fields: &Map<String, Value>) -> Program {
    let mut program = Program::new(name, format!("the process `{name}` of {}", world.file.name));
    program.summary = text_of(fields, "description").unwrap_or_else(|| format!("{name} of {}", world.file.name));
    let vars = Vars::of(world, fields);
    instances(&mut program, fields);
    environment(&mut program, world, fields, &vars);
    let folder = text_of(fields, "working_dir").map(|dir| whole(world.file.folder, &unescaped(&dir)));
    program.cwd = Some(vars.fill(&folder.unwrap_or_else(|| world.file.folder.to_owned()), &mut program));
    run(&mut program, world, fields, &vars);
    availability(&mut program, fields);
    shutdown(&mut program, fields, &vars);
    depends(&mut program, fields);
    probes::read(&mut program, fields, &vars);
    if let Some(line) = text_of(fields, "ready_log_line") {
        program.ready = Some(Question::Log(escaped_pattern(&line)));
    }
    schedule(&mut program, fields);
    remarks(&mut program, fields);
    program
}

fn instances(program: &mut Program, fields: &Map<String, Value>) {
    let replicas = number_of(fields, "replicas").unwrap_or(1.0) as u32;
    if replicas > 1 {
        program.instances = (0..replicas.min(1000)).map(|n| n.to_string()).collect();
        // Each is told its number, as there.
        program.set("PC_REPLICA_NUM", Text(vec![Piece::Instance(0)]));
    }
}

fn environment(program: &mut Program, world: &World<'_>, fields: &Map<String, Value>, vars: &Vars) {
    let own = field(fields, "environment").map(variables).unwrap_or_default();
    for (name, value) in world.env.iter().cloned().chain(own) {
        let value = vars.fill(&unescaped(&value), program);
        program.set(&name, value);
    }
    let files = field(fields, "env_file").map(texts).unwrap_or_default();
    if let Some(first) = files.first() {
        let path = whole(world.file.folder, first).into();
        program.env_file = Some(crate::program::EnvFile { path, is_optional: false });
    } else if world.file.has_dot_env && flag_of(fields, "is_dotenv_disabled") != Some(true) {
        let path = whole(world.file.folder, ".env").into();
        program.env_file = Some(crate::program::EnvFile { path, is_optional: true });
    }
    for other in files.iter().skip(1) {
        program.note(format!("a unit has one env file: {other} was left out; put its lines into the first"));
    }
    program.port_of_variable("PORT", 0);
}

fn run(program: &mut Program, world: &World<'_>, fields: &Map<String, Value>, vars: &Vars) {
    let entry = field(fields, "entrypoint").map(texts).unwrap_or_default();
    let line = text_of(fields, "command").map(|line| unescaped(&line));
    if entry.is_empty() {
        let line = line.unwrap_or_default();
        let is_templated = line.contains("{{");
        if is_templated || shell::needs_shell(&line) {
            let script = vars.fill(&shell::for_shell(line.trim()), program);
            program.argv = vec![world.shell.0.as_str().into(), world.shell.1.as_str().into(), script];
            if let [piece] = &program.argv[2].0[..]
                && let Piece::Text(filled) = piece
                && is_templated
                && !shell::needs_shell(filled.strip_prefix("exec ").unwrap_or(filled))
            {
                let filled = filled.strip_prefix("exec ").unwrap_or(filled).to_owned();
                shell::command(program, &filled);
            }
        } else {
            shell::command(program, &line);
        }
        shell::note_variables(program, &line);
    } else {
        let more = line.into_iter().flat_map(|line| shlex::split(&line).unwrap_or_default());
        let all: Vec<String> = entry.into_iter().chain(more).collect();
        program.argv = all.iter().map(|word| vars.fill(&unescaped(word), program)).collect();
    }
    let args = field(fields, "args").map(texts).unwrap_or_default();
    program.argv.extend(args.into_iter().map(Text::from));
}

fn availability(program: &mut Program, fields: &Map<String, Value>) {
    let none = Map::new();
    let policy = field(fields, "availability").and_then(Value::as_object).unwrap_or(&none);
    match text_of(policy, "restart").as_deref() {
        Some("always") => {}
        Some("on_failure") => program.restart_on_failure(),
        Some("exit_on_failure") => {
            program.restart_never();
            program.note(
                "there its failure ends all others (exit_on_failure); here it is failed, and those that need it wait",
            );
        }
        // `no` is a boolean of YAML.
        Some(_) | None => program.restart_never(),
    }
    if let Some(delay) = number_of(policy, "backoff_seconds") {
        program.restart_after(ms(delay));
    }
    if let Some(most) = number_of(policy, "max_restarts").filter(|most| *most > 0.0) {
        program.policy.restart.budget = most as u32;
        program.policy.restart.slow_retry_s = 0;
        program.note(format!(
            "max_restarts counts for ever; here it is {most} within {} s, and a healthy minute forgives them",
            program.policy.restart.window_s
        ));
    }
    for (field, what) in [
        ("exit_on_end", "there its end ends all others (exit_on_end): no counterpart"),
        ("exit_on_skipped", "exit_on_skipped has no counterpart"),
    ] {
        if flag_of(policy, field) == Some(true) {
            program.note(what);
        }
    }
}

fn shutdown(program: &mut Program, fields: &Map<String, Value>, vars: &Vars) {
    let Some(shutdown) = field(fields, "shutdown").and_then(Value::as_object) else { return };
    if let Some(seconds) = number_of(shutdown, "timeout_seconds").filter(|s| *s > 0.0) {
        program.policy.stop_timeout_ms = ms(seconds);
    }
    if let Some(number) = number_of(shutdown, "signal") {
        match signal(number as i32) {
            Some(signal) => program.policy.stop_signal = Some(signal),
            None => {
                program.note(format!("it is stopped by signal {number}, which Wharf does not send: it gets SIGTERM"))
            }
        }
    }
    if let Some(line) = text_of(shutdown, "command") {
        let script = vars.fill(&unescaped(&line), program);
        program.stop = Some(vec!["/bin/sh".into(), "-c".into(), script]);
    }
    if flag_of(shutdown, "parent_only") == Some(true) {
        program.note("parent_only: Wharf signals the whole group, and leaves nothing behind");
    }
}

fn signal(number: i32) -> Option<Signal> {
    use Signal::{Hup, Int, Kill, Quit, Term, Usr1, Usr2};
    [Term, Int, Quit, Hup, Usr1, Usr2, Kill].into_iter().find(|signal| signal.number() == number)
}

fn depends(program: &mut Program, fields: &Map<String, Value>) {
    let Some(others) = field(fields, "depends_on").and_then(Value::as_object) else { return };
    for (name, how) in others {
        let condition = how.as_object().and_then(|how| text_of(how, "condition")).unwrap_or_default();
        match condition.as_str() {
            "process_completed" => program.note(format!(
                "it starts when {name} has ended, however; here {name} must be a job that ends with code 0"
            )),
            "process_started" => {
                program.note(format!("it starts as soon as {name} runs; here it waits until that is ready"));
            }
            _ => {}
        }
        program.needs.push(Needed { name: name.clone(), soft: false });
    }
}

fn schedule(program: &mut Program, fields: &Map<String, Value>) {
    let Some(schedule) = field(fields, "schedule").and_then(Value::as_object) else { return };
    if let Some(cron) = text_of(schedule, "cron") {
        program.policy.schedule = Some(cron);
    } else if let Some(interval) = text_of(schedule, "interval") {
        match crate::systemd::values::cron_of_interval(&interval) {
            Some(cron) => program.policy.schedule = Some(cron),
            None => program.note(format!("every {interval} is no time of a calendar: give it a `schedule` of cron")),
        }
    }
    if let Some(zone) = text_of(schedule, "timezone") {
        program.note(format!("its schedule is meant in {zone}; Wharf takes the machine's time zone"));
    }
    if flag_of(schedule, "run_on_start") == Some(true) {
        program.note("run_on_start: start it once by hand, wharf start does it at once");
    }
}

fn remarks(program: &mut Program, fields: &Map<String, Value>) {
    if let Some(seconds) = number_of(fields, "launch_timeout_seconds") {
        program.policy.start_timeout_ms = ms(seconds).max(1_000);
    }
    for (name, what) in [
        ("disabled", "it is disabled there; here it runs when somebody starts it"),
        ("is_daemon", "it puts itself into the background there; under Wharf it must stay in the foreground"),
        ("is_tty", "it has a terminal there; under Wharf it has none"),
        ("is_elevated", "it runs as root there; under Wharf it runs as Wharf does"),
    ] {
        if flag_of(fields, name) == Some(true) {
            program.note(what);
        }
    }
    if fields.keys().any(|name| name.starts_with("log_")) {
        program.note(format!("its log file is not written: its output is in `wharf logs {}`", program.name));
    }
    let unread: Vec<&str> = fields
        .keys()
        .map(String::as_str)
        .filter(|name| !READ.contains(name) && !AS_ALWAYS.contains(name) && !name.starts_with("log_"))
        .filter(|name| !matches!(*name, "ready_log_line" | "extends"))
        .collect();
    if !unread.is_empty() {
        program.note(format!("not read: {}", unread.join(", ")));
    }
}

/// process-compose puts variables in when it reads the file; `$$` is what it leaves to the shell.
fn unescaped(text: &str) -> String {
    text.replace("$$", "$")
}

/// A plain line as a regular expression.
fn escaped_pattern(line: &str) -> String {
    let escape = |c: char| if c.is_ascii_punctuation() { format!("\\{c}") } else { c.to_string() };
    line.chars().map(escape).collect()
}

/// What `{{.NAME}}` stands for.
pub(crate) struct Vars(Map<String, Value>);

impl Vars {
    fn of(world: &World<'_>, fields: &Map<String, Value>) -> Self {
        let mut all = world.vars.clone();
        all.extend(field(fields, "vars").and_then(Value::as_object).cloned().unwrap_or_default());
        Self(all)
    }

    /// A text with its templates filled in.
    pub(crate) fn fill(&self, text: &str, program: &mut Program) -> Text {
        let mut filled = Text::default();
        let mut rest = text;
        while let Some((before, template)) = rest.split_once("{{") {
            let Some((inside, after)) = template.split_once("}}") else { break };
            filled.push(before);
            match inside.trim().strip_prefix('.') {
                Some("PC_REPLICA_NUM") if !program.instances.is_empty() => filled.0.push(Piece::Instance(0)),
                Some("PC_REPLICA_NUM") => filled.push("0"),
                Some(name) if self.0.get(name).and_then(crate::value::text).is_some() => {
                    filled.push(&text_of(&self.0, name).unwrap_or_default());
                }
                Some(_) | None => {
                    program.note(format!("the template {{{{{inside}}}}} was left as it stands: fill it in by hand"));
                    filled.push(&format!("{{{{{inside}}}}}"));
                }
            }
            rest = after;
        }
        filled.push(rest);
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
version: "0.5"
environment: ["LOG=debug"]
vars: { DIR: /srv/data }
processes:
  db:
    command: ./db --dir {{.DIR}}
    readiness_probe:
      http_get: { host: 127.0.0.1, port: 9200, path: /ready }
      initial_delay_seconds: 2
      period_seconds: 3
      timeout_seconds: 1
      failure_threshold: 4
    shutdown: { signal: 2, timeout_seconds: 7 }
    availability: { restart: always, backoff_seconds: 2 }
  web:
    command: "python3 -m http.server $$PORT"
    working_dir: app
    environment: { PORT: 8000, WHO: "{{.PC_REPLICA_NUM}}" }
    replicas: 2
    depends_on: { db: { condition: process_healthy }, once: { condition: process_completed_successfully } }
    availability: { restart: on_failure, max_restarts: 3 }
    log_location: /tmp/web.log
  once:
    command: "echo done"
  nightly:
    command: ./nightly
    schedule: { cron: "0 3 * * *", timezone: UTC }
    namespace: x
    colour: red
"#;

    fn services() -> Vec<Program> {
        let file = File { name: "process-compose.yaml", text: TEXT, folder: "/srv/app", ..File::default() };
        read(&file).unwrap().services
    }

    #[test]
    fn what_a_process_says_is_what_the_program_does() {
        let all = services();
        let by = |name: &str| all.iter().find(|p| p.name == name).unwrap();
        let db = by("db");
        let argv: Vec<_> = db.argv.iter().map(|t| t.plain().unwrap()).collect();
        assert_eq!(argv, ["./db", "--dir", "/srv/data"]);
        assert_eq!(db.ready, Some(Question::Http { port: 9200, path: "/ready".into(), status: 200 }));
        assert_eq!((db.policy.probe_steady_ms, db.policy.probe_timeout_ms), (3_000, 1_000));
        assert_eq!((db.policy.failure_threshold, db.policy.stop_timeout_ms), (4, 7_000));
        assert_eq!((db.policy.stop_signal, db.policy.restart.delay_ms), (Some(Signal::Int), 2_000));
        assert_eq!((db.ports[0].number, db.ports[0].told_by.as_ref()), (9200, None));
        let web = by("web");
        assert_eq!(web.instances, ["0", "1"]);
        assert_eq!(web.argv[2].plain().as_deref(), Some("exec python3 -m http.server $PORT"));
        assert!(web.env.iter().any(|(n, v)| n == "WHO" && v.has_instance()));
        assert_eq!((web.ports[0].number, web.ports[0].told_by.as_deref()), (8000, Some("PORT")));
        assert_eq!((web.needs.len(), web.policy.restart.budget), (2, 3));
        assert!(web.policy.exits.contains_key("0"));
        assert!(web.notes.iter().any(|n| n.contains("wharf logs web")));
        assert_eq!(web.cwd.as_ref().unwrap().plain().as_deref(), Some("/srv/app/app"));
        assert!(by("once").policy.job, "others wait for its end, so it is a job");
        let nightly = by("nightly");
        assert_eq!(nightly.policy.schedule.as_deref(), Some("0 3 * * *"));
        assert!(nightly.notes.iter().any(|n| n.contains("colour")) && nightly.notes.iter().any(|n| n.contains("UTC")));
    }

    #[test]
    fn a_file_of_another_shape_is_refused() {
        for text in ["", "- a\n", "processes: 3\n", "a: [\n"] {
            let file = File { name: "x", text, folder: "/", ..File::default() };
            assert!(read(&file).is_err(), "{text:?}");
        }
    }
}

//! A pm2 ecosystem: `{ "apps": [ … ] }`, one app or a list of them, as JSON or YAML.

use serde_json::{Map, Value};
use wharf_model::{Failure, Signal};

use crate::{
    File, Imported, Kind, Note, Program,
    program::{EnvFile, Piece, Text},
    shell,
    value::{bytes, field, flag_of, number_of, text_of, texts, variables, whole},
    wrong,
};

/// pm2 waits this long between SIGINT and SIGKILL, in milliseconds.
const KILL_TIMEOUT_MS: u64 = 1_600;

/// What is read, or is as Wharf does it anyway.
const READ: [&str; 36] = [
    "name",
    "script",
    "args",
    "interpreter",
    "interpreter_args",
    "node_args",
    "exec_interpreter",
    "cwd",
    "env",
    "env_file",
    "instances",
    "exec_mode",
    "watch",
    "ignore_watch",
    "watch_options",
    "watch_delay",
    "max_memory_restart",
    "autorestart",
    "max_restarts",
    "min_uptime",
    "restart_delay",
    "exp_backoff_restart_delay",
    "cron_restart",
    "cron",
    "kill_timeout",
    "listen_timeout",
    "wait_ready",
    "shutdown_with_message",
    "stop_exit_codes",
    "user",
    "uid",
    "gid",
    "increment_var",
    "instance_var",
    "treekill",
    "namespace",
];
/// What is about logs.
const LOGS: [&str; 11] = [
    "out_file",
    "error_file",
    "log_file",
    "output",
    "error",
    "log",
    "merge_logs",
    "combine_logs",
    "log_date_format",
    "time",
    "log_type",
];
/// What means nothing outside of pm2.
const ITS_OWN: [&str; 8] = [
    "vizion",
    "automation",
    "pmx",
    "source_map_support",
    "disable_source_map_support",
    "force",
    "autostart",
    "append_env_to_name",
];

/// Reads one.
pub(crate) fn read(file: &File<'_>) -> Result<Imported, Failure> {
    // JSON is YAML, too.
    let all: Value = serde_saphyr::from_str(file.text)
        .map_err(|e| wrong(file, Kind::Pm2, e.to_string().lines().next().unwrap_or_default()))?;
    let apps: Vec<&Value> = match &all {
        Value::Object(map) => match map.get("apps") {
            Some(Value::Array(apps)) => apps.iter().collect(),
            Some(one @ Value::Object(_)) => vec![one],
            Some(_) => return Err(wrong(file, Kind::Pm2, "`apps` is no list")),
            None if map.contains_key("script") => vec![&all],
            None => return Err(wrong(file, Kind::Pm2, "it has no `apps`")),
        },
        Value::Array(apps) => apps.iter().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            return Err(wrong(file, Kind::Pm2, "it is no object"));
        }
    };
    let mut notes = vec![];
    if all.get("deploy").is_some() {
        notes.push(Note { service: None, text: "`deploy` was not read: pm2 deploys, Wharf runs".into() });
    }
    let services = apps.into_iter().filter_map(|app| app_of(file, app.as_object()?)).collect();
    Ok(Imported { services, notes })
}

fn app_of(file: &File<'_>, app: &Map<String, Value>) -> Option<Program> {
    let script = text_of(app, "script")?;
    let stem = script.rsplit('/').next().unwrap_or(&script).split('.').next().unwrap_or("app");
    let name = text_of(app, "name").unwrap_or_else(|| stem.to_owned());
    let mut program = Program::new(&name, format!("the app `{name}` of {}", file.name));
    program.summary = format!("{name} of {}", file.name);
    let folder = text_of(app, "cwd").map_or_else(|| file.folder.to_owned(), |dir| whole(file.folder, &dir));
    run(&mut program, app, &script);
    program.cwd = Some(folder.as_str().into());
    instances(&mut program, app);
    environment(&mut program, app, &folder);
    restarts(&mut program, app);
    stopping(&mut program, app);
    program.policy.run_as = text_of(app, "user").or_else(|| text_of(app, "uid"));
    remarks(&mut program, app);
    Some(program)
}

/// The interpreter that pm2 takes for a file.
fn usual_interpreter(script: &str) -> Option<&'static str> {
    let ending = script.rsplit('/').next().and_then(|file| file.rsplit_once('.')).map(|(_, ending)| ending);
    match ending {
        Some("js" | "cjs" | "mjs") => Some("node"),
        Some("ts" | "tsx") => Some("bun"),
        Some("py") => Some("python3"),
        Some("sh") => Some("bash"),
        Some("rb") => Some("ruby"),
        Some("pl") => Some("perl"),
        Some("php") => Some("php"),
        Some("coffee") => Some("coffee"),
        Some(_) | None => None,
    }
}

fn run(program: &mut Program, app: &Map<String, Value>, script: &str) {
    let words = |name: &str| match field(app, name) {
        Some(Value::String(line)) => shlex::split(line).unwrap_or_else(|| vec![line.clone()]),
        Some(several) => texts(several),
        None => vec![],
    };
    let named = text_of(app, "interpreter").or_else(|| text_of(app, "exec_interpreter"));
    let interpreter = match named.as_deref() {
        Some("none") => None,
        Some(named) => Some(named.to_owned()),
        None => usual_interpreter(script).map(str::to_owned),
    };
    // pm2 takes a whole command line for a script, too.
    if interpreter.is_none() && script.contains(char::is_whitespace) {
        shell::command(program, script);
        shell::note_variables(program, script);
    } else {
        let options = [words("interpreter_args"), words("node_args")].concat();
        // A script with an interpreter is a file; one without can be a program of PATH.
        let is_path = script.contains('/') || interpreter.is_some();
        let script = if is_path && !script.starts_with(['/', '.']) { format!("./{script}") } else { script.to_owned() };
        let all = interpreter.into_iter().chain(options).chain([script]);
        program.argv = all.map(Text::from).collect();
    }
    program.argv.extend(words("args").into_iter().map(Text::from));
}

fn instances(program: &mut Program, app: &Map<String, Value>) {
    let named = text_of(app, "instances").unwrap_or_default();
    let count: i64 = named.parse().unwrap_or(if named == "max" { 0 } else { 1 });
    let is_cluster = text_of(app, "exec_mode").is_some_and(|mode| mode.starts_with("cluster"));
    let count = match count {
        1.. => count.min(1000),
        _ => {
            program.note(format!("instances: {named} is one for each processor there; here there are 2: name as many as you want in `facts`"));
            2
        }
    };
    if count > 1 {
        program.instances = (0..count).map(|n| n.to_string()).collect();
        let variable = text_of(app, "instance_var").unwrap_or_else(|| "NODE_APP_INSTANCE".into());
        program.set(&variable, Text(vec![Piece::Instance(0)]));
    }
    if is_cluster {
        program.note(if count > 1 {
            "exec_mode cluster: there all instances share one port through node's cluster; here each has a port of its own, counted up"
        } else {
            "exec_mode cluster: here it is a process of its own, as in exec_mode fork"
        });
    }
}

fn environment(program: &mut Program, app: &Map<String, Value>, folder: &str) {
    for (name, value) in field(app, "env").map(variables).unwrap_or_default() {
        program.set(&name, value);
    }
    if let Some(path) = text_of(app, "env_file") {
        program.env_file = Some(EnvFile { path: whole(folder, &path).into(), is_optional: false });
    }
    let others: Vec<&str> =
        app.keys().map(String::as_str).filter(|k| k.starts_with("env_") && *k != "env_file").collect();
    if !others.is_empty() {
        program.note(format!(
            "only `env` was read, not {}: a parameter of the service can choose between them",
            others.join(", ")
        ));
    }
    // With several, each has a number of its own: where the file says so, and where they could not share one.
    let increment = text_of(app, "increment_var");
    let variable = increment.unwrap_or_else(|| "PORT".into());
    program.port_of_variable(&variable, u16::from(program.instances.len() > 1));
}

fn restarts(program: &mut Program, app: &Map<String, Value>) {
    let cron = text_of(app, "cron_restart").or_else(|| text_of(app, "cron")).filter(|cron| cron != "0");
    let is_kept = flag_of(app, "autorestart") != Some(false);
    match (is_kept, cron) {
        (false, Some(cron)) => program.policy.schedule = Some(cron),
        (true, Some(cron)) => program.note(format!(
            "cron_restart {cron:?} has no counterpart for a program that runs on: let cron run `wharf restart {}`",
            program.name
        )),
        (false, None) => program.restart_never(),
        (true, None) => {}
    }
    if let Some(ms) = milliseconds(app, "restart_delay").filter(|ms| *ms > 0) {
        program.restart_after(ms);
    }
    if let Some(ms) = milliseconds(app, "exp_backoff_restart_delay").filter(|ms| *ms > 0) {
        program.policy.restart.delay_ms = ms;
        program.policy.restart.max_delay_s = 15;
    }
    if let Some(most) = number_of(app, "max_restarts") {
        program.policy.restart.budget = most as u32;
        program.policy.restart.slow_retry_s = 0;
    }
    if let Some(ms) = milliseconds(app, "min_uptime") {
        program.policy.restart.stable_s = ms.div_ceil(1000).max(1);
    }
    let codes: Vec<i32> =
        field(app, "stop_exit_codes").map(texts).unwrap_or_default().iter().filter_map(|c| c.parse().ok()).collect();
    program.exits_well(&codes);
    if let Some(most) = text_of(app, "max_memory_restart") {
        program.policy.limits.memory_bytes = bytes(&most);
        program.note(format!(
            "max_memory_restart {most}: there it is asked to end; here the kernel ends it at that limit, and it is started again"
        ));
    }
}

fn stopping(program: &mut Program, app: &Map<String, Value>) {
    program.policy.stop_signal = Some(Signal::Int);
    program.policy.stop_timeout_ms = milliseconds(app, "kill_timeout").unwrap_or(KILL_TIMEOUT_MS);
    if flag_of(app, "wait_ready") == Some(true) {
        program.note("wait_ready: process.send('ready') reaches nobody here; ask it in `health`, or let it say READY=1 by sd_notify");
    }
    if let Some(ms) = milliseconds(app, "listen_timeout") {
        program.policy.start_timeout_ms = program.policy.start_timeout_ms.max(ms);
    }
    if flag_of(app, "shutdown_with_message") == Some(true) {
        program.note("shutdown_with_message: it is asked to end by SIGINT, not by a message");
    }
    if flag_of(app, "treekill") == Some(false) {
        program.note("treekill false: Wharf leaves nothing of a unit behind");
    }
}

fn remarks(program: &mut Program, app: &Map<String, Value>) {
    if field(app, "watch").is_some_and(|watch| *watch != Value::Bool(false)) {
        program.note("watch has no counterpart: it is restarted by hand, or by a tool that watches files");
    }
    if LOGS.iter().any(|name| field(app, name).is_some()) {
        program.note(format!("its log files are not written: its output is in `wharf logs {}`", program.name));
    }
    if field(app, "gid").is_some() {
        program.note("gid was left out: it has the groups of its user");
    }
    let is_known =
        |name: &&str| READ.contains(name) || LOGS.contains(name) || ITS_OWN.contains(name) || name.starts_with("env_");
    let unread: Vec<&str> = app.keys().map(String::as_str).filter(|name| !is_known(name)).collect();
    if !unread.is_empty() {
        program.note(format!("not read: {}", unread.join(", ")));
    }
}

/// A time as pm2 has them: milliseconds, or `10s`, `2m`, `1h`.
fn milliseconds(app: &Map<String, Value>, name: &str) -> Option<u64> {
    let text = text_of(app, name)?;
    let text = text.trim();
    let digits = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let number: f64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "ms" => 1.0,
        "s" => 1e3,
        "m" => 60e3,
        "h" => 3600e3,
        _ => return None,
    };
    Some((number * unit) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{ "apps": [
        { "name": "api", "script": "dist/main.js", "args": "--fast 'a b'", "node_args": "--max-old-space-size=200",
          "instances": 3, "exec_mode": "cluster", "env": { "PORT": 3000, "NODE_ENV": "production" },
          "env_production": {}, "max_memory_restart": "300M", "kill_timeout": 5000, "restart_delay": 4000,
          "max_restarts": 7, "min_uptime": "10s", "watch": true, "out_file": "/x", "user": "www", "colour": 1 },
        { "name": "report", "script": "report.py", "autorestart": false, "cron_restart": "0 4 * * *", "cwd": "jobs" },
        { "name": "web", "script": "npm", "args": ["run", "start"], "interpreter": "none", "cron_restart": "@daily" },
        { "script": "./bin/serve -p $PORT" }
    ], "deploy": {} }"#;

    #[test]
    fn each_app_is_a_service() {
        let file = File { name: "ecosystem.config.js", text: TEXT, folder: "/srv/app", ..File::default() };
        let imported = read(&file).unwrap();
        let [api, report, web, serve] = &imported.services[..] else { panic!("{imported:?}") };
        let argv = |p: &Program| p.argv.iter().map(|t| t.plain().unwrap()).collect::<Vec<_>>();
        assert_eq!(argv(api), ["node", "--max-old-space-size=200", "./dist/main.js", "--fast", "a b"]);
        assert_eq!(api.instances, ["0", "1", "2"]);
        assert_eq!((api.ports[0].number, api.ports[0].step), (3000, 1));
        assert_eq!(api.policy.limits.memory_bytes, Some(300 << 20));
        assert_eq!((api.policy.stop_signal, api.policy.stop_timeout_ms), (Some(Signal::Int), 5_000));
        let restart = &api.policy.restart;
        assert_eq!((restart.delay_ms, restart.budget, restart.stable_s, restart.slow_retry_s), (4_000, 7, 10, 0));
        assert_eq!(api.policy.run_as.as_deref(), Some("www"));
        for says in ["cluster", "max_memory_restart", "watch", "env_production", "wharf logs api", "colour"] {
            assert!(api.notes.iter().any(|note| note.contains(says)), "{says}: {:?}", api.notes);
        }
        assert_eq!(argv(report), ["python3", "./report.py"]);
        assert_eq!(report.policy.schedule.as_deref(), Some("0 4 * * *"));
        assert_eq!(report.cwd.as_ref().unwrap().plain().as_deref(), Some("/srv/app/jobs"));
        assert_eq!(argv(web), ["npm", "run", "start"]);
        assert!(web.notes.iter().any(|note| note.contains("wharf restart web")));
        assert_eq!(argv(serve), ["/bin/sh", "-c", "exec ./bin/serve -p $PORT"]);
        assert!(imported.notes[0].text.contains("deploy"));
    }

    #[test]
    fn one_app_alone_and_yaml_are_read_too() {
        for text in ["{\"script\": \"a.js\"}", "apps:\n  - script: a.js\n", "- script: a.js\n"] {
            let file = File { name: "x", text, folder: "/", ..File::default() };
            assert_eq!(read(&file).unwrap().services[0].name, "a", "{text}");
        }
        let file = File { name: "x", text: "{}", folder: "/", ..File::default() };
        assert!(read(&file).is_err());
    }
}

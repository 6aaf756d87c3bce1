//! command: any program of the machine, supervised like a service.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{ErrorKind, Facts, Failure, Health, Installed, Policy, Restart, Signal, UnitName};

use crate::{Context, HttpAt, HttpProbe, Params, PortChoice, PortWish, Ports, Probe, Result, Run, Service, Wanted};

/// A program that is on this machine already, run as its parameters say.
///
/// Limitation: it runs as the user that Wharf runs as, unless `unprivileged` is set.
/// Limitation: without `health`, it counts as healthy while its process lives.
pub struct Command;

/// Parameters of a command.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// The program and its arguments: `["/usr/bin/python3", "-m", "http.server"]`. No shell is between.
    argv: Vec<String>,
    /// Its working folder. Usually its data folder.
    #[serde(default)]
    cwd: Option<PathBuf>,
    /// Environment variables.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// A file of `NAME=value` lines, read at each start.
    #[serde(default)]
    env_file: Option<PathBuf>,
    /// The ports that it listens on: `{"main": 9000}`. It is told by PORT (the first by name) and PORT_NAME.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// How its health is asked for. Without, it is healthy while its process lives.
    #[serde(default)]
    health: Question,
    /// From the start to ready, in seconds. Usually 30.
    #[serde(default)]
    start_timeout_s: Option<u64>,
    /// From the signal to SIGKILL, in seconds. Usually 10.
    #[serde(default)]
    stop_timeout_s: Option<u64>,
    /// The signal that asks it to end.
    #[serde(default)]
    stop_signal: Signal,
    /// When it is started again.
    #[serde(default)]
    restart: Option<Restart>,
    /// Where Wharf is root: run it as the user wharf or nobody.
    #[serde(default)]
    unprivileged: bool,
}

/// How health is asked for.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Question {
    /// Not at all.
    #[default]
    None,
    /// `{"http": {"port": "main", "path": "/health"}}`
    Http(HttpQuestion),
    /// `{"tcp": {"port": "main"}}`
    Tcp(TcpQuestion),
    /// `{"exec": ["/usr/bin/test", "-e", "/run/ready"]}`: healthy is exit code 0.
    Exec(Vec<String>),
}

/// A GET on 127.0.0.1.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HttpQuestion {
    /// The port's name, or its number.
    port: PortRef,
    /// Path and query.
    path: String,
    /// The status that means success.
    #[serde(default = "ok")]
    status: u16,
    /// JSON pointers into the body and what must stand there: `{"/status": "healthy"}`.
    #[serde(default)]
    json: BTreeMap<String, Value>,
    /// A text that the body must contain.
    #[serde(default)]
    contains: Option<String>,
}

/// A connection on 127.0.0.1.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TcpQuestion {
    /// The port's name, or its number.
    port: PortRef,
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum PortRef {
    /// A number.
    Number(u16),
    /// One of `ports`.
    Name(String),
}

fn ok() -> u16 {
    200
}

/// A program without a health question counts as ready when it has lived for this long: one that
/// dies at once is a failed start.
const LIVES_FOR_MS: u64 = 300;
/// No time limit is longer: a week.
const LONGEST_S: u64 = 7 * 24 * 3600;

impl With {
    /// What can be said about the parameters before anything runs.
    fn is_sensible(&self, ports: &Ports) -> Result<()> {
        let wrong = |text: String, hint: String| Err(Failure::new(ErrorKind::InvalidParams, text).hint(hint));
        let asked = match &self.health {
            Question::Http(http) => Some(&http.port),
            Question::Tcp(tcp) => Some(&tcp.port),
            Question::None | Question::Exec(_) => None,
        };
        if let Some(PortRef::Name(name)) = asked
            && !ports.contains_key(name)
        {
            let known: Vec<&str> = ports.keys().map(String::as_str).collect();
            return wrong(
                format!("with.health: there is no port {name:?}"),
                format!("with.ports names: {}", known.join(", ")),
            );
        }
        for (field, seconds) in [("start_timeout_s", self.start_timeout_s), ("stop_timeout_s", self.stop_timeout_s)] {
            if seconds.is_some_and(|s| s > LONGEST_S) {
                return wrong(format!("with.{field} is too long"), format!("at most {LONGEST_S} seconds, a week"));
            }
        }
        Ok(())
    }
}

impl PortRef {
    fn number(&self, cx: &Context) -> Result<u16> {
        match self {
            Self::Number(number) => Ok(*number),
            Self::Name(name) => cx.ports.get(name).copied().ok_or_else(|| {
                let known: Vec<&str> = cx.ports.keys().map(String::as_str).collect();
                Failure::new(ErrorKind::InvalidParams, format!("with.health: there is no port {name:?}"))
                    .hint(format!("with.ports names: {}", known.join(", ")))
                    .about(&cx.unit)
            }),
        }
    }
}

/// What `with` says, where the program it names is there.
fn checked(cx: &Context) -> Result<With> {
    let with: With = cx.with()?;
    let Some(program) = with.argv.first().filter(|p| !p.is_empty()) else {
        return Err(Failure::new(ErrorKind::InvalidParams, "with.argv is empty")
            .hint("name a program: {\"argv\": [\"/usr/bin/sleep\", \"60\"]}")
            .about(&cx.unit));
    };
    if let Some(cwd) = with.cwd.as_deref().filter(|cwd| !cwd.is_absolute()) {
        return Err(Failure::new(ErrorKind::InvalidParams, format!("with.cwd: {} is no whole path", cwd.display()))
            .hint("begin it with /")
            .about(&cx.unit));
    }
    // Only a bare name and a whole path can be looked for from here.
    let path = Path::new(program);
    if path.is_absolute() {
        use std::os::unix::fs::PermissionsExt;
        let wrong = match path.metadata() {
            Err(e) => Some(e.to_string()),
            Ok(found) if found.is_dir() => Some("it is a folder".into()),
            Ok(found) if found.permissions().mode() & 0o111 == 0 => Some("it is not executable (chmod +x)".into()),
            Ok(_) => None,
        };
        if let Some(wrong) = wrong {
            return Err(Failure::new(ErrorKind::Precondition, format!("{program} cannot be run: {wrong}"))
                .hint("correct the first word of argv")
                .about(&cx.unit));
        }
    } else if !program.contains('/') {
        cx.need(program, &format!("install {program}, or correct with.argv"))?;
    }
    Ok(with)
}

#[async_trait]
impl Service for Command {
    fn facts(&self) -> Facts {
        Facts::new("command", "Any program of this machine")
            .source("this machine: nothing is fetched")
            .command("the first word of argv")
            .env("PORT")
            .env("PORT_<NAME>")
            .data("whatever the program writes to its working folder")
            .limitation("it runs as the user that Wharf runs as, unless `unprivileged` is set.")
            .limitation("without `health`, it counts as healthy while its process lives.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, with: &Value) -> Policy {
        let mut policy = Policy::default();
        if let Ok(with) = With::deserialize(with) {
            policy.start_timeout_ms = with.start_timeout_s.map_or(policy.start_timeout_ms, |s| s.saturating_mul(1_000));
            policy.stop_timeout_ms = with.stop_timeout_s.map_or(policy.stop_timeout_ms, |s| s.saturating_mul(1_000));
            if let Question::None = with.health {
                policy.ready_after_ms = LIVES_FOR_MS;
            }
            policy.restart = with.restart.unwrap_or(policy.restart);
        }
        policy
    }

    fn needs_install(&self) -> bool {
        false
    }

    fn ports(&self, _unit: &UnitName, with: &Value) -> Result<Vec<PortWish>> {
        let ports = PortChoice::all_of(with)?;
        if let Ok(with) = With::deserialize(with) {
            with.is_sensible(&ports)?;
        }
        Ok(ports.into_iter().map(|(name, choice)| PortWish { name, choice }).collect())
    }

    async fn install(&self, cx: &Context, _want: &Wanted) -> Result<Installed> {
        checked(cx)?;
        Ok(super::nothing_to_place(cx))
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let with = checked(cx)?;
        let mut run = cx.run(&with.argv[0]).args(&with.argv[1..]);
        for (name, value) in &with.env {
            run = run.env(name, value);
        }
        for (name, port) in &cx.ports {
            let name = name.to_ascii_uppercase().replace(['-', '.'], "_");
            run = run.force_env(&format!("PORT_{name}"), port);
        }
        if let Some(port) = cx.ports.values().next() {
            run = run.force_env("PORT", port);
        }
        if let Some(file) = with.env_file {
            run = run.env_file(file);
        }
        if let Some(cwd) = with.cwd {
            run = run.cwd(cwd);
        }
        let run = if with.unprivileged { run.unprivileged() } else { run };
        run.spawn().await
    }

    async fn stop(&self, cx: &Context) -> Result<()> {
        cx.signal(cx.with::<With>()?.stop_signal).await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, with: &Value) -> Option<String> {
        let Question::Http(http) = With::deserialize(with).ok()?.health else { return None };
        let port = match http.port {
            PortRef::Number(number) => number,
            PortRef::Name(name) => *ports.get(&name)?,
        };
        Some(format!("http://127.0.0.1:{port}{}", http.path))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        let with: With = cx.with()?;
        let probe = match with.health {
            Question::None => return Ok(Health::healthy("its process lives")),
            Question::Tcp(tcp) => Probe::Tcp { port: tcp.port.number(cx)? },
            Question::Http(http) => {
                let mut probe = HttpProbe::new(HttpAt::Port(http.port.number(cx)?), &http.path);
                probe.status = http.status;
                probe.json = http.json.into_iter().collect();
                probe.contains = http.contains;
                Probe::Http(probe)
            }
            Question::Exec(argv) => {
                let mut argv = argv.into_iter();
                let program = argv.next().ok_or_else(|| {
                    Failure::new(ErrorKind::InvalidParams, "with.health.exec is empty").hint("name a program")
                })?;
                let command = crate::Command {
                    program,
                    args: argv.collect(),
                    env: with.env,
                    env_file: with.env_file,
                    cwd: with.cwd,
                    unprivileged: with.unprivileged,
                    ..crate::Command::default()
                };
                Probe::Exec(command)
            }
        };
        cx.ask(probe).await
    }
}

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

use crate::{Bound, Context, Params, PortChoice, PortWish, Ports, Questions, Result, Run, Service, Wanted};

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
    health: Questions,
    /// From the start to ready, in seconds. Usually 30.
    #[serde(default)]
    start_timeout_s: Option<u64>,
    /// From the signal to SIGKILL, in seconds. Usually 10.
    #[serde(default)]
    stop_timeout_s: Option<u64>,
    /// The signal that asks it to end. Usually TERM.
    #[serde(default)]
    stop_signal: Option<Signal>,
    /// When it is started again.
    #[serde(default)]
    restart: Option<Restart>,
    /// A program that puts its GPU memory away, run to its end when another needs the device: `["curl", "-sf", "-X",
    /// "POST", "http://127.0.0.1:8000/sleep"]`. `policy.gpu.parked_bytes` says what it keeps then.
    #[serde(default)]
    park: Vec<String>,
    /// A program that has it fetch its GPU memory again; it ends when the service can be used.
    #[serde(default)]
    wake: Vec<String>,
    /// A program that has it go on with WHARF_GPU_BYTES on each device; see `policy.gpu.downsize_bytes`.
    #[serde(default)]
    downsize: Vec<String>,
    /// Where Wharf is root: run it as the user wharf or nobody.
    #[serde(default)]
    unprivileged: bool,
}

/// No time limit is longer: a week.
const LONGEST_S: u64 = 7 * 24 * 3600;

impl With {
    /// What can be said about the parameters before anything runs.
    fn is_sensible(&self, ports: &Ports) -> Result<()> {
        let wrong = |text: String, hint: String| Err(Failure::new(ErrorKind::InvalidParams, text).hint(hint));
        self.health.check(ports)?;
        for (field, seconds) in [("start_timeout_s", self.start_timeout_s), ("stop_timeout_s", self.stop_timeout_s)] {
            if seconds.is_some_and(|s| s > LONGEST_S) {
                return wrong(format!("with.{field} is too long"), format!("at most {LONGEST_S} seconds, a week"));
            }
        }
        Ok(())
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

/// A program with the environment, the folder and the user of the service.
fn bound<'a>(cx: &'a Context, with: &With, argv: &[String]) -> Bound<'a> {
    let (program, args) = argv.split_first().map_or(("", &[][..]), |(program, args)| (program.as_str(), args));
    let mut run = cx.run(program).args(args);
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
    if let Some(file) = &with.env_file {
        run = run.env_file(file.clone());
    }
    if let Some(cwd) = &with.cwd {
        run = run.cwd(cwd.clone());
    }
    if with.unprivileged { run.unprivileged() } else { run }
}

/// The service is told by a program of its own, which is run to its end.
async fn told(cx: &Context, with: &With, field: &str, argv: &[String], bytes: Option<u64>) -> Result<()> {
    if argv.is_empty() {
        return Err(Failure::new(ErrorKind::Precondition, format!("with.{field} is not set"))
            .hint(format!("name the program that does it: {{\"{field}\": [\"curl\", …]}}"))
            .about(&cx.unit));
    }
    let run = bound(cx, with, argv);
    let run = match bytes {
        Some(bytes) => run.force_env("WHARF_GPU_BYTES", bytes),
        None => run,
    };
    run.success().await.map(drop)
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
            policy = with.health.shape(policy);
            policy.stop_signal = with.stop_signal;
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
        bound(cx, &with, &with.argv).spawn().await
    }

    async fn stop(&self, cx: &Context) -> Result<()> {
        cx.signal(cx.with::<With>()?.stop_signal.unwrap_or_default()).await
    }

    async fn park(&self, cx: &Context) -> Result<()> {
        let with: With = cx.with()?;
        told(cx, &with, "park", &with.park, None).await
    }

    async fn wake(&self, cx: &Context) -> Result<()> {
        let with: With = cx.with()?;
        told(cx, &with, "wake", &with.wake, None).await
    }

    async fn downsize(&self, cx: &Context, to_bytes: u64) -> Result<()> {
        let with: With = cx.with()?;
        told(cx, &with, "downsize", &with.downsize, Some(to_bytes)).await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, with: &Value) -> Option<String> {
        With::deserialize(with).ok()?.health.url(ports)
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        let With { health, env, env_file, cwd, unprivileged, .. } = cx.with()?;
        health.ask(cx, crate::Command { env, env_file, cwd, unprivileged, ..crate::Command::default() }).await
    }
}

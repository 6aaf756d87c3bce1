//! A service that is an executable file, in any language: it is asked by one verb and one JSON object, and answers one.
//!
//! It owns the protocol of docs/adding/executable.md, and what its answers mean to Wharf. It refuses to know where such
//! files lie and whether they may be trusted: its hands look at that before each question.

mod answers;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use wharf_model::{ErrorKind, Facts, Failure, Health, Installed, Policy, UnitName};

pub use answers::{Card, PROTOCOL};
use answers::{HealthAnswer, InstallAnswer, Refusal, StartAnswer, StopAnswer, read};

use crate::{Context, Output, Params, Result, Run, Service, Wanted, schema};

/// What an executable can be asked: its first argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// What it is.
    Facts,
    /// To fill the staging folder with its program.
    Install,
    /// What to run.
    Start,
    /// How to end it, or to end it.
    Stop,
    /// How it is.
    Health,
}

impl Verb {
    /// As it stands in argv.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Facts => "facts",
            Self::Install => "install",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Health => "health",
        }
    }

    /// How long it may take, in milliseconds. `health` has the policy's `probe_timeout_ms` where that is shorter.
    pub const fn limit_ms(self) -> u64 {
        match self {
            Self::Facts | Self::Stop => 5_000,
            Self::Install => 3_600_000,
            Self::Start | Self::Health => 30_000,
        }
    }
}

/// A service that is an executable file.
#[derive(Debug)]
pub struct Executable {
    file: PathBuf,
    facts: Facts,
    schema: Value,
    installs: bool,
    policy: Policy,
}

impl Card {
    /// What is sent with `facts`.
    pub fn request() -> String {
        json!({ "protocol": PROTOCOL, "verb": Verb::Facts.word() }).to_string()
    }

    /// The answer to `facts`, or why it is none: a sentence about the file.
    pub fn from_answer(file: &Path, out: &Output) -> std::result::Result<Self, String> {
        let mut card: Self = answer(out).map_err(|failure| failure.message)?;
        if card.protocol != PROTOCOL {
            return Err(format!("it speaks protocol {}, and this Wharf speaks {PROTOCOL}", card.protocol));
        }
        let stem = || file.file_name().and_then(|n| n.to_str()).and_then(|n| n.split('.').next()).unwrap_or_default();
        let name = card.name.get_or_insert_with(|| stem().to_owned());
        let plain = name.parse::<UnitName>().is_ok_and(|unit| unit.instance().is_none());
        if !plain {
            return Err(format!("{name:?} is no name of a service: a-z, 0-9, '.', '_' and '-', at most 63"));
        }
        if let Some(bad) = card.instances.iter().find(|i| UnitName::new("x", Some(i)).is_err()) {
            return Err(format!("{bad:?} is no name of an instance"));
        }
        match card.params.as_ref().and_then(schema::fault) {
            Some(fault) => Err(fault),
            None => Ok(card),
        }
    }

    /// The service's name.
    pub fn service(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

impl Executable {
    /// A service from its card, and its policy as that was understood.
    pub fn new(file: &Path, card: &Card, policy: Policy) -> Self {
        let mut facts = Facts::new(card.service(), &card.summary);
        facts.source = if card.source.is_empty() { "this machine".into() } else { card.source.clone() };
        facts.commands.clone_from(&card.commands);
        facts.env.clone_from(&card.env);
        facts.data.clone_from(&card.data);
        facts.uses.clone_from(&card.uses);
        facts.instances = card.instances.iter().cloned().collect();
        facts.limitations.clone_from(&card.limitations);
        facts = card.ports.iter().fold(facts, |facts, (name, number)| facts.port(name, *number));
        let schema = schema_of(card);
        Self { file: file.to_owned(), facts, schema, installs: card.installs, policy }
    }

    /// The file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Asks one verb, and reads its answer.
    async fn ask<T: DeserializeOwned>(&self, cx: &Context, verb: Verb, more: Value) -> Result<T> {
        let file = self.file.display().to_string();
        cx.hands().check_code(&self.file).await.map_err(|f| f.about(&cx.unit))?;
        let limit_ms = match verb {
            Verb::Health => verb.limit_ms().min(cx.probe_timeout_ms),
            Verb::Start => verb.limit_ms().min(cx.policy.start_timeout_ms),
            Verb::Stop => verb.limit_ms().min(cx.policy.stop_timeout_ms),
            Verb::Facts | Verb::Install => verb.limit_ms(),
        };
        let request = self.request(cx, verb, more);
        let mut command = cx.run(&file).arg(verb.word()).stdin(request.to_string()).limit_ms(limit_ms);
        for (name, value) in variables(&request) {
            command = command.force_env(&name, value);
        }
        let asked = command.output().await;
        let out = asked.map_err(|f| f.while_doing(format_args!("ask {file} for {}", verb.word())).about(&cx.unit))?;
        cx.hands().said(cx, verb.word(), &out.stderr);
        answer(&out).map_err(|f: Failure| {
            let kind = if verb == Verb::Install { ErrorKind::InstallFailed } else { f.kind };
            let mut failure = Failure { kind, retryable: kind.is_retryable(), ..f };
            failure.message = format!("{file} {}: {}", verb.word(), failure.message);
            failure.about(&cx.unit)
        })
    }

    fn request(&self, cx: &Context, verb: Verb, more: Value) -> Value {
        let mut request = json!({
            "protocol": PROTOCOL,
            "verb": verb.word(),
            "unit": cx.unit,
            "service": cx.unit.service(),
            "instance": cx.unit.instance(),
            "run": cx.run,
            "with": schema::with_defaults(&self.schema, &cx.with),
            "ports": cx.ports,
            "data_dir": cx.dirs.data,
            "run_dir": cx.dirs.run,
            "installed": cx.installed,
        });
        if let (Some(request), Value::Object(more)) = (request.as_object_mut(), more) {
            request.extend(more);
        }
        request
    }
}

/// The request once more, for a shell: `PORT`, `PORT_MAIN`, `WITH_NAME`, `WHARF_DATA_DIR`.
fn variables(request: &Value) -> Vec<(String, String)> {
    let upper = |name: &str| name.to_ascii_uppercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    let below = |field: &str, begin: &str| -> Vec<(String, String)> {
        let fields = request.get(field).and_then(Value::as_object).into_iter().flatten();
        fields.filter_map(|(name, value)| Some((format!("{begin}_{}", upper(name)), text(value)?))).collect()
    };
    let ports = below("ports", "PORT");
    let mut all: Vec<(String, String)> =
        ports.first().map(|(_, port)| ("PORT".to_owned(), port.clone())).into_iter().collect();
    all.extend(ports);
    all.extend(below("with", "WITH"));
    for field in ["data_dir", "run_dir", "staging", "instance", "version"] {
        let value = request.get(field).and_then(text);
        all.extend(value.map(|value| (format!("WHARF_{}", upper(field)), value)));
    }
    // What a kernel would not take.
    all.retain(|(_, value)| !value.contains('\0'));
    all
}

/// The schema of its parameters: those that it names, and its ports.
fn schema_of(card: &Card) -> Value {
    let mut schema = card.params.clone().unwrap_or_else(|| json!({ "type": "object" }));
    let fields = schema.as_object_mut().map(|s| s.entry("properties").or_insert_with(|| Value::Object(Map::new())));
    if let (Some(Value::Object(fields)), false) = (fields, card.ports.is_empty()) {
        fields.entry("ports").or_insert_with(|| {
            let number = json!({ "type": ["integer", "string"] });
            json!({ "type": "object", "description": "Other port numbers, or \"auto\".", "additionalProperties": number })
        });
    }
    schema
}

/// What an executable that has ended says: its answer, its own refusal, or the end of its stderr.
fn answer<T: DeserializeOwned>(out: &Output) -> Result<T> {
    if let Ok(Refusal { error, hint }) = read::<Refusal>(&out.stdout) {
        let failure = Failure::new(ErrorKind::ServiceFailed, error).causes(last_lines(&out.stderr));
        return Err(match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        });
    }
    if out.code != 0 {
        let text = format!("it exited with code {}", out.code);
        return Err(Failure::new(ErrorKind::ServiceFailed, text)
            .hint("run it by hand: docs/adding/executable.md has the lines")
            .causes(last_lines(&out.stderr)));
    }
    read(&out.stdout).map_err(|why| {
        Failure::new(ErrorKind::ServiceFailed, why)
            .hint("it answers one JSON object on stdout; what it has to tell besides goes to stderr")
            .causes(last_lines(&out.stderr))
    })
}

fn last_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().rev().take(20).map(str::to_owned).collect();
    lines.reverse();
    lines
}

#[async_trait]
impl Service for Executable {
    fn facts(&self) -> Facts {
        self.facts.clone()
    }

    fn params(&self) -> Params {
        Params::of_schema(self.schema.clone())
    }

    fn policy(&self, _with: &Value) -> Policy {
        self.policy.clone()
    }

    fn needs_install(&self) -> bool {
        self.installs
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        if !self.installs {
            // What it runs must be there, and nothing is placed.
            cx.hands().check_code(&self.file).await.map_err(|f| f.about(&cx.unit))?;
            return Ok(cx.nothing_to_place());
        }
        let staging = cx.hands().stage(cx).await?;
        let more = json!({ "staging": staging.path(), "version": want.version, "reset": want.reset });
        let InstallAnswer { version, paths } = self.ask(cx, Verb::Install, more).await?;
        staging.place(cx, &version, &paths).await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let answer: StartAnswer = self.ask(cx, Verb::Start, json!({})).await?;
        let Some((program, args)) = answer.argv.split_first().filter(|(program, _)| !program.is_empty()) else {
            let text = format!("{} start: its answer has an empty argv", self.file.display());
            return Err(Failure::new(ErrorKind::ServiceFailed, text)
                .hint("for example {\"argv\": [\"/usr/bin/sleep\", \"60\"]}")
                .about(&cx.unit));
        };
        let mut run = cx.run(program.as_str()).args(args);
        for (name, value) in &answer.env {
            run = run.env(name, value);
        }
        if let Some(file) = answer.env_file {
            run = run.env_file(file);
        }
        if let Some(cwd) = answer.cwd {
            run = run.cwd(cwd);
        }
        let run = if answer.unprivileged { run.unprivileged() } else { run };
        run.spawn().await
    }

    async fn stop(&self, cx: &Context) -> Result<()> {
        match self.ask(cx, Verb::Stop, json!({})).await? {
            StopAnswer { done: true, .. } => Ok(()),
            StopAnswer { signal, done: false } => cx.signal(signal.unwrap_or_default()).await,
        }
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        let answer: HealthAnswer = self.ask(cx, Verb::Health, json!({ "starting": cx.starting })).await?;
        let why = |otherwise: &str| if answer.why.is_empty() { otherwise.to_owned() } else { answer.why.clone() };
        Ok(match (answer.ok, answer.degraded) {
            (Some(false), _) => Health::unhealthy(why("it says that it is not well")),
            (Some(true) | None, true) => Health::degraded(why("it says that something is wrong")),
            (Some(true), false) => Health::healthy(why("it says that it is well")),
            (None, false) => Health::healthy(why("its process lives")),
        })
    }
}

//! How a unit's health is asked for, as a parameter that any service can take.
//!
//! It owns the forms in which people and agents write it, what is wrong with them, and what follows
//! for the unit's policy. It refuses to know how anything is asked.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use wharf_model::{Health, Policy};

use crate::{Command, Context, Endpoint, Ports, Probe, Result};

mod check;
mod http;

pub use http::HttpQuestion;

/// A program that is never asked counts as ready when it has lived for this long: one that
/// dies at once is a failed start.
const LIVES_FOR_MS: u64 = 300;
/// Between probes of a program that is only asked until it is ready, once it is.
const RARELY_MS: u64 = 3_600_000;

/// How health is asked for: one question, or one for ready and one for later:
/// `{"ready": "notify", "live": {"http": {"path": "/health"}}}`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(try_from = "Value")]
pub struct Questions {
    /// Asked until it is answered well: then the unit is ready.
    ready: Question,
    /// Asked from then on; `None`: the same.
    live: Option<Question>,
}

/// One question.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Not at all: healthy while its process lives. It counts as ready after 300 ms.
    #[default]
    None,
    /// The same.
    Process,
    /// It says itself when it is ready (sd_notify); later it is healthy while its process lives.
    Notify,
    /// `{"http": {"port": "main", "path": "/health"}}`
    Http(HttpQuestion),
    /// `{"tcp": {"port": "main"}}`: a connection is accepted.
    Tcp(TcpQuestion),
    /// `{"unix": {"socket": "/run/app.sock"}}`: a connection is accepted.
    Unix(UnixQuestion),
    /// `{"exec": ["/usr/bin/test", "-e", "/run/ready"]}`: healthy is exit code 0.
    Exec(Vec<String>),
    /// `{"resp": {"port": "main", "send": "PING", "expect": "PONG"}}`: a line and its answer, as Redis has them.
    Resp(RespQuestion),
    /// `{"log": "listening on .*:8080"}`: a regular expression that a line of this run's log matches. It
    /// tells when it is ready; later it is healthy while its process lives.
    Log(String),
    /// All of these; the worst answer counts.
    All(Vec<Question>),
    /// One of these; the best answer counts.
    Any(Vec<Question>),
}

/// A connection to a port.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TcpQuestion {
    /// The port's name, or its number. Without, the only one.
    #[serde(default)]
    pub port: Option<PortRef>,
}

/// A connection to a Unix socket.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnixQuestion {
    /// Its path; one without a slash at its front begins at the working folder.
    pub socket: PathBuf,
}

/// A line that is sent and what its answer contains.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RespQuestion {
    /// The port's name, or its number. Without, the only one.
    #[serde(default)]
    pub port: Option<PortRef>,
    /// A Unix socket instead.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// What is sent, without its line end; empty: nothing, the greeting is looked at.
    #[serde(default = "ping")]
    pub send: String,
    /// What the answer must contain.
    #[serde(default = "pong")]
    pub expect: String,
}

fn ping() -> String {
    "PING".into()
}

fn pong() -> String {
    "PONG".into()
}

/// A port by its name or its number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "not a port: its name, or a number from 1 to 65535")]
pub enum PortRef {
    /// A number.
    Number(u16),
    /// One of `ports`.
    Name(String),
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Both {
    /// Asked until it is answered well: then the unit is ready.
    #[serde(default)]
    ready: Option<Question>,
    /// Asked from then on. Without, it is healthy while its process lives.
    #[serde(default)]
    live: Option<Question>,
}

/// What may be written. Only for the schema: which of them it is, is told by the fields, for better messages.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "its schema is what is wanted")]
enum Written {
    /// One question for all times.
    One(Box<Question>),
    /// One for ready, one for later.
    Both(Box<Both>),
}

impl JsonSchema for Questions {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Questions".into()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Written::json_schema(generator)
    }
}

impl TryFrom<Value> for Questions {
    type Error = String;

    fn try_from(value: Value) -> std::result::Result<Self, String> {
        match value.as_object().is_some_and(|o| o.contains_key("ready") || o.contains_key("live")) {
            true => {
                let Both { ready, live } = read(&value)?;
                let live = live.unwrap_or(Question::Process);
                Ok(Self { ready: ready.unwrap_or_default(), live: Some(live) })
            }
            false => Ok(Self { ready: read(&value)?, live: None }),
        }
    }
}

fn read<T: DeserializeOwned>(value: &Value) -> std::result::Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|e| match e.path().to_string().as_str() {
        "." => e.inner().to_string(),
        path => format!("{path}: {}", e.inner()),
    })
}

impl Questions {
    /// What can be said about them before anything runs. `ports` are those that the unit has.
    pub fn check(&self, ports: &Ports) -> Result<()> {
        check::sound(&self.ready, ports, true)?;
        self.live.as_ref().map_or(Ok(()), |live| check::sound(live, ports, false))
    }

    /// What follows for a unit that is asked so: what nobody can ask is never woken for.
    #[must_use]
    pub fn shape(&self, mut policy: Policy) -> Policy {
        policy.notify |= self.ready == Question::Notify;
        let asks_later = self.later().is_asked_when_up();
        let asks_first = !matches!(self.ready, Question::None | Question::Process | Question::Notify);
        if asks_later || asks_first {
            if !asks_later {
                policy.probe_early_ms = RARELY_MS;
                policy.probe_steady_ms = RARELY_MS;
            }
        } else {
            policy.probe_early_ms = 0;
        }
        if !asks_first && self.ready != Question::Notify {
            policy.ready_after_ms = LIVES_FOR_MS;
        }
        policy
    }

    /// Asks the one that it is time for. Programs are run as `beside` says, which names none itself.
    pub async fn ask(&self, cx: &Context, beside: Command) -> Result<Health> {
        let question = if cx.starting { &self.ready } else { self.later() };
        let later = !cx.starting && !question.is_asked_when_up();
        let probe = if later { Probe::Process } else { question.probe(cx, &beside)? };
        match probe {
            Probe::Process => Ok(Health::healthy("its process lives")),
            asked => cx.ask(asked).await,
        }
    }

    /// The first of them that is asked over HTTP at a port, as a URL.
    pub fn url(&self, ports: &BTreeMap<String, u16>) -> Option<String> {
        self.later().url(ports).or_else(|| self.ready.url(ports))
    }

    fn later(&self) -> &Question {
        self.live.as_ref().unwrap_or(&self.ready)
    }
}

impl Question {
    /// Whether its answer can change once it was good.
    fn is_asked_when_up(&self) -> bool {
        match self {
            Self::None | Self::Process | Self::Notify | Self::Log(_) => false,
            Self::Http(_) | Self::Tcp(_) | Self::Unix(_) | Self::Exec(_) | Self::Resp(_) => true,
            Self::All(parts) | Self::Any(parts) => parts.iter().any(Self::is_asked_when_up),
        }
    }

    fn probe(&self, cx: &Context, beside: &Command) -> Result<Probe> {
        let folder = beside.cwd.as_deref().unwrap_or(&cx.dirs.data);
        Ok(match self {
            Self::None | Self::Process | Self::Notify => Probe::Process,
            Self::Http(http) => Probe::Http(http.probe(&cx.ports, folder)?),
            Self::Tcp(tcp) => Probe::Connect(Endpoint::Port(number(tcp.port.as_ref(), &cx.ports)?)),
            Self::Unix(unix) => Probe::Connect(Endpoint::Socket(folder.join(&unix.socket))),
            Self::Resp(resp) => Probe::Exchange {
                at: endpoint(resp.port.as_ref(), resp.socket.as_deref(), &cx.ports, folder)?,
                send: if resp.send.is_empty() { vec![] } else { format!("{}\r\n", resp.send).into_bytes() },
                expect: resp.expect.clone(),
            },
            Self::Exec(argv) => {
                let (program, args) =
                    argv.split_first().ok_or_else(|| check::wrong("exec is empty", "name a program"))?;
                Probe::Exec(Command { program: program.clone(), args: args.to_vec(), ..beside.clone() })
            }
            Self::Log(pattern) => Probe::LogLine(pattern.clone()),
            Self::All(parts) => Probe::All(parts.iter().map(|part| part.probe(cx, beside)).collect::<Result<_>>()?),
            Self::Any(parts) => Probe::Any(parts.iter().map(|part| part.probe(cx, beside)).collect::<Result<_>>()?),
        })
    }

    fn url(&self, ports: &BTreeMap<String, u16>) -> Option<String> {
        match self {
            Self::Http(http) => http.url(ports),
            Self::All(parts) | Self::Any(parts) => parts.iter().find_map(|part| part.url(ports)),
            Self::None
            | Self::Process
            | Self::Notify
            | Self::Tcp(_)
            | Self::Unix(_)
            | Self::Exec(_)
            | Self::Resp(_)
            | Self::Log(_) => None,
        }
    }
}

/// The number of a port that is named, or of the only one.
fn number(port: Option<&PortRef>, ports: &BTreeMap<String, u16>) -> Result<u16> {
    match (port, ports.len()) {
        (Some(PortRef::Number(number)), _) => Ok(*number),
        (Some(PortRef::Name(name)), _) => {
            ports.get(name).copied().ok_or_else(|| check::no_such_port(name, ports.keys()))
        }
        (None, 1) => Ok(ports.values().copied().next().unwrap_or_default()),
        (None, _) => Err(check::which_port(ports.keys())),
    }
}

fn endpoint(
    port: Option<&PortRef>,
    socket: Option<&Path>,
    ports: &BTreeMap<String, u16>,
    folder: &Path,
) -> Result<Endpoint> {
    match socket {
        Some(socket) => Ok(Endpoint::Socket(folder.join(socket))),
        None => number(port, ports).map(Endpoint::Port),
    }
}

#[cfg(test)]
mod tests;

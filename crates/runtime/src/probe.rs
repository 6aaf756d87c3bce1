//! One question to a run, asked over the network, a Unix socket or a program.
//!
//! It owns time limits and the wording of the evidence. What the answers mean over time is the core's.

mod http;
mod log_line;

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt,
    future::{BoxFuture, join_all},
    stream::FuturesUnordered,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use wharf_model::{Failure, Health, Verdict};
use wharf_services::{Command, Context, Endpoint, HttpProbe, Output, Probe};

use crate::ports::Listens;

pub(crate) use log_line::{Cursor, LogLines};

/// How much of an answer is looked at.
const ANSWER_BYTES: usize = 64 * 1024;

/// What of the machine a probe needs beside the network.
pub(crate) trait Around: Send + Sync {
    /// Runs a program to its end.
    fn run_to_end<'a>(&'a self, cx: &'a Context, command: Command) -> BoxFuture<'a, Result<Output, Failure>>;
    /// The log of the run that is asked, and how far it was read for this expression; `None`: the run is over.
    fn log(&self, cx: &Context, pattern: &str) -> Option<(PathBuf, Cursor)>;
    /// Where the run that is asked listens; `None`: it is not known, or too early to say.
    fn listens<'a>(&'a self, cx: &'a Context) -> BoxFuture<'a, Option<Listens>>;
}

/// Asks, within the context's time limit.
pub(crate) fn ask<'a>(cx: &'a Context, probe: Probe, around: &'a dyn Around) -> BoxFuture<'a, Result<Health, Failure>> {
    let limit_ms = if cx.probe_timeout_ms == 0 { 5_000 } else { cx.probe_timeout_ms };
    async move {
        let limit = Duration::from_millis(limit_ms);
        let asked = timeout(limit, one(cx, probe, around, limit_ms)).await;
        asked.unwrap_or_else(|_| Ok(Health::unhealthy(format!("no answer within {limit_ms} ms"))))
    }
    .boxed()
}

/// What came of a question.
enum Reply {
    /// An answer, or none from somebody who took the connection.
    Said(Health),
    /// Nobody took the connection, and why.
    Unheard(String),
}

impl From<Health> for Reply {
    fn from(health: Health) -> Self {
        Self::Said(health)
    }
}

/// Asks, and where nobody hears says where the run listens instead.
async fn one(cx: &Context, probe: Probe, around: &dyn Around, limit_ms: u64) -> Result<Health, Failure> {
    let at = match &probe {
        Probe::Http(HttpProbe { at, .. }) | Probe::Connect(at) | Probe::Exchange { at, .. } => Some(at.clone()),
        Probe::Process | Probe::Exec(_) | Probe::LogLine(_) | Probe::All(_) | Probe::Any(_) => None,
    };
    let unheard = match answer(cx, probe, around, limit_ms).await? {
        Reply::Said(health) => return Ok(health),
        Reply::Unheard(why) => why,
    };
    let elsewhere = around.listens(cx).await.filter(|listens| at.is_some_and(|at| !listens.has(&at)));
    let places = elsewhere.map(|listens| listens.to_string()).unwrap_or_default();
    Ok(Health::unhealthy(if places.is_empty() { unheard } else { format!("{unheard}; it listens on {places}") }))
}

async fn answer(cx: &Context, probe: Probe, around: &dyn Around, limit_ms: u64) -> Result<Reply, Failure> {
    let health = match probe {
        Probe::Process => Health::healthy("its process lives"),
        Probe::Http(http) => return Ok(http::ask(&http).await),
        Probe::Connect(Endpoint::Port(port)) => match connect(port).await {
            Ok(_) => Health::healthy(format!("port {port} accepts connections")),
            Err(e) => return Ok(Reply::Unheard(reason(&e))),
        },
        Probe::Connect(Endpoint::Address(address)) => match TcpStream::connect(address).await {
            Ok(_) => Health::healthy(format!("{address} accepts connections")),
            Err(e) => return Ok(Reply::Unheard(format!("{address}: {}", reason(&e)))),
        },
        Probe::Connect(Endpoint::Socket(path)) => match UnixStream::connect(&path).await {
            Ok(_) => Health::healthy(format!("{} accepts connections", path.display())),
            Err(e) => return Ok(Reply::Unheard(format!("{}: {}", path.display(), reason(&e)))),
        },
        Probe::Exchange { at: Endpoint::Port(port), send, expect } => match connect(port).await {
            Ok(stream) => exchange(stream, &send, &expect).await,
            Err(e) => return Ok(Reply::Unheard(reason(&e))),
        },
        Probe::Exchange { at: Endpoint::Address(address), send, expect } => match TcpStream::connect(address).await {
            Ok(stream) => exchange(stream, &send, &expect).await,
            Err(e) => return Ok(Reply::Unheard(format!("{address}: {}", reason(&e)))),
        },
        Probe::Exchange { at: Endpoint::Socket(path), send, expect } => match UnixStream::connect(&path).await {
            Ok(stream) => exchange(stream, &send, &expect).await,
            Err(e) => return Ok(Reply::Unheard(format!("{}: {}", path.display(), reason(&e)))),
        },
        Probe::Exec(command) => judge(around.run_to_end(cx, Command { limit_ms, ..command }).await)?,
        Probe::LogLine(pattern) => match around.log(cx, &pattern) {
            Some((log, cursor)) => log_line::ask(log, cursor).await?,
            None => Health::unhealthy("its run is over"),
        },
        Probe::All(probes) => worst(join_all(probes.into_iter().map(|p| ask(cx, p, around))).await)?,
        Probe::Any(probes) => best(probes.into_iter().map(|p| ask(cx, p, around)).collect()).await?,
    };
    Ok(health.into())
}

/// To 127.0.0.1; to ::1 where nobody listens there: some servers take `localhost` for that alone.
async fn connect(port: u16) -> std::io::Result<TcpStream> {
    let stream = match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            // What counts is what was said first: there may be no IPv6 here.
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.map_err(|_| e)?
        }
        other => other?,
    };
    // A port of the range for outgoing connections can be connected to itself while nobody listens.
    match stream.local_addr()? == stream.peer_addr()? {
        true => Err(std::io::ErrorKind::ConnectionRefused.into()),
        false => Ok(stream),
    }
}

/// The kernel's words without its number.
fn reason(e: &std::io::Error) -> String {
    e.kind().to_string()
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, send: &[u8], expect: &str) -> Health {
    let asked = async {
        stream.write_all(send).await?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
        while answer.len() < ANSWER_BYTES && !contains(&answer, expect) {
            match stream.read(&mut buffer).await? {
                0 => break,
                n => answer.extend_from_slice(&buffer[..n]),
            }
        }
        std::io::Result::Ok(answer)
    };
    match asked.await {
        Ok(answer) if contains(&answer, expect) => Health::healthy(format!("answered {}", quoted(&answer))),
        Ok(answer) => Health::unhealthy(format!("answered {}, and not {expect:?}", quoted(&answer))),
        Err(e) => Health::unhealthy(reason(&e)),
    }
}

fn contains(answer: &[u8], expect: &str) -> bool {
    let expect = expect.as_bytes();
    expect.is_empty() && !answer.is_empty() || !expect.is_empty() && answer.windows(expect.len()).any(|w| w == expect)
}

/// The beginning of an answer, in quotes, for people.
fn quoted(answer: &[u8]) -> String {
    let text = String::from_utf8_lossy(&answer[..answer.len().min(400)]);
    let text = text.trim();
    let short: String = text.chars().take(80).collect();
    format!("{short:?}{}", if short.len() < text.len() { "…" } else { "" })
}

fn judge(output: Result<Output, Failure>) -> Result<Health, Failure> {
    let output = output?;
    let said = crate::tool::last_lines(&output, 1).pop().unwrap_or_default();
    let said = if said.is_empty() { said } else { format!(": {}", quoted(said.as_bytes())) };
    Ok(match output.code {
        0 => Health::healthy(format!("exit code 0{said}")),
        code => Health::unhealthy(format!("exit code {code}{said}")),
    })
}

fn worst(answers: Vec<Result<Health, Failure>>) -> Result<Health, Failure> {
    let answers: Vec<Health> = answers.into_iter().collect::<Result<_, _>>()?;
    let of = |verdict| answers.iter().find(|h| h.verdict == verdict).cloned();
    Ok(of(Verdict::Unhealthy)
        .or_else(|| of(Verdict::Degraded))
        .unwrap_or_else(|| Health::healthy(answers.iter().map(|h| h.detail.as_str()).collect::<Vec<_>>().join("; "))))
}

/// As soon as one is healthy; else the best, else all of them.
async fn best(mut asked: FuturesUnordered<BoxFuture<'_, Result<Health, Failure>>>) -> Result<Health, Failure> {
    let (mut degraded, mut faults) = (None, vec![]);
    while let Some(answer) = asked.next().await {
        let health = answer?;
        match health.verdict {
            Verdict::Healthy => return Ok(health),
            Verdict::Degraded => degraded = Some(health),
            Verdict::Unhealthy => faults.push(health.detail),
        }
    }
    Ok(degraded.unwrap_or_else(|| Health::unhealthy(faults.join("; "))))
}

#[cfg(test)]
mod tests;

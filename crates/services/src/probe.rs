//! One question to a run, as data.

use std::{future::IntoFuture, net::SocketAddr, ops::RangeInclusive, path::PathBuf};

use futures_util::future::BoxFuture;
use serde_json::Value;
use wharf_model::Health;

use crate::{Command, Context, Result};

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// Its process lives. Who asks about a run that is over learns that elsewhere.
    Process,
    /// HTTP over TCP on this machine or over a Unix socket.
    Http(HttpProbe),
    /// A connection is accepted.
    Connect(Endpoint),
    /// Bytes are sent, and the answer contains what is expected.
    Exchange {
        /// Where.
        at: Endpoint,
        /// What is sent.
        send: Vec<u8>,
        /// What the answer contains.
        expect: String,
    },
    /// A program ends with code 0.
    Exec(Command),
    /// The run has written a line that this regular expression matches, at any time since it began.
    LogLine(String),
    /// Each of them; the worst counts.
    All(Vec<Probe>),
    /// One of them; the best counts.
    Any(Vec<Probe>),
}

/// Where a probe connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// This port of 127.0.0.1; where nobody listens there, of ::1.
    Port(u16),
    /// Another address of this machine.
    Address(SocketAddr),
    /// A Unix socket.
    Socket(PathBuf),
}

/// An HTTP question.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpProbe {
    /// Where.
    pub at: Endpoint,
    /// The method: `GET`.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Headers beside those that every request has; a `Host` takes the usual one's place.
    pub headers: Vec<(String, String)>,
    /// What is sent with it.
    pub body: String,
    /// The statuses that mean success.
    pub status: Vec<RangeInclusive<u16>>,
    /// JSON pointers into the body and what must stand there.
    pub json: Vec<(String, Value)>,
    /// A text that the body must contain.
    pub contains: Option<String>,
    /// A regular expression that the body must match.
    pub matches: Option<String>,
}

impl HttpProbe {
    /// `GET path`; success is status 200.
    pub fn new(at: Endpoint, path: &str) -> Self {
        Self {
            at,
            method: "GET".into(),
            path: path.into(),
            headers: vec![],
            body: String::new(),
            status: vec![200..=200],
            json: vec![],
            contains: None,
            matches: None,
        }
    }
}

/// A probe bound to the context that will ask it: `cx.http("main", "/health").await`.
#[must_use = "nothing is asked until it is awaited"]
pub struct Exchange<'a> {
    cx: &'a Context,
    probe: Probe,
}

impl<'a> Exchange<'a> {
    pub(crate) fn new(cx: &'a Context, probe: Probe) -> Self {
        Self { cx, probe }
    }

    /// HTTP: the status that means success, 200 unless it is named.
    pub fn expect_status(mut self, status: u16) -> Self {
        if let Probe::Http(http) = &mut self.probe {
            http.status = vec![status..=status];
        }
        self
    }

    /// HTTP: what must stand at a JSON pointer of the body.
    pub fn expect_json(mut self, pointer: &str, value: impl Into<Value>) -> Self {
        if let Probe::Http(http) = &mut self.probe {
            http.json.push((pointer.into(), value.into()));
        }
        self
    }

    /// What the answer must contain.
    pub fn expect(mut self, text: &str) -> Self {
        match &mut self.probe {
            Probe::Http(http) => http.contains = Some(text.into()),
            Probe::Exchange { expect, .. } => *expect = text.into(),
            Probe::Process | Probe::Connect(_) | Probe::Exec(_) | Probe::LogLine(_) | Probe::All(_) | Probe::Any(_) => {
            }
        }
        self
    }
}

impl<'a> IntoFuture for Exchange<'a> {
    type Output = Result<Health>;
    type IntoFuture = BoxFuture<'a, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.cx.hands().probe(self.cx, self.probe).await })
    }
}

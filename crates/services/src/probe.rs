//! One question to a run, as data.

use std::{future::IntoFuture, path::PathBuf};

use futures_util::future::BoxFuture;
use serde_json::Value;
use wharf_model::Health;

use crate::{Command, Context, Result};

/// A question.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// HTTP over TCP on 127.0.0.1 or over a Unix socket.
    Http(HttpProbe),
    /// A TCP connection is accepted on 127.0.0.1.
    Tcp {
        /// The port.
        port: u16,
    },
    /// Bytes are sent on 127.0.0.1, and the answer begins with what is expected.
    Exchange {
        /// The port.
        port: u16,
        /// What is sent.
        send: Vec<u8>,
        /// What the answer contains.
        expect: String,
    },
    /// A program ends with code 0.
    Exec(Command),
    /// Each of them; the worst counts.
    All(Vec<Probe>),
}

/// Where an HTTP probe connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HttpAt {
    /// 127.0.0.1 and this port.
    Port(u16),
    /// A Unix socket.
    Socket(PathBuf),
}

/// An HTTP question.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpProbe {
    /// Where.
    pub at: HttpAt,
    /// Path and query.
    pub path: String,
    /// The status that means success.
    pub status: u16,
    /// JSON pointers into the body and what must stand there.
    pub json: Vec<(String, Value)>,
    /// A text that the body must contain.
    pub contains: Option<String>,
}

impl HttpProbe {
    /// Success is status 200.
    pub fn new(at: HttpAt, path: &str) -> Self {
        Self { at, path: path.into(), status: 200, json: vec![], contains: None }
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
            http.status = status;
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
            Probe::Tcp { .. } | Probe::Exec(_) | Probe::All(_) => {}
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

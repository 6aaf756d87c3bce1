//! The HTTP question: what is sent, and which answer is a good one.

use std::{
    collections::BTreeMap,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{PortRef, check, endpoint, number};
use crate::{HttpProbe, Result};

/// A request to a port of this machine, or to a Unix socket.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpQuestion {
    /// The port's name, or its number. Without, the only one.
    #[serde(default)]
    pub port: Option<PortRef>,
    /// A Unix socket instead; a path without a slash at its front begins at the working folder.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// Path and query.
    #[serde(default = "root")]
    pub path: String,
    /// The method. Usually GET.
    #[serde(default = "get")]
    pub method: String,
    /// Headers of the request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body of the request.
    #[serde(default)]
    pub body: String,
    /// The status that means success: `200`, `"2xx"`, `"200-299"`, or several of them in a list. Usually 200.
    #[serde(default)]
    pub status: Statuses,
    /// JSON pointers into the body and what must stand there: `{"/status": "healthy"}`.
    #[serde(default)]
    pub json: BTreeMap<String, Value>,
    /// A text that the body must contain.
    #[serde(default)]
    pub contains: Option<String>,
    /// A regular expression that the body must match.
    #[serde(default)]
    pub matches: Option<String>,
}

fn root() -> String {
    "/".into()
}

fn get() -> String {
    "GET".into()
}

/// Statuses.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "not a status: 200, \"2xx\", \"200-299\", or a list of them")]
pub enum Statuses {
    /// This one.
    One(Status),
    /// One of these.
    Several(Vec<Status>),
}

/// A status, or a range of them.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Status {
    /// `200`
    Code(u16),
    /// `"2xx"` or `"200-299"`
    Range(String),
}

impl Default for Statuses {
    fn default() -> Self {
        Self::One(Status::Code(200))
    }
}

impl Statuses {
    fn ranges(&self) -> Result<Vec<RangeInclusive<u16>>> {
        match self {
            Self::One(status) => Ok(vec![status.range()?]),
            Self::Several(several) if several.is_empty() => Err(Status::wrong("an empty list")),
            Self::Several(several) => several.iter().map(Status::range).collect(),
        }
    }
}

impl Status {
    fn range(&self) -> Result<RangeInclusive<u16>> {
        let range = match self {
            Self::Code(code) => Some(*code..=*code),
            Self::Range(text) => Self::parse(text),
        };
        let sound = |r: &RangeInclusive<u16>| *r.start() >= 100 && *r.end() <= 999 && r.start() <= r.end();
        range.filter(sound).ok_or_else(|| match self {
            Self::Code(code) => Self::wrong(&code.to_string()),
            Self::Range(text) => Self::wrong(&format!("{text:?}")),
        })
    }

    fn parse(text: &str) -> Option<RangeInclusive<u16>> {
        if let Some(class) = text.strip_suffix("xx") {
            let class: u16 = class.parse().ok().filter(|class| (1..=9).contains(class))?;
            return Some(class * 100..=class * 100 + 99);
        }
        match text.split_once('-') {
            Some((first, last)) => Some(first.trim().parse().ok()?..=last.trim().parse().ok()?),
            None => text.parse().ok().map(|code| code..=code),
        }
    }

    fn wrong(what: &str) -> wharf_model::Failure {
        check::wrong(&format!("http.status: {what} is no status"), "200, \"2xx\", \"200-299\", or a list of them")
    }
}

impl HttpQuestion {
    /// What is wrong with it, its port aside.
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |text: &str, hint: &str| Err(check::wrong(text, hint));
        let is_token = |text: &str| {
            !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
        };
        if !self.path.starts_with('/') || self.path.bytes().any(|b| !b.is_ascii_graphic()) {
            return wrong(&format!("http.path: {:?} is no path", self.path), "it begins with / and has no spaces");
        }
        if !is_token(&self.method) || self.method == "CONNECT" {
            return wrong(&format!("http.method: {:?} is no method", self.method), "GET, HEAD, POST or OPTIONS");
        }
        for (name, value) in &self.headers {
            if !is_token(name) || value.bytes().any(|b| b < b' ' && b != b'\t' || b == 0x7f) {
                return wrong(&format!("http.headers: {name:?} is no header"), "{\"Authorization\": \"Bearer …\"}");
            }
            if ["content-length", "transfer-encoding", "connection"].contains(&&*name.to_ascii_lowercase()) {
                return wrong(&format!("http.headers: {name} is set by Wharf"), "leave it out");
            }
        }
        if let Some(pointer) = self.json.keys().find(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
            return wrong(&format!("http.json: {pointer:?} is no JSON pointer"), "it begins with /: \"/status\"");
        }
        if self.method == "HEAD" && !(self.json.is_empty() && self.contains.is_none() && self.matches.is_none()) {
            return wrong("http: the answer to HEAD has no body to look at", "ask with GET");
        }
        if let Some(pattern) = &self.matches {
            check::pattern("http.matches", pattern)?;
        }
        self.status.ranges().map(drop)
    }

    pub(super) fn probe(&self, ports: &BTreeMap<String, u16>, folder: &Path) -> Result<HttpProbe> {
        let at = endpoint(self.port.as_ref(), self.socket.as_deref(), ports, folder)?;
        Ok(HttpProbe {
            method: self.method.clone(),
            headers: self.headers.clone().into_iter().collect(),
            body: self.body.clone(),
            status: self.status.ranges()?,
            json: self.json.clone().into_iter().collect(),
            contains: self.contains.clone(),
            matches: self.matches.clone(),
            ..HttpProbe::new(at, &self.path)
        })
    }

    pub(super) fn url(&self, ports: &BTreeMap<String, u16>) -> Option<String> {
        if self.socket.is_some() {
            return None;
        }
        let port = number(self.port.as_ref(), ports).ok()?;
        Some(format!("http://127.0.0.1:{port}{}", self.path))
    }
}

//! What goes wrong with a download, told apart by what one can do about it.

use std::{error::Error, io};

use reqwest::{Response, StatusCode, header::HeaderMap};
use wharf_model::{ErrorKind, Failure};

use super::host_of;

/// An answer that is no file is read so far.
const SAID: usize = 300;

/// Why something was not fetched.
#[derive(Debug)]
pub(in crate::install) enum Trouble {
    /// It answered, and not with what was asked for.
    Answered { host: String, status: u16, said: String },
    /// It answers nobody so often. When it will again, in seconds since 1970.
    Limited { host: String, until_s: Option<i64> },
    /// It was not reached.
    Unreached { host: String, why: String },
    /// We did not go where it sent us.
    Refused(String),
    /// The connection ended before the file did.
    CutOff { host: String, have: u64, total: Option<u64> },
    /// It answered with something else than the file.
    Another { host: String, why: String },
    /// More than a file may have.
    TooLarge { most: u64 },
    /// The disk.
    Storage(io::Error),
    /// Ourselves.
    Broken(Failure),
}

impl Trouble {
    /// Of a request that got no answer.
    pub fn lost(host: &str, e: &reqwest::Error) -> Self {
        let why = root_of(e);
        if why.contains("private network") {
            return Self::Refused(why);
        }
        Self::Unreached { host: host.to_owned(), why }
    }

    /// Of an answer that ended too early.
    pub fn cut(host: &str, have: u64, total: Option<u64>, e: &reqwest::Error) -> Self {
        tracing::debug!("{host} broke off: {}", root_of(e));
        Self::CutOff { host: host.to_owned(), have, total }
    }

    /// Of an answer with another status than was hoped for.
    pub async fn answered(mut response: Response) -> Self {
        let (host, status) = (host_of(response.url()), response.status());
        if is_limited(status, response.headers()) {
            let until_s = until(response.headers());
            return Self::Limited { host, until_s };
        }
        let mut said = vec![];
        while let Ok(Some(chunk)) = response.chunk().await {
            said.extend_from_slice(&chunk);
            if said.len() > SAID {
                break;
            }
        }
        let said: String = String::from_utf8_lossy(&said).split_whitespace().collect::<Vec<_>>().join(" ");
        Self::Answered { host, status: status.as_u16(), said: said.chars().take(SAID).collect() }
    }

    /// Whether the same request may succeed a moment later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::CutOff { .. } | Self::Unreached { .. } => true,
            Self::Answered { status, .. } => matches!(status, 500 | 502 | 503 | 504),
            Self::Limited { .. }
            | Self::Another { .. }
            | Self::Refused(_)
            | Self::TooLarge { .. }
            | Self::Storage(_)
            | Self::Broken(_) => false,
        }
    }

    /// How often in a row it is tried without a byte of progress.
    pub fn tries(&self) -> u32 {
        if matches!(self, Self::Unreached { .. }) { 3 } else { 5 }
    }

    /// Whether it said that there is no such thing.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Answered { status: 404 | 410, .. })
    }

    /// For people. `what` was to be fetched.
    pub fn failure(self, what: &str) -> Failure {
        let failed = |text: String| Failure::new(ErrorKind::InstallFailed, format!("{what}: {text}"));
        match self {
            Self::Answered { host, status, said } => {
                let reason = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or_default();
                let failure = failed(format!("{host} answered {status} {reason}").trim_end().to_owned());
                let failure = if said.is_empty() { failure } else { failure.cause(format!("it said: {said}")) };
                failure.hint(match status {
                    401 | 403 => "it asks for a token: set FORGEJO_TOKEN or GITHUB_TOKEN in the daemon's environment",
                    404 | 410 => "it is not there, or not for everybody: a private repository needs a token",
                    _ => "try again later; if it stays so, its host has a problem",
                })
            }
            Self::Limited { host, until_s } => {
                let until = until_s.and_then(|s| jiff::Timestamp::from_second(s).ok());
                let until = until.map(|at| format!(" until {}", at.to_zoned(jiff::tz::TimeZone::system()).strftime("%H:%M")));
                failed(format!("{host} answers no more requests from here{}", until.unwrap_or_default()))
                    .hint("wait, or set GITHUB_TOKEN (FORGEJO_TOKEN) in the daemon's environment: with a token it answers more")
            }
            Self::Unreached { host, why } => failed(format!("{host} was not reached: {why}"))
                .hint("check the network, the proxy (https_proxy, no_proxy) and the certificates (SSL_CERT_FILE), or name a mirror in sources.toml"),
            Self::Refused(why) => failed(why).hint("nothing was fetched from there; name a mirror that you trust in sources.toml"),
            Self::CutOff { host, have, total } => {
                let total = total.map_or_else(String::new, |total| format!(" of {total}"));
                failed(format!("{host} broke off again and again, the last time after {have}{total} bytes"))
                    .hint("try again; if it always ends there, the file on the server is cut off")
            }
            Self::Another { host, why } => failed(format!("{host} {why}"))
                .hint("a proxy or the server has cut or changed the file: try again, or from another network"),
            Self::TooLarge { most } => {
                failed(format!("it has more than {most} bytes")).hint("that is no file of a program that Wharf places")
            }
            Self::Storage(e) => {
                let mut failure = Failure::from(e);
                failure.message = format!("{what}: {}", failure.message);
                failure
            }
            Self::Broken(failure) => failure,
        }
    }
}

pub(super) fn internal(e: &reqwest::Error) -> Failure {
    Failure::new(ErrorKind::Internal, format!("downloads cannot be made ready: {}", root_of(e)))
        .hint("are the machine's certificates there? apt-get install ca-certificates")
}

/// The last cause has the words that help.
fn root_of(e: &reqwest::Error) -> String {
    let mut root: &dyn Error = e;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

/// GitHub says 403 to too many requests, Forgejo and proxies 429.
fn is_limited(status: StatusCode, headers: &HeaderMap) -> bool {
    let none_left = headers.get("x-ratelimit-remaining").is_some_and(|left| left.as_bytes() == b"0");
    status == StatusCode::TOO_MANY_REQUESTS
        || (status == StatusCode::FORBIDDEN && (none_left || headers.contains_key("retry-after")))
}

fn until(headers: &HeaderMap) -> Option<i64> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<i64>().ok();
    let after = number("retry-after").map(|seconds| jiff::Timestamp::now().as_second() + seconds);
    after.or_else(|| number("x-ratelimit-reset"))
}

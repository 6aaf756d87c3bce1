//! Downloads over HTTPS: every redirect judged, hashed while they stream, resumed where they were cut off.
//!
//! Releases have no client of their own as packages have, so this is one: proxies come from the environment, trusted
//! certificates from the machine (`SSL_CERT_FILE` too), other addresses for a host from `sources.toml`. Not `curl`:
//! redirects must be judged one by one, a token must be held back from the second host, and the digest must be known
//! when the last byte is; with a process in between these are guesses. It refuses to know what a release is.

mod guard;
mod mirrors;
mod sink;
#[cfg(test)]
mod tests;
mod trouble;

use std::{path::Path, sync::Arc, time::Duration};

use reqwest::{
    Client, Response, StatusCode, Url,
    header::{
        ACCEPT, AUTHORIZATION, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderMap, HeaderValue, IF_RANGE, LAST_MODIFIED,
        LOCATION, RANGE,
    },
    redirect::Policy,
};
use wharf_model::Failure;

use super::fault;
use guard::Guard;
pub(super) use mirrors::Mirrors;
pub(super) use sink::Saved;
use sink::Sink;
pub(super) use trouble::Trouble;

/// From here to there over at most so many others.
const MOST_REDIRECTS: usize = 5;
/// A connection that says nothing for so long is cut off.
const SILENCE: Duration = Duration::from_secs(60);
const CONNECT: Duration = Duration::from_secs(15);
/// Who gets less than this before it is cut off again makes no progress.
const PROGRESS: u64 = 1 << 20;
/// What is shown to one host and to no other.
pub(super) struct Credential {
    origin: reqwest::Url,
    header: HeaderValue,
}

impl Credential {
    /// `scheme` is the forge's word before the token. A token that is no header's value is no token.
    pub fn new(for_host_of: &Url, scheme: &str, token: &str) -> Option<Self> {
        let mut header = HeaderValue::from_str(&format!("{scheme} {}", token.trim())).ok()?;
        header.set_sensitive(true);
        Some(Self { origin: for_host_of.clone(), header })
    }

    fn is_for(&self, url: &Url) -> bool {
        self.origin.origin() == url.origin()
    }
}

/// What is fetched, and what it must be.
pub(super) struct Wanted<'a> {
    pub url: &'a Url,
    pub credential: Option<&'a Credential>,
    /// What it is said to have, where that is known.
    pub bytes: Option<u64>,
    /// More is refused.
    pub most: u64,
    /// A sha512 is known and wanted.
    pub sha512: bool,
    /// Its digest will be checked: then a cut download goes on even where the server names no version of the file.
    pub is_checked: bool,
}

/// Fetches. Made for one install and dropped after it: its certificates and connections take memory.
pub(super) struct Web {
    client: Client,
    mirrors: Mirrors,
    guard: Arc<Guard>,
}

impl Web {
    pub fn new(mirrors: Mirrors) -> Result<Self, Failure> {
        let guard = Arc::<Guard>::default();
        // A second install of the same process finds it there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .user_agent(concat!("wharf/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .read_timeout(SILENCE)
            .pool_max_idle_per_host(1)
            .dns_resolver(guard.clone())
            .build();
        let client = client.map_err(|e| trouble::internal(&e))?;
        Ok(Self { client, mirrors, guard })
    }

    /// A small text: an answer of a forge, a list of digests.
    pub async fn read(&self, url: &Url, credential: Option<&Credential>, most: u64) -> Result<Vec<u8>, Trouble> {
        let mut tries = 0;
        loop {
            match self.read_once(url, credential, most).await {
                Err(trouble) if trouble.may_pass() && tries + 1 < trouble.tries() => {
                    tries += 1;
                    pause(tries).await;
                }
                done => return done,
            }
        }
    }

    async fn read_once(&self, url: &Url, credential: Option<&Credential>, most: u64) -> Result<Vec<u8>, Trouble> {
        let mut response = self.open(url, credential, HeaderMap::new()).await?;
        let host = host_of(response.url());
        if response.status() != StatusCode::OK {
            return Err(Trouble::answered(response).await);
        }
        let mut body = vec![];
        while let Some(chunk) = response.chunk().await.map_err(|e| Trouble::lost(&host, &e))? {
            if body.len() as u64 + chunk.len() as u64 > most {
                return Err(Trouble::TooLarge { most });
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// A file. What was cut off goes on where it ended.
    pub async fn save(
        &self,
        wanted: &Wanted<'_>,
        to: &Path,
        tell: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<Saved, Trouble> {
        let mut sink = Sink::open(to, wanted.sha512)?;
        let mut version = None;
        let mut tries = 0;
        loop {
            let before = sink.bytes();
            let done = self.save_some(wanted, &mut sink, &mut version, tell).await;
            let trouble = match done {
                Ok(()) => return sink.finish().await,
                Err(trouble) => trouble,
            };
            tries = if sink.bytes() >= before + PROGRESS { 1 } else { tries + 1 };
            if !trouble.may_pass() || tries >= trouble.tries() {
                return Err(trouble);
            }
            tracing::debug!("a download was cut off after {} bytes, and goes on: {trouble:?}", sink.bytes());
            pause(tries).await;
        }
    }

    /// One connection's share of a file.
    async fn save_some(
        &self,
        wanted: &Wanted<'_>,
        sink: &mut Sink,
        version: &mut Option<HeaderValue>,
        tell: &(dyn Fn(u64, Option<u64>) + Sync),
    ) -> Result<(), Trouble> {
        let mut headers = HeaderMap::new();
        if sink.bytes() > 0 && (version.is_some() || wanted.is_checked) {
            let range = HeaderValue::from_str(&format!("bytes={}-", sink.bytes()));
            headers.insert(RANGE, range.map_err(|e| Trouble::Refused(e.to_string()))?);
            headers.extend(version.clone().map(|version| (IF_RANGE, version)));
        }
        let is_resumed = headers.contains_key(RANGE);
        let mut response = self.open(wanted.url, wanted.credential, headers).await?;
        let host = host_of(response.url());
        let left = response.content_length();
        match response.status() {
            StatusCode::OK => sink.restart().await?,
            StatusCode::PARTIAL_CONTENT if is_resumed && begins_at(&response, sink.bytes()) => {}
            // Nothing is left, or the file is another one by now: from the beginning.
            StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE if is_resumed => {
                sink.restart().await?;
                *version = None;
                return Err(Trouble::CutOff { host, have: 0, total: wanted.bytes });
            }
            _ => return Err(Trouble::answered(response).await),
        }
        *version = version_of(&response);
        let total = left.map(|left| left + sink.bytes()).or(wanted.bytes);
        if let Some(why) = is_another(&response, total, wanted.bytes) {
            return Err(Trouble::Another { host, why });
        }
        if total.is_some_and(|total| total > wanted.most) {
            return Err(Trouble::TooLarge { most: wanted.most });
        }
        tell(sink.bytes(), total);
        while let Some(chunk) = response.chunk().await.map_err(|e| Trouble::cut(&host, sink.bytes(), total, &e))? {
            if sink.bytes() + chunk.len() as u64 > wanted.most {
                return Err(Trouble::TooLarge { most: wanted.most });
            }
            sink.push(chunk).await?;
            fault::point("install.downloading");
            tell(sink.bytes(), total);
        }
        match wanted.bytes.or(total).filter(|all| sink.bytes() < *all) {
            Some(all) => Err(Trouble::CutOff { host, have: sink.bytes(), total: Some(all) }),
            None => Ok(()),
        }
    }

    /// The first answer that is no redirect.
    async fn open(&self, url: &Url, credential: Option<&Credential>, headers: HeaderMap) -> Result<Response, Trouble> {
        let mut at = self.mirrors.stand_in(url).map_err(Trouble::Refused)?;
        self.judge(&at, None)?;
        for _ in 0..=MOST_REDIRECTS {
            let mut request = self.client.get(at.clone()).headers(headers.clone()).header(ACCEPT, "*/*");
            if let Some(credential) = credential.filter(|c| c.is_for(&at)) {
                request = request.header(AUTHORIZATION, credential.header.clone());
            }
            let response = request.send().await.map_err(|e| Trouble::lost(&host_of(&at), &e))?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            let next = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).and_then(|to| at.join(to).ok());
            let next = next.ok_or_else(|| Trouble::Refused(format!("{} redirects to nowhere", host_of(&at))))?;
            let next = self.mirrors.stand_in(&next).map_err(Trouble::Refused)?;
            self.judge(&next, Some(&at))?;
            at = next;
        }
        Err(Trouble::Refused(format!("{} redirects more than {MOST_REDIRECTS} times", host_of(url))))
    }

    /// Where a request may go: over TLS, and where another host sends us, not into a private network.
    fn judge(&self, to: &Url, from: Option<&Url>) -> Result<(), Trouble> {
        let whither = match from {
            Some(from) => format!("{} redirects to {to}", host_of(from)),
            None => to.to_string(),
        };
        let is_known_plain = self.mirrors.is_plain(to);
        if to.scheme() != "https" && !is_known_plain {
            return Err(Trouble::Refused(format!("{whither}, which is not https")));
        }
        if !to.username().is_empty() || to.password().is_some() {
            return Err(Trouble::Refused(format!("{} redirects with a password in the address", host_of(to))));
        }
        let goes_elsewhere = from.is_some_and(|from| from.origin() != to.origin());
        if goes_elsewhere && !self.mirrors.is_named(to) && !self.guard.admits(to) {
            return Err(Trouble::Refused(format!("{whither}, which is an address of a private network")));
        }
        Ok(())
    }

    /// The address that really stands for this one: a credential is for it.
    pub fn stands_for(&self, url: &Url) -> Url {
        self.mirrors.stand_in(url).unwrap_or_else(|_| url.clone())
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Whether the answer is the rest that was asked for.
fn begins_at(response: &Response, at: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    range.is_some_and(|range| range.starts_with(&format!("bytes {at}-")))
}

/// Why an answer is not the file, as far as its head says: a page, or a file of another length.
fn is_another(response: &Response, total: Option<u64>, wanted: Option<u64>) -> Option<String> {
    let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let (total, wanted) = (total?, wanted?);
    if total == wanted {
        return None;
    }
    let a_page = if kind.starts_with("text/html") { "an HTML page of " } else { "" };
    Some(format!("answered with {a_page}{total} bytes, and the file has {wanted}"))
}

/// What tells one version of a file from another. A weak tag does not.
fn version_of(response: &Response) -> Option<HeaderValue> {
    let tag = response.headers().get(ETAG).filter(|tag| !tag.as_bytes().starts_with(b"W/"));
    tag.or_else(|| response.headers().get(LAST_MODIFIED)).cloned()
}

async fn pause(tries: u32) {
    tokio::time::sleep(Duration::from_millis(250) * 2_u32.pow(tries.min(4))).await;
}

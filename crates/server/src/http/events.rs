//! `GET /events`: the daemon's events as a stream that needs no client, an `EventSource` or a `curl -N`.
//!
//! ```text
//! ?since=412&boot=9f86…&unit=redis&unit=web&kind=unit.phase      unit and kind may repeat
//! Last-Event-ID: 9f86…-412                                       goes before since and boot
//! ```
//!
//! Server-sent events unless `Accept` prefers `application/x-ndjson`. A row is read from the bus when
//! the connection takes it: there is no queue in between, and a reader that takes nothing holds nothing.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper::header::HeaderMap;
use hyper::{Request, Response, StatusCode};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use wharf_api::{EventKind, EventRow, Following, Methods, WatchParams, error_object};
use wharf_model::{ErrorKind, Failure};

use super::accept::{self, Framing};
use super::fault::Fault;
use super::reply::Reply;
use super::stream::streamed;
use super::{Guest, Refused};
use crate::envelope;
use crate::roster::{Gravity, Line};

type Rows = Vec<Arc<EventRow>>;

/// The body of the stream.
pub(super) struct Events {
    framing: Framing,
    /// Gone when the daemon ends.
    next: Option<BoxFuture<'static, (Box<dyn Following>, Rows)>>,
    alive: Option<Interval>,
    line: Arc<Line>,
}

/// Begins a stream, or says why there is none.
pub(super) fn response<B>(
    guest: &Guest,
    methods: &dyn Methods,
    request: &Request<B>,
) -> Result<Response<Reply>, Refused> {
    let limits = &guest.site.limits;
    let reader = params(request.uri().query().unwrap_or_default(), request.headers());
    let reader = match reader.map(|params| methods.follow(&params)) {
        Ok(None) => return Err(Fault::new(StatusCode::NOT_FOUND, "this socket has no events").into()),
        Ok(Some(reader)) => reader,
        Err(failure) => Err(failure),
    };
    let busy = guest.line.begin().ok_or(Refused::Left)?;
    let reader = match reader {
        Ok(reader) => reader,
        Err(failure) => {
            let status = if failure.kind == ErrorKind::InvalidParams {
                StatusCode::BAD_REQUEST
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            let body = envelope::error(None, &error_object(failure));
            return Ok(super::json(status, Reply::whole(body.into(), busy)));
        }
    };
    guest.line.weigh(Gravity::Following);
    let framing = accept::framing(request.headers()).unwrap_or(Framing::Events);
    let alive = (framing == Framing::Events).then(|| {
        let mut alive = interval_at(Instant::now() + limits.keep_alive, limits.keep_alive);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        alive
    });
    let events = Events { framing, next: Some(read(reader)), alive, line: guest.line.clone() };
    Ok(streamed(Reply::events(events, busy), framing))
}

fn read(mut reader: Box<dyn Following>) -> BoxFuture<'static, (Box<dyn Following>, Rows)> {
    async move {
        let rows = reader.next().await;
        (reader, rows)
    }
    .boxed()
}

impl Events {
    /// The next bytes; `None` is the end.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let Some(next) = &mut self.next else { return Poll::Ready(None) };
        if let Poll::Ready((reader, rows)) = next.poll_unpin(cx) {
            self.next = (!rows.is_empty()).then(|| read(reader));
            if let Some(alive) = &mut self.alive {
                alive.reset();
            }
            return Poll::Ready((!rows.is_empty()).then(|| self.framed(&rows)));
        }
        // A daemon that ends or hands over ends what follows for ever, when all is said.
        if self.line.is_cut() {
            return Poll::Ready(None);
        }
        match &mut self.alive {
            Some(alive) => alive.poll_tick(cx).map(|_| Some(Bytes::from_static(b": keep-alive\n\n"))),
            None => Poll::Pending,
        }
    }

    fn framed(&self, rows: &Rows) -> Bytes {
        let mut out = Vec::with_capacity(rows.len() * 256);
        for row in rows {
            // A row has no value that JSON cannot say.
            let json = serde_json::to_vec(&**row).unwrap_or_default();
            match self.framing {
                Framing::Events => {
                    out.extend_from_slice(format!("id: {}-{}\ndata: ", row.boot, row.seq).as_bytes());
                    out.extend_from_slice(&json);
                    out.extend_from_slice(b"\n\n");
                }
                Framing::Lines => {
                    out.extend_from_slice(&json);
                    out.push(b'\n');
                }
            }
        }
        out.into()
    }
}

/// What a query and a header ask for. An `EventSource` that comes back sends its first query once
/// more: what it saw last counts.
fn params(query: &str, headers: &HeaderMap) -> Result<WatchParams, Failure> {
    let mut params = WatchParams::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value).ok_or_else(|| wrong(format!("{pair:?} is not percent-encoded text")))?;
        match name {
            "since" => params.since = Some(value.parse().map_err(|_| wrong(format!("since={value} is no number")))?),
            "boot" => params.boot = Some(value),
            "unit" => params.units.push(value.parse().map_err(|e| wrong(format!("unit={value}: {e}")))?),
            "kind" => match EventKind::meant(&value) {
                kinds if kinds.is_empty() => return Err(unknown_kind(&value)),
                kinds => params.kinds.extend(kinds),
            },
            other => {
                return Err(wrong(format!("there is no {other:?}")).hint("there are since, boot, unit and kind"));
            }
        }
    }
    if let Some(last) = headers.get("last-event-id") {
        let last = last.to_str().ok().and_then(|id| id.rsplit_once('-'));
        let seen = last.and_then(|(boot, seq)| Some((boot.to_owned(), seq.parse().ok()?)));
        let (boot, seq) = seen.ok_or_else(|| wrong("Last-Event-ID is not the id of an event: BOOT-SEQ".into()))?;
        (params.boot, params.since) = (Some(boot), Some(seq));
    }
    Ok(params)
}

fn unknown_kind(text: &str) -> Failure {
    let all: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.word()).collect();
    wrong(format!("there is no kind {text:?}")).hint(format!("there are {}", all.join(", ")))
}

fn wrong(text: String) -> Failure {
    Failure::new(ErrorKind::InvalidParams, text)
}

/// `%40` is an @, and + is a blank.
fn decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn read(query: &str) -> Result<WatchParams, Failure> {
        params(query, &HeaderMap::new())
    }

    #[test]
    fn a_query_is_read_and_what_is_seen_last_goes_before_it() {
        let asked = read("since=5&boot=ab&unit=python-api%40vault&unit=redis&kind=op&kind=unit.phase").unwrap();
        assert_eq!((asked.since, asked.boot.as_deref()), (Some(5), Some("ab")));
        assert_eq!(asked.units.iter().map(|u| u.as_str()).collect::<Vec<_>>(), ["python-api@vault", "redis"]);
        assert_eq!(asked.kinds, [EventKind::OpBegan, EventKind::OpProgress, EventKind::OpEnded, EventKind::UnitPhase]);
        let mut headers = HeaderMap::new();
        headers.insert("last-event-id", HeaderValue::from_static("cd-77"));
        let again = params("since=5&boot=ab", &headers).unwrap();
        assert_eq!((again.since, again.boot.as_deref()), (Some(77), Some("cd")));
        headers.insert("last-event-id", HeaderValue::from_static("77"));
        assert!(params("", &headers).is_err());
    }

    #[test]
    fn what_is_not_understood_is_said_and_not_passed_over() {
        for bad in ["since=x", "since=-1", "unit=..%2Fetc", "unit=%4", "unit=%ff", "kind=unti", "sicne=4"] {
            let refused = read(bad).expect_err(bad);
            assert_eq!(refused.kind, ErrorKind::InvalidParams);
        }
        assert!(read("kind=nope").unwrap_err().hint.unwrap().contains("unit.phase"));
        assert_eq!(read("").unwrap(), WatchParams::default());
    }
}

//! HTTP/1.1 on a socket: the routes, and the rules that a request must meet before its body is read.
//!
//! JSON-RPC errors are HTTP 200. Only faults of the transport use other codes, and their bodies are
//! JSON-RPC error objects with a null id as well. Browsers are kept out: no `Origin`, one `Host`,
//! and a content type that no form can send.

mod accept;
mod body;
mod events;
mod fault;
mod held;
mod reply;
mod stream;

use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::Semaphore;
use wharf_api::{Caller, Methods};

use crate::handover::Gate;
use crate::roster::Line;
use crate::wire::Seen;
use crate::{Limits, dispatch};
use fault::Fault;
use reply::Reply;

/// The only content type of requests and of replies that are no stream.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What is kept of `X-Client-Id`.
const CLIENT_CHARS: usize = 128;

/// What one listener serves.
pub(crate) struct Site {
    pub(crate) methods: Arc<dyn Methods>,
    pub(crate) limits: Limits,
    pub(crate) budget: Arc<Semaphore>,
    pub(crate) gate: Arc<Gate>,
    etag: HeaderValue,
}

impl Site {
    pub(crate) fn new(methods: Arc<dyn Methods>, limits: Limits, budget: Arc<Semaphore>, gate: Arc<Gate>) -> Self {
        let mut hasher = DefaultHasher::new();
        methods.document().hash(&mut hasher);
        let etag = format!("\"{:016x}\"", hasher.finish());
        let etag = HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("\"0\""));
        Self { methods, limits, budget, gate, etag }
    }
}

/// One connection's view of a site.
pub(crate) struct Guest {
    pub(crate) site: Arc<Site>,
    pub(crate) caller: Caller,
    pub(crate) line: Arc<Line>,
    pub(crate) seen: Arc<Seen>,
}

/// Nobody is there to be answered: the client is gone, or was told to go.
#[derive(Debug)]
pub(crate) struct Left;

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client is gone")
    }
}

impl std::error::Error for Left {}

/// Why there is no ordinary answer.
enum Refused {
    With(Fault),
    Left,
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        Self::With(fault)
    }
}

/// Answers one request.
pub(crate) async fn answer(guest: Arc<Guest>, request: Request<Incoming>) -> Result<Response<Reply>, Left> {
    let had_length = guest.seen.take_length();
    let outcome = match check(&request, had_length) {
        Ok(Route::Rpc) => rpc(&guest, request).await,
        Ok(Route::Events) => events::response(&guest, &request),
        Ok(route) => page(&guest, &route, request.headers()),
        Err(fault) => Err(fault.into()),
    };
    match outcome {
        Ok(response) => Ok(response),
        // A refusal ends its request as a reply does: the time limit of the next one begins anew.
        Err(Refused::With(fault)) => guest.line.begin().map(|busy| fault.response(busy)).ok_or(Left),
        Err(Refused::Left) => Err(Left),
    }
}

enum Route {
    Rpc,
    Document,
    Health,
    Card,
    Events,
}

/// What must hold for every request, before anything of its body is read.
fn check(request: &Request<Incoming>, had_length: bool) -> Result<Route, Fault> {
    let headers = request.headers();
    if headers.get_all(header::HOST).iter().count() != 1 {
        return Err(Fault::new(StatusCode::BAD_REQUEST, "exactly one Host header is needed"));
    }
    if headers.contains_key(header::ORIGIN) {
        return Err(Fault::new(StatusCode::FORBIDDEN, "no web page may call this socket (Origin header)"));
    }
    if headers.contains_key(header::TRANSFER_ENCODING) && had_length {
        return Err(Fault::new(StatusCode::BAD_REQUEST, "both Content-Length and Transfer-Encoding").closing());
    }
    let route = match request.uri().path() {
        "/rpc" => Route::Rpc,
        "/openrpc.json" => Route::Document,
        "/health" => Route::Health,
        "/.well-known/heroservice.json" => Route::Card,
        "/events" => Route::Events,
        _ => return Err(Fault::new(StatusCode::NOT_FOUND, "no such path; calls go to POST /rpc")),
    };
    let method = request.method();
    match route {
        Route::Rpc if method != Method::POST => Err(Fault::not_allowed("POST")),
        Route::Rpc => check_content(headers).map(|()| route),
        // A stream that never ends has no length to tell.
        Route::Events if method != Method::GET => Err(Fault::not_allowed("GET")),
        _ if method != Method::GET && method != Method::HEAD => Err(Fault::not_allowed("GET, HEAD")),
        _ => Ok(route),
    }
}

fn check_content(headers: &HeaderMap) -> Result<(), Fault> {
    let unsupported = |text| Err(Fault::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    if headers.contains_key(header::CONTENT_ENCODING) {
        return unsupported("no Content-Encoding is understood");
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    match (types.next(), types.next()) {
        (Some(given), None) if is_json(given.as_bytes()) => Ok(()),
        _ => unsupported("Content-Type must be application/json"),
    }
}

fn is_json(given: &[u8]) -> bool {
    let essence = given.split(|b| *b == b';').next().unwrap_or_default();
    essence.trim_ascii().eq_ignore_ascii_case(b"application/json")
}

async fn rpc(guest: &Arc<Guest>, request: Request<Incoming>) -> Result<Response<Reply>, Refused> {
    let (head, incoming) = request.into_parts();
    let body = body::read(guest, incoming).await?;
    let busy = guest.line.begin().ok_or(Refused::Left)?;
    let site = &guest.site;
    let caller = caller(guest, &head.headers);
    if site.gate.holds() && dispatch::is_changing(&*site.methods, &body.bytes, &site.limits) {
        held::wait(guest, &head, &body.bytes).await?;
    }
    if let Some(framing) = accept::framing(&head.headers)
        && dispatch::is_one_call(&body.bytes, &site.limits)
    {
        return Ok(stream::response(guest, caller.into_owned(), body, framing, busy));
    }
    match dispatch::answer(&*site.methods, &caller, &guest.line, &site.limits, &body.bytes).await {
        Some(reply) => Ok(json(StatusCode::OK, Reply::whole(reply.into(), busy))),
        None => {
            let mut response = Response::new(Reply::empty(busy));
            *response.status_mut() = StatusCode::NO_CONTENT;
            Ok(response)
        }
    }
}

/// Who calls, with what the request says of it.
fn caller<'a>(guest: &'a Guest, headers: &HeaderMap) -> Cow<'a, Caller> {
    let given = headers.get("x-client-id").and_then(|id| id.to_str().ok()).filter(|id| !id.is_empty());
    match given {
        None => Cow::Borrowed(&guest.caller),
        Some(id) => {
            let id: String = id.chars().take(CLIENT_CHARS).collect();
            Cow::Owned(Caller { client: Some(id.into()), ..guest.caller.clone() })
        }
    }
}

/// The three things that can be read without a call.
fn page(guest: &Arc<Guest>, route: &Route, headers: &HeaderMap) -> Result<Response<Reply>, Refused> {
    let busy = guest.line.begin().ok_or(Refused::Left)?;
    let site = &guest.site;
    let text: Bytes = match route {
        Route::Rpc => return Err(Fault::not_allowed("POST").into()),
        Route::Events => return Err(Fault::not_allowed("GET").into()),
        Route::Document => return Ok(document(site, headers, busy)),
        Route::Health => shielded(|| site.methods.health().get().to_owned())?.into(),
        Route::Card => shielded(|| site.methods.card().get().to_owned())?.into(),
    };
    Ok(json(StatusCode::OK, Reply::whole(text, busy)))
}

fn shielded(read: impl FnOnce() -> String) -> Result<String, Fault> {
    catch_unwind(AssertUnwindSafe(read)).map_err(|_| Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error"))
}

fn document(site: &Site, headers: &HeaderMap, busy: crate::roster::Busy) -> Response<Reply> {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|tags| {
        tags.as_bytes()
            .split(|b| *b == b',')
            .map(<[u8]>::trim_ascii)
            .any(|tag| tag == b"*" || tag.strip_prefix(b"W/").unwrap_or(tag) == site.etag.as_bytes())
    });
    let mut response = if known {
        let mut response = Response::new(Reply::empty(busy));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        json(StatusCode::OK, Reply::whole(Bytes::from_static(site.methods.document().as_bytes()), busy))
    };
    response.headers_mut().insert(header::ETAG, site.etag.clone());
    response
}

fn json(status: StatusCode, reply: Reply) -> Response<Reply> {
    let mut response = Response::new(reply);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

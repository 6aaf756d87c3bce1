//! HTTP/1.1 on a socket: the routes, and the rules that a request must meet before its body is read.
//!
//! JSON-RPC errors are HTTP 200. Only faults of the transport use other codes, and their bodies are
//! JSON-RPC error objects with a null id as well. Browsers are kept out: no `Origin`, one `Host`,
//! and a content type that no form can send. Where pages are served there is nothing to call.

mod accept;
mod body;
mod events;
mod fault;
mod held;
mod reply;
mod stream;

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::value::RawValue;
use tokio::sync::Semaphore;
use wharf_api::{Caller, Methods};

use crate::handover::Gate;
use crate::offer::Offer;
use crate::pages::File;
use crate::roster::{Busy, Line};
use crate::wire::Seen;
use crate::{Limits, dispatch};
use fault::Fault;
use reply::Reply;

/// The only content type of requests and of replies that are no stream.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Of every page. A script that came in from elsewhere, a log's line that was taken for HTML, would not run.
const PAGE_HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-cache"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What is kept of `X-Client-Id`.
const CLIENT_CHARS: usize = 128;

/// What one listener serves.
pub(crate) struct Site {
    pub(crate) offer: Offer,
    pub(crate) limits: Limits,
    pub(crate) budget: Arc<Semaphore>,
    pub(crate) gate: Arc<Gate>,
    etag: HeaderValue,
}

impl Site {
    pub(crate) fn new(offer: Offer, limits: Limits, budget: Arc<Semaphore>, gate: Arc<Gate>) -> Self {
        let etag = offer.document_tag();
        Self { offer, limits, budget, gate, etag }
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
    let site = guest.site.clone();
    let outcome = match check(&request, had_length, &site.offer) {
        Ok(Route::Rpc(methods)) => rpc(&guest, methods, request).await,
        Ok(Route::Events(methods)) => events::response(&guest, &**methods, &request),
        Ok(Route::Document(methods)) => document(&guest, &**methods, request.headers()),
        Ok(Route::Card(methods)) => about(&guest, || methods.card()),
        Ok(Route::Health) => about(&guest, || site.offer.health()),
        Ok(Route::Page(file)) => page(&guest, file, request.headers()),
        Err(fault) => Err(fault.into()),
    };
    match outcome {
        Ok(response) => Ok(response),
        // A refusal ends its request as a reply does: the time limit of the next one begins anew.
        Err(Refused::With(fault)) => guest.line.begin().map(|busy| fault.response(busy)).ok_or(Left),
        Err(Refused::Left) => Err(Left),
    }
}

enum Route<'a> {
    Rpc(&'a Arc<dyn Methods>),
    Document(&'a Arc<dyn Methods>),
    Card(&'a Arc<dyn Methods>),
    Events(&'a Arc<dyn Methods>),
    Health,
    Page(&'a File),
}

/// What must hold for every request, before anything of its body is read.
fn check<'a>(request: &Request<Incoming>, had_length: bool, offer: &'a Offer) -> Result<Route<'a>, Fault> {
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
    let route = route(offer, request.uri().path())?;
    let method = request.method();
    match route {
        Route::Rpc(_) if method != Method::POST => Err(Fault::not_allowed("POST")),
        Route::Rpc(_) => check_content(headers).map(|()| route),
        // A stream that never ends has no length to tell.
        Route::Events(_) if method != Method::GET => Err(Fault::not_allowed("GET")),
        _ if method != Method::GET && method != Method::HEAD => Err(Fault::not_allowed("GET, HEAD")),
        _ => Ok(route),
    }
}

fn route<'a>(offer: &'a Offer, path: &str) -> Result<Route<'a>, Fault> {
    match (offer, path) {
        (_, "/health") => Ok(Route::Health),
        (Offer::Calls(methods), "/rpc") => Ok(Route::Rpc(methods)),
        (Offer::Calls(methods), "/openrpc.json") => Ok(Route::Document(methods)),
        (Offer::Calls(methods), "/.well-known/heroservice.json") => Ok(Route::Card(methods)),
        (Offer::Calls(methods), "/events") => Ok(Route::Events(methods)),
        (Offer::Calls(_), _) => Err(Fault::new(StatusCode::NOT_FOUND, "no such path; calls go to POST /rpc")),
        (Offer::Pages(pages), path) => pages.find(path).map(Route::Page).ok_or(Fault::new(
            StatusCode::NOT_FOUND,
            "no such page; calls go to POST /rpc of service.sock and rpc.sock",
        )),
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

async fn rpc(
    guest: &Arc<Guest>,
    methods: &Arc<dyn Methods>,
    request: Request<Incoming>,
) -> Result<Response<Reply>, Refused> {
    let (head, incoming) = request.into_parts();
    let body = body::read(guest, incoming).await?;
    let busy = guest.line.begin().ok_or(Refused::Left)?;
    let site = &guest.site;
    let caller = caller(guest, &head.headers);
    if site.gate.holds() && dispatch::is_changing(&**methods, &body.bytes, &site.limits) {
        held::wait(guest, &head, &body.bytes).await?;
    }
    if let Some(framing) = accept::framing(&head.headers)
        && dispatch::is_one_call(&body.bytes, &site.limits)
    {
        return Ok(stream::response(guest, methods.clone(), caller.into_owned(), body, framing, busy));
    }
    match dispatch::answer(&**methods, &caller, &guest.line, &site.limits, &body.bytes).await {
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

/// What the daemon says of itself.
fn about(guest: &Guest, read: impl FnOnce() -> Box<RawValue>) -> Result<Response<Reply>, Refused> {
    let busy = guest.line.begin().ok_or(Refused::Left)?;
    let text = catch_unwind(AssertUnwindSafe(|| read().get().to_owned()))
        .map_err(|_| Fault::new(StatusCode::INTERNAL_SERVER_ERROR, "Internal error"))?;
    Ok(json(StatusCode::OK, Reply::whole(text.into(), busy)))
}

fn document(guest: &Guest, methods: &dyn Methods, headers: &HeaderMap) -> Result<Response<Reply>, Refused> {
    let busy = guest.line.begin().ok_or(Refused::Left)?;
    Ok(kept(&guest.site.etag, &JSON, methods.document().as_bytes(), headers, busy))
}

/// A file of the dashboard, and what a browser may do with it: nothing that is not of this page.
fn page(guest: &Guest, file: &File, headers: &HeaderMap) -> Result<Response<Reply>, Refused> {
    let busy = guest.line.begin().ok_or(Refused::Left)?;
    let mut response = kept(&file.tag, &file.kind, file.body, headers, busy);
    for (name, value) in PAGE_HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Bytes that stay the same: not sent to whoever has them.
fn kept(
    tag: &HeaderValue,
    kind: &HeaderValue,
    bytes: &'static [u8],
    headers: &HeaderMap,
    busy: Busy,
) -> Response<Reply> {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().any(|tags| {
        tags.as_bytes()
            .split(|b| *b == b',')
            .map(<[u8]>::trim_ascii)
            .any(|known| known == b"*" || known.strip_prefix(b"W/").unwrap_or(known) == tag.as_bytes())
    });
    let mut response = if known {
        let mut response = Response::new(Reply::empty(busy));
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = Response::new(Reply::whole(Bytes::from_static(bytes), busy));
        response.headers_mut().insert(header::CONTENT_TYPE, kind.clone());
        response
    };
    response.headers_mut().insert(header::ETAG, tag.clone());
    response
}

fn json(status: StatusCode, reply: Reply) -> Response<Reply> {
    let mut response = Response::new(reply);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}

//! Carries what the guard lets through to the sockets, and what they say back. A connection a request: a browser asks
//! seldom, and a stream that its page leaves is closed with it.

use std::{
    convert::Infallible,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use http_body_util::{BodyExt, Either, Full, Limited};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1 as client,
    header::{self, HeaderName, HeaderValue},
    http::request::Parts,
    server::conn::http1 as server,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream, UnixStream},
    sync::Semaphore,
};

use super::guard::{Refusal, Rules, Way};

/// What a call may have; the daemon has its own limit.
const BODY_BYTES: usize = 4 << 20;
/// How long a request's head, and its body, may take to come.
const PATIENCE: Duration = Duration::from_secs(10);
/// As many connections as there are at once: other users of this machine reach the port too.
const CONNECTIONS: usize = 128;

/// What of a request the sockets need to know. Its origin, its token and its browser they do not.
const PASSED: [HeaderName; 4] = [header::ACCEPT, header::CONTENT_TYPE, header::IF_NONE_MATCH, HeaderName::from_static("last-event-id")];

type Reply = Response<Either<Full<Bytes>, Incoming>>;

/// Between a browser and the sockets of one daemon.
pub(super) struct Gateway {
    rules: Rules,
    service: PathBuf,
    rpc: PathBuf,
    admin: PathBuf,
}

impl Gateway {
    pub(super) fn new(service: &Path, rules: Rules) -> Arc<Self> {
        let (rpc, admin) = (wharf_client::rpc_socket(service), wharf_client::admin_socket(service));
        Arc::new(Self { rules, service: service.to_owned(), rpc, admin })
    }

    /// Serves whoever comes, until it is dropped.
    pub(super) async fn serve(self: &Arc<Self>, listener: &TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        // Dropped with this: an ended gateway leaves no connection behind.
        let mut guests = tokio::task::JoinSet::new();
        loop {
            while guests.try_join_next().is_some() {}
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let gateway = self.clone();
                    guests.spawn(async move {
                        gateway.converse(stream).await;
                        drop(place);
                    });
                }
                // Out of descriptors, for example: a pause lets connections end.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    async fn converse(self: &Arc<Self>, stream: TcpStream) {
        let answer = |request| {
            let gateway = self.clone();
            async move { Ok::<_, Infallible>(gateway.answer(request).await) }
        };
        let served = server::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(PATIENCE)
            .serve_connection(TokioIo::new(stream), service_fn(answer));
        // A browser that leaves in the middle is no error of anybody.
        _ = served.await;
    }

    async fn answer(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let way = match self.rules.way(&head) {
            Ok(way) => way,
            Err(refusal) => return refused(&refusal),
        };
        let (socket, path) = match way {
            Way::Session => return json(StatusCode::OK, &json!({ "read_only": self.rules.is_read_only() })),
            Way::Page => (&self.admin, head.uri.path()),
            Way::Service(path) => (&self.service, path),
            Way::Rpc(path) => (&self.rpc, path),
        };
        let body = match tokio::time::timeout(PATIENCE, Limited::new(body, BODY_BYTES).collect()).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) | Err(_) => return said(StatusCode::BAD_REQUEST, "the request is too large, or never ends", None),
        };
        let body = if body.is_empty() { Ok(vec![]) } else { self.rules.body(body.into()) };
        let body = match body {
            Ok(body) => body,
            Err(refusal) => return refused(&refusal),
        };
        match ask(socket, path, &head, body).await {
            Ok(response) => response.map(Either::Right),
            Err(e) if way == Way::Page => away(&e),
            Err(e) => said(StatusCode::BAD_GATEWAY, &format!("the daemon does not answer: {e}"), Some("wharf up")),
        }
    }
}

/// One request on a connection of its own.
async fn ask(socket: &Path, path: &str, head: &Parts, body: Vec<u8>) -> io::Result<Response<Incoming>> {
    let stream = UnixStream::connect(socket).await?;
    let (mut sender, connection) = client::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // It ends with the response's body, or when the browser has left and the body is dropped.
    tokio::spawn(connection);
    let target = head.uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    let mut request = Request::builder()
        .method(&head.method)
        .uri(target)
        .header(header::HOST, "wharf")
        .header("x-client-id", "wharf ui")
        .body(Full::new(Bytes::from(body)))
        .map_err(io::Error::other)?;
    for name in PASSED {
        request.headers_mut().extend(head.headers.get(&name).map(|value| (name, value.clone())));
    }
    sender.send_request(request).await.map_err(io::Error::other)
}

fn refused(refusal: &Refusal) -> Reply {
    said(refusal.status, refusal.message, refusal.hint)
}

/// As the sockets say it where HTTP itself is at fault.
fn said(status: StatusCode, message: &str, hint: Option<&str>) -> Reply {
    let error = json!({ "code": -32600, "message": message, "data": { "hint": hint } });
    json(status, &json!({ "jsonrpc": "2.0", "id": null, "error": error }))
}

fn json(status: StatusCode, value: &serde_json::Value) -> Reply {
    whole(status, "application/json", value.to_string())
}

/// There is no page without its daemon.
fn away(e: &io::Error) -> Reply {
    let text = format!("The daemon does not answer: {e}\nStart it, and load this page again:  wharf up\n");
    whole(StatusCode::BAD_GATEWAY, "text/plain; charset=utf-8", text)
}

fn whole(status: StatusCode, kind: &'static str, text: String) -> Reply {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(text))));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

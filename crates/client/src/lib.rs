//! The typed client: calls over HTTP/1.1 on a Unix socket, one kept connection a caller.
//!
//! `Client` is a `ClientT` of jsonrpsee, so that `wharf_api::ServiceClient` gives it the sixteen
//! methods as typed calls. Beside those it hands over what a tool needs that knows no types: raw
//! results, whole bodies, and the stream of a call while it runs.
//!
//! It owns framing, ids and the deadline of a connection. It refuses to know what a call means, and
//! where the socket lies. A call itself has no deadline: a start may take as long as a policy allows.

mod call;
mod failure;
mod listening;
mod typed;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header};
use hyper_util::{client::legacy, rt::TokioExecutor};
use hyperlocal::UnixConnector;
use jsonrpsee_types::ErrorObjectOwned;
use serde_json::{Value, value::RawValue};

pub use failure::ClientFailure;
pub use listening::{Heard, Listening};

/// How long a full queue of connections is waited for. A daemon that lives takes one in far less.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const CONNECT_AGAIN: Duration = Duration::from_millis(10);

/// The longest path of a Unix socket, without the zero at its end.
const SOCKET_PATH_BYTES: usize = 107;

/// A result as the daemon wrote it, or its error object.
pub type Answer = Result<Box<RawValue>, ErrorObjectOwned>;

/// Another socket of the daemon that has this service socket: `service.sock` has `rpc.sock` beside it,
/// one that was named otherwise, `a.sock`, has `a.rpc.sock`.
pub fn beside(service: &Path, name: &str) -> PathBuf {
    match service.file_stem().and_then(|stem| stem.to_str()) {
        None | Some("service") => service.with_file_name(name),
        Some(stem) => service.with_file_name(format!("{stem}.{name}")),
    }
}

/// The socket of `gpu.*`, `port.*` and the other namespaces.
pub fn rpc_socket(service: &Path) -> PathBuf {
    beside(service, "rpc.sock")
}

/// The socket of the page for people.
pub fn admin_socket(service: &Path) -> PathBuf {
    beside(service, "admin.sock")
}

/// Calls the daemon behind one socket. A clone shares its connections.
#[derive(Debug, Clone)]
pub struct Client {
    socket: Arc<Path>,
    http: legacy::Client<UnixConnector, Full<Bytes>>,
    last_id: Arc<AtomicU64>,
}

/// Methods that look at what is there: a daemon that takes longer than `PATIENCE` is not well.
const AT_ONCE: [&str; 6] =
    ["service.list", "service.status", "service.inspect", "rpc.health", "rpc.discover", "op.list"];
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(8);

impl Client {
    /// Nothing is connected yet. Calls need a tokio runtime with IO and time.
    pub fn new(socket: PathBuf) -> Self {
        Self {
            socket: socket.into(),
            http: legacy::Client::builder(TokioExecutor::new()).build(UnixConnector),
            last_id: Arc::default(),
        }
    }

    /// Where the daemon is asked.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The same daemon's rpc socket, where this is its service socket.
    pub fn rpc(&self) -> Self {
        Self::new(rpc_socket(&self.socket))
    }

    /// Whether a method is one of the service socket; the others are the rpc socket's.
    pub fn is_of_services(method: &str) -> bool {
        matches!(method.split('.').next(), Some("service" | "rpc"))
    }

    /// Calls one method. `params` is an object, an array, or null for none.
    pub async fn raw(&self, method: &str, params: Value) -> Result<Box<RawValue>, ClientFailure> {
        let params = if params.is_null() { None } else { Some(call::raw(&params)?) };
        self.call(method, params.as_deref()).await
    }

    /// Calls several methods in one request; the answers are in the order of the calls.
    pub async fn batch(&self, calls: impl IntoIterator<Item = (String, Value)>) -> Result<Vec<Answer>, ClientFailure> {
        let calls = calls
            .into_iter()
            .map(|(method, params)| Ok((method, if params.is_null() { None } else { Some(call::raw(&params)?) })))
            .collect::<Result<Vec<_>, ClientFailure>>()?;
        self.many(&calls).await
    }

    /// Calls one method and hears what is said while it runs: `service.progress`, `service.log`.
    pub async fn streaming(
        &self,
        method: &str,
        params: Value,
        mut on_notification: impl FnMut(&str, Value),
    ) -> Result<Box<RawValue>, ClientFailure> {
        let mut listening = self.listen(method, params).await?;
        loop {
            match listening.next().await? {
                Heard::Notification { method, params } => on_notification(&method, params),
                Heard::Answer(result) => return Ok(result),
            }
        }
    }

    /// The same, pulled by the caller. Dropping it ends the call's stream.
    pub async fn listen(&self, method: &str, params: Value) -> Result<Listening, ClientFailure> {
        let params = if params.is_null() { None } else { Some(call::raw(&params)?) };
        let body = call::one(self.next_id(), method, params.as_deref())?;
        let response = self.post(body, "application/x-ndjson").await?;
        Ok(Listening::new(response))
    }

    /// Sends a body as it is to `/rpc`, and gives the reply as it is. Notifications alone have an empty one.
    pub async fn exchange(&self, body: impl Into<Bytes>) -> Result<(StatusCode, Bytes), ClientFailure> {
        self.whole(self.post(body.into(), "application/json").await?).await
    }

    /// `GET path`: `/health`, `/openrpc.json`, `/.well-known/heroservice.json`.
    pub async fn get(&self, path: &str) -> Result<(StatusCode, Bytes), ClientFailure> {
        self.whole(self.send(Method::GET, path, "application/json", Bytes::new()).await?).await
    }

    pub(crate) async fn call(&self, method: &str, params: Option<&RawValue>) -> Result<Box<RawValue>, ClientFailure> {
        let request = call::one(self.next_id(), method, params)?;
        let (status, body) = if AT_ONCE.contains(&method) {
            let asked = async {
                match self.exchange(request.clone()).await {
                    // The daemon ended, or closed a kept connection, and the next one can be asked the same:
                    // these change nothing. Whether another call was begun is not known here.
                    Err(ClientFailure::Broken { .. }) => self.exchange(request).await,
                    answered => answered,
                }
            };
            let silent = |_| ClientFailure::Silent { socket: self.socket().to_owned(), seconds: PATIENCE.as_secs() };
            tokio::time::timeout(PATIENCE, asked).await.map_err(silent)??
        } else {
            self.exchange(request).await?
        };
        call::answer(status, &body)?.map_err(ClientFailure::Answered)
    }

    pub(crate) async fn many(&self, calls: &[(String, Option<Box<RawValue>>)]) -> Result<Vec<Answer>, ClientFailure> {
        if calls.is_empty() {
            return Ok(vec![]);
        }
        let (status, body) = self.exchange(call::many(calls)?).await?;
        call::answers(status, &body, calls.len())
    }

    fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    async fn post(&self, body: Bytes, accept: &'static str) -> Result<Response<Incoming>, ClientFailure> {
        self.send(Method::POST, "/rpc", accept, body).await
    }

    async fn whole(&self, response: Response<Incoming>) -> Result<(StatusCode, Bytes), ClientFailure> {
        let status = response.status();
        let body = response.into_body().collect().await.map_err(|e| ClientFailure::broken(&e))?;
        Ok((status, body.to_bytes()))
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &'static str,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientFailure> {
        let uri = self.uri(path)?;
        let deadline = Instant::now() + CONNECT_LIMIT;
        loop {
            let request = Request::builder()
                .method(method.clone())
                .uri(uri.clone())
                .header(header::HOST, "wharf")
                .header(header::CONTENT_TYPE, "application/json")
                .header(header::ACCEPT, accept)
                .body(Full::new(body.clone()))
                .map_err(|e| ClientFailure::Malformed { what: format!("no request can be made of this: {e}") })?;
            let error = match self.http.request(request).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            // Connecting to a Unix socket never waits: a full queue is EAGAIN, and is ours to try again.
            if failure::is_full(&error) && Instant::now() < deadline {
                tokio::time::sleep(CONNECT_AGAIN).await;
                continue;
            }
            return Err(ClientFailure::of_request(&self.socket, &error));
        }
    }

    /// hyperlocal panics on what is no path, so it is looked at before.
    fn uri(&self, path: &str) -> Result<hyper::Uri, ClientFailure> {
        if self.socket.as_os_str().len() > SOCKET_PATH_BYTES {
            let text = format!("a socket's path has at most {SOCKET_PATH_BYTES} bytes");
            return Err(ClientFailure::unreachable(&self.socket, std::io::Error::other(text)));
        }
        if !path.starts_with('/') || path.parse::<hyper::Uri>().is_err() {
            return Err(ClientFailure::Malformed { what: format!("{path:?} is no path") });
        }
        Ok(hyperlocal::Uri::new(&self.socket, path).into())
    }
}

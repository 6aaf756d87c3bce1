//! A toy set of methods behind a real socket, and a raw HTTP client that sends what it is told to.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use jsonrpsee_types::ErrorObjectOwned;
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};
use wharf_api::{Caller, Class, Methods, Notification};
use wharf_server::{Limits, Server, bind};

pub const DOCUMENT: &str = "{\n  \"openrpc\": \"1.3.2\",\n  \"methods\": []\n}\n";

/// The methods of the specification's examples, and a few that misbehave.
#[derive(Default)]
pub struct Toy {
    /// Every call, notifications as well.
    pub ran: AtomicUsize,
    /// Calls of `wait` whose future was dropped or has ended.
    pub ended: AtomicUsize,
    pub begun: AtomicUsize,
}

struct Ended<'a>(&'a AtomicUsize);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn invalid() -> ErrorObjectOwned {
    ErrorObjectOwned::owned(-32602, "Invalid params", None::<()>)
}

fn raw(value: impl serde::Serialize) -> Result<Box<RawValue>, ErrorObjectOwned> {
    to_raw_value(&value).map_err(|_| invalid())
}

#[async_trait]
impl Methods for Toy {
    async fn call(
        &self,
        caller: &Caller,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<Box<RawValue>, ErrorObjectOwned> {
        self.ran.fetch_add(1, Ordering::SeqCst);
        let params = || params.map_or(Value::Null, |p| serde_json::from_str(p.get()).unwrap());
        match method {
            "ping" => raw("pong"),
            "subtract" => {
                let p = params();
                let at = |i: usize, name: &str| p.get(i).or(p.get(name)).and_then(Value::as_i64).ok_or_else(invalid);
                raw(at(0, "minuend")? - at(1, "subtrahend")?)
            }
            "sum" => raw(params().as_array().ok_or_else(invalid)?.iter().filter_map(Value::as_i64).sum::<i64>()),
            "get_data" => raw(("hello", 5)),
            "update" | "notify_hello" | "notify_sum" => raw(()),
            "raw" => Ok(RawValue::from_string("{\n \"a\": 1.50,\n \"b\": 1e3\n}".into()).unwrap()),
            "panic" => panic!("the secret of the panic"),
            "sleep" => {
                tokio::time::sleep(Duration::from_millis(params()[0].as_u64().unwrap_or(0))).await;
                raw(params()[0].clone())
            }
            "wait" => {
                self.begun.fetch_add(1, Ordering::SeqCst);
                let _ended = Ended(&self.ended);
                std::future::pending().await
            }
            "count" => {
                let Some(stream) = &caller.stream else { return raw("unary") };
                for n in 0..params()[0].as_u64().unwrap_or(0) {
                    let params = RawValue::from_string(format!("{{\"n\":\n{n}}}")).unwrap();
                    stream.send(Notification { method: "toy.count", params }).await.map_err(|_| invalid())?;
                }
                raw("done")
            }
            _ => Err(ErrorObjectOwned::owned(-32601, "Method not found", None::<()>)),
        }
    }

    fn class(&self, method: &str) -> Option<Class> {
        match method {
            "ping" | "sleep" => Some(Class::Read),
            "wait" | "count" => Some(Class::Logs),
            _ => None,
        }
    }

    fn document(&self) -> &'static str {
        DOCUMENT
    }

    fn health(&self) -> Box<RawValue> {
        raw(serde_json::json!({"status": "ok"})).unwrap()
    }

    fn card(&self) -> Box<RawValue> {
        raw(serde_json::json!({"name": "toy"})).unwrap()
    }
}

/// A toy served on a socket of its own until dropped.
pub struct House {
    pub toy: Arc<Toy>,
    pub path: PathBuf,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    served: Option<std::thread::JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl House {
    pub fn new() -> Self {
        Self::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/toy.sock");
        let toy = Arc::new(Toy::default());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (bound, is_bound) = std::sync::mpsc::channel();
        let (methods, at) = (toy.clone(), path.clone());
        let served = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = bind(&at).unwrap();
                bound.send(()).unwrap();
                let server = Server::new(limits);
                server.serve(listener, methods, async { _ = stopped.await }).await;
            });
        });
        is_bound.recv().unwrap();
        Self { toy, path, stop: Some(stop), served: Some(served), _folder: folder }
    }

    pub fn client(&self) -> Client {
        Client::new(&self.path)
    }

    /// Begins the shutdown without waiting for its end.
    pub fn begin_stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    pub fn wait_stopped(&mut self) {
        self.served.take().unwrap().join().unwrap();
    }

    /// One body on a connection of its own.
    pub fn rpc(&self, body: &str) -> Response {
        self.client().rpc(body.as_bytes())
    }

    pub fn ran(&self) -> usize {
        self.toy.ran.load(Ordering::SeqCst)
    }
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.take();
        if let Some(served) = self.served.take() {
            _ = served.join();
        }
    }
}

pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.text()))
    }

    pub fn code(&self) -> i64 {
        self.json()["error"]["code"].as_i64().unwrap_or_else(|| panic!("no error: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// One connection; nothing is sent that a test did not write.
pub struct Client {
    pub stream: UnixStream,
    unread: Vec<u8>,
}

impl Client {
    pub fn new(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream, unread: vec![] }
    }

    pub fn rpc(&mut self, body: &[u8]) -> Response {
        self.rpc_with("", body)
    }

    pub fn rpc_with(&mut self, headers: &str, body: &[u8]) -> Response {
        let length = body.len();
        let head = format!(
            "POST /rpc HTTP/1.1\r\nHost: wharf\r\nContent-Type: application/json\r\n{headers}Content-Length: {length}\r\n\r\n"
        );
        self.send(&[head.as_bytes(), body].concat());
        self.response()
    }

    pub fn get(&mut self, path: &str, headers: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: wharf\r\n{headers}\r\n").as_bytes());
        self.response()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub fn response(&mut self) -> Response {
        self.response_to(true)
    }

    /// Reads one response; `has_body` is false for the answer to a HEAD.
    pub fn response_to(&mut self, has_body: bool) -> Response {
        let (status, headers) = self.head();
        let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        let mut body = vec![];
        if !has_body {
        } else if header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk() {
                body.extend(chunk);
            }
        } else if let Some(length) = header("content-length") {
            body = self.take(length.parse().unwrap());
        }
        Response { status, headers, body }
    }

    pub fn head(&mut self) -> (u16, Vec<(String, String)>) {
        let head = self.until(b"\r\n\r\n");
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let split = |line: &str| line.split_once(": ").map(|(n, v)| (n.to_lowercase(), v.to_owned()));
        (status, lines.filter_map(split).collect())
    }

    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let size = String::from_utf8(self.until(b"\r\n")).unwrap();
        let size = usize::from_str_radix(size.trim(), 16).unwrap();
        let chunk = self.take(size);
        self.take(2);
        (size > 0).then_some(chunk)
    }

    /// Whether the server has closed, as seen within `patience`.
    pub fn is_closed_within(&mut self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|d| !d.is_zero()) {
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut [0; 4096]) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return false,
                Err(_) => return true,
            }
        }
        false
    }

    fn until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.unread.windows(end.len()).position(|w| w == end) {
                return self.take(at + end.len());
            }
            self.more();
        }
    }

    fn take(&mut self, bytes: usize) -> Vec<u8> {
        while self.unread.len() < bytes {
            self.more();
        }
        self.unread.drain(..bytes).collect()
    }

    fn more(&mut self) {
        let mut buffer = [0; 16 * 1024];
        let read = self.stream.read(&mut buffer).unwrap();
        assert!(read > 0, "closed; unread: {:?}", String::from_utf8_lossy(&self.unread));
        self.unread.extend(&buffer[..read]);
    }
}

/// Waits until something is true.
pub fn eventually(what: &str, is_true: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !is_true() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

//! The client against a socket that answers word for word what a test says.

use std::{
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_api::{NameParams, ServiceClient};
use wharf_client::{Client, ClientFailure};
use wharf_model::ErrorKind;

/// A socket, and the requests that came: head and body.
struct Ground {
    folder: tempfile::TempDir,
    requests: Arc<Mutex<Vec<(String, String)>>>,
}

impl Ground {
    /// Answers the n-th request with the n-th reply, each part written alone.
    fn answering(replies: Vec<Vec<String>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let requests = Arc::new(Mutex::new(vec![]));
        let seen = requests.clone();
        thread::spawn(move || {
            let mut replies = replies.into_iter();
            while let Ok((stream, _)) = listener.accept() {
                converse(stream, &seen, &mut replies);
            }
        });
        Self { folder, requests }
    }

    /// The same, but the first so many requests are read, and their connections end without a word.
    fn hanging_up_on(count: usize, replies: Vec<Vec<String>>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        let requests = Arc::new(Mutex::new(vec![]));
        let seen = requests.clone();
        thread::spawn(move || {
            for _ in 0..count {
                converse(listener.accept().unwrap().0, &seen, &mut std::iter::empty());
            }
            let mut replies = replies.into_iter();
            while let Ok((stream, _)) = listener.accept() {
                converse(stream, &seen, &mut replies);
            }
        });
        Self { folder, requests }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("s")
    }

    fn client(&self) -> Client {
        Client::new(self.socket())
    }
}

fn converse(stream: UnixStream, seen: &Mutex<Vec<(String, String)>>, replies: &mut impl Iterator<Item = Vec<String>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut writer = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).unwrap_or(0) == 0 {
                return;
            }
        }
        let length =
            head.to_lowercase().lines().find_map(|l| l.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        seen.lock().unwrap().push((head, String::from_utf8(body).unwrap()));
        let Some(reply) = replies.next() else { return };
        for part in reply {
            writer.write_all(part.as_bytes()).unwrap();
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn whole(body: &str) -> Vec<String> {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    vec![head + body]
}

/// Lines as chunks that are cut where no line ends.
fn lines(lines: &[Value]) -> Vec<String> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut parts =
        vec!["HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n".to_owned()];
    for part in text.as_bytes().chunks(7) {
        parts.push(format!("{:x}\r\n{}\r\n", part.len(), std::str::from_utf8(part).unwrap()));
    }
    parts.push("0\r\n\r\n".into());
    parts
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

#[test]
fn a_request_is_as_the_contract_says_and_the_connection_is_kept() {
    let ground = Ground::answering(vec![
        whole(r#"{"jsonrpc":"2.0","id":1,"result":{"a":1.50}}"#),
        whole(r#"{"jsonrpc":"2.0","id":2,"result":null}"#),
    ]);
    let client = ground.client();
    run(async {
        assert_eq!(client.raw("a.b", json!({"x": 1})).await.unwrap().get(), r#"{"a":1.50}"#);
        assert_eq!(client.raw("a.c", Value::Null).await.unwrap().get(), "null");
    });
    // One thread serves one connection after the other: a second connection would not have been answered.
    let requests = ground.requests.lock().unwrap();
    let (head, body) = &requests[0];
    assert!(head.starts_with("POST /rpc HTTP/1.1\r\n"), "{head}");
    for line in ["host: wharf", "content-type: application/json"] {
        assert_eq!(head.lines().filter(|l| *l == line).count(), 1, "{head}");
    }
    assert_eq!(body, r#"{"jsonrpc":"2.0","id":1,"method":"a.b","params":{"x":1}}"#);
    assert_eq!(requests[1].1, r#"{"jsonrpc":"2.0","id":2,"method":"a.c"}"#);
}

#[test]
fn a_typed_call_gives_the_daemons_failure_back() {
    let error = json!({"jsonrpc": "2.0", "id": 1, "error": {"code": -32001, "message": "there is no service \"reds\"", "data": {
        "kind": "not_found", "service": "reds", "retryable": false, "hint": "did you mean redis?", "causes": []
    }}});
    let ground = Ground::answering(vec![whole(&error.to_string())]);
    let name = "reds".parse().unwrap();
    let failure = ClientFailure::from(run(ground.client().status(NameParams { name })).unwrap_err()).failure();
    assert_eq!((failure.kind, failure.hint.as_deref()), (ErrorKind::NotFound, Some("did you mean redis?")));
}

#[test]
fn lines_are_whole_however_they_are_cut() {
    let said = |n: u32| json!({"jsonrpc": "2.0", "method": "service.log", "params": {"line": format!("line {n}")}});
    let ground =
        Ground::answering(vec![lines(&[said(1), said(2), json!({"jsonrpc": "2.0", "id": 1, "result": {"ok": true}})])]);
    let mut heard = vec![];
    let result = run(ground.client().streaming("service.logs", json!({}), |method, params| {
        heard.push((method.to_owned(), params["line"].clone()));
    }));
    assert_eq!(result.unwrap().get(), r#"{"ok":true}"#);
    assert_eq!(heard, [("service.log".into(), json!("line 1")), ("service.log".into(), json!("line 2"))]);
    assert!(ground.requests.lock().unwrap()[0].0.contains("accept: application/x-ndjson\r\n"));
}

#[test]
fn a_stream_without_an_answer_and_one_that_is_refused_are_failures() {
    let refusal = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no"}}"#;
    let ground = Ground::answering(vec![
        lines(&[json!({"jsonrpc": "2.0", "method": "service.progress", "params": {}})]),
        whole(refusal),
    ]);
    let client = ground.client();
    run(async {
        let ended = client.streaming("service.start", json!({}), |_, _| {}).await.unwrap_err();
        assert!(matches!(ended, ClientFailure::Broken { .. }), "{ended:?}");
        let refused = client.streaming("service.start", json!({}), |_, _| {}).await.unwrap_err();
        assert!(matches!(&refused, ClientFailure::Answered(e) if e.code() == -32600), "{refused:?}");
    });
}

#[test]
fn a_daemon_that_dies_in_a_call_is_no_answer() {
    let ground = Ground::answering(vec![]);
    let failure = run(ground.client().raw("service.list", json!({}))).unwrap_err();
    assert!(matches!(failure, ClientFailure::Broken { .. }), "{failure:?}");
    assert!(failure.is_unreachable());
}

#[test]
fn nobody_there_is_said_with_the_path_and_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.sock");
    let refused = folder.path().join("refused.sock");
    drop(UnixListener::bind(&refused).unwrap());
    let too_long = folder.path().join("x".repeat(120));
    for socket in [missing, refused, too_long] {
        let failure = run(Client::new(socket.clone()).raw("rpc.health", json!({}))).unwrap_err();
        assert!(matches!(failure, ClientFailure::Unreachable { .. }), "{failure:?}");
        let failure = failure.failure();
        assert_eq!(failure.message, format!("no Wharf daemon answers at {}", socket.display()));
        assert_eq!(failure.hint.as_deref(), Some("`wharf up` starts one"));
    }
}

#[test]
fn a_full_queue_is_waited_for_and_then_given_up() {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("full.sock");
    let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
    bind(&listener, &SocketAddrUnix::new(&path).unwrap()).unwrap();
    listen(&listener, 0).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    let began = Instant::now();
    let failure = run(Client::new(path).raw("rpc.health", json!({}))).unwrap_err();
    assert!(failure.is_unreachable(), "{failure:?}");
    assert!((1_900..4_000).contains(&began.elapsed().as_millis()), "gave up after {:?}", began.elapsed());
}

#[tokio::test]
async fn a_look_is_asked_again_on_a_new_connection_and_a_change_is_not() {
    // Every second request is read and not answered: the connection ends in its place.
    let ground = Ground::hanging_up_on(1, vec![whole(r#"{"jsonrpc":"2.0","id":1,"result":[]}"#)]);
    let client = ground.client();
    assert_eq!(client.raw("service.list", Value::Null).await.unwrap().get(), "[]");
    assert_eq!(ground.requests.lock().unwrap().len(), 2);
    let ground = Ground::hanging_up_on(1, vec![whole(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)]);
    let failure = ground.client().raw("service.restart", json!({ "name": "a" })).await.unwrap_err();
    assert!(matches!(failure, ClientFailure::Broken { .. }), "{failure:?}");
    assert_eq!(ground.requests.lock().unwrap().len(), 1);
}

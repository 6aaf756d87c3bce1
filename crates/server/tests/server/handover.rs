//! One server leaves its sockets, another goes on: what clients notice of it, which is a pause.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::oneshot;
use wharf_server::{Door, Leave, Limits, Server, bind};

use crate::support::{Client, Toy, eventually};

const SUM: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"sum","params":[1,2]}"#;
const PING: &[u8] = br#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;

/// A server of its own, in a runtime of its own, as in a process of its own.
struct Shift {
    server: Arc<Server>,
    toy: Arc<Toy>,
    runtime: tokio::runtime::Runtime,
    leave: oneshot::Sender<Leave>,
    served: tokio::task::JoinHandle<Option<Door>>,
}

impl Shift {
    fn begin(door: Door) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (server, toy) = (Arc::new(Server::new(Limits::default())), Arc::new(Toy::default()));
        let (leave, leaving) = oneshot::channel();
        let (serving, methods) = (server.clone(), toy.clone());
        let served = runtime.spawn(async move {
            let leaving = async { leaving.await.unwrap_or(Leave::Close) };
            serving.serve_door(door, methods, leaving).await.unwrap()
        });
        Self { server, toy, runtime, leave, served }
    }

    /// Everything of it has ended when this returns.
    fn end(self) -> Door {
        self.leave.send(Leave::HandOver).unwrap();
        self.runtime.block_on(self.served).unwrap().unwrap()
    }
}

fn head_of(body: &[u8]) -> Vec<u8> {
    let length = body.len();
    format!("POST /rpc HTTP/1.1\r\nHost: w\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n")
        .into_bytes()
}

#[test]
fn whatever_is_not_in_flight_goes_on_with_the_next_server() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run/x.sock");
    let first = Shift::begin(bind(&path).unwrap().into());
    let (mut kept, mut fresh, mut half) = (Client::new(&path), Client::new(&path), Client::new(&path));
    assert_eq!(kept.rpc(PING).status, 200);
    let request = [&head_of(SUM), SUM].concat();
    half.send(&request[..30]);
    // Accepted and looked at by the first.
    std::thread::sleep(Duration::from_millis(50));
    let door = first.end();
    assert_eq!(door.guests.len(), 3);
    // Nobody accepts now, and nobody is refused.
    let mut waiting = Client::new(&path);
    waiting.send(&request);
    kept.send(&request);
    half.send(&request[30..]);
    let second = Shift::begin(door);
    for client in [&mut kept, &mut waiting, &mut half] {
        assert_eq!(client.response().json()["result"], 3);
    }
    assert_eq!(fresh.rpc(SUM).json()["result"], 3);
    assert_eq!(second.toy.ran.load(Ordering::SeqCst), 4);
    drop(second.end());
    assert!(!path.exists());
}

#[test]
fn a_change_that_comes_late_is_held_and_begun_once_by_the_next_server() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run/x.sock");
    let first = Shift::begin(bind(&path).unwrap().into());
    let mut client = Client::new(&path);
    assert_eq!(client.rpc(PING).status, 200);
    first.runtime.block_on(first.server.settle());
    let batch = [b"[", PING, b",", SUM, b"]"].concat();
    client.send(&[&head_of(&batch)[..], &batch, &head_of(PING), PING].concat());
    // Looks are answered meanwhile.
    assert_eq!(Client::new(&path).rpc(PING).json()["result"], "pong");
    std::thread::sleep(Duration::from_millis(50));
    let toy = first.toy.clone();
    let second = Shift::begin(first.end());
    assert_eq!(client.response().json()[1]["result"], 3);
    // And what came behind it on the same connection.
    assert_eq!(client.response().json()["result"], "pong");
    assert_eq!((toy.ran.load(Ordering::SeqCst), second.toy.ran.load(Ordering::SeqCst)), (2, 3));
}

#[test]
fn without_a_handover_what_was_held_begins_here() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run/x.sock");
    let first = Shift::begin(bind(&path).unwrap().into());
    let mut client = Client::new(&path);
    first.runtime.block_on(first.server.settle());
    client.send(&[&head_of(SUM), SUM].concat());
    client.stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(client.stream.read(&mut [0; 1]).is_err(), "it was not held");
    client.stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    first.server.go_on();
    assert_eq!(client.response().json()["result"], 3);
}

#[test]
fn a_follower_is_told_and_its_connection_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run/x.sock");
    let first = Shift::begin(bind(&path).unwrap().into());
    let mut follower = Client::new(&path);
    let follow = br#"{"jsonrpc":"2.0","id":7,"method":"wait"}"#;
    follower.send(&[&head_of(follow)[..], follow].concat());
    let toy = first.toy.clone();
    eventually("it follows", || toy.begun.load(Ordering::SeqCst) == 1);
    first.runtime.block_on(first.server.settle());
    let began = std::time::Instant::now();
    let second = Shift::begin(first.end());
    assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    let told = follower.response().json();
    assert_eq!((&told["id"], &told["error"]["data"]["retryable"]), (&7.into(), &true.into()), "{told}");
    // The connection itself goes on.
    assert_eq!(follower.rpc(SUM).json()["result"], 3);
    drop(second);
}

//! Ears against programs that say little, much, nonsense, and against strangers.

use std::{
    collections::BTreeSet,
    os::unix::net::UnixDatagram as Plain,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use super::*;

/// Those of the run, by pid.
#[derive(Clone, Default)]
struct Pids(Arc<Mutex<BTreeSet<i32>>>);

impl Crowd for Pids {
    fn holds(&self, _: Option<&OwnedFd>, pid: i32) -> bool {
        self.0.lock().unwrap().contains(&pid)
    }
}

fn us() -> Pids {
    Pids(Arc::new(Mutex::new([std::process::id().cast_signed()].into())))
}

struct Ground {
    ear: Ear,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

fn ground(crowd: Pids, is_shared: bool) -> Ground {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n").join("7");
    let socket = Socket::bind(&path, None).unwrap();
    Ground { ear: Ear::new(socket, is_shared, crowd).unwrap(), path, _dir: dir }
}

fn say(path: &Path, text: &[u8]) {
    Plain::unbound().unwrap().send_to(text, path).unwrap();
}

async fn heard(ear: &mut Ear) -> Vec<Said> {
    tokio::time::timeout(Duration::from_secs(5), ear.hear()).await.expect("something is heard").said
}

#[tokio::test]
async fn what_a_program_says_is_heard_in_order() {
    let Ground { mut ear, path, _dir } = ground(us(), false);
    say(&path, b"STATUS=loading 1/2\nEXTEND_TIMEOUT_USEC=5000000");
    assert_eq!(heard(&mut ear).await, [Said::Status("loading 1/2".into()), Said::Extend(5_000)]);
    say(&path, b"");
    say(&path, b"READY=1\nSTATUS=serving");
    assert_eq!(heard(&mut ear).await, [Said::Status("serving".into()), Said::Ready]);
    say(&path, b"RELOADING=1\nMONOTONIC_USEC=1");
    assert_eq!(heard(&mut ear).await, [Said::Status("it is reloading: serving".into())]);
    say(&path, b"READY=1");
    assert_eq!(heard(&mut ear).await, [Said::Status("serving".into()), Said::Ready]);
    say(&path, b"WATCHDOG=1");
    say(&path, b"WATCHDOG=1\nWATCHDOG_USEC=2000000");
    assert_eq!(heard(&mut ear).await, [Said::Alive, Said::WatchdogPeriod(2_000)], "one breath is enough");
    say(&path, b"STOPPING=1\nERRNO=2\nSTATUS=gone");
    let last = heard(&mut ear).await;
    assert!(
        matches!(&last[..], [Said::Status(why), Said::Stopping] if why.starts_with("gone: No such file")),
        "{last:?}"
    );
}

#[tokio::test]
async fn a_stranger_is_not_heard_and_counted() {
    let crowd = Pids::default();
    let Ground { mut ear, path, _dir } = ground(crowd.clone(), false);
    say(&path, b"READY=1");
    let silence = tokio::time::timeout(Duration::from_millis(100), ear.hear()).await;
    assert!(silence.is_err(), "{silence:?}");
    assert_eq!(ear.unheard().strangers, 1);
    // A child of ours, which is told by its pid.
    crowd.0.lock().unwrap().insert(0);
    let script = format!(
        "import os,socket,sys;sys.stdin.read();socket.socket(1,2).sendto(b'READY=1',{:?})",
        path.to_str().unwrap()
    );
    let mut child = Command::new("/usr/bin/env")
        .args(["python3", "-c", &script])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    crowd.0.lock().unwrap().insert(child.id().cast_signed());
    drop(child.stdin.take());
    let said = heard(&mut ear).await;
    child.wait().unwrap();
    assert_eq!(said, [Said::Ready]);
}

#[tokio::test]
async fn a_flood_is_dropped_and_counted_and_what_matters_is_still_heard() {
    let Ground { mut ear, path, _dir } = ground(us(), false);
    let writer = std::thread::spawn(move || {
        let socket = Plain::unbound().unwrap();
        for n in 0..2_000 {
            socket.send_to(format!("STATUS={n}").as_bytes(), &path).unwrap();
        }
        socket.send_to(b"READY=1", &path).unwrap();
    });
    let (mut told, mut ready) = (0, false);
    while !ready {
        let said = heard(&mut ear).await;
        told += said.len();
        ready = said.contains(&Said::Ready);
    }
    writer.join().unwrap();
    assert!(told < 1_000, "{told} facts of a flood");
    assert!(ear.unheard().dropped > 0, "{:?}", ear.unheard());
}

#[tokio::test]
async fn a_barrier_opens_when_what_was_before_it_is_taken_in() {
    use std::io::Read;
    let Ground { mut ear, path, _dir } = ground(us(), false);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let socket = Plain::unbound().unwrap();
    socket.connect(&path).unwrap();
    socket.send(b"STATUS=before").unwrap();
    wharf_sys::socket::send(&socket, b"BARRIER=1", &[writer.as_fd()]).unwrap();
    drop(writer);
    let waiter = std::thread::spawn(move || {
        let _ = reader.read(&mut [0]);
        Instant::now()
    });
    let heard = ear.hear().await;
    assert_eq!((heard.said.len(), heard.barriers.len()), (1, 1));
    std::thread::sleep(Duration::from_millis(50));
    let taken_in = Instant::now();
    drop(heard);
    assert!(waiter.join().unwrap() >= taken_in);
}

#[tokio::test]
async fn descriptors_that_nobody_asked_for_are_closed_at_once() {
    use std::io::Read;
    let Ground { mut ear, path, _dir } = ground(us(), false);
    let (mut reader, writer) = std::io::pipe().unwrap();
    let socket = Plain::unbound().unwrap();
    socket.connect(&path).unwrap();
    wharf_sys::socket::send(&socket, b"FDSTORE=1\nFDNAME=x\nSTATUS=kept", &[writer.as_fd()]).unwrap();
    drop(writer);
    assert_eq!(heard(&mut ear).await, [Said::Status("kept".into())]);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "it was closed");
    assert_eq!(ear.unheard().not_stored, 1);
}

#[tokio::test]
async fn garbage_and_what_is_too_long_are_survived() {
    let Ground { mut ear, path, _dir } = ground(us(), false);
    for bytes in [&b"\xff\xfe\x00=\n==\n"[..], &[0; 100], &[b'x'; 60_000], &b"STATUS=long\n".repeat(1_000)] {
        say(&path, bytes);
    }
    assert_eq!(heard(&mut ear).await, [Said::Status("long".into())]);
    assert_eq!(ear.unheard().cut, 2);
}

/// With the shim alone holding the socket, nobody reads: a program must not wait for ever.
#[tokio::test]
async fn a_ready_program_never_waits_for_a_daemon_that_is_gone() {
    let Ground { mut ear, path, _dir } = ground(us(), true);
    let held_by_shim = ear.socket.open().unwrap();
    let connected = Plain::unbound().unwrap();
    connected.connect(&path).unwrap();
    say(&path, b"READY=1");
    assert_eq!(heard(&mut ear).await, [Said::Ready]);
    connected.send(b"STATUS=old").unwrap();
    say(&path, b"STATUS=new");
    let mut both = vec![heard(&mut ear).await];
    both.push(heard(&mut ear).await);
    assert!(both.contains(&vec![Said::Status("old".into())]) && both.contains(&vec![Said::Status("new".into())]));
    drop(ear);
    let sent = std::thread::spawn(move || {
        let socket = Plain::unbound().unwrap();
        (0..1_000).map(|_| socket.send_to(b"WATCHDOG=1", &path)).collect::<Vec<_>>()
    });
    let until = Instant::now() + Duration::from_secs(5);
    while !sent.is_finished() {
        assert!(Instant::now() < until, "it waits for a daemon that is gone");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(sent.join().unwrap().iter().all(Result::is_err), "it is told that nobody is there");
    drop(held_by_shim);
}

/// What was said while no daemon lived waits in the socket that the shim holds.
#[tokio::test]
async fn a_new_daemon_hears_what_was_said_before_it() {
    let Ground { ear, path, _dir } = ground(us(), true);
    let held = ear.socket.open().unwrap();
    drop(ear);
    say(&path, b"STATUS=half\nREADY=1");
    let again =
        |held: &Plain, starting| Ear::again(&path, Some(held.try_clone().unwrap().into()), starting, us()).unwrap();
    let mut ear = again(&held, true);
    assert_eq!(heard(&mut ear).await, [Said::Status("half".into()), Said::Ready]);
    say(&path, b"WATCHDOG=1");
    assert_eq!(heard(&mut ear).await, [Said::Alive]);
    // It ends before anybody has written down what it heard.
    drop(ear);
    let mut ear = again(&held, true);
    assert_eq!(heard(&mut ear).await, [Said::Ready]);
    say(&path, b"WATCHDOG=1");
    assert_eq!(heard(&mut ear).await, [Said::Alive]);
    drop(ear);
    let connected = Plain::unbound().unwrap();
    let mut ear = again(&held, false);
    connected.connect(&path).unwrap();
    connected.send(b"STATUS=later").unwrap();
    assert_eq!(heard(&mut ear).await, [Said::Status("later".into())]);
    Socket::remove(&path);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 0, "something is left over");
}

#[test]
fn a_path_that_is_too_long_is_told_before_anything_is_made() {
    let path = PathBuf::from("/tmp").join("x".repeat(110)).join("7");
    let failure = Socket::bind(&path, None).unwrap_err();
    assert!(failure.message.contains("too long") && failure.hint.is_some(), "{failure}");
}

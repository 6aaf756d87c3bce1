//! Sockets that a run is given, and the one that its notices go to.

use std::{
    net::TcpListener,
    os::{fd::OwnedFd, unix::net::UnixDatagram},
    sync::Arc,
};

use super::*;

#[tokio::test]
async fn sockets_are_passed_by_number_and_name() {
    let place = Place::new();
    let main = TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = UnixDatagram::bind(place.path("admin")).unwrap();
    let script = "echo $LISTEN_FDS $LISTEN_FDNAMES; test $LISTEN_PID = $$ && echo mine; \
                  readlink /proc/$$/fd/3 /proc/$$/fd/4; ls /proc/$$/fd | wc -l; grep -c python-api /proc/net/unix; true";
    let mut plan = place.shell(script);
    let inode = |fd: &dyn std::os::fd::AsRawFd| {
        fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap().display().to_string()
    };
    let (first, second) = (inode(&main), inode(&admin));
    plan.listen_fds =
        vec![("main".into(), Arc::new(OwnedFd::from(main))), ("admin".into(), Arc::new(OwnedFd::from(admin)))];
    let live = place.launcher.launch(plan).await.unwrap();
    assert_eq!(ends(&live).await, Exit::Exited { code: 0 });
    let log = fs::read_to_string(place.path("log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    // Three streams, two sockets, the run's lock.
    assert_eq!(lines[..5], ["2 main:admin", "mine", &first, &second, "6"], "{log}");
}

#[tokio::test]
async fn notices_sent_while_no_daemon_lives_wait_for_the_next() {
    let place = Place::new();
    let path = place.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let plan = RunPlan { notify: Some(Arc::new(OwnedFd::from(socket))), ..place.shell("exec sleep 60") };
    let live = place.launcher.launch(plan).await.unwrap();
    let receive = |live: &LiveRun| {
        let socket = UnixDatagram::from(live.notify_fd().expect("the socket is out of reach"));
        socket.set_nonblocking(true).unwrap();
        let mut text = [0; 32];
        let length = socket.recv(&mut text).unwrap();
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let service = UnixDatagram::unbound().unwrap();
    service.send_to(b"READY=1", &path).unwrap();
    assert_eq!(receive(&live), "READY=1");
    drop(live);
    // No daemon has it open now; the shim has.
    service.send_to(b"STATUS=alone", &path).unwrap();
    let Found::Alive(live) = place.reborn().find(&unit(), RUN).await else { panic!("not found alive") };
    assert_eq!(receive(&live), "STATUS=alone");
    // The service itself does not inherit it.
    let own = fs::read_dir(format!("/proc/{}/fd", live.pid())).unwrap().flatten();
    assert_eq!(own.filter(|fd| fs::read_link(fd.path()).unwrap().starts_with("socket:")).count(), 0);
    kill_shim(&live).await;
    assert!(live.notify_fd().is_none());
    live.kill_all();
    in_time(live.emptied()).await;
}

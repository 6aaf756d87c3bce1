//! `wharf ports who`: from a port to whoever has it.

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, cannot, eventually, free_port};

use super::{Stranger, listener, unit};

fn who(daemon: &Daemon, port: u16) -> Value {
    daemon.ok("port.whois", json!({ "port": port }))
}

#[test]
fn jc_4_it_answers_what_is_listening_on_a_port() {
    let daemon = Daemon::start();
    let (own, theirs, none) = (free_port(), free_port(), free_port());
    unit(&daemon, "web", own, &listener("127.0.0.1", own, "", ""));
    let stranger = Stranger::python(&listener("127.0.0.1", theirs, "", ""));
    let found = who(&daemon, own);
    assert_eq!(found["holders"][0]["unit"], "command@web", "JC-4: {found}");
    assert_eq!(found["holders"][0]["found_by"], "lease");
    assert_eq!(found["units"], json!(["command@web"]));
    let found = who(&daemon, theirs);
    let holder = &found["holders"][0];
    assert_eq!((&holder["pid"], &holder["unit"]), (&json!(stranger.pid()), &json!(null)), "JC-4: {found}");
    assert!(holder["cmdline"].as_str().unwrap().contains("import socket"), "{holder}");
    let said = daemon.cli_ok(&["ports", "who", &theirs.to_string()]);
    let begins = format!("port {theirs}: python3 (pid {}, user ", stranger.pid());
    assert!(said.out.starts_with(&begins) && said.out.contains(") listens\n"), "{}", said.out);
    let said = daemon.cli_ok(&["ports", "who", &none.to_string()]);
    assert!(said.out.starts_with(&format!("port {none}: nobody has it")), "{}", said.out);
    let json = daemon.cli_ok(&["ports", "who", &theirs.to_string(), "--json"]).json();
    daemon.conforms("port.whois", &json!({ "port": theirs }), &json);
}

#[test]
fn arbiter_11_who_has_only_bound_a_port_and_who_connects_from_it_are_named() {
    let daemon = Daemon::start();
    let port = free_port();
    let bound = Stranger::python(&format!(
        "import socket,time\ns=socket.socket()\ns.bind(('127.0.0.1',{port}))\nprint('up',flush=True)\ntime.sleep(1000)"
    ));
    let found = who(&daemon, port);
    if found["holders"] == json!([]) {
        cannot("arbiter 11", "this kernel does not show sockets that are only bound (Linux 6.9 does)");
    } else {
        let holder = &found["holders"][0];
        assert_eq!((&holder["does"], &holder["pid"]), (&json!("bound"), &json!(bound.pid())), "{found}");
        let with = json!({ "argv": ["sleep", "9"], "ports": { "main": port }, "health": "none" });
        let error = daemon.err("service.start", json!({ "name": "command@x", "with": with }));
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(&format!("pid {}", bound.pid())), "{error}");
        assert!(message.contains("has bound it and does not listen"), "{error}");
    }
    drop(bound);

    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let from = client.local_addr().unwrap().port();
    let found = who(&daemon, from);
    let holder = &found["holders"][0];
    assert_eq!((&holder["does"], &holder["pid"]), (&json!("connected"), &json!(std::process::id())), "{found}");
    assert_eq!(holder["remote"], server.local_addr().unwrap().to_string());
    let checked = daemon.ok("port.check", json!({ "ports": [from] }));
    assert_eq!((&checked["ok"], &checked["ports"][0]["verdict"]), (&json!(false), &json!("taken")), "{checked}");
    assert!(checked["ports"][0]["holder"].as_str().unwrap().contains("has a connection from it"), "{checked}");
    // The server's own accepted connection is no holder beside the listener.
    let at = server.local_addr().unwrap().port();
    let found = who(&daemon, at);
    assert_eq!(found["holders"].as_array().unwrap().len(), 1, "{found}");
    assert_eq!(found["connections"], 1, "{found}");
    // A connection that the server has ended waits for late packets: no obstacle for the next server.
    drop(server.accept().unwrap());
    drop((server, client));
    eventually("the connection is over", Duration::from_secs(5), || who(&daemon, at)["time_wait"] == 1);
    let checked = daemon.ok("port.check", json!({ "ports": [at] }));
    assert_eq!((&checked["ok"], &checked["ports"][0]["verdict"]), (&json!(true), &json!("time_wait")), "{checked}");
}

#[test]
fn a_program_behind_a_link_is_named_as_it_was_called() {
    // redis-server is a link to redis-check-rdb in some packages.
    let daemon = Daemon::start();
    let folder = tempfile::tempdir().unwrap();
    let (file, link) = (folder.path().join("redis-check-rdb"), folder.path().join("redis-server"));
    fs::copy(wharf_tests::beside("wharf-talker"), &file).unwrap();
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let port = free_port();
    let server = Stranger::begin(Command::new(&link).args([&format!("serve:{port}:200:x"), "log:up", "wait"]));
    let holder = who(&daemon, port)["holders"][0].clone();
    assert_eq!((&holder["pid"], &holder["command"]), (&json!(server.pid()), &json!("redis-server")), "{holder}");
    assert_eq!(holder["exe"], link.display().to_string(), "{holder}");
    let said = daemon.cli_ok(&["ports", "who", &port.to_string()]).out;
    assert!(said.starts_with(&format!("port {port}: redis-server (pid {}", server.pid())), "{said}");
    assert!(!said.contains("redis-check-rdb"), "{said}");
}

/// A cgroup of this name with this process in it, where this machine lets us make one. It goes with the value.
struct Group(PathBuf);

impl Group {
    fn with(name: &str, pid: i32) -> Option<Self> {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(Path::new);
        let root = roots.into_iter().find(|root| root.join("cgroup.controllers").exists())?;
        let folder = root.join(format!("wharf-test-{}", std::process::id())).join(name);
        fs::create_dir_all(&folder).ok()?;
        let group = Self(folder);
        fs::write(group.0.join("cgroup.procs"), pid.to_string()).ok()?;
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // With the folders above it, up to the one that others use too.
        for folder in self.0.ancestors() {
            if fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }
}

/// A container engine's socket that knows these containers.
fn engine(folder: &Path, containers: &Value) -> PathBuf {
    let path = folder.join("engine.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let answer = format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{containers}");
    thread::spawn(move || {
        for mut line in listener.incoming().flatten() {
            let _ = line.read(&mut [0; 4096]);
            let _ = line.write_all(answer.as_bytes());
        }
    });
    path
}

#[test]
fn arbiter_11_systemd_unit_and_container_and_user_are_named() {
    let id = "0123456789abcdef".repeat(4);
    let folder = tempfile::tempdir().unwrap();
    let published = free_port();
    let containers = json!([
        { "Id": id, "Names": ["/shop-web-1"], "Ports": [], "Labels": { "com.docker.compose.project": "shop" } },
        { "Id": "f".repeat(64), "Names": ["/db"], "Labels": {},
          "Ports": [{ "PrivatePort": 5432, "PublicPort": published, "Type": "tcp" }] },
    ]);
    let socket = engine(folder.path(), &containers);
    let mut daemon = Daemon::prepare().with_env("DOCKER_HOST", &format!("unix://{}", socket.display()));
    daemon.launch();

    // A port that a proxy holds for a container.
    let proxy = folder.path().join("docker-proxy");
    fs::copy(wharf_tests::beside("wharf-talker"), &proxy).unwrap();
    let proxy = Stranger::begin(Command::new(&proxy).args([&format!("serve:{published}:200:x"), "log:up", "wait"]));
    let found = who(&daemon, published);
    let holder = &found["holders"][0];
    assert_eq!((&holder["pid"], &holder["container_name"]), (&json!(proxy.pid()), &json!("db")), "{found}");
    assert!(found["answer"].as_str().unwrap().contains("for the container db"), "{found}");

    let is_root = nix::unistd::geteuid().is_root();
    let port = free_port();
    let stranger = Stranger::python(&listener("127.0.0.1", port, "", ""));
    let web = is_root.then(|| Group::with("user-1000.slice/user@1000.service/app.slice/web.service", stranger.pid()));
    match web.flatten() {
        Some(_group) => {
            let found = who(&daemon, port);
            assert_eq!(found["holders"][0]["systemd_unit"], "web.service", "{found}");
            assert!(found["answer"].as_str().unwrap().contains("systemd unit web.service"), "{found}");
            drop(stranger);
        }
        None => cannot("arbiter 11", "cgroups cannot be made: a systemd unit is not told by its cgroup"),
    }
    let port = free_port();
    let inside = Stranger::python(&listener("127.0.0.1", port, "", ""));
    match is_root.then(|| Group::with(&format!("docker-{id}.scope"), inside.pid())).flatten() {
        Some(_group) => {
            let found = who(&daemon, port);
            let holder = &found["holders"][0];
            assert_eq!(holder["container"], id.as_str(), "{found}");
            assert!(found["answer"].as_str().unwrap().contains("container shop-web-1"), "{found}");
            let error = daemon.err("port.evict", json!({ "port": port }));
            assert!(error["data"]["hint"].as_str().unwrap().contains("docker stop"), "{error}");
            assert_eq!((&holder["container_name"], &holder["compose_project"]), (&json!("shop-web-1"), &json!("shop")));
            drop(inside);
        }
        None => cannot("arbiter 11", "cgroups cannot be made: a container is not told by its cgroup"),
    }
    if !is_root {
        return cannot("arbiter 11", "another user's process needs root");
    }
    let port = free_port();
    let theirs = Stranger::of_nobody(port);
    let found = who(&daemon, port);
    let holder = &found["holders"][0];
    assert_eq!((&holder["pid"], &holder["uid"]), (&json!(theirs.pid()), &json!(65534)), "{found}");
    assert!(holder["user"].is_string(), "{holder}");
}

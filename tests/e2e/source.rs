//! Where services come from, each source for real: source code, releases, npm, files; and installs that are killed.

mod code;
mod killed;
mod node;
mod releases;
mod store;
mod tls;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use serde_json::json;
use wharf_tests::{Daemon, free_port};

/// A daemon with the service `thing`, whose parameters say where it comes from.
pub(crate) fn with_sources() -> Daemon {
    Daemon::prepare().with_binary(env!("CARGO_BIN_EXE_wharf-with-sources"))
}

/// What an HTTP server on this machine answers.
pub(crate) fn fetch(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_users_own_service_is_built_from_source_and_runs() {
    let mut daemon = Daemon::prepare().with_binary(env!("CARGO_BIN_EXE_wharf-with-echo"));
    daemon.launch();
    let built = daemon.ok("service.build", json!({ "name": "echo", "mode": "source" }));
    let paths = built["installed_paths"].as_array().unwrap();
    assert_eq!(paths.len(), 1, "{built}");
    assert!(paths[0].as_str().unwrap().starts_with(daemon.home.join("store/echo").to_str().unwrap()), "{built}");
    assert_eq!(built["version"], "0.3.1", "{built}");
    let port = free_port();
    daemon.ok("service.start", json!({ "name": "echo", "with": { "ports": { "main": port } } }));
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    writeln!(stream, "over the water").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert_eq!(line, "over the water\n");
    assert_eq!(daemon.ok("service.verify", json!({ "name": "echo" }))["ok"], true);
    daemon.ok("service.delete", json!({ "name": "echo", "purge_binaries": true }));
    assert!(!daemon.home.join("store/echo").exists());
}

#[test]
fn a_build_that_fails_quotes_the_compiler_and_leaves_nothing() {
    let mut daemon = Daemon::prepare().with_binary(env!("CARGO_BIN_EXE_wharf-with-echo"));
    daemon.launch();
    let tree = daemon.home.join("broken");
    std::fs::create_dir_all(tree.join("src")).unwrap();
    std::fs::write(
        tree.join("Cargo.toml"),
        "[package]\nname = \"echo\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n",
    )
    .unwrap();
    std::fs::write(tree.join("src/main.rs"), "fn main() { this does not compile }\n").unwrap();
    let error = daemon.err("service.build", json!({ "name": "echo", "with": { "tree": tree } }));
    assert_eq!(error["code"], -32007, "{error}");
    assert!(error["data"]["causes"].to_string().contains("main.rs"), "{error}");
    assert_eq!(daemon.state("echo"), "not_installed");
}

#[test]
fn what_comes_ready_made_has_nothing_to_build() {
    let daemon = Daemon::start();
    for name in ["hello", "python-api@core"] {
        let built = daemon.ok("service.build", json!({ "name": name }));
        assert!(
            built["installed_paths"].as_array().unwrap().is_empty()
                && built["note"].as_str().unwrap().contains("nothing to build")
        );
    }
}

//! Releases over TLS: a certificate that the machine trusts is taken, any other is not.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::json;
use wharf_tests::{cannot, eventually, free_port, listens, stand_in};

use super::with_sources;

/// `openssl s_server`, which serves the files of a folder. It ends with the value.
struct Openssl(Child);

impl Drop for Openssl {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn openssl(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new("openssl");
    command.args(args).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
fn a_certificate_must_be_one_that_the_machine_trusts() {
    let mut daemon = with_sources();
    let folder = daemon.home.join("www");
    fs::create_dir_all(&folder).unwrap();
    // An authority, and a certificate by it.
    let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30"];
    let authority = ["-keyout", "ca-key.pem", "-out", "ca.pem", "-subj", "/CN=Tests"];
    let leaf =
        ["-keyout", "key.pem", "-out", "cert.pem", "-subj", "/CN=localhost", "-CA", "ca.pem", "-CAkey", "ca-key.pem"];
    let of = ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=critical,CA:FALSE"];
    for args in [[&new[..], &authority].concat(), [&new[..], &leaf, &of].concat()] {
        if !openssl(&folder, &args).status().is_ok_and(|s| s.success()) {
            cannot("downloads over TLS are checked", "this machine has no openssl of version 3");
            return;
        }
    }
    let port = free_port();
    let base = format!("https://localhost:{port}");
    let release = json!({
        "tag_name": "v1",
        "assets": [{ "name": "thing-linux-amd64", "browser_download_url": format!("{base}/file"), "size": 0 }],
    });
    // As `s_server -HTTP` wants its files: with their own heads.
    let head = |kind: &str| format!("HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\n\r\n").into_bytes();
    let api = folder.join("api/v1/repos/them/thing/releases");
    fs::create_dir_all(&api).unwrap();
    fs::write(api.join("latest"), [head("application/json"), release.to_string().into_bytes()].concat()).unwrap();
    fs::write(folder.join("file"), [head("application/octet-stream"), stand_in()].concat()).unwrap();
    let accept = port.to_string();
    let serve = ["s_server", "-accept", &accept, "-cert", "cert.pem", "-key", "key.pem", "-HTTP", "-quiet"];
    let _server = Openssl(openssl(&folder, &serve).spawn().unwrap());
    eventually("openssl listens", Duration::from_secs(10), || listens(port));

    let with = json!({
        "from": format!("localhost:{port}"), "of": "them/thing", "assets": ["thing-linux-amd64"], "binaries": ["thing"],
    });
    daemon.launch();
    let error = daemon.err("service.install", json!({ "name": "thing", "with": with }));
    let said = error.to_string();
    assert!(said.contains("was not reached") && said.contains("SSL_CERT_FILE"), "{error:#}");
    assert!(said.to_lowercase().contains("certificate"), "why is said: {error:#}");
    daemon.terminate();
    let trusting = daemon.home.join("www/ca.pem");
    daemon = daemon.with_env("SSL_CERT_FILE", trusting.to_str().unwrap());
    daemon.launch();
    let placed = daemon.ok("service.install", json!({ "name": "thing", "with": with }));
    assert_eq!(placed["version"], "1");
}

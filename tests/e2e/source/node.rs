//! Packages of npm, and a Node that services share.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::{Value, json};
use wharf_runtime::Store;
use wharf_tests::{Daemon, cannot, free_port};

use super::{fetch, with_sources};

/// A package without needs of its own.
const LOCK: &str = r#"{
  "name": "thing", "lockfileVersion": 3, "requires": true,
  "packages": {
    "": { "dependencies": { "semver": "7.7.3" } },
    "node_modules/semver": {
      "version": "7.7.3",
      "integrity": "sha512-SdsKMrI9TdgjdweUSR9MweHA4EJ8YxHn8DFaDisvhVlUOe4BF1tLD7GAj0lIqWVl+dPb/rExr0Btby5loQm20Q==",
      "license": "ISC",
      "bin": { "semver": "bin/semver.js" },
      "engines": { "node": ">=10" }
    }
  }
}"#;

const SERVE: &str =
    "require('http').createServer((q, a) => a.end('node ' + process.versions.node)).listen({port}, '127.0.0.1')";

fn with(lock: &Path, node: Option<u32>, port: u16) -> Value {
    json!({
        "from": "npm", "of": "semver", "version": "7.7.3", "lock": lock, "node": node,
        "binaries": ["node_modules/semver/bin/semver.js"], "program": "node", "args": ["-e", SERVE],
        "ports": { "main": port },
    })
}

/// The registry is not there for everybody.
fn installed(daemon: &Daemon, unit: &str, with: &Value) -> bool {
    match daemon.call("service.install", json!({ "name": unit, "with": with })) {
        Ok(placed) => {
            assert_eq!((&placed["version"], &placed["source"]), (&json!("7.7.3"), &json!("npm")), "{placed:#}");
            true
        }
        Err(error) if error.to_string().contains("was not reached") => {
            cannot("a package of npm is installed", "a package registry is not reached from here");
            false
        }
        Err(error) => panic!("{error:#}"),
    }
}

/// HS-103: what several services need is installed once, and goes when nobody needs it.
#[test]
fn two_services_share_one_newer_node() {
    let mut daemon = with_sources();
    let lock = daemon.home.join("lock");
    fs::write(&lock, LOCK).unwrap();
    daemon.launch();
    let ports = [free_port(), free_port()];
    for (unit, port) in ["thing", "other"].into_iter().zip(ports) {
        // Newer than any machine's has to be.
        if !installed(&daemon, unit, &with(&lock, Some(24), port)) {
            return;
        }
        daemon.ok("service.start", json!({ "name": unit }));
        let said = fetch(port);
        assert!(said.contains("node 24.") || said.contains("node 25.") || said.contains("node 26."), "{said}");
    }
    let store = Store::new(daemon.home.join("store"));
    let placed = store.versions("node");
    if placed.is_empty() {
        cannot("a Node is placed once for two services", "the machine's own is new enough");
        return;
    }
    assert_eq!(placed.len(), 1, "one for both: {placed:?}");
    for unit in ["thing", "other"] {
        let receipt = &store.versions(unit)[0].receipt;
        assert_eq!(
            receipt.runtimes,
            [format!("node/{}", placed[0].installed.path.file_name().unwrap().to_str().unwrap())]
        );
        assert_eq!(daemon.ok("service.verify", json!({ "name": unit }))["ok"], true);
    }
    // A runtime that somebody has changed starts no service.
    daemon.ok("service.stop", json!({ "name": "thing" }));
    let program = &placed[0].installed.binaries["node"];
    let sound = fs::read(program).unwrap();
    let mut bent = sound.clone();
    *bent.last_mut().unwrap() ^= 1;
    fs::remove_file(program).unwrap();
    fs::write(program, bent).unwrap();
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).unwrap();
    let error = daemon.err("service.start", json!({ "name": "thing" })).to_string();
    assert!(error.contains("node of thing is not the program that was placed"), "{error}");
    let none = Default::default();
    assert_eq!(store.collect_garbage(&none, true).unwrap(), []);
    for unit in ["thing", "other"] {
        daemon.ok("service.delete", json!({ "name": unit, "purge_binaries": true }));
    }
    let gone = store.collect_garbage(&none, false).unwrap();
    assert_eq!(gone.len(), 1, "{gone:?}");
    assert!(!daemon.home.join("store/node").exists());
}

#[test]
fn a_package_is_fetched_by_its_lock_and_a_wrong_digest_is_refused() {
    let mut daemon = with_sources();
    let lock = daemon.home.join("lock");
    fs::write(&lock, LOCK).unwrap();
    daemon.launch();
    let sound = with(&lock, None, free_port());
    if !installed(&daemon, "thing", &sound) {
        return;
    }
    let placed = daemon.home.join("store/thing/current");
    assert!(placed.join("node_modules/semver/package.json").is_file());
    assert!(!placed.join("bin/node").exists(), "it is no program for Node, as far as its service says");
    fs::write(&lock, LOCK.replace("sha512-", "sha512-AAAA")).unwrap();
    let error = daemon.err("service.install", json!({ "name": "other", "with": sound }));
    assert!(error["message"].as_str().unwrap().contains("is not the pinned one, so nothing was placed"), "{error:#}");
    assert_eq!(daemon.state("other"), "not_installed");
}

/// A package whose install script puts a program of this machine in the place of a script.
const SCRIPTED: &str = r#"{
  "name": "thing", "lockfileVersion": 3, "requires": true,
  "packages": {
    "": { "dependencies": { "esbuild": "0.25.0" } },
    "node_modules/@esbuild/linux-arm64": {
      "version": "0.25.0", "cpu": ["arm64"], "os": ["linux"], "optional": true,
      "integrity": "sha512-9QAQjTWNDM/Vk2bgBl17yWuZxZNQIF0OUUuPZRKoDtqF2k4EtYbpyiG5/Dk7nqeK6kIJWPYldkOcBqjXjrUlmg=="
    },
    "node_modules/@esbuild/linux-x64": {
      "version": "0.25.0", "cpu": ["x64"], "os": ["linux"], "optional": true,
      "integrity": "sha512-9yl91rHw/cpwMCNytUDxwj2XjFpxML0y9HAOH9pNVQDpQrBxHy01Dx+vaMu0N1CKa/RzBD2hB4u//nfc+Sd3Cw=="
    },
    "node_modules/esbuild": {
      "version": "0.25.0", "hasInstallScript": true, "bin": { "esbuild": "bin/esbuild" },
      "integrity": "sha512-BXq5mqc8ltbaN34cDqWuYKyNhX8D/Z0J1xdtdQ8UcIIIyJyz+ZMKUt58tF3SrZ85jcfN/PZYhjR5uDQAYNVbuw==",
      "optionalDependencies": { "@esbuild/linux-arm64": "0.25.0", "@esbuild/linux-x64": "0.25.0" }
    }
  }
}"#;

/// Install scripts run where a service says so, and nowhere else.
#[test]
fn install_scripts_run_for_who_asks_and_for_nobody_else() {
    let mut daemon = with_sources();
    let lock = daemon.home.join("lock");
    fs::write(&lock, SCRIPTED).unwrap();
    daemon.launch();
    let program = "node_modules/esbuild/bin/esbuild";
    for (unit, scripts, begins) in [("thing", false, b"#!/usr/bin"), ("other", true, b"\x7fELF\x02\x01\x01\0\0\0")] {
        let with = json!({
            "from": "npm", "of": "esbuild", "version": "0.25.0", "lock": lock, "scripts": scripts, "node": 18,
            "binaries": [program],
        });
        match daemon.call("service.install", json!({ "name": unit, "with": with })) {
            Ok(placed) => {
                let path = placed["installed_paths"][0].as_str().unwrap();
                assert!(fs::read(path).unwrap().starts_with(begins), "{unit}: {placed:#}");
            }
            Err(error) if error.to_string().contains("was not reached") => {
                return cannot("install scripts of npm", "a package registry is not reached from here");
            }
            Err(error) => panic!("{error:#}"),
        }
    }
}

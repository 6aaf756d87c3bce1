//! Source code: a git repository at a tag, at a commit, a working copy below CODEROOT, and a published crate.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};
use wharf_tests::{cannot, root};

use super::with_sources;

fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=Test", "-c", "user.email=test@localhost", "-c", "init.defaultBranch=main"])
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "git {args:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A repository with the tests' echo in two versions, the first of them tagged.
fn repository(folder: &Path) -> String {
    fs::create_dir_all(folder.join("src")).unwrap();
    let echo = root().join("tests/echo");
    for name in ["Cargo.toml", "Cargo.lock", "src/main.rs"] {
        fs::copy(echo.join(name), folder.join(name)).unwrap();
    }
    git(folder, &["init", "--quiet", "."]);
    git(folder, &["add", "."]);
    git(folder, &["commit", "--quiet", "-m", "first"]);
    git(folder, &["tag", "v0.3.1"]);
    let first = git(folder, &["rev-parse", "HEAD"]);
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    fs::write(folder.join("Cargo.toml"), manifest.replace("0.3.1", "0.4.0")).unwrap();
    let lock = fs::read_to_string(folder.join("Cargo.lock")).unwrap();
    fs::write(folder.join("Cargo.lock"), lock.replace("0.3.1", "0.4.0")).unwrap();
    git(folder, &["commit", "--quiet", "-am", "second"]);
    first
}

/// HS-63, HS-65, HS-148, HS-149.
#[test]
fn a_git_repository_is_built_at_the_version_that_is_asked_for() {
    let mut daemon = with_sources();
    let repo = daemon.home.join("them/echo");
    let first = repository(&repo);
    let code = daemon.home.join("code");
    fs::create_dir_all(&code).unwrap();
    daemon = daemon.with_env("CODEROOT", code.to_str().unwrap());
    daemon.launch();
    let with = json!({ "from": "git", "of": repo, "binaries": ["bin/echo"] });
    let install =
        |version: Value| daemon.ok("service.install", json!({ "name": "thing", "with": with, "version": version }));
    let receipt = || -> Value {
        serde_json::from_slice(&fs::read(daemon.home.join("store/thing/current/receipt.json")).unwrap()).unwrap()
    };
    let newest = install(Value::Null);
    assert_eq!((&newest["version"], &newest["source"]), (&json!("0.4.0"), &json!("source")), "{newest:#}");
    assert_eq!(receipt()["origin"]["asked"], "latest");
    let tagged = install(json!("v0.3.1"));
    assert_eq!(tagged["version"], "0.3.1");
    assert_eq!(receipt()["origin"]["found"], json!(first));
    let by_commit = install(json!(first));
    assert_eq!((&by_commit["version"], &by_commit["digest"]), (&tagged["version"], &tagged["digest"]));
    let error = daemon.err("service.install", json!({ "name": "thing", "with": with, "version": "v9" }));
    assert!(error["message"].as_str().unwrap().contains("git could not fetch"), "{error:#}");
    // What is worked on is built as it lies there.
    git(&code, &["clone", "--quiet", repo.to_str().unwrap(), "echo"]);
    let manifest = fs::read_to_string(code.join("echo/Cargo.toml")).unwrap();
    fs::write(code.join("echo/Cargo.toml"), manifest.replace("0.4.0", "0.5.0")).unwrap();
    assert_eq!(install(Value::Null)["version"], "0.5.0");
    for unsound in ["ext::sh -c id", "--upload-pack=id", "http://127.0.0.1/x"] {
        let with = json!({ "from": "git", "of": unsound, "binaries": ["bin/echo"] });
        let error = daemon.err("service.install", json!({ "name": "thing", "with": with }));
        assert_eq!(error["code"], -32602, "{unsound}: {error:#}");
    }
}

/// A crate of the registry, with its own lock file. A small one: it builds in seconds.
#[test]
fn a_published_crate_is_built() {
    let mut daemon = with_sources();
    daemon.launch();
    let with = json!({ "from": "crate", "of": "hexyl", "version": "0.16.0", "binaries": ["bin/hexyl"] });
    match daemon.call("service.install", json!({ "name": "thing", "with": with })) {
        Ok(placed) => {
            assert_eq!((&placed["version"], &placed["source"]), (&json!("0.16.0"), &json!("source")));
            assert_eq!(daemon.ok("service.verify", json!({ "name": "thing" }))["ok"], true);
        }
        Err(error) if error.to_string().contains("the registry was not reached") => {
            cannot("a published crate is built", "the crate registry is not reached from here");
        }
        Err(error) => panic!("{error:#}"),
    }
    let with = json!({ "from": "crate", "of": "hexyl", "version": "0.0.999", "binaries": ["bin/hexyl"] });
    let error = daemon.err("service.install", json!({ "name": "thing", "with": with }));
    assert!(error["message"].as_str().unwrap().contains("cargo could not build hexyl 0.0.999"), "{error:#}");
}

//! Files of releases: the seven naming patterns, what goes wrong with a download, whom is believed.

use serde_json::{Value, json};
use wharf_tests::{
    Daemon, Fault, Forge, ReleaseServer, deb, free_port, gz, sha256, stand_in, tar_gz, tar_xz, tar_zst, zip,
};

use super::{fetch, with_sources};

/// A daemon that asks this server.
fn asking(server: &ReleaseServer) -> Daemon {
    let mut daemon = with_sources().with_env("WHARF_MIRRORS", &server.mirrors());
    daemon.launch();
    daemon
}

/// The parameters of a thing that comes from a release of `them/thing`.
fn thing(from: &str, more: Value) -> Value {
    let mut with = json!({ "from": from, "of": "them/thing", "binaries": ["thing"] });
    for (name, value) in more.as_object().unwrap() {
        with[name] = value.clone();
    }
    with
}

fn install(daemon: &Daemon, unit: &str, with: &Value) -> Result<Value, Value> {
    daemon.call("service.install", json!({ "name": unit, "with": with }))
}

/// The words of an error: message, causes and hint.
fn words(error: &Value) -> String {
    format!("{} {} {}", error["message"], error["data"]["causes"], error["data"]["hint"])
}

/// T40, HS-63 to HS-72: each of the seven patterns, from both forges, down to a program that runs.
#[test]
fn t40_the_seven_naming_patterns_are_installed_from_both_forges() {
    let arch = match std::env::consts::ARCH {
        "x86_64" => ["amd64", "x86_64", "x64"],
        _ => ["arm64", "aarch64", "arm64"],
    };
    let program = stand_in();
    let [go, rust, short] = arch;
    let top = format!("thing-1.2.3.linux-{go}/thing");
    let files: [(String, Vec<u8>, &str); 9] = [
        (format!("thing-linux-{go}-musl"), program.clone(), "thing-linux.sha256"),
        (
            format!("thing_1.2.3_linux_{go}.tar.gz"),
            tar_gz(&[("thing", &program), ("LICENSE", &vec![])]),
            "checksums.txt",
        ),
        (format!("thing-v1.2.3-linux-{go}.tar.gz"), tar_gz(&[("thing-v1.2.3/thing", &program)]), "SHA256SUMS"),
        (format!("thing-1.2.3.linux-{go}.tar.gz"), tar_gz(&[(top.as_str(), &program)]), "sha256sums.txt"),
        (format!("thing-{rust}-unknown-linux-musl.tar.xz"), tar_xz(&[("thing", &program)]), "dist.sha256sum"),
        (format!("thing-v1.2.3-bin-ubuntu-{short}.zip"), zip(&[("build/bin/thing", &program)]), ""),
        (format!("thing_1.2.3_{go}.deb"), deb(&[("./usr/bin/thing", &program)]), "checksums.txt"),
        (format!("thing-linux-{go}.tgz"), tar_gz(&[("bin/thing", &program), ("lib/x", &vec![1])]), "sha256sum.txt"),
        (format!("thing-linux-{go}.tar.zst"), tar_zst(&[("bin/thing", &program)]), ""),
    ];
    let server = ReleaseServer::start();
    let daemon = asking(&server);
    for (n, (name, bytes, list)) in files.into_iter().enumerate() {
        let (forge, from) = if n % 2 == 0 { (Forge::GitHub, "github") } else { (Forge::Forgejo, "codeberg.org") };
        let release = server.forge(forge, "them", &format!("thing{n}")).release("v1.2.3");
        let release = release.asset("thing-darwin-arm64", "no").asset(&name, bytes);
        if !list.is_empty() {
            release.checksums(list);
        }
        let of = format!("them/thing{n}");
        let unit = format!("thing@{n}");
        let port = free_port();
        let with = thing(from, json!({ "of": of, "ports": { "main": port } }));
        let placed = install(&daemon, &unit, &with).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        assert_eq!((placed["version"].as_str(), placed["source"].as_str()), (Some("1.2.3"), Some("release")), "{name}");
        daemon.ok("service.start", json!({ "name": unit }));
        assert!(fetch(port).ends_with("fine"), "{name}");
        assert_eq!(daemon.ok("service.verify", json!({ "name": unit }))["ok"], true, "{name}");
        daemon.ok("service.stop", json!({ "name": unit }));
    }
    assert_eq!(std::fs::read_dir(daemon.home.join("store/.staging")).unwrap().count(), 0);
}

/// What it is called, the program, the fault, the digest, and what is said.
type Case<'a> = (&'a str, Vec<u8>, Option<Fault>, Option<&'a str>, &'a [&'a str]);

/// T40, HS-125: each error names the release, the file, and what was on offer; and nothing is left of it.
#[test]
fn t40_what_goes_wrong_with_a_download_is_told_and_leaves_nothing() {
    let server = ReleaseServer::start();
    let elsewhere = ReleaseServer::start();
    let daemon = asking(&server);
    let name = "thing-linux-amd64";
    let program = stand_in();
    let mut foreign = program.clone();
    foreign[18..20].copy_from_slice(&(if cfg!(target_arch = "x86_64") { 183_u16 } else { 62 }).to_le_bytes());
    let listed = sha256(&program);
    let away = Fault::Redirect(format!("{}/stolen", elsewhere.base()));
    let metadata = Fault::Redirect("https://169.254.169.254/latest/meta-data".into());
    let cut = Fault::Cut { after: 100, times: 99 };
    let cases: [Case; 11] = [
        ("not there", program.clone(), Some(Fault::NotThere), None, &["answered 404 Not Found", "on offer: "]),
        (
            "a page",
            program.clone(),
            Some(Fault::Html),
            None,
            &["answered with an HTML page of 37 bytes, and the file has"],
        ),
        (
            "a page with the same size",
            b"<!DOCTYPE html><html>".to_vec(),
            None,
            None,
            &["thing is an HTML page and no program"],
        ),
        ("another machine's", foreign, None, None, &["is a program for", "and this machine is"]),
        (
            "cut off",
            program.clone(),
            Some(Fault::Truncated(5_000)),
            None,
            &["answered with 5000 bytes, and the file has"],
        ),
        (
            "cut off each time",
            program.clone(),
            Some(cut),
            None,
            &["broke off again and again, the last time after 500 of"],
        ),
        ("cut off before", program[..9_000].to_vec(), None, None, &["thing is cut off"]),
        (
            "another digest",
            program.clone(),
            None,
            Some(&"0".repeat(64)),
            &["the digest of", "is not the one in", "sha256 is"],
        ),
        (
            "too often",
            program.clone(),
            Some(Fault::Limited),
            None,
            &["answers no more requests from here", "GITHUB_TOKEN"],
        ),
        (
            "another host without TLS",
            program.clone(),
            Some(away),
            None,
            &["redirects to http://", "which is not https"],
        ),
        ("a private address", program.clone(), Some(metadata), None, &["which is an address of a private network"]),
    ];
    for (n, (what, bytes, fault, list, wanted)) in cases.into_iter().enumerate() {
        let release = server.forge(Forge::GitHub, "them", &format!("bad{n}")).release("v9");
        let release = match fault {
            Some(fault) => release.faulty(name, bytes, fault),
            None => release.asset(name, bytes),
        };
        if let Some(digest) = list {
            release.asset("checksums.txt", format!("{digest}  {name}\n"));
        }
        let with = thing("github", json!({ "of": format!("them/bad{n}"), "assets": ["thing-linux-amd64"] }));
        let error = install(&daemon, "thing", &with).unwrap_err();
        assert_eq!(error["code"], -32007, "{what}: {error:#}");
        let said = words(&error);
        for wanted in wanted {
            assert!(said.contains(wanted), "{what}: {wanted:?} is not in {said}");
        }
        let names_it = said.contains(name) && said.contains(&format!("release v9 of github.com/them/bad{n}"));
        assert!(names_it || said.contains("thing of thing"), "{what}: {said}");
        assert_eq!(daemon.state("thing"), "not_installed", "{what}");
        assert!(!daemon.home.join("store/thing").exists(), "{what}");
        assert_eq!(std::fs::read_dir(daemon.home.join("store/.staging")).unwrap().count(), 0, "{what}");
    }
    assert!(elsewhere.seen().is_empty(), "the other host was asked: {:?}", elsewhere.seen());
    assert_eq!(listed, sha256(&program));
}

/// HS-68, HS-124, HS-125: a missing repository, release and file.
#[test]
fn what_is_missing_is_named_with_what_there_is() {
    let server = ReleaseServer::start();
    let repo = server.forge(Forge::Forgejo, "them", "thing");
    repo.release("v1.0").asset("thing-windows.exe", "x");
    repo.release("v1.1").asset("thing_old-linux-amd64", "x").asset("thing-darwin-arm64", "y");
    let daemon = asking(&server);
    let ask = |of: &str, version: Option<&str>| {
        let with = thing("codeberg.org", json!({ "of": of }));
        let error = daemon.err("service.install", json!({ "name": "thing", "with": with, "version": version }));
        assert_eq!(error["code"], -32007, "{error:#}");
        words(&error)
    };
    let said = ask("them/nothing", None);
    assert!(said.contains("codeberg.org/them/nothing has no release"), "{said}");
    let said = ask("them/thing", Some("7.7"));
    assert!(said.contains("there is no release v7.7 or 7.7 of codeberg.org/them/thing"), "{said}");
    assert!(said.contains("on offer: v1.1, v1.0"), "{said}");
    let said = ask("them/thing", None);
    assert!(said.contains("release v1.1 of codeberg.org/them/thing has no file for"), "{said}");
    assert!(
        said.contains("on offer: thing_old-linux-amd64") && said.contains("on offer: thing-darwin-arm64"),
        "{said}"
    );
    server.limit_rate(true);
    let said = ask("them/thing", None);
    assert!(said.contains("answers no more requests from here until "), "{said}");
}

/// A connection that ends in the middle goes on where it ended, and only there.
#[test]
fn a_download_that_is_cut_goes_on_where_it_ended() {
    let server = ReleaseServer::start();
    let program = stand_in();
    let half = program.len() / 3;
    let repo = server.forge(Forge::GitHub, "them", "thing");
    repo.release("v1").faulty("thing-linux-amd64", program.clone(), Fault::Cut { after: half, times: 2 });
    let daemon = asking(&server);
    let with = thing("github", json!({ "assets": ["thing-linux-amd64"] }));
    install(&daemon, "thing", &with).unwrap();
    let seen = server.seen();
    let asked: Vec<_> = seen.iter().filter(|s| s.path.ends_with("/thing-linux-amd64")).collect();
    let ranges: Vec<_> = asked.iter().map(|s| s.headers.get("range").map(String::as_str)).collect();
    let third = format!("bytes={}-", 2 * half);
    assert_eq!(ranges, [None, Some(format!("bytes={half}-").as_str()), Some(third.as_str())]);
    assert!(asked[1].headers["if-range"].starts_with('"'), "{asked:?}");
    let placed = std::fs::read(daemon.home.join("store/thing/current/bin/thing")).unwrap();
    assert!(placed == program, "what was put together is what was released");

    // The file changes while it is cut: nothing of the first one is kept.
    let mut other = program.clone();
    other.extend(b"more");
    other.resize(program.len(), 0);
    let changed: Vec<u8> = program.iter().copied().chain(*b"tail").collect();
    let fault = Fault::Replaced { after: half, by: changed[..program.len()].to_vec() };
    repo.release("v2").faulty("thing-linux-amd64", program.clone(), fault);
    install(&daemon, "thing", &with).unwrap_or_else(|e| panic!("{e:#}"));
    let placed = std::fs::read(daemon.home.join("store/thing/current/bin/thing")).unwrap();
    assert!(placed == changed[..program.len()], "the second file, from its first byte");
}

/// What is latest is looked up, told, and recorded; asked again it is answered from the store until there is a newer one.
#[test]
fn latest_is_resolved_shown_and_recorded() {
    let server = ReleaseServer::start();
    let repo = server.forge(Forge::GitHub, "them", "thing");
    repo.release("v1.0.0").asset("thing-linux-amd64", stand_in()).digests();
    let daemon = asking(&server);
    let with = thing("github", json!({ "assets": ["thing-linux-amd64"] }));
    let first = install(&daemon, "thing", &with).unwrap();
    assert_eq!(first["version"], "1.0.0");
    let receipt = || -> Value {
        let text = std::fs::read(daemon.home.join("store/thing/current/receipt.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    let origin = receipt()["origin"].clone();
    assert_eq!(origin["asked"], "latest");
    assert_eq!((&origin["place"], &origin["found"]), (&json!("github.com/them/thing"), &json!("v1.0.0")));
    assert_eq!(origin["trust"], "the forge's answer");
    let fetched = |server: &ReleaseServer| server.seen().iter().filter(|s| s.path.contains("/download/")).count();
    assert_eq!(fetched(&server), 1);
    install(&daemon, "thing", &with).unwrap();
    assert_eq!(fetched(&server), 1, "HS-23: the same again fetches nothing");
    repo.release("v1.1.0").asset("thing-linux-amd64", [stand_in(), vec![0]].concat()).checksums("SHA256SUMS");
    assert_eq!(install(&daemon, "thing", &with).unwrap()["version"], "1.1.0");
    assert_eq!(receipt()["origin"]["trust"], "SHA256SUMS of the release");
    let previous = std::fs::read_link(daemon.home.join("store/thing/previous")).unwrap();
    assert!(previous.to_str().unwrap().starts_with("1.0.0-"), "{previous:?}");
    let checks = daemon.ok("service.verify", json!({ "name": "thing" }));
    assert!(checks.to_string().contains("v1.1.0 of github.com/them/thing, checked by SHA256SUMS"), "{checks:#}");
}

/// The digest in the service's file beats all, and what nobody vouches for is believed only once.
#[test]
fn whom_is_believed() {
    let server = ReleaseServer::start();
    let program = stand_in();
    let repo = server.forge(Forge::GitHub, "them", "thing");
    let release = repo.release("v1").asset("thing-linux-amd64", program.clone());
    let daemon = asking(&server);
    let pinned =
        |digest: &str| thing("github", json!({ "assets": ["thing-linux-amd64"], "version": "1", "sha256": digest }));
    let error = install(&daemon, "thing@a", &pinned(&"f".repeat(64))).unwrap_err();
    assert!(words(&error).contains("is not the pinned one, so nothing was placed"), "{error:#}");
    install(&daemon, "thing@a", &pinned(&sha256(&program))).unwrap_or_else(|e| panic!("{e:#}"));

    // Nobody vouches for it: the first fetch counts, another file under the same name does not.
    let with = thing("github", json!({ "assets": ["thing-linux-amd64"] }));
    install(&daemon, "thing@b", &with).unwrap();
    release.asset("thing-linux-amd64", [program.clone(), vec![7]].concat());
    let error = install(&daemon, "thing@b", &with).unwrap_err();
    assert!(words(&error).contains("is another file than the one that was placed first"), "{error:#}");
}

/// A publisher that signs: the signature must be its own. Key and signatures are made by minisign's reference format.
#[test]
fn a_signature_is_checked_where_the_service_names_a_key() {
    let server = ReleaseServer::start();
    let repo = server.forge(Forge::GitHub, "them", "thing");
    repo.release("v1").asset("thing-linux-amd64", stand_in());
    let daemon = asking(&server);
    let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    let with = thing("github", json!({ "assets": ["thing-linux-amd64"], "minisign": key }));
    let error = install(&daemon, "thing", &with).unwrap_err();
    assert!(words(&error).contains("is not signed, and its publisher signs what it releases"), "{error:#}");
    let of_test = "untrusted comment: signature from minisign secret key\n\
        RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
        trusted comment: timestamp:1633700835\tfile:test\tprehashed\n\
        wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==\n";
    repo.release("v2").asset("thing-linux-amd64", stand_in()).asset("thing-linux-amd64.minisig", of_test);
    let error = install(&daemon, "thing", &with).unwrap_err();
    assert!(words(&error).contains("is not its publisher's, so nothing was placed"), "{error:#}");
    assert!(!daemon.home.join("store/thing").exists());
    // The same signature, on what it was made of: the list of digests here is the four letters of minisign's own test.
    repo.release("v3").asset("thing-linux-amd64", "test").asset("thing-linux-amd64.minisig", of_test);
    let error = install(&daemon, "thing", &with).unwrap_err();
    assert!(words(&error).contains("is neither an ELF program nor a script"), "signed, and then looked at: {error:#}");
}

/// HS-73: a token goes to the forge that it is for, and to no other host.
#[test]
fn a_token_is_shown_to_its_forge_alone() {
    let elsewhere = ReleaseServer::start();
    elsewhere.forge(Forge::GitHub, "them", "thing").release("v1").asset("thing-linux-amd64", stand_in());
    let server = ReleaseServer::start();
    let away = format!("{}/github.com/them/thing/releases/download/v1/thing-linux-amd64", elsewhere.base());
    let size = stand_in();
    server.forge(Forge::Forgejo, "them", "thing").release("v1").faulty(
        "thing-linux-amd64",
        size,
        Fault::Redirect(away),
    );
    let mirrors = format!("{},cdn.example={}", server.mirrors(), elsewhere.base());
    let mut daemon = with_sources()
        .with_env("WHARF_MIRRORS", &mirrors)
        .with_env("FORGEJO_TOKEN", "canary-4711")
        .with_env("GITHUB_TOKEN", "canary-gh");
    daemon.launch();
    install(&daemon, "thing", &thing("codeberg.org", json!({ "assets": ["thing-linux-amd64"] }))).unwrap();
    let token = |seen: &wharf_tests::Seen| seen.headers.get("authorization").cloned();
    assert!(server.seen().iter().all(|s| token(s).as_deref() == Some("token canary-4711")), "{:?}", server.seen());
    let there = elsewhere.seen();
    assert!(there.len() == 1 && token(&there[0]).is_none(), "{there:?}");
    assert!(!daemon.log().contains("canary"), "the daemon's log has it");
}

/// Three at once share nothing and finish.
#[test]
fn three_installs_at_once_finish() {
    let server = ReleaseServer::start();
    let program = stand_in();
    for n in 0..3 {
        let name = format!("thing{n}");
        server
            .forge(Forge::GitHub, "them", &name)
            .release("v1")
            .faulty("t.tar.gz", tar_gz(&[("thing", &program)]), Fault::Slow(program.len()))
            .checksums("SHA256SUMS");
    }
    let daemon = asking(&server);
    std::thread::scope(|scope| {
        for n in 0..3 {
            let daemon = &daemon;
            scope.spawn(move || {
                let with = thing("github", json!({ "of": format!("them/thing{n}"), "assets": ["t.tar.gz"] }));
                let placed = install(daemon, &format!("thing@{n}"), &with).unwrap_or_else(|e| panic!("{e:#}"));
                assert_eq!(placed["version"], "1");
            });
        }
    });
    assert_eq!(std::fs::read_dir(daemon.home.join("store/.staging")).unwrap().count(), 0);
}

/// T41, from a release to the end: nothing of a hostile archive is kept, and nothing outside is touched.
#[test]
fn t41_a_hostile_archive_is_refused_whole() {
    let server = ReleaseServer::start();
    let bomb = gz(&vec![0; 3 << 30 >> 6]);
    let repo = server.forge(Forge::GitHub, "them", "thing");
    repo.release("v1").asset("t.tar.gz", gz(&hostile_tar()));
    repo.release("v2").asset("t.tar.gz", bomb);
    let daemon = asking(&server);
    let ask = |version: &str| {
        let with = thing("github", json!({ "assets": ["t.tar.gz"] }));
        words(&daemon.err("service.install", json!({ "name": "thing", "with": with, "version": version })))
    };
    let said = ask("1");
    assert!(said.contains("t.tar.gz: the archive is refused: ../../../victim leads out of it"), "{said}");
    let said = ask("2");
    assert!(said.contains("is neither an ELF program"), "a bomb that fits is what it is: {said}");
    assert!(!daemon.home.join("victim").exists() && !daemon.home.join("store/thing").exists());
    assert_eq!(std::fs::read_dir(daemon.home.join("store/.staging")).unwrap().count(), 0);
}

/// A file whose name leads three folders up.
fn hostile_tar() -> Vec<u8> {
    let mut out = tar::Builder::new(vec![]);
    let mut header = tar::Header::new_gnu();
    let name = b"../../../victim";
    header.as_old_mut().name[..name.len()].copy_from_slice(name);
    header.set_size(4);
    header.set_mode(0o644);
    header.set_cksum();
    out.append(&header, b"harm".as_slice()).unwrap();
    out.into_inner().unwrap()
}

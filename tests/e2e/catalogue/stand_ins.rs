//! The services that come from releases: each from install to delete, with a program that plays it, under the true names
//! of its files, from a server that stands for the true hosts.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use wharf_tests::{
    Daemon, FakeGpus, Forge, Published, ReleaseServer, beside, eventually, listens, root, sha256, tar_gz, tar_zst,
};

use super::versions;

const SOON: Duration = Duration::from_secs(30);
const GPU: &str = "GPU-00000000-0000-0000-0000-0000000000ca";
const GIB: u64 = 1 << 30;

/// A service, and what is to be seen of it.
struct Case {
    name: &'static str,
    version: &'static str,
    /// By what its file was believed.
    trust: &'static str,
    /// Its programs, below what is placed.
    programs: &'static [&'static str],
    /// Parameters beside the ports.
    with: Value,
    /// Of a GPU, while it runs.
    vram: u64,
}

impl Case {
    fn new(name: &'static str, version: &'static str, trust: &'static str, programs: &'static [&'static str]) -> Self {
        Self { name, version, trust, programs, with: json!({}), vram: 0 }
    }

    fn on_gpu(self, with: Value, vram: u64) -> Self {
        Self { with, vram, ..self }
    }
}

const BY_LIST: &str = "checksums.txt of the release";
const BY_FORGE: &str = "the forge's answer";
const BY_NOBODY: &str = "the first fetch: its publisher gives no digest";

fn cases() -> Vec<Case> {
    let of = Case::new;
    vec![
        of("inngest", "1.45.1", BY_LIST, &["inngest"]),
        of("dkron", "4.0.7", "dkron_4.0.7_checksums.txt of the release", &["dkron"]),
        of("livekit", "1.13.7", BY_LIST, &["livekit-server"]),
        of("qdrant", "1.16.0", BY_FORGE, &["qdrant"]),
        of("meilisearch", "1.24.0", BY_FORGE, &["bin/meilisearch"]),
        of("ollama", "0.30.0", "sha256sum.txt of the release", &["bin/ollama"])
            .on_gpu(json!({ "vram": "6GiB" }), 6 * GIB),
        of("code-server", "4.105.1", BY_NOBODY, &["bin/code-server", "lib/node"]),
        of("typesense", "30.2", BY_NOBODY, &["typesense-server"]),
        of("grafana", "12.0.1", "grafana-12.0.1.linux-ARCH.tar.gz.sha256 of the release", &["bin/grafana"]),
        of("minio", MINIO, "minio.RELEASE.2025-09-07T16-13-09Z.sha256sum of the release", &["bin/minio"]),
        of("comfyui", "0.33.1", BY_NOBODY, &[]).on_gpu(json!({}), 10 * GIB),
    ]
}

const MINIO: &str = "RELEASE.2025-09-07T16-13-09Z";

/// This machine, as most publishers write it, and as Rust does.
fn arch() -> (&'static str, &'static str) {
    if cfg!(target_arch = "x86_64") { ("amd64", "x86_64") } else { ("arm64", "aarch64") }
}

/// A release, with what is there for others.
fn release<'a>(server: &'a ReleaseServer, repo: &str, tag: &str) -> Published<'a> {
    let (owner, name) = repo.split_once('/').unwrap();
    let release = server.forge(Forge::GitHub, owner, name).release(tag);
    release.asset(&format!("{name}_darwin_arm64.tar.gz"), "of another system").asset("NOTES.md", "what is new")
}

/// The files of the forge, each as its publisher names and packs it.
fn publish_on_the_forge(server: &ReleaseServer, program: &[u8]) {
    let (go, rust) = arch();
    let text = b"text".as_slice();
    release(server, "inngest/inngest", "v1.45.1")
        .asset(&format!("inngest_1.45.1_linux_{go}.tar.gz"), tar_gz(&[("inngest", program), ("README.md", text)]))
        .checksums("checksums.txt");
    let dkron = [("LICENSE", text), ("dkron", program), ("dkron-executor-shell", b"#!/bin/sh\n".as_slice())];
    release(server, "distribworks/dkron", "v4.0.7")
        .asset(&format!("dkron_4.0.7_linux_{go}.tar.gz"), tar_gz(&dkron))
        .checksums("dkron_4.0.7_checksums.txt");
    release(server, "livekit/livekit", "v1.13.7")
        .asset(&format!("livekit_1.13.7_linux_{go}.tar.gz"), tar_gz(&[("LICENSE", text), ("livekit-server", program)]))
        .checksums("checksums.txt");
    release(server, "qdrant/qdrant", "v1.16.0")
        .asset(&format!("qdrant-{rust}-unknown-linux-gnu.tar.gz"), "for another C library")
        .asset(&format!("qdrant-{rust}-unknown-linux-musl.tar.gz"), tar_gz(&[("qdrant", program)]))
        .digests();
    // Its files for arm64 are called aarch64.
    let linux = if go == "amd64" { go } else { rust };
    release(server, "meilisearch/meilisearch", "v1.24.0")
        .asset(&format!("meilisearch-linux-{linux}"), program)
        .asset("meilisearch.deb", "a package")
        .digests();
    let ollama = [("bin/ollama", program), ("lib/ollama/libggml-base.so", text)];
    release(server, "ollama/ollama", "v0.9.0")
        .asset(&format!("ollama-linux-{go}.tgz"), tar_gz(&ollama))
        .checksums("sha256sum.txt");
    release(server, "ollama/ollama", "v0.30.0")
        .asset(&format!("ollama-linux-{go}-rocm.tar.zst"), "for another maker's")
        .asset(&format!("ollama-linux-{go}.tar.zst"), tar_zst(&ollama))
        .checksums("sha256sum.txt");
    let top = format!("code-server-4.105.1-linux-{go}");
    let script = "#!/bin/sh\nroot=$(dirname \"$(dirname \"$0\")\")\nexec \"$root/lib/node\" \"$root\" \"$@\"\n";
    let names = ["bin/code-server", "lib/node", "out/node/entry.js"].map(|name| format!("{top}/{name}"));
    let parts = [script.as_bytes(), program, text];
    let files: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(parts).collect();
    release(server, "coder/code-server", "v4.105.1").asset(&format!("{top}.tar.gz"), tar_gz(&files));
}

/// Those of publishers who have a host of their own.
fn publish_on_sites(server: &ReleaseServer, program: &[u8]) {
    let (go, _) = arch();
    let typesense = tar_gz(&[("typesense-server", program), ("typesense-server.md5.txt", b"md5".as_slice())]);
    server.site("dl.typesense.org", &format!("releases/30.2/typesense-server-30.2-linux-{go}.tar.gz"), typesense);
    let grafana = tar_gz(&[
        ("grafana-v12.0.1/bin/grafana", program),
        ("grafana-v12.0.1/conf/defaults.ini", b"[server]\n".as_slice()),
        ("grafana-v12.0.1/public/index.html", b"<html>".as_slice()),
    ]);
    let file = format!("oss/release/grafana-12.0.1.linux-{go}.tar.gz");
    server.site("dl.grafana.com", &format!("{file}.sha256"), sha256(&grafana)).site("dl.grafana.com", &file, grafana);
    let file = format!("server/minio/release/linux-{go}/archive/minio.{MINIO}");
    let list = format!("{} minio.{MINIO}\n", sha256(program));
    server.site("dl.min.io", &format!("{file}.sha256sum"), list).site("dl.min.io", &file, program);
    let main = fs::read(root().join("tests/e2e/catalogue/comfyui.py")).unwrap();
    let comfyui = tar_gz(&[("ComfyUI-0.33.1/main.py", main.as_slice()), ("ComfyUI-0.33.1/requirements.txt", b"\n")]);
    server.site("github.com", "Comfy-Org/ComfyUI/archive/refs/tags/v0.33.1.tar.gz", comfyui);
}

/// A daemon that asks this server, on a machine with one GPU of 16 GiB.
fn asking(server: &ReleaseServer) -> Daemon {
    let daemon = Daemon::prepare().with_env("WHARF_MIRRORS", &server.mirrors());
    let gpus = FakeGpus::new(&daemon.home, &[(GPU, 16 * GIB)]);
    let mut daemon = gpus.env().iter().fold(daemon, |daemon, (name, value)| daemon.with_env(name, value));
    daemon.launch();
    daemon
}

fn world() -> ReleaseServer {
    let program = fs::read(beside("wharf-stand-in")).unwrap();
    let server = ReleaseServer::start();
    publish_on_the_forge(&server, &program);
    publish_on_sites(&server, &program);
    server
}

/// The parameters, with a free port for each that it listens on.
fn with_free_ports(case: &Case) -> Value {
    let service = wharf_services::Catalogue::built_in().get(case.name).unwrap().clone();
    let ports: serde_json::Map<String, Value> =
        service.facts().ports.into_iter().map(|port| (port.name, json!("auto"))).collect();
    let mut with = case.with.clone();
    with["ports"] = Value::Object(ports);
    with
}

fn install(daemon: &Daemon, case: &Case) {
    let name = case.name;
    let with = with_free_ports(case);
    let installed = daemon.ok("service.install", json!({ "name": name, "with": with }));
    assert_eq!((&installed["version"], &installed["source"]), (&json!(case.version), &json!("release")), "{name}");
    let place = fs::canonicalize(daemon.home.join("store").join(name).join("current")).unwrap();
    let wanted: Vec<Value> = case.programs.iter().map(|program| json!(place.join(program))).collect();
    assert_eq!(installed["installed_paths"], json!(wanted), "{name}");
    let receipt: Value = serde_json::from_slice(&fs::read(place.join("receipt.json")).unwrap()).unwrap();
    assert_eq!(receipt["origin"]["trust"], case.trust.replace("ARCH", arch().0), "{name}");
}

fn run(daemon: &Daemon, case: &Case) {
    let name = case.name;
    let started = daemon.ok("service.start", json!({ "name": name }));
    let ports: Vec<(&String, u16)> =
        started["ports"].as_object().unwrap().iter().map(|(n, p)| (n, p.as_u64().unwrap() as u16)).collect();
    for (port, number) in ports.iter().filter(|(port, _)| !port.ends_with("udp")) {
        assert!(listens(*number), "{name} does not listen on {port}: {started}");
    }
    let health = daemon.ok("service.health", json!({ "name": name }));
    assert_eq!(health["healthy"], true, "{name}: {health}");
    let verify = daemon.ok("service.verify", json!({ "name": name }));
    assert_eq!(verify["ok"], true, "{name}: {verify:#}");
    let leases = daemon.ok("gpu.leases", json!({ "unit": name }))["leases"].clone();
    let held = leases.as_array().unwrap().iter().map(|lease| lease["devices"][0]["declared_bytes"].as_u64().unwrap());
    assert_eq!(held.sum::<u64>(), case.vram, "{name}: {leases:#}");
    let stopped = daemon.ok("service.stop", json!({ "name": name }));
    assert_ne!(stopped["last_exit"]["kind"], "killed", "{name}: {stopped}");
    assert!(!ports.iter().any(|(_, port)| listens(*port)), "{name} still listens");
}

fn delete(daemon: &Daemon, case: &Case) {
    let name = case.name;
    let data = daemon.home.join("data").join(name);
    let kept = data.is_dir() && fs::read_dir(&data).unwrap().next().is_some();
    assert!(kept || name == "livekit", "{name} keeps something in {}", data.display());
    daemon.ok("service.delete", json!({ "name": name, "purge_binaries": true, "purge_data": true }));
    assert_eq!(versions(daemon, name), [] as [String; 0], "{name}");
    assert!(!data.exists(), "{name} has left {}", data.display());
    assert_eq!(daemon.state(name), "not_installed", "{name}");
}

/// HS-114, HS-135: every service that comes from a release, by the way that it really goes.
#[test]
fn services_of_releases_go_from_install_to_delete() {
    let server = world();
    let daemon = asking(&server);
    for case in cases() {
        install(&daemon, &case);
        run(&daemon, &case);
        delete(&daemon, &case);
    }
    let left = fs::read_dir(daemon.home.join("store/.staging")).unwrap().count();
    assert_eq!(left, 0, "halves of installs");
}

/// HS-138: the list above is whole, and the page says of each of them what was tried.
#[test]
fn every_service_of_a_release_is_played_here() {
    let catalogue = wharf_services::Catalogue::built_in();
    let of_releases = |facts: &wharf_model::Facts| facts.source.contains("release");
    let known: Vec<String> = catalogue.iter().map(|s| s.facts()).filter(of_releases).map(|facts| facts.name).collect();
    let mut played: Vec<&str> = cases().iter().map(|case| case.name).collect();
    played.sort_unstable();
    assert_eq!(played, known);
    for name in played {
        let seen = &wharf_services::verified()[name];
        assert!(seen.real || seen.how.contains("stand-in"), "{name}: {}", seen.how);
    }
}

/// An older release has another kind of archive; the one before stays as the way back.
#[test]
fn ollama_is_upgraded_from_a_release_that_was_packed_otherwise() {
    let server = world();
    let daemon = asking(&server);
    let with = json!({ "ports": { "main": "auto" } });
    let old = daemon.ok("service.install", json!({ "name": "ollama", "version": "0.9.0", "with": with }));
    assert_eq!(old["version"], "0.9.0");
    daemon.ok("service.start", json!({ "name": "ollama" }));
    let new = daemon.ok("service.upgrade", json!({ "name": "ollama", "version": "latest" }));
    assert_eq!((&new["from"], &new["to"]), (&json!("0.9.0"), &json!("0.30.0")), "{new:#}");
    eventually("the new one runs", SOON, || daemon.state("ollama") == "running");
    assert_eq!(versions(&daemon, "ollama").len(), 2);
}

/// A site has no list of versions: one is named, and what is not there is told.
#[test]
fn a_publishers_own_host_is_asked_for_the_version_that_is_named() {
    let server = world();
    let daemon = asking(&server);
    let install = |version: &str| daemon.err("service.install", json!({ "name": "typesense", "version": version }));
    let error = install("latest");
    assert!(error["message"].as_str().unwrap().contains("does not tell which version is the newest"), "{error:#}");
    assert!(error["data"]["hint"].as_str().unwrap().contains("--version"), "{error:#}");
    let error = install("1.0");
    let text = error["message"].as_str().unwrap();
    assert!(text.contains("release 1.0 of dl.typesense.org"), "{error:#}");
    assert!(error.to_string().contains("404 Not Found"), "{error:#}");
    assert_eq!(install("../30.2")["code"], -32602);
    assert!(versions(&daemon, "typesense").is_empty());
    // A list of digests that does not fit what it is about.
    server.site(
        "dl.grafana.com",
        &format!("oss/release/grafana-12.0.1.linux-{}.tar.gz.sha256", arch().0),
        "0".repeat(64),
    );
    let error = daemon.err("service.install", json!({ "name": "grafana" }));
    assert!(error["message"].as_str().unwrap().contains("is not the one in grafana-12.0.1"), "{error:#}");
    assert!(versions(&daemon, "grafana").is_empty());
}

//! What services of npm, of crates and of releases would fetch and run.

use serde_json::json;

use super::*;
use crate::{Forge, InstallPlan};

async fn plan(unit: &str) -> InstallPlan {
    let (hands, cx, service) = context(unit, json!({}), Recording::default()).await;
    service.install(&cx, &Wanted::default()).await.unwrap();
    hands.deeds().into_iter().find_map(|d| if let Deed::Place(plan) = d { Some(plan) } else { None }).unwrap()
}

#[tokio::test]
async fn each_is_fetched_from_where_its_publisher_puts_it() {
    for (unit, said) in [
        ("restate", "@restatedev/restate-server 1.7.12 from npm"),
        ("vite-web", "vite 8.3.8 from npm, with Node 24 or newer"),
        ("server-everything", "@modelcontextprotocol/server-everything 2026.8.31 from npm, with Node 20 or newer"),
        ("s3rver", "s3rver 3.7.1 from npm, with Node 18 or newer"),
        ("bluesky-pds", "@atproto/pds 0.5.35 from npm, with Node 22 or newer"),
        ("dufs", "crate dufs 0.47.0, built by cargo"),
        ("inngest", "release 1.45.1 of github.com/inngest/inngest"),
        ("dkron", "the latest release of github.com/distribworks/dkron"),
        ("typesense", "release 30.2 of dl.typesense.org"),
        ("grafana", "release 12.0.1 of dl.grafana.com"),
        ("comfyui", "release 0.33.1 of github.com"),
    ] {
        assert_eq!(plan(unit).await.source.to_string(), said);
    }
    for unit in ["bluesky-pds", "restate", "vite-web", "server-everything", "s3rver"] {
        let Source::Npm(npm) = plan(unit).await.source else { panic!("no package") };
        assert!(!npm.scripts, "{unit} runs no install script");
    }
}

/// A site is asked for no list of versions, so the service's file must know one.
#[tokio::test]
async fn who_has_a_host_of_its_own_names_a_version() {
    let mut sites = 0;
    for service in Catalogue::built_in().iter() {
        let name = service.facts().name;
        if !service.facts().source.contains("release") {
            continue;
        }
        let Source::Release(release) = plan(&name).await.source else { panic!("{name} is no release") };
        if release.forge == Forge::Site {
            assert!(release.version.is_some() && !release.assets.is_empty(), "{name}");
            sites += 1;
        }
    }
    assert_eq!(sites, 4);
}

#[tokio::test]
async fn each_runs_on_this_machine_alone_and_keeps_what_it_has_in_its_data() {
    let of = |unit: &'static str| async move { line(&started(unit, json!({})).await) };
    assert_eq!(of("restate").await, "restate-server --base-dir /data --node-name wharf");
    assert_eq!(of("qdrant").await, "qdrant --config-path /run/qdrant.yaml");
    assert_eq!(of("dufs").await, "dufs --bind 127.0.0.1 --port 5000 /data");
    assert_eq!(of("minio").await, "minio server --address 127.0.0.1:9000 --console-address 127.0.0.1:9001 /data");
    assert_eq!(
        of("typesense").await,
        "typesense-server --data-dir /data --api-address 127.0.0.1 --api-port 8108 \
         --peering-address 127.0.0.1 --peering-port 8107"
    );
    let vite = "node /store/vite-web/8.3.8/node_modules/vite/bin/vite.js";
    let options = "--strictPort --clearScreen false --host 127.0.0.1 --port 5173";
    assert_eq!(of("vite-web").await, format!("{vite} /run {options}"));
    let shop = started("vite-web@shop", json!({ "root": "/srv/shop", "ports": { "http": 5174 } })).await;
    assert!(
        line(&shop).starts_with(&format!("{vite} /srv/shop ")) && shop.cwd.as_deref() == Some(Path::new("/srv/shop"))
    );
    assert!(line(&started("dufs", json!({ "writable": true })).await).contains("--allow-all"));
    let buckets = started("s3rver", json!({ "buckets": ["a", "b"] })).await;
    assert!(line(&buckets).ends_with("--configure-bucket a --configure-bucket b"), "{}", line(&buckets));
    for unit in ["bluesky-pds", "server-everything"] {
        assert!(of(unit).await.contains("--import /store/"), "{unit} is held to 127.0.0.1");
    }
    assert_eq!(started("ollama", json!({})).await.forced["OLLAMA_HOST"], "127.0.0.1:11434");
}

/// Two of one service have two keys.
#[tokio::test]
async fn the_keys_of_an_instance_are_its_own() {
    for (unit, secrets) in [
        ("meilisearch", &["meilisearch-master-key"] as &[&str]),
        ("meilisearch@a", &["meilisearch.a-master-key"]),
        ("inngest@a", &["inngest.a-event-key", "inngest.a-signing-key"]),
        ("bluesky-pds", &["bluesky-pds-jwt-secret", "bluesky-pds-admin-password", "bluesky-pds-rotation-key"]),
    ] {
        let (hands, cx, service) = context(unit, json!({}), Recording::default()).await;
        service.start(&cx).await.unwrap();
        let made = hands.deeds().into_iter().filter_map(|d| if let Deed::Secret(name) = d { Some(name) } else { None });
        assert_eq!(made.collect::<Vec<_>>(), secrets, "{unit}");
    }
    let open = started("meilisearch", json!({ "open": true })).await;
    assert!(!open.forced.contains_key("MEILI_MASTER_KEY"));
}

#[test]
fn a_gpu_is_asked_for_by_who_says_how_much_and_by_who_cannot_do_without() {
    let bytes = |unit: &str, with: Value| {
        let service = Catalogue::built_in().get(unit).unwrap().clone();
        service.params().check(&with).unwrap();
        service.policy(&with).gpu.map(|gpu| gpu.need.vram_bytes.unwrap())
    };
    assert_eq!(bytes("ollama", json!({})), None);
    assert_eq!(bytes("ollama", json!({ "vram": "6GiB" })), Some(6 << 30));
    assert_eq!(bytes("comfyui", json!({})), Some(10 << 30));
    assert_eq!(bytes("comfyui", json!({ "vram": "6GiB" })), Some(6 << 30));
    assert_eq!(bytes("comfyui", json!({ "cpu": true })), None);
}

/// Its packages are its own, below its data, and come from wherever it is told.
#[tokio::test]
async fn comfyui_has_its_packages_in_its_data() {
    let with = json!({ "torch_index": "https://packages.example/rocm" });
    let (hands, cx, service) = context("comfyui", with, Recording::default()).await;
    service.install(&cx, &Wanted::default()).await.unwrap();
    let run = hands.deeds().into_iter().filter_map(|d| if let Deed::Exec(c) = d { Some(line(&c)) } else { None });
    let run: Vec<String> = run.collect();
    assert_eq!(run[0], "/usr/bin/python3 -m venv /data/venv");
    assert!(run[1].starts_with("/data/venv/bin/python -m pip install"), "{}", run[1]);
    assert!(run[1].ends_with("/requirements.txt --extra-index-url https://packages.example/rocm"), "{}", run[1]);
}

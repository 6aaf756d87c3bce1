//! What each service would do, written down; and rules that hold for all of them.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Value, json};
use wharf_model::{ErrorKind, RunId, Signal};

use super::*;
use crate::{Command as Program, Deed, Dirs, PortChoice, Probe, Recording, Source, Wanted};

/// A context whose hands write down. It has run 1 and what its service would have placed.
async fn context(unit: &str, with: Value, hands: Recording) -> (Arc<Recording>, Context, Arc<dyn Service>) {
    let service = Catalogue::built_in().get(unit.split('@').next().unwrap()).unwrap().clone();
    let unit: wharf_model::UnitName = unit.parse().unwrap();
    service.params().check(&with).unwrap();
    let port = |choice| match choice {
        PortChoice::Number(number) => number,
        PortChoice::Auto(_) => 20_000,
    };
    let ports: BTreeMap<String, u16> =
        service.ports(&unit, &with).unwrap().into_iter().map(|w| (w.name, port(w.choice))).collect();
    let dirs = Dirs { data: "/data".into(), run: "/run".into(), store: "/store".into() };
    let hands = Arc::new(hands);
    let of = |run, installed, hands: &Arc<Recording>| {
        let (unit, with, ports, dirs) = (unit.clone(), Arc::new(with.clone()), ports.clone(), dirs.clone());
        Context::new(unit, run, with, ports, installed, dirs, Arc::default(), hands.clone())
    };
    let placed = match service.needs_install() {
        true => service.install(&of(None, None, &Arc::default()), &Wanted::default()).await.ok(),
        false => None,
    };
    let cx = of(Some(RunId(1)), placed, &hands);
    (hands, cx, service)
}

/// The program that a start would run.
async fn started(unit: &str, with: Value) -> Program {
    let (hands, cx, service) = context(unit, with, Recording::default()).await;
    service.start(&cx).await.unwrap();
    let spawned = |d| if let Deed::Spawn(command) = d { Some(command) } else { None };
    let all: Vec<Program> = hands.deeds().into_iter().filter_map(spawned).collect();
    assert_eq!(all.len(), 1, "{unit} spawns once");
    all.into_iter().next().unwrap()
}

fn line(program: &Program) -> String {
    std::iter::once(&program.program).chain(&program.args).cloned().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn each_service_starts_its_program() {
    let of = |unit: &'static str| async move { line(&started(unit, json!({})).await) };
    assert_eq!(of("hello").await, "/usr/bin/wharf serve-hello --port 8788");
    assert_eq!(
        of("redis").await,
        "redis-server --port 6379 --bind 127.0.0.1 --daemonize no --dir /data --appendonly no"
    );
    assert_eq!(of("postgres").await, "postgres -D /data/pgdata -p 5432 -k /run -c listen_addresses=127.0.0.1");
    assert_eq!(of("caddy").await, "caddy run --adapter caddyfile --config /run/Caddyfile");
    assert_eq!(of("nats").await, "nats-server -a 127.0.0.1 -p 4222 -m 8222 -js -sd /data");
    let app = "/store/python-api/1.0.0/app/src";
    let host = "--host 127.0.0.1 --port";
    for (unit, script, port) in [
        ("python-api@alden", "api/alden_api.py", 8888),
        ("python-api@vault", "vault/vault_api_server.py", 8001),
        ("python-api@core", "api/core_api.py", 8000),
        ("python-api@synapse", "api/synapse_api_server.py", 8002),
    ] {
        assert_eq!(of(unit).await, format!("python {app}/{script} {host} {port}"));
    }
}

#[tokio::test]
async fn parameters_change_what_is_run() {
    let redis = json!({"appendonly": true, "maxmemory": "100mb", "ports": {"main": 7000}});
    let redis = line(&started("redis", redis).await);
    assert!(redis.contains("--port 7000") && redis.ends_with("--appendonly yes --maxmemory 100mb"), "{redis}");
    let (_, cx, service) = context("redis", json!({"maxmemory": "--x"}), Recording::default()).await;
    assert_eq!(service.start(&cx).await.unwrap_err().kind, ErrorKind::InvalidParams);
    assert!(!line(&started("nats", json!({"jetstream": false})).await).contains("-js"));
}

#[tokio::test]
async fn only_the_vault_gets_the_key_and_nobody_can_change_it() {
    let vault = started("python-api@vault", json!({})).await;
    assert_eq!(vault.forced["HEARTHLINK_VAULT_KEY"], "<secret hearthlink-vault-key>");
    assert_eq!(vault.forced["HEARTHLINK_DATA_DIR"], "/data/hearthlink_data");
    assert_eq!(vault.forced["PYTHONPATH"], "/store/python-api/1.0.0/app");
    assert_eq!(vault.cwd.as_deref(), Some(Path::new("/store/python-api/1.0.0/app")));
    assert!(vault.unprivileged);
    assert!(!started("python-api@core", json!({})).await.forced.contains_key("HEARTHLINK_VAULT_KEY"));
}

#[tokio::test]
async fn an_unknown_instance_is_not_found() {
    let service = Catalogue::built_in().get("python-api").unwrap().clone();
    let failure = service.ports(&"python-api@x".parse().unwrap(), &json!({})).unwrap_err();
    assert_eq!(failure.kind, ErrorKind::NotFound);
    assert!(failure.hint.unwrap().contains("python-api@vault"));
}

#[tokio::test]
async fn postgres_makes_its_cluster_first_and_is_stopped_by_int() {
    let (hands, cx, service) = context("postgres", json!({}), Recording::default()).await;
    service.start(&cx).await.unwrap();
    service.stop(&cx).await.unwrap();
    let deeds = hands.deeds();
    assert_eq!(deeds[0], Deed::Secret("postgres-password".into()));
    assert!(matches!(&deeds[1], Deed::Write { mode: 0o600, .. }));
    assert!(matches!(&deeds[2], Deed::Exec(c) if c.unprivileged && c.args.contains(&"/data/pgdata".into())));
    assert!(matches!(&deeds[3], Deed::Spawn(c) if c.unprivileged));
    assert_eq!(deeds[4], Deed::Signal(Signal::Int));
}

#[tokio::test]
async fn caddy_serves_a_folder_and_refuses_a_path_that_is_none() {
    let (hands, cx, service) = context("caddy", json!({"root": "/srv/www"}), Recording::default()).await;
    service.start(&cx).await.unwrap();
    let Deed::Write { text, .. } = &hands.deeds()[0] else { panic!("no Caddyfile") };
    assert!(text.contains("root * \"/srv/www\"") && text.contains("bind 127.0.0.1"), "{text}");
    let (_, cx, service) = context("caddy", json!({"root": "/a\" {"}), Recording::default()).await;
    assert_eq!(service.start(&cx).await.unwrap_err().kind, ErrorKind::InvalidParams);
}

#[tokio::test]
async fn an_unknown_version_names_those_on_offer() {
    for unit in ["caddy", "llama", "nats", "python-api@core"] {
        let (_, cx, service) = context(unit, json!({}), Recording::default()).await;
        let want = Wanted { version: Some("0.0.1".into()), reset: false };
        let failure = service.install(&cx, &want).await.unwrap_err();
        assert_eq!(failure.kind, ErrorKind::InvalidParams);
        assert!(failure.hint.unwrap().starts_with("on offer: "));
    }
    let (hands, cx, service) = context("redis", json!({}), Recording::default()).await;
    service.install(&cx, &Wanted { version: Some("1.2".into()), reset: false }).await.unwrap();
    let Deed::Place(plan) = &hands.deeds()[0] else { panic!() };
    assert_eq!(plan.source, Source::Debian { packages: vec!["redis-server=1.2".into()] });
}

#[tokio::test]
async fn a_command_is_run_as_its_parameters_say() {
    let with = json!({
        "argv": ["sleep", "60"], "env": {"A": "1"}, "ports": {"web-ui": 9001, "api": 9000},
        "start_timeout_s": 3, "stop_signal": "INT",
        "health": {"http": {"port": "api", "path": "/h", "json": {"/ok": true}}},
    });
    let program = started("command@x", with.clone()).await;
    assert_eq!(line(&program), "sleep 60");
    assert_eq!((&*program.forced["PORT"], &*program.forced["PORT_WEB_UI"]), ("9000", "9001"));
    let (hands, cx, service) = context("command@x", with.clone(), Recording::default()).await;
    assert_eq!(service.policy(&with).start_timeout_ms, 3_000);
    service.health(&cx).await.unwrap();
    service.stop(&cx).await.unwrap();
    let deeds = hands.deeds();
    assert!(matches!(&deeds[0], Deed::Probe(Probe::Http(h)) if h.path == "/h" && h.json.len() == 1));
    assert_eq!(deeds[1], Deed::Signal(Signal::Int));
}

#[tokio::test]
async fn llama_listens_behind_its_front_and_asks_for_a_gpu_only_where_it_says_how_much() {
    let with = json!({"vram": "5GiB", "ctx": 512, "ports": {"http": 7100, "inner": 7101}});
    let program = line(&started("llama@a", with.clone()).await);
    let app = format!("{}/app", "/store/llama/2026.10.11549");
    assert!(program.starts_with(&format!("python {app}/serve.py --model /data/tiny.gguf --alias llama@a --port 7101")));
    assert!(program.contains("--ctx 512") && program.ends_with("--vram 5368709120"), "{program}");
    let service = Catalogue::built_in().get("llama").unwrap().clone();
    let policy = service.policy(&with);
    assert_eq!(policy.on_demand.unwrap().front["http"], "inner");
    assert_eq!(policy.gpu.unwrap().need.vram_bytes, Some(5 << 30));
    assert_eq!(service.policy(&Value::Null).gpu, None);
    let direct = json!({"on_demand": false, "ports": {"http": 7100}});
    assert_eq!(service.policy(&direct).on_demand, None);
    assert!(line(&started("llama", direct).await).contains("--port 7100"));
    assert!(service.params().check(&json!({"vram": "much"})).is_err());
    let (hands, cx, service) = context("llama", json!({}), Recording::default()).await;
    service.install(&cx, &Wanted::default()).await.unwrap();
    assert!(matches!(&hands.deeds()[1], Deed::Exec(c) if c.args[1] == "/data/tiny.gguf"), "{:?}", hands.deeds());
}

/// T23.
#[tokio::test]
async fn a_command_whose_program_is_missing_is_named_at_install_and_at_start() {
    let (hands, cx, service) = context("command@x", json!({"argv": ["nosuch"]}), Recording::lacking(&["nosuch"])).await;
    for failure in [service.install(&cx, &Wanted::default()).await.map(drop), service.start(&cx).await.map(drop)] {
        let failure = failure.unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Precondition);
        assert!(failure.message.contains("nosuch"));
    }
    assert_eq!(hands.deeds(), []);
}

/// HS-16 and HS-114.
#[test]
fn what_is_said_of_a_service_is_whole() {
    let sources = [
        ("caddy", include_str!("caddy.rs")),
        ("command", include_str!("command.rs")),
        ("hello", include_str!("hello.rs")),
        ("llama", include_str!("llama.rs")),
        ("nats", include_str!("nats.rs")),
        ("postgres", include_str!("postgres.rs")),
        ("python-api", include_str!("python_api.rs")),
        ("redis", include_str!("redis.rs")),
    ];
    let catalogue = Catalogue::built_in();
    assert_eq!(catalogue.names().collect::<Vec<_>>(), sources.map(|(name, _)| name));
    for (name, source) in sources {
        let facts = catalogue.get(name).unwrap().facts();
        assert!(!facts.summary.is_empty() && !facts.source.is_empty() && !facts.commands.is_empty(), "{name}");
        let written: Vec<&str> = source.lines().filter_map(|l| l.strip_prefix("/// Limitation: ")).collect();
        assert_eq!(facts.limitations, written, "{name}: the facts and the documentation differ");
        assert!(!facts.limitations.is_empty(), "{name} knows no limits");
    }
}

#[test]
fn an_unknown_parameter_is_refused() {
    for service in Catalogue::built_in().iter() {
        let failure = service.params().check(&json!({"nosuch": 1})).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::InvalidParams, "{}", service.facts().name);
    }
}

//! What each service would do, written down; and rules that hold for all of them.

mod fetched;

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
        let want = Wanted { version: Some("0.0.1".into()), reset: false, ..Wanted::default() };
        let failure = service.install(&cx, &want).await.unwrap_err();
        assert_eq!(failure.kind, ErrorKind::InvalidParams);
        assert!(failure.hint.unwrap().starts_with("on offer: "));
    }
    let (hands, cx, service) = context("redis", json!({}), Recording::default()).await;
    service.install(&cx, &Wanted { version: Some("1.2".into()), reset: false, ..Wanted::default() }).await.unwrap();
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

/// What a unit sees of others.
fn with_beside(mut cx: Context, unit: &str, port: Option<(&str, u16)>, file: Option<&str>) -> Context {
    let ports = port.into_iter().map(|(name, number)| (name.to_owned(), number)).collect();
    let installed = file.map(|file| Installed {
        version: "1".into(),
        digest: "0".repeat(64),
        path: "/store/x".into(),
        binaries: [("x".to_owned(), file.into())].into(),
        source: "recorded".into(),
    });
    cx.beside.insert(unit.parse().unwrap(), crate::Beside { ports, installed });
    cx
}

/// HS-102, HS-104: what is needed is named, its port is found, and the program is the mother's.
#[tokio::test]
async fn a_child_finds_its_mother_and_shares_her_programs() {
    let (hands, cx, service) = context("etcd-proxy", json!({"of": "etcd@a"}), Recording::default()).await;
    let needs: Vec<String> = service.policy(&cx.with).required().map(ToString::to_string).collect();
    assert_eq!(needs, ["etcd@a"]);
    let failure = service.start(&cx).await.unwrap_err();
    assert!(failure.message.contains("etcd@a") && failure.hint.unwrap() == "wharf start etcd@a");
    service.start(&with_beside(cx, "etcd@a", Some(("client", 20_001)), None)).await.unwrap();
    assert!(
        hands.deeds().iter().any(|d| matches!(d, Deed::Spawn(c) if line(c) ==
        "etcd grpc-proxy start --endpoints 127.0.0.1:20001 --listen-addr 127.0.0.1:23790")),
        "{:?}",
        hands.deeds()
    );
    let placed =
        |deeds: Vec<Deed>| deeds.into_iter().find_map(|d| if let Deed::Place(plan) = d { Some(plan) } else { None });
    let mut plans = vec![];
    for unit in ["etcd", "etcd-proxy"] {
        let (hands, cx, service) = context(unit, json!({}), Recording::default()).await;
        service.install(&cx, &Wanted::default()).await.unwrap();
        plans.extend(placed(hands.deeds()));
    }
    assert!(plans.len() == 2 && plans[0] == plans[1], "{plans:?}");
}

/// HS-102.
#[tokio::test]
async fn prometheus_asks_the_machine_where_node_exporter_really_listens() {
    let with = json!({"machine": true, "scrape": {"web": ["127.0.0.1:8080"]}});
    let (hands, cx, service) = context("prometheus", with.clone(), Recording::default()).await;
    assert_eq!(service.policy(&with).required().map(ToString::to_string).collect::<Vec<_>>(), ["node-exporter"]);
    assert_eq!(service.policy(&json!({})).required().count(), 0);
    service.start(&with_beside(cx, "node-exporter", Some(("main", 9111)), None)).await.unwrap();
    let Deed::Write { text, .. } = &hands.deeds()[0] else { panic!("no configuration") };
    let written: Value = serde_json::from_str(text).unwrap();
    let targets: Vec<&Value> =
        written["scrape_configs"].as_array().unwrap().iter().map(|j| &j["static_configs"][0]["targets"][0]).collect();
    assert_eq!(targets, ["127.0.0.1:9090", "127.0.0.1:9111", "127.0.0.1:8080"]);
}

/// HS-103: both find the one library.
#[tokio::test]
async fn two_services_rest_on_one_library() {
    let library = "/store/onnxruntime/1/venv/lib/python3.11/site-packages/onnxruntime/capi/x.so";
    for (unit, with) in [("whisper", json!({})), ("piper", json!({"voice": "/v.onnx"}))] {
        let (hands, cx, service) = context(unit, with, Recording::default()).await;
        assert!(service.start(&cx).await.unwrap_err().hint.unwrap().contains("wharf install onnxruntime"), "{unit}");
        service.start(&with_beside(cx, "onnxruntime", None, Some(library))).await.unwrap();
        let Some(Deed::Spawn(program)) = hands.deeds().pop() else { panic!("{unit} did not start") };
        assert_eq!(program.forced["PYTHONPATH"], "/store/onnxruntime/1/venv/lib/python3.11/site-packages", "{unit}");
    }
}

/// HS-106: the address is looked for at each start, and at each probe.
#[tokio::test]
async fn node_exporter_listens_where_its_network_is() {
    let with = json!({"listen": "10.7.0.0/16", "ports": {"main": 9100}});
    let (_, cx, service) = context("node-exporter", with.clone(), Recording::default()).await;
    let failure = service.start(&cx).await.unwrap_err();
    assert_eq!(failure.kind, ErrorKind::Precondition, "it waits: {failure}");
    let wg0 = Recording::default().with_address("lo", [127, 0, 0, 1].into()).with_address("wg0", [10, 7, 3, 4].into());
    let (hands, cx, service) = context("node-exporter", with, wg0).await;
    service.start(&cx).await.unwrap();
    service.health(&cx).await.unwrap();
    let deeds = hands.deeds();
    assert!(matches!(&deeds[0], Deed::Spawn(c) if c.args[1] == "10.7.3.4:9100"), "{deeds:?}");
    assert!(
        matches!(&deeds[1], Deed::Probe(Probe::Http(h)) if h.at == crate::Endpoint::Address(([10, 7, 3, 4], 9100).into()))
    );
}

/// HS-105: each instance has ports and a socket of its own, from one file.
#[tokio::test]
async fn instances_have_their_own_ports() {
    let service = Catalogue::built_in().get("mosquitto").unwrap().clone();
    let wish = |unit: &str| service.ports(&unit.parse().unwrap(), &json!({})).unwrap()[0].choice.to_string();
    assert_eq!((wish("mosquitto"), wish("mosquitto@home")), ("1883".into(), "auto".into()));
    let (hands, cx, service) = context("mosquitto@home", json!({}), Recording::default()).await;
    service.start(&cx).await.unwrap();
    let Deed::Write { text, .. } = &hands.deeds()[0] else { panic!("no configuration") };
    assert!(text.contains("listener 20000 127.0.0.1\nlistener 0 /run/mosquitto.sock\n"), "{text}");
}

/// vLLM is asked to sleep, and is believed when it says so.
#[tokio::test]
async fn vllm_sleeps_and_wakes() {
    let (hands, cx, service) = context("vllm", json!({"vram": "20GiB"}), Recording::default()).await;
    service.start(&cx).await.unwrap();
    service.park(&cx).await.unwrap();
    service.wake(&cx).await.unwrap();
    let asked = |d| match d {
        Deed::Probe(Probe::Http(http)) => Some(format!("{} {} {:?}", http.method, http.path, http.json)),
        _ => None,
    };
    let deeds = hands.deeds();
    assert!(
        matches!(&deeds[0], Deed::Spawn(c) if c.args.contains(&"--enable-sleep-mode".into()) && c.env["VLLM_SERVER_DEV_MODE"] == "1")
    );
    assert_eq!(
        deeds.into_iter().filter_map(asked).collect::<Vec<_>>(),
        [
            "POST /sleep?level=1 []",
            "GET /is_sleeping [(\"/is_sleeping\", Bool(true))]",
            "POST /wake_up []",
            "GET /is_sleeping [(\"/is_sleeping\", Bool(false))]",
        ]
    );
    let policy = service.policy(&json!({"vram": "20GiB", "sleeps_in": 0}));
    let gpu = policy.gpu.unwrap();
    assert_eq!((gpu.need.vram_bytes, gpu.parked_bytes), (Some(20 << 30), None));
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

/// HS-16, HS-89 and HS-114.
#[test]
fn what_is_said_of_a_service_is_whole() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/catalogue");
    for service in Catalogue::built_in().iter() {
        let facts = service.facts();
        let name = &facts.name;
        let path = folder.join(format!("{}.rs", name.replace('-', "_")));
        let source = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{name}: {}: {e}", path.display()));
        assert!(!facts.summary.is_empty() && !facts.source.is_empty() && !facts.commands.is_empty(), "{name}");
        let written: Vec<&str> = source.lines().filter_map(|l| l.strip_prefix("/// Limitation: ")).collect();
        assert_eq!(facts.limitations, written, "{name}: the facts and the documentation differ");
        assert!(!facts.limitations.is_empty(), "{name} knows no limits");
        assert!(
            service.is_tool()
                || facts.instances.len() > 1
                || name == "command"
                || name == "compose"
                || !facts.ports.is_empty(),
            "{name} has no port"
        );
        for other in service.rests_on() {
            let other = Catalogue::built_in().get(other).cloned().unwrap_or_else(|| panic!("{name} rests on {other}"));
            assert!(other.is_tool(), "HS-103: {name} rests on what is no library");
        }
    }
}

/// HS-89: each file of the folder is a service of the list.
#[test]
fn no_file_of_the_catalogue_is_forgotten() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/catalogue");
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let file = entry.file_name().into_string().unwrap();
        let Some(stem) = file.strip_suffix(".rs").filter(|stem| *stem != "tests") else { continue };
        assert!(Catalogue::built_in().get(&stem.replace('_', "-")).is_some(), "{file} is in no list");
    }
}

#[test]
fn an_unknown_parameter_is_refused() {
    for service in Catalogue::built_in().iter() {
        let failure = service.params().check(&json!({"nosuch": 1})).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::InvalidParams, "{}", service.facts().name);
    }
}

//! What compose would do, written down.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use serde_json::{Value, json};
use wharf_model::{ErrorKind, Preset, RunId, Signal};

use super::*;
use crate::{Command, ContainerState, Deed, Dirs, Output, Recording};

/// A manifest with everything that means something here.
fn manifest() -> Value {
    json!({
        "name": "sd", "gpu_required": true, "vram_gb": 8.0, "port": 8000, "health_endpoint": "/health", "health_timeout": 90,
        "mcp": { "enabled": true, "port": 9000 }, "dependencies": [{ "service": "cache", "required": true }, { "service": "db" }],
        "owner": "vision",
    })
}

fn with() -> Value {
    json!({ "folder": "/srv/sd", "manifest": manifest() })
}

fn context(with: Value, hands: Recording) -> (Arc<Recording>, Context) {
    Compose.params().check(&with).unwrap();
    let unit: UnitName = "compose@sd".parse().unwrap();
    let dirs = Dirs { data: "/data".into(), run: "/run".into(), store: "/store".into() };
    let (hands, policy) = (Arc::new(hands), Arc::new(Compose.policy(&with)));
    let cx = Context::new(unit, Some(RunId(1)), Arc::new(with), BTreeMap::new(), None, dirs, policy, hands.clone());
    (hands, cx)
}

fn container(service: &str, state: ContainerState, exit_code: Option<i32>) -> Container {
    Container {
        id: "0".repeat(64),
        name: format!("sd_{service}_1"),
        service: service.into(),
        folder: Some("/srv/sd".into()),
        state,
        exit_code,
        is_well: None,
        published: vec![],
    }
}

fn line(command: &Command) -> String {
    std::iter::once(&command.program).chain(&command.args).cloned().collect::<Vec<_>>().join(" ")
}

/// The run that a start would make, and the programs that it asks before.
async fn started(with: Value, hands: Recording) -> (Command, Vec<String>) {
    let (hands, cx) = context(with, hands);
    Compose.start(&cx).await.unwrap();
    let mut asked = vec![];
    let mut spawned = None;
    for deed in hands.deeds() {
        match deed {
            Deed::Exec(command) => asked.push(line(&command)),
            Deed::Spawn(command) => spawned = Some(command),
            _ => {}
        }
    }
    (spawned.unwrap(), asked)
}

fn without_plugin() -> Output {
    Output { code: 125, stdout: String::new(), stderr: "docker: unknown command: docker compose".into() }
}

/// SN-11, SN-35, SN-45.
#[tokio::test]
async fn the_run_is_a_follower_in_the_folder_that_knows_how_to_bring_up_and_take_down() {
    let (run, asked) = started(with(), Recording::default()).await;
    assert_eq!(asked, ["docker compose version"]);
    assert_eq!(
        line(&run),
        "/usr/bin/wharf serve-compose --folder /srv/sd --project sd --engine unix:///run/docker.sock --record /run/containers.json \
         --up-limit 120 --down-limit 60 -- docker compose"
    );
    assert_eq!(
        (run.cwd.as_deref(), run.forced["DOCKER_HOST"].as_str()),
        (Some(Path::new("/srv/sd")), "unix:///run/docker.sock")
    );
    assert!(!run.unprivileged, "the engine's socket is not open to everybody");
    let (hands, cx) = context(with(), Recording::default());
    Compose.stop(&cx).await.unwrap();
    assert_eq!(hands.deeds(), [Deed::Signal(Signal::Term)], "it takes down by itself");
}

/// Decision C25.
#[tokio::test]
async fn of_three_ways_to_compose_the_first_that_there_is_is_taken() {
    let ends_in = |(run, _): (Command, Vec<String>)| line(&run).split(" -- ").nth(1).unwrap().to_owned();
    assert_eq!(
        ends_in(started(with(), Recording::default().answering("compose", without_plugin())).await),
        "docker-compose"
    );
    assert_eq!(ends_in(started(with(), Recording::lacking(&["docker"])).await), "docker-compose");
    assert_eq!(ends_in(started(with(), Recording::lacking(&["docker", "docker-compose"])).await), "podman compose");
    let named = json!({ "folder": "/srv/sd", "compose": ["/opt/compose", "--ansi", "never"] });
    assert_eq!(ends_in(started(named, Recording::default()).await), "/opt/compose --ansi never");
    let (_, cx) = context(with(), Recording::lacking(&["docker", "docker-compose", "podman"]));
    for failure in [Compose.start(&cx).await.map(drop), Compose.install(&cx, &Wanted::default()).await.map(drop)] {
        let failure = failure.unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Precondition);
        assert!(failure.hint.unwrap().contains("apt install docker.io docker-compose"));
    }
}

/// SN-87, SN-107: `up` 120 s, then the manifest's time to become healthy; `down` 60 s. SN-91, decision C5: observed.
#[test]
fn times_and_habits_are_the_manifests() {
    let policy = Compose.policy(&with());
    assert_eq!((policy.preset, policy.failure_threshold, policy.restart.budget), (Preset::Observe, 0, 0));
    assert_eq!((policy.start_timeout_ms, policy.stop_timeout_ms), (210_000, 90_000));
    let quick = json!({ "folder": "/srv/sd", "manifest": { "name": "sd" }, "up_timeout_s": 10, "down_timeout_s": 5 });
    let policy = Compose.policy(&quick);
    assert_eq!((policy.start_timeout_ms, policy.stop_timeout_ms), (40_000, 35_000));
    assert!(policy.needs.is_empty() && policy.gpu.is_none());
    let endless = json!({ "manifest": { "name": "sd", "health_timeout": 1e300 } });
    assert_eq!(Compose.policy(&endless).start_timeout_ms, 120_000 + 86_400_000);
    assert_eq!(Compose.policy(&Value::Null).preset, Preset::Observe);
}

/// SN-5, decision C13: alone on its device unless somebody says otherwise; what nobody knows is had alone.
#[test]
fn a_gpu_is_asked_for_as_the_manifest_says() {
    let gpu = Compose.policy(&with()).gpu.unwrap();
    assert_eq!((gpu.need.vram_bytes, gpu.need.exclusive, gpu.drain_ms), (Some(8_000_000_000), true, 90_000));
    let shared = json!({ "manifest": manifest(), "share_gpu": true });
    assert!(!Compose.policy(&shared).gpu.unwrap().need.is_alone());
    for vram in [json!("?"), json!(0), Value::Null] {
        let unknown = json!({ "manifest": { "name": "sd", "gpu_required": true, "vram_gb": vram }, "share_gpu": true });
        assert!(Compose.policy(&unknown).gpu.unwrap().need.is_alone(), "SN-23: {vram}");
    }
}

/// SN-74.
#[test]
fn dependencies_are_needs() {
    let names = |with: Value| {
        let needs = Compose.policy(&with).needs;
        needs.into_iter().map(|need| (need.unit.to_string(), need.soft)).collect::<Vec<_>>()
    };
    assert_eq!(names(with()), [("compose@cache".into(), false), ("compose@db".into(), true)]);
    let other = json!({ "manifest": manifest(), "units": { "cache": "redis" } });
    assert_eq!(names(other)[0], ("redis".into(), false));
}

#[test]
fn its_ports_and_where_its_health_is_asked_are_the_manifests() {
    let unit: UnitName = "compose@sd".parse().unwrap();
    let ports = |with: &Value| -> Vec<(String, String)> {
        Compose.ports(&unit, with).unwrap().into_iter().map(|wish| (wish.name, wish.choice.to_string())).collect()
    };
    assert_eq!(ports(&with()), [("main".into(), "8000".into()), ("mcp".into(), "9000".into())]);
    assert_eq!(ports(&Value::Null), []);
    let url = Compose.health_url(&BTreeMap::new(), &with());
    assert_eq!(url.as_deref(), Some("http://127.0.0.1:8000/health"), "SN-38");
    let wrong = json!({ "manifest": { "name": "sd", "health_endpoint": "/health" } });
    assert_eq!(Compose.ports(&unit, &wrong).unwrap_err().kind, ErrorKind::InvalidParams);
    let odd = json!({ "manifest": { "name": "sd", "port": "x" } });
    assert!(Compose.ports(&unit, &odd).unwrap_err().message.contains("with.manifest: "));
}

#[tokio::test]
async fn a_project_is_called_as_compose_would_call_it_and_taken_down_by_the_name_it_was_brought_up_by() {
    let named = |(run, _): (Command, Vec<String>)| run.args[4].clone();
    let at = |path: &str, text: &str| Recording::default().with_text(path, text);
    assert_eq!(named(started(with(), at("/srv/sd/compose.yaml", "services: {}\nname: \"shop\"  # x\n")).await), "shop");
    assert_eq!(named(started(with(), at("/srv/sd/.env", "A=1\nCOMPOSE_PROJECT_NAME=envy\n")).await), "envy");
    assert_eq!(named(started(with(), at("/srv/sd/compose.yaml", "name: ${OTHER}\n")).await), "sd");
    let own = json!({ "folder": "/srv/My Folder", "project": "own" });
    assert_eq!(named(started(own, Recording::default()).await), "own");
    let (_, cx) = context(json!({ "folder": "/srv/...", "manifest": manifest() }), Recording::default());
    assert!(Compose.start(&cx).await.unwrap_err().hint.unwrap().contains("--with project=NAME"));
    // The file has another name by now.
    let (hands, cx) = context(with(), at("/run/project", "before").with_text("/srv/sd/compose.yaml", "name: after\n"));
    Compose.clear(&cx).await.unwrap();
    let Some(Deed::Exec(run)) = hands.deeds().pop() else { panic!("nothing was taken down") };
    let said = line(&run);
    assert!(said.contains("--project before") && said.contains("--down --down-limit 60 -- docker compose"), "{said}");
    assert_eq!(run.limit_ms, 90_000);
}

#[tokio::test]
async fn a_project_of_another_folder_is_left_alone_and_one_that_runs_is_taken_over() {
    let theirs = Container { folder: Some("/home/me/sd".into()), ..container("web", ContainerState::Running, None) };
    let (_, cx) = context(with(), Recording::default().with_container(theirs));
    let failure = Compose.start(&cx).await.unwrap_err();
    assert_eq!(failure.kind, ErrorKind::Conflict);
    assert!(failure.message.contains("/home/me/sd") && failure.message.contains("sd_web_1"), "{failure}");
    // SN-31.
    for (state, runs) in [(ContainerState::Running, true), (ContainerState::Exited, false)] {
        let (_, cx) = context(with(), Recording::default().with_container(container("web", state, Some(1))));
        assert_eq!(Compose.runs_already(&cx).await.unwrap(), runs);
        Compose.start(&cx).await.unwrap();
    }
}

/// SN-40, SN-41, SN-13.
#[tokio::test]
async fn health_is_asked_of_the_containers_first() {
    let health = |hands: Recording| async move {
        let (hands, cx) = context(with(), hands);
        (Compose.health(&cx).await.unwrap(), hands.deeds())
    };
    let (none, asked) = health(Recording::default()).await;
    assert!(!none.is_ready() && none.detail.contains("none of its containers runs") && asked.is_empty());
    let web = || container("web", ContainerState::Running, None);
    let dead = container("job", ContainerState::Exited, Some(3));
    let (faulty, _) = health(Recording::default().with_container(web()).with_container(dead)).await;
    assert_eq!(faulty, Health::unhealthy("job exited with code 3"));
    let done = container("init", ContainerState::Exited, Some(0));
    let (fine, asked) = health(Recording::default().with_container(web()).with_container(done)).await;
    assert!(fine.is_ready());
    assert!(
        matches!(&asked[..], [Deed::Probe(Probe::Http(http))] if http.path == "/health" && http.at == Endpoint::Port(8000))
    );
    // Before it is up, only that is asked.
    let (hands, mut cx) = context(with(), Recording::default().with_container(web()));
    cx.starting = true;
    Compose.health(&cx).await.unwrap();
    assert_eq!(hands.deeds()[0], Deed::Probe(Probe::LogLine(IS_UP.into())));
}

/// SN-58, SN-59, decisions C16 and C22.
#[tokio::test]
async fn verify_compares_devices_and_names_what_is_open() {
    let config = |text: &str| Output { code: 0, stdout: text.into(), stderr: String::new() };
    let open = Container {
        published: vec!["0.0.0.0:8000".parse().unwrap()],
        ..container("web", ContainerState::Running, None)
    };
    let hands = Recording::default().answering("compose", config("services: {web: {image: x}}\n")).with_container(open);
    let (_, cx) = context(with(), hands);
    let checks = Compose.verify(&cx).await.unwrap();
    let of = |name: &str| checks.iter().find(|c| c.check == name).unwrap_or_else(|| panic!("{name}: {checks:?}"));
    assert!(of("compose").ok && of("compose file").ok && !of("GPU").ok, "{checks:?}");
    assert!(of("published on loopback only").detail.contains("0.0.0.0:8000 (web)"), "{checks:?}");
}

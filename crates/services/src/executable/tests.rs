//! The protocol, with answers that nobody had to write a program for.

use std::{path::Path, sync::Arc};

use serde_json::{Value, json};
use wharf_model::{ErrorKind, Policy, Signal, Verdict};

use super::*;
use crate::{Deed, Recording};

fn output(stdout: &str) -> Output {
    Output { code: 0, stdout: stdout.into(), stderr: String::new() }
}

fn card(answer: Value) -> std::result::Result<Card, String> {
    Card::from_answer(Path::new("/services/clock.py"), &output(&answer.to_string()))
}

fn clock(more: Value) -> Executable {
    let mut answer = json!({ "summary": "tells the time", "ports": { "main": 8100 } });
    answer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let card = card(answer).unwrap();
    Executable::new(Path::new("/services/clock.py"), &card, Policy::default())
}

/// What a verb makes of an answer, and what was done for it.
fn hands(verb: &str, answer: Value) -> Arc<Recording> {
    Arc::new(Recording::default().answering(verb, output(&answer.to_string())))
}

#[test]
fn the_card_becomes_the_facts_and_the_name_is_the_files() {
    let facts = clock(json!({ "limitations": ["it is slow."], "data": "the time" })).facts();
    assert_eq!((facts.name.as_str(), facts.ports[0].default), ("clock", 8100));
    assert_eq!((facts.limitations.len(), facts.data.as_deref()), (1, Some("the time")));
    assert_eq!(card(json!({ "summary": "x", "name": "other" })).unwrap().service(), "other");
}

#[test]
fn a_card_that_is_none_is_refused_with_the_reason() {
    for (answer, says) in [
        (json!({ "summary": "x", "protocol": 2 }), "protocol 2"),
        (json!({ "summary": "x", "name": "Clock" }), "no name of a service"),
        (json!({ "summary": "x", "name": "clock@a" }), "no name of a service"),
        (json!({ "summary": "x", "instances": ["A B"] }), "no name of an instance"),
        (json!({ "summary": "x", "params": { "type": "string" } }), "no JSON Schema"),
        (json!({ "summary": "x", "port": 80 }), "port"),
        (json!({ "error": "no python here" }), "no python here"),
    ] {
        let why = card(answer.clone()).unwrap_err();
        assert!(why.contains(says), "{answer}: {why}");
    }
    let ended = Output { code: 3, stdout: String::new(), stderr: "Traceback".into() };
    assert!(Card::from_answer(Path::new("/x"), &ended).unwrap_err().contains("exited with code 3"));
}

#[tokio::test]
async fn start_is_asked_with_all_that_is_known_and_runs_what_it_answers() {
    let params = json!({ "type": "object", "properties": { "zone": { "type": "string", "default": "UTC" } } });
    let service = clock(json!({ "params": params }));
    let answer =
        json!({ "argv": ["python3", "-m", "clock"], "env": { "TZ": "UTC" }, "cwd": "/srv", "unprivileged": true });
    let hands = hands("start", answer);
    let cx = hands.context(&service, json!({ "ports": { "main": 8200 } })).unwrap();
    service.start(&cx).await.unwrap();
    let deeds = hands.deeds();
    let Deed::Exec(asked) = &deeds[0] else { panic!("{deeds:?}") };
    assert_eq!((asked.program.as_str(), &asked.args[..]), ("/services/clock.py", &["start".to_owned()][..]));
    let request: Value = serde_json::from_str(&asked.stdin).unwrap();
    for (field, value) in [
        ("/protocol", json!(1)),
        ("/verb", json!("start")),
        ("/unit", json!("clock")),
        ("/with/zone", json!("UTC")),
        ("/ports/main", json!(8200)),
        ("/data_dir", json!("/data")),
        ("/run", json!(1)),
    ] {
        assert_eq!(request.pointer(field), Some(&value), "{field}");
    }
    for (name, value) in [("PORT", "8200"), ("PORT_MAIN", "8200"), ("WITH_ZONE", "UTC"), ("WHARF_DATA_DIR", "/data")] {
        assert_eq!(asked.forced.get(name).map(String::as_str), Some(value), "{name}");
    }
    let Deed::Spawn(spawned) = &deeds[1] else { panic!("{deeds:?}") };
    assert_eq!((spawned.program.as_str(), spawned.args.len(), spawned.unprivileged), ("python3", 2, true));
    assert_eq!((spawned.env["TZ"].as_str(), spawned.cwd.as_deref()), ("UTC", Some(Path::new("/srv"))));
}

#[tokio::test]
async fn health_and_stop_mean_what_they_say() {
    let service = clock(json!({}));
    for (answer, verdict) in [
        (json!({}), Verdict::Healthy),
        (json!({ "ok": true, "why": "PONG" }), Verdict::Healthy),
        (json!({ "ok": true, "degraded": true }), Verdict::Degraded),
        (json!({ "ok": false, "why": "no answer" }), Verdict::Unhealthy),
    ] {
        let hands = hands("health", answer);
        let cx = hands.context(&service, json!({})).unwrap();
        assert_eq!(service.health(&cx).await.unwrap().verdict, verdict);
    }
    for (answer, deeds) in [
        (json!({}), vec![Deed::Signal(Signal::Term)]),
        (json!({ "signal": "INT" }), vec![Deed::Signal(Signal::Int)]),
        (json!({ "done": true }), vec![]),
    ] {
        let hands = hands("stop", answer);
        let cx = hands.context(&service, json!({})).unwrap();
        service.stop(&cx).await.unwrap();
        assert_eq!(hands.deeds()[1..], deeds);
    }
}

#[tokio::test]
async fn install_fills_a_folder_that_is_then_placed() {
    let service = clock(json!({ "installs": true }));
    assert!(service.needs_install() && !clock(json!({})).needs_install());
    let hands = hands("install", json!({ "version": "1.2", "paths": ["bin/clock"] }));
    let cx = hands.context(&service, json!({})).unwrap();
    let want = Wanted { version: Some("1.2".into()), reset: true, ..Wanted::default() };
    let installed = service.install(&cx, &want).await.unwrap();
    assert_eq!(installed.binaries["clock"], Path::new("/store/clock/1.2/bin/clock"));
    let deeds = hands.deeds();
    let Deed::Exec(asked) = &deeds[0] else { panic!("{deeds:?}") };
    let request: Value = serde_json::from_str(&asked.stdin).unwrap();
    assert_eq!((&request["version"], &request["reset"]), (&json!("1.2"), &json!(true)));
    assert!(request["staging"].as_str().unwrap().starts_with("/store/.staging"));
}

#[tokio::test]
async fn nonsense_and_refusals_are_failures_that_name_the_file() {
    let service = clock(json!({}));
    for (stdout, code, says) in [
        ("starting up\n", 0, "not one JSON object"),
        ("", 0, "answered nothing"),
        ("", 7, "exited with code 7"),
        ("{\"argv\": []}", 0, "empty argv"),
        ("{\"error\": \"the key is missing\", \"hint\": \"make one\"}", 1, "the key is missing"),
    ] {
        let out = Output { code, stdout: stdout.into(), stderr: "first\nlast\n".into() };
        let hands = Arc::new(Recording::default().answering("start", out));
        let cx = hands.context(&service, json!({})).unwrap();
        let failure = service.start(&cx).await.unwrap_err();
        assert_eq!(failure.kind, ErrorKind::ServiceFailed);
        assert!(failure.message.contains("/services/clock.py start") && failure.message.contains(says), "{failure}");
        assert!(says == "empty argv" || failure.causes == ["first", "last"], "{failure:?}");
    }
}

#[test]
fn its_parameters_are_those_of_its_schema_and_its_ports() {
    let params = json!({ "type": "object", "properties": { "zone": { "type": "string" } } });
    let service = clock(json!({ "params": params }));
    assert!(service.params().check(&json!({ "zone": "UTC", "ports": { "main": "auto" } })).is_ok());
    let failure = service.params().check(&json!({ "zoen": "UTC" })).unwrap_err();
    assert!(failure.message.contains("zoen") && failure.hint.unwrap().contains("zone"));
    assert!(clock(json!({})).params().check(&json!({ "zone": "UTC" })).is_err());
}

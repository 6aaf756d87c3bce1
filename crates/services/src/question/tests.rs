//! Questions as they are written, and what follows from them.

use std::sync::Arc;

use serde_json::json;
use wharf_model::{ErrorKind, RunId};

use super::*;
use crate::{Auto, Deed, Dirs, HttpProbe, PortChoice, Recording};

fn questions(value: Value) -> Questions {
    serde_json::from_value(value).unwrap()
}

fn ports(names: &[&str]) -> Ports {
    names.iter().map(|name| ((*name).to_owned(), PortChoice::Auto(Auto::Auto))).collect()
}

/// What is asked of a unit with the ports main (9000) and admin (9001).
async fn asked(value: Value, starting: bool) -> Option<Probe> {
    let hands = Arc::new(Recording::default());
    let dirs = Dirs { data: "/data".into(), run: "/run".into(), store: "/store".into() };
    let ports = BTreeMap::from([("main".to_owned(), 9000), ("admin".to_owned(), 9001)]);
    let (unit, with, policy) = ("command@x".parse().unwrap(), Arc::default(), Arc::default());
    let mut cx = Context::new(unit, Some(RunId(1)), with, ports, None, dirs, policy, hands.clone());
    cx.starting = starting;
    questions(value).ask(&cx, Command { cwd: Some("/srv".into()), ..Command::default() }).await.unwrap();
    hands.deeds().into_iter().find_map(|deed| if let Deed::Probe(probe) = deed { Some(probe) } else { None })
}

#[tokio::test]
async fn each_form_becomes_its_probe() {
    let http = json!({"http": {
        "port": "main", "path": "/h?x=1", "method": "POST", "headers": {"X-A": "1"}, "body": "{}",
        "status": ["2xx", 301, "400-404"], "json": {"/ok": true}, "contains": "fine", "matches": "f.ne",
    }});
    let wanted = HttpProbe {
        method: "POST".into(),
        headers: vec![("X-A".into(), "1".into())],
        body: "{}".into(),
        status: vec![200..=299, 301..=301, 400..=404],
        json: vec![("/ok".into(), json!(true))],
        contains: Some("fine".into()),
        matches: Some("f.ne".into()),
        ..HttpProbe::new(Endpoint::Port(9000), "/h?x=1")
    };
    assert_eq!(asked(http, false).await, Some(Probe::Http(wanted)));
    let over_socket = HttpProbe::new(Endpoint::Socket("/srv/a.sock".into()), "/");
    assert_eq!(asked(json!({"http": {"socket": "a.sock"}}), false).await, Some(Probe::Http(over_socket)));
    let admin = Probe::Connect(Endpoint::Port(9001));
    assert_eq!(asked(json!({"tcp": {"port": "admin"}}), false).await, Some(admin.clone()));
    let socket = Probe::Connect(Endpoint::Socket("/x.sock".into()));
    assert_eq!(asked(json!({"unix": {"socket": "/x.sock"}}), false).await, Some(socket.clone()));
    let ping = Probe::Exchange { at: Endpoint::Port(9000), send: b"PING\r\n".into(), expect: "PONG".into() };
    assert_eq!(asked(json!({"resp": {"port": "main"}}), false).await, Some(ping));
    let exec =
        Command { program: "true".into(), args: vec!["x".into()], cwd: Some("/srv".into()), ..Command::default() };
    assert_eq!(asked(json!({"exec": ["true", "x"]}), false).await, Some(Probe::Exec(exec)));
    let any = json!({"any": [{"tcp": {"port": "admin"}}, {"all": [{"unix": {"socket": "/x.sock"}}, "process"]}]});
    assert_eq!(asked(any, false).await, Some(Probe::Any(vec![admin, Probe::All(vec![socket, Probe::Process])])));
}

#[tokio::test]
async fn ready_is_asked_until_it_is_and_live_from_then_on() {
    let both = json!({"ready": {"log": "up"}, "live": {"tcp": {"port": "main"}}});
    assert_eq!(asked(both.clone(), true).await, Some(Probe::LogLine("up".into())));
    assert_eq!(asked(both, false).await, Some(Probe::Connect(Endpoint::Port(9000))));
    // What was in the log stays there: it is no question to a program that runs.
    assert_eq!(asked(json!({"log": "up"}), true).await, Some(Probe::LogLine("up".into())));
    assert_eq!(asked(json!({"log": "up"}), false).await, None);
    assert_eq!(asked(json!({"ready": {"tcp": {"port": "main"}}}), false).await, None);
    assert_eq!(asked(json!("notify"), true).await, None);
}

#[test]
fn what_is_never_asked_is_never_woken_for() {
    let usual = Policy::default();
    let of = |value: Value| {
        let policy = questions(value).shape(Policy::default());
        (policy.notify, policy.probe_early_ms, policy.ready_after_ms)
    };
    let early = usual.probe_early_ms;
    assert_eq!(of(json!("none")), (false, 0, 300));
    assert_eq!(of(json!("notify")), (true, 0, 0));
    assert_eq!(of(json!({"tcp": {"port": 1}})), (false, early, 0));
    assert_eq!(of(json!({"log": "up"})), (false, RARELY_MS, 0));
    assert_eq!(of(json!({"ready": {"tcp": {"port": 1}}})), (false, RARELY_MS, 0));
    assert_eq!(of(json!({"live": {"tcp": {"port": 1}}})), (false, early, 300));
    assert_eq!(of(json!({"ready": "notify", "live": {"tcp": {"port": 1}}})), (true, early, 0));
    assert_eq!(of(json!({"ready": "notify", "live": "process"})), (true, 0, 0));
}

#[test]
fn a_question_that_is_wrong_says_what_and_what_instead() {
    let deep = json!({"all": [{"all": [{"all": [{"all": [{"all": ["process"]}]}]}]}]});
    for (value, said) in [
        (json!({"tcp": {"port": "mian"}}), "no port \"mian\""),
        (json!({"tcp": {}}), "which port"),
        (json!({"http": {"port": "main", "path": "health"}}), "no path"),
        (json!({"http": {"port": "main", "socket": "/s"}}), "a port and a socket"),
        (json!({"http": {"port": "main", "method": "GE T"}}), "no method"),
        (json!({"http": {"port": "main", "headers": {"a b": "c"}}}), "no header"),
        (json!({"http": {"port": "main", "headers": {"a": "b\r\nc: d"}}}), "no header"),
        (json!({"http": {"port": "main", "status": 42}}), "42 is no status"),
        (json!({"http": {"port": "main", "status": "2yy"}}), "\"2yy\" is no status"),
        (json!({"http": {"port": "main", "status": "299-200"}}), "no status"),
        (json!({"http": {"port": "main", "json": {"status": 1}}}), "no JSON pointer"),
        (json!({"http": {"port": "main", "matches": "("}}), "no regular expression"),
        (json!({"http": {"port": "main", "method": "HEAD", "contains": "x"}}), "no body"),
        (json!({"exec": []}), "exec is empty"),
        (json!({"log": "["}), "no regular expression"),
        (json!({"log": ""}), "log is empty"),
        (json!({"resp": {"port": "main", "expect": ""}}), "expect is empty"),
        (json!({"unix": {"socket": ""}}), "no path of a socket"),
        (json!({"all": []}), "is empty"),
        (json!({"all": ["notify"]}), "no part of"),
        (json!({"live": "notify"}), "only that it is ready"),
        (deep, "too large"),
    ] {
        let failure = questions(value.clone()).check(&ports(&["main", "admin"])).expect_err(&value.to_string());
        assert_eq!(failure.kind, ErrorKind::InvalidParams);
        assert!(failure.message.contains(said), "{value}: {failure}");
        assert!(failure.hint.is_some(), "{value}: no hint");
    }
    assert!(questions(json!({"tcp": {}})).check(&ports(&["main"])).is_ok(), "the only port needs no name");
}

#[test]
fn a_field_that_is_wrong_is_named_by_its_path() {
    for (value, said) in [
        (json!({"http": {"prot": 1}}), "http"),
        (json!({"ready": {"http": {"path": 1}}, "live": "none"}), "ready.http.path"),
        (json!({"ready": "notify", "alive": "none"}), "alive"),
        (json!({"all": [{"tcp": {"port": {}}}]}), "all[0].tcp.port"),
        (json!("nonsense"), "nonsense"),
    ] {
        let error = serde_json::from_value::<Questions>(value.clone()).unwrap_err().to_string();
        assert!(error.contains(said), "{value}: {error}");
    }
}

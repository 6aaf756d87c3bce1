//! The register: ports of services that Wharf does not run, and who uses which.

use std::time::Duration;

use serde_json::{Value, json};
use wharf_tests::{Daemon, eventually, free_port, free_ports};

use super::{Stranger, drift, listener, unit};

fn row(daemon: &Daemon, port: u16, kind: &str) -> Value {
    let list = daemon.ok("port.list", json!({ "kinds": [kind] }));
    let rows = list["ports"].as_array().unwrap().iter().filter(|row| row["port"] == port);
    let rows: Vec<&Value> = rows.collect();
    assert_eq!(rows.len(), 1, "{port}: {list:#}");
    rows[0].clone()
}

#[test]
fn lm_96_one_list_says_of_each_port_whose_where_how_and_who_uses_it() {
    let mut daemon = Daemon::start();
    let (grafana, game, nas, own) = (free_port(), free_port(), free_port(), free_port());
    // A service that somebody else runs.
    let _server = Stranger::python(&listener("127.0.0.1", grafana, "", ""));
    let number = grafana.to_string();
    let consumers = ["--consumer", "the wall display", "--consumer", "ops team"];
    let declare = [&["ports", "declare", "grafana", &number, "--speaks", "HTTP+WS"][..], &consumers].concat();
    let said = daemon.cli_ok(&declare);
    assert!(said.out.starts_with(&format!("grafana/main, HTTP+WS {grafana} on ")), "{}", said.out);
    daemon.ok("port.declare", json!({ "service": "game", "port": game, "speaks": "udp" }));
    let elsewhere = json!({ "service": "nas", "port": nas, "speaks": "https", "hosts": ["pluto"] });
    assert_eq!(daemon.ok("port.declare", elsewhere)["entry"]["is_here"], false);
    // A unit, one that needs it, and what a person says of it.
    unit(&daemon, "db", own, &listener("127.0.0.1", own, "", ""));
    let shop = json!({ "argv": ["sleep", "1000"], "health": "none" });
    let needs = json!({ "needs": [{ "unit": "command@db" }] });
    daemon.ok("service.start", json!({ "name": "command@shop", "with": shop, "policy": needs }));
    daemon.ok("port.declare", json!({ "service": "command@db", "port": own, "consumers": ["nightly import"] }));

    for round in ["now", "after another daemon"] {
        let found = row(&daemon, grafana, "declared");
        assert_eq!(
            (&found["service"], &found["port"], &found["speaks"], &found["address"]),
            (&json!("grafana"), &json!(grafana), &json!("http+ws"), &json!("127.0.0.1")),
            "LM-96, {round}: {found}"
        );
        assert_eq!(found["consumers"], json!(["the wall display", "ops team"]), "LM-96, {round}");
        assert_eq!(found["hosts"].as_array().unwrap().len(), 1, "{found}");
        let found = row(&daemon, game, "declared");
        assert_eq!((&found["protocol"], &found["speaks"]), (&json!("udp"), &json!("udp")));
        assert_eq!(row(&daemon, nas, "declared")["hosts"], json!(["pluto"]), "LM-96, {round}");
        // A unit's port has one row, with what is known of both.
        let found = row(&daemon, own, "declared");
        assert_eq!((&found["service"], &found["unit"]), (&json!("command@db"), &json!("command@db")));
        assert_eq!(
            found["consumers"],
            json!(["nightly import", "command@shop"]),
            "LM-96, {round}: who needs it uses it"
        );
        // Nobody is in the list twice: who listens for what is declared is no stranger.
        let all = daemon.ok("port.list", json!({}));
        let at = all["ports"].as_array().unwrap().iter().filter(|row| row["port"] == grafana).count();
        assert_eq!(at, 1, "{all:#}");
        daemon.kill_9();
        daemon.launch();
    }
    let table = daemon.cli_ok(&["ports"]).out;
    let heads: Vec<&str> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heads[..5], ["PORT", "SERVICE", "HOSTS", "PROTOCOL", "CONSUMERS"], "LM-96: {table}");
    let line = table.lines().find(|line| line.starts_with(&number)).unwrap();
    for word in ["grafana (main)", "HTTP+WS", "the wall display, ops team", "declared", "127.0.0.1"] {
        assert!(line.contains(word), "LM-96: {word}: {line}");
    }
    let only = daemon.cli_ok(&["ports", "grafana", "--json"]).json();
    assert_eq!(only["ports"].as_array().unwrap().len(), 1, "{only}");
    let answer = daemon.ok("port.whois", json!({ "port": game }))["answer"].clone();
    assert!(answer.as_str().unwrap().contains("nobody listens; it belongs to game/main"), "{answer}");
}

#[test]
fn lm_109_the_list_knows_tcp_http_https_and_websockets() {
    let daemon = Daemon::start();
    let ports = free_ports(5);
    for (port, word) in ports.iter().zip(["TCP", "UDP", "HTTP", "HTTPS", "HTTP+WS"]) {
        let (port, name) = (port.to_string(), format!("s{port}"));
        daemon.cli_ok(&["ports", "declare", &name, &port, "--speaks", word]);
        let table = daemon.cli_ok(&["ports", &name]).out;
        let shown = table.lines().nth(1).unwrap().split_whitespace().any(|cell| cell == word);
        assert!(shown, "LM-109: {word}: {table}");
    }
    let said = daemon.cli(&["ports", "declare", "x", "4000", "--speaks", "gopher"]);
    assert!(said.code == 2 && said.err.contains("http+ws"), "LM-109: {said:?}");
    let error = daemon.err("port.declare", json!({ "service": "x", "port": 1, "speaks": "gopher" }));
    assert_eq!(error["code"], -32602, "{error}");
    // Of a service of Wharf's own it is known, and that before it has a port.
    for (name, port, word) in [
        ("redis", "main", "tcp"),
        ("postgres", "main", "tcp"),
        ("nats", "main", "tcp"),
        ("nats", "monitor", "http"),
        ("caddy", "http", "http"),
        ("llama", "http", "http"),
        ("python-api@vault", "main", "http"),
    ] {
        let facts = daemon.ok("service.inspect", json!({ "name": name }))["definition"].clone();
        let found = facts["ports"].as_array().into_iter().flatten().find(|fact| fact["name"] == port);
        assert_eq!(found.map(|fact| &fact["speaks"]), Some(&json!(word)), "LM-109: {name}: {facts}");
    }
    let port = free_port();
    daemon.ok("service.start", json!({ "name": "hello", "with": { "ports": { "http": port } } }));
    assert_eq!(row(&daemon, port, "declared")["speaks"], "http", "LM-109");
}

#[test]
fn what_is_declared_is_given_to_nobody_else() {
    let daemon = Daemon::start();
    let port = free_port();
    let entry = json!({ "service": "grafana", "port": port });
    let would = daemon.ok("port.declare", json!({ "service": "grafana", "port": port, "dry_run": true }));
    assert_eq!((&would["replaced"], &would["entry"]["port"]), (&json!(null), &json!(port)));
    assert_eq!(daemon.ok("port.list", json!({ "service": "grafana" }))["ports"], json!([]), "a dry run has written");
    daemon.ok("port.declare", entry.clone());
    let error = daemon.err("port.lease", json!({ "port_name": "x", "port": port, "ttl_ms": 60_000 }));
    assert_eq!(error["code"], -32030, "{error}");
    assert!(error["message"].as_str().unwrap().contains("declared for grafana/main"), "{error}");
    let with = json!({ "argv": ["sleep", "9"], "ports": { "main": port }, "health": "none" });
    let error = daemon.err("service.start", json!({ "name": "command@x", "with": with }));
    assert_eq!(error["code"], -32003, "{error}");
    assert!(error["data"]["hint"].as_str().unwrap().contains("wharf ports undeclare grafana"), "{error}");
    daemon.ok("service.delete", json!({ "name": "command@x" }));
    let error = daemon.err("port.declare", json!({ "service": "shop", "port": port - 1, "to": port + 1 }));
    assert_eq!(error["data"]["kind"], "port_conflict", "{error}");
    let checked = daemon.ok("port.check", json!({ "ports": [port] }));
    assert_eq!(checked["ports"][0]["verdict"], "declared", "{checked}");
    // Its own service gets it by its name alone.
    let leased = daemon.ok("port.lease", json!({ "port_name": "main", "service": "grafana", "ttl_ms": 60_000 }));
    assert_eq!(leased["ports"], json!([port]));
    daemon.ok("port.release", json!({ "lease": leased["lease"] }));
    // A unit that has a port keeps it: more may be said of it under its own name alone.
    let own = free_port();
    unit(&daemon, "own", own, &listener("127.0.0.1", own, "", ""));
    let error = daemon.err("port.declare", json!({ "service": "other", "port": own }));
    assert!(error["message"].as_str().unwrap().contains("the unit command@own"), "{error}");
    // A unit that squats on it without a word is told.
    let squatter = listener("127.0.0.1", port, "", "");
    daemon.run("squatter", json!({ "argv": ["python3", "-c", squatter], "health": "none" }));
    eventually("the squatter is told", Duration::from_secs(20), || {
        drift(&daemon, port).contains(&"intruder".to_owned())
    });
    daemon.ok("service.stop", json!({ "name": "command@squatter" }));
    let said = daemon.cli_ok(&["ports", "undeclare", "grafana"]);
    assert!(said.out.starts_with("struck out: grafana/main"), "{}", said.out);
    let error = daemon.err("port.undeclare", json!({ "service": "grafana" }));
    assert_eq!(error["data"]["kind"], "precondition", "{error}");
    daemon.ok("port.lease", json!({ "port_name": "x", "port": port, "ttl_ms": 60_000 }));
}

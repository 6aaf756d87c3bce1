//! The list, the table of ranges, free ports and checks.

use std::{
    fs,
    net::{TcpListener, UdpSocket},
};

use serde_json::json;
use wharf_tests::{Daemon, free_port};

use super::{Stranger, drift, listener, unit};

#[test]
fn lm_96_one_list_has_every_port_with_who_and_how() {
    let daemon = Daemon::start();
    let (own, theirs) = (free_port(), free_port());
    unit(&daemon, "web", own, &listener("127.0.0.1", own, "", ""));
    let stranger = Stranger::python(&listener("127.0.0.1", theirs, "", ""));
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let leased = daemon.ok("port.lease", json!({ "port_name": "api", "service": "ci", "ttl_ms": 60_000 }));
    // JC-30: the same number on another network is another port.
    let ask =
        json!({ "port_name": "ingress", "service": "dkron", "port": own, "network": "cluster", "ttl_ms": 60_000 });
    daemon.ok("port.lease", ask);
    let list = daemon.ok("port.list", json!({}));
    let rows = list["ports"].as_array().unwrap();
    let of = |port: u64, kind: &str| {
        let found: Vec<_> = rows.iter().filter(|r| r["port"] == port && r["kind"] == kind).collect();
        assert_eq!(found.len(), 1, "{port} {kind}: {list:#}");
        found[0].clone()
    };
    let row = of(own.into(), "declared");
    assert_eq!(
        (&row["unit"], &row["address"], &row["protocol"]),
        (&json!("command@web"), &json!("127.0.0.1"), &json!("tcp"))
    );
    let row = of(theirs.into(), "observed");
    assert_eq!(row["pid"], stranger.pid());
    let row = of(leased["ports"][0].as_u64().unwrap(), "leased");
    assert_eq!((&row["lease"], &row["address"]), (&leased["lease"], &json!(null)));
    assert_eq!(of(8080, "reserved")["who"], "reserved for the manager", "SN-84");
    assert_eq!(of(own.into(), "leased")["network"], "cluster");
    drop(udp);
    let table = daemon.cli_ok(&["ports"]).out;
    assert!(table.starts_with("PORT"), "{table}");
    assert!(table.lines().any(|l| l.contains(&own.to_string()) && l.contains("unit command@web (main)")), "{table}");
    let only = daemon.cli_ok(&["ports", "--kind", "leased", "ci", "--json"]).json();
    assert_eq!(only["ports"].as_array().unwrap().len(), 1, "{only}");
    daemon.conforms("port.list", &json!({ "kinds": ["leased"], "service": "ci" }), &only);
}

#[test]
fn sn_79_to_86_ranges_are_advice() {
    let daemon = Daemon::start();
    let ranges = daemon.cli_ok(&["ports", "ranges", "--json"]).json();
    let table: Vec<String> = ranges["ranges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| format!("{} {}-{}", r["purpose"].as_str().unwrap(), r["from"], r["to"]))
        .collect();
    let asked = [
        ("SN-79", "gpu 8000-8009"),
        ("SN-80", "ml 8010-8019"),
        ("SN-81", "data 8020-8039"),
        ("SN-82", "utility 8040-8059"),
        ("SN-83", "ui 8060-8079"),
        ("SN-84", "manager 8080-8080"),
        ("SN-85", "mcp 9000-9099"),
    ];
    for (row, (id, wanted)) in table.iter().zip(asked) {
        assert_eq!(row, wanted, "{id}");
    }
    assert!(table.len() > asked.len(), "{table:?}");
    // SN-86: a service without a GPU inside the range for GPUs is started, and warned of.
    let Ok(spare) = (8000..8010).find(|p| TcpListener::bind(("127.0.0.1", *p)).is_ok()).ok_or(()) else {
        return wharf_tests::cannot("SN-86", "every port from 8000 to 8009 is taken");
    };
    let with = json!({ "argv": ["sleep", "1000"], "ports": { "http": spare }, "health": "none" });
    daemon.run("cpu", with);
    assert!(drift(&daemon, spare).contains(&"port_outside_range".to_owned()), "SN-86: {:?}", drift(&daemon, spare));
    assert!(daemon.log().contains("command@cpu: port_outside_range (http)"), "{}", daemon.log());
    let advice = daemon.ok("port.drift", json!({ "advice": false }));
    assert!(!advice.to_string().contains("port_outside_range"), "{advice}");
    // Chosen numbers lie in their range, are free, and are none that a unit has.
    let free = daemon.cli_ok(&["ports", "free", "--range", "gpu", "--count", "4"]).out;
    let free: Vec<u16> = free.lines().map(|l| l.parse().unwrap()).collect();
    assert!(free.iter().all(|p| (8000..=8009).contains(p) && *p != spare), "{free:?}");
    let error = daemon.err("port.free", json!({ "range": "nothing" }));
    assert_eq!(error["code"], -32602, "{error}");
    // The table is one's own to change, and a wrong one says where.
    fs::create_dir_all(daemon.home.join("config")).unwrap();
    let file = daemon.home.join("config/ports.toml");
    fs::write(
        &file,
        "[[range]]\npurpose = \"any\"\nfrom = 21000\nto = 21002\n\n[units.\"command@cpu\"]\npurpose = \"any\"\n",
    )
    .unwrap();
    assert!(drift(&daemon, spare).contains(&"port_outside_range".to_owned()));
    let ask = |name: &str| json!({ "port_name": name, "ttl_ms": 60_000 });
    let got: Vec<u64> = ["a", "b", "c"].map(|n| daemon.ok("port.lease", ask(n))["ports"][0].as_u64().unwrap()).into();
    assert!(got.iter().all(|p| (21_000..=21_002).contains(p)), "{got:?}");
    let error = daemon.err("port.lease", ask("d"));
    assert_eq!((&error["code"], &error["data"]["kind"]), (&json!(-32031), &json!("range_exhausted")), "{error}");
    let error = daemon.err("port.lease", json!({ "port_name": "x", "ttl_ms": 1, "from": 40_000, "to": 40_010 }));
    assert_eq!(error["code"], -32035, "{error}");
    fs::write(&file, "[[range]]\npurpose = 7\n").unwrap();
    let error = daemon.err("port.ranges", json!({}));
    assert!(error["message"].as_str().unwrap().contains("ports.toml"), "{error}");
}

#[test]
fn hl_35_to_37_ports_are_verified_free_by_a_real_bind_before_a_start() {
    let daemon = Daemon::start();
    let (free, taken) = (free_port(), TcpListener::bind("0.0.0.0:0").unwrap());
    let port = taken.local_addr().unwrap().port();
    let said = daemon.cli(&["ports", "check", &format!("{free},{port}"), "--json"]);
    assert_eq!(said.code, 4, "{said:?}");
    let checked = said.json();
    daemon.conforms("port.check", &json!({ "ports": [free, port] }), &checked);
    let verdicts: Vec<_> = checked["ports"].as_array().unwrap().iter().map(|r| r["verdict"].clone()).collect();
    assert_eq!(verdicts, [json!("free"), json!("taken")]);
    let holder = checked["ports"][1]["holder"].as_str().unwrap();
    assert!(holder.contains(&format!("pid {}", std::process::id())), "{holder}");
    // HL-37: it was tried by a real bind, so the answer has the system's own words. HL-36: with port and service.
    let with = json!({ "argv": ["sleep", "9"], "ports": { "http": port }, "health": "none" });
    let error = daemon.err("service.start", json!({ "name": "command@vault", "with": with }));
    let whole = error.to_string();
    for word in [&port.to_string(), "command@vault", "Address already in use"] {
        assert!(whole.contains(word), "HL-36: {word}: {error}");
    }
    assert!(holder.contains("is taken by") && checked["ok"] == false, "HL-35, HL-37: {checked}");
    drop(taken);
    let checked = daemon.ok("port.check", json!({ "ports": [port, free] }));
    let row = &checked["ports"][0];
    assert_eq!(
        (&row["verdict"], &row["free"]),
        (&json!("declared"), &json!(false)),
        "the unit will have it: {checked}"
    );
    assert!(row["holder"].as_str().unwrap().contains("command@vault"), "{checked}");
    assert!(daemon.cli_ok(&["ports", "check", &free.to_string()]).out.starts_with(&format!("{free}  free")));
    // One number, two services: localhost can mean either.
    let four = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = four.local_addr().unwrap().port();
    if let Ok(_six) = TcpListener::bind(("::1", port)) {
        let checked = daemon.ok("port.check", json!({ "ports": [port] }));
        assert!(checked["ports"][0]["warnings"].to_string().contains("localhost can mean either"), "{checked}");
        assert_eq!(daemon.ok("port.whois", json!({ "port": port }))["holders"].as_array().unwrap().len(), 2);
    }
    // UDP is another port.
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = udp.local_addr().unwrap().port();
    assert_eq!(daemon.ok("port.check", json!({ "ports": [port] }))["ok"], true);
    assert_eq!(daemon.ok("port.check", json!({ "ports": [port], "protocol": "udp" }))["ok"], false);
}

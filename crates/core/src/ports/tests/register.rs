//! What is written down: who gets its ports, who does not, and what differs from it.

use wharf_model::PortEntry;

use super::*;

fn entry(service: &str, port: u16, to: u16) -> PortEntry {
    PortEntry {
        service: service.into(),
        port_name: "http".into(),
        port,
        to,
        speaks: Speaks::Http,
        network: HOST.into(),
        hosts: vec!["here".into()],
        is_here: true,
        consumers: vec![],
        bind: None,
        uid: 1000,
        declared_at_ms: 0,
    }
}

fn redis((port, _): Claim) -> Option<String> {
    (port == 6379).then(|| "redis".to_owned())
}

#[test]
fn a_port_that_is_written_down_is_for_its_service_alone() {
    let mut ledger = Ledger::default();
    assert_eq!(ledger.declare(entry("grafana", 20_010, 20_010), redis).unwrap(), None);
    ledger.declare(entry("shop", 100, 120), redis).unwrap();
    let of = |service: &str, want| Terms { service: service.into(), want, ..terms("http") };
    let refused = take(&mut ledger, of("other", Some(Want::Number(110)))).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::PortConflict);
    assert!(refused.message.contains("port 110 is declared for shop/http"), "{refused}");
    // By its service and its name it is found without a number.
    assert_eq!(take(&mut ledger, of("grafana", None)).unwrap().ports, [20_010]);
    assert_eq!(take(&mut ledger, of("shop", Some(Want::Number(110)))).unwrap().ports, [110]);
    // Chance gives it to nobody else, and not to the same service for something else.
    let span = Span { from: 119, to: 122 };
    let within = |service: &str, count| of(service, Some(Want::Within { span, count, contiguous: false }));
    assert_eq!(take(&mut ledger, within("other", 2)).unwrap().ports, [121, 122]);
    let elsewhere = Terms { name: "metrics".into(), ..within("shop", 1) };
    assert_eq!(take(&mut ledger, elsewhere).unwrap_err().kind, ErrorKind::RangeExhausted);
    // UDP is another port, and so is another network.
    take(&mut ledger, Terms { protocol: Protocol::Udp, ..of("other", Some(Want::Number(111))) }).unwrap();
    take(&mut ledger, Terms { network: "cluster".into(), ..of("other", Some(Want::Number(111))) }).unwrap();
}

#[test]
fn two_services_are_not_written_down_for_one_port() {
    let mut ledger = Ledger::default();
    ledger.declare(entry("grafana", 3000, 3010), redis).unwrap();
    let refused = |ledger: &mut Ledger, entry: PortEntry, word: &str| {
        let failure = ledger.declare(entry, redis).unwrap_err();
        assert!(failure.kind == ErrorKind::PortConflict && failure.message.contains(word), "{failure}");
    };
    refused(&mut ledger, entry("shop", 3005, 3005), "grafana/http");
    refused(&mut ledger, entry("cache", 6370, 6380), "the unit redis");
    let lease = Terms { want: Some(Want::Number(4000)), ..terms("x") };
    take(&mut ledger, lease).unwrap();
    refused(&mut ledger, entry("shop", 4000, 4000), "agent/x");
    // The unit itself may say more of its port, and the holder of a lease of its own.
    ledger.declare(PortEntry { speaks: Speaks::Tcp, ..entry("redis", 6379, 6379) }, redis).unwrap();
    ledger.declare(entry("agent", 4000, 4000), redis).unwrap();
    // JC-30: the same number on another machine or another network is another port.
    let there = PortEntry { hosts: vec!["mars".into()], is_here: false, ..entry("shop", 3005, 3005) };
    ledger.declare(there.clone(), redis).unwrap();
    refused(&mut ledger, PortEntry { service: "other".into(), ..there }, "shop/http");
    ledger
        .declare(PortEntry { network: "cluster".into(), is_here: false, ..entry("dkron", 3005, 3005) }, redis)
        .unwrap();
    // Said anew it is replaced; another user's is not.
    let old = ledger.declare(entry("grafana", 3000, 3001), redis).unwrap().unwrap();
    assert_eq!(old.to, 3010);
    let theirs = ledger.declare(PortEntry { uid: 1001, ..entry("grafana", 3000, 3000) }, redis).unwrap_err();
    assert_eq!(theirs.kind, ErrorKind::LeaseDenied);
    assert_eq!(ledger.undeclare("grafana", None, 1001).unwrap_err().kind, ErrorKind::LeaseDenied);
    assert_eq!(ledger.undeclare("grafana", Some("main"), 1000).unwrap_err().kind, ErrorKind::Precondition);
    assert_eq!(ledger.undeclare("grafana", None, 1000).unwrap().len(), 1);
    assert_eq!(ledger.entry_at(Protocol::Tcp, 3000), None);
}

#[test]
fn what_is_written_down_outlives_a_boot_and_odd_ones_are_refused() {
    let mut ledger = Ledger::default();
    let kept = PortEntry { consumers: vec!["the wall display".into()], ..entry("grafana", 3000, 3000) };
    ledger.declare(kept.clone(), redis).unwrap();
    ledger.declare(entry("gone", 3001, 3001), redis).unwrap();
    ledger.undeclare("gone", None, 0).unwrap();
    let rows: Vec<(String, String)> = rows(&mut ledger).into_iter().collect();
    let after_boot = Ledger::restore(&rows, false).unwrap();
    assert_eq!(after_boot.entries().collect::<Vec<_>>(), [&kept]);
    // A lease as it was written down before there was a register.
    let row = r#"{"id":3,"epoch":5,"uid":0,"key":null,"service":"ci","name":"web","protocol":"tcp","network":"host",
        "ports":[20001],"purpose":null,"reach":"loopback","handoff":"park","sticky":true,"ttl_ms":60000,
        "expires_ms":60007,"holder":{"pid":7,"identity":18446744073709551615},"taken_at_ms":-1}"#;
    let old = Ledger::restore(&[("lease/3".into(), row.into())], true).unwrap();
    let lease = old.at(Protocol::Tcp, 20_001).unwrap();
    assert_eq!((lease.terms.holder.unwrap().identity, lease.terms.ttl_ms), (u64::MAX, Some(60_000)));
    for odd in [
        entry("a/b", 1, 1),
        entry("", 1, 1),
        entry("a", 0, 1),
        entry("a", 9, 8),
        PortEntry { consumers: vec!["x\n".into()], ..entry("a", 1, 1) },
        PortEntry { hosts: vec![String::new()], ..entry("a", 1, 1) },
        PortEntry { consumers: vec!["x".into(); 65], ..entry("a", 1, 1) },
    ] {
        assert_eq!(ledger.declare(odd, redis).unwrap_err().kind, ErrorKind::InvalidParams);
    }
}

#[test]
fn who_listens_on_a_port_that_is_written_down_for_another_is_told() {
    let entries = [PortEntry { bind: Some(Reach::Loopback), ..entry("grafana", 3000, 3000) }];
    let told = |declared: &[Declared], observed: &[Observed]| -> Vec<(DriftKind, Option<String>)> {
        let said = Said { declared, entries: &entries, ..Said::default() };
        drift(said, observed, &Ranges::default()).into_iter().map(|d| (d.kind, d.service)).collect()
    };
    let its = Some("grafana".to_owned());
    // A service outside may be any process.
    assert_eq!(told(&[], &[observed("127.0.0.1:3000", Owner::Other("x".into()))]), []);
    assert_eq!(told(&[], &[observed("0.0.0.0:3000", Owner::Other("x".into()))]), [(DriftKind::Open, its.clone())]);
    let squatter = told(&[], &[observed("127.0.0.1:3000", unit("redis"))]);
    assert!(squatter.contains(&(DriftKind::Intruder, its.clone())), "{squatter:?}");
    let twice = told(&[declared("redis", 3000)], &[observed("127.0.0.1:3000", unit("redis"))]);
    assert_eq!(twice, [(DriftKind::DeclaredTwice, its)]);
    assert_eq!(told(&[declared("grafana", 3000)], &[observed("127.0.0.1:3000", unit("grafana"))]), []);
    // What a unit has written down is declared.
    assert_eq!(told(&[], &[observed("127.0.0.1:3000", unit("grafana"))]), []);
}

//! The ledger under random requests, and drift by its cases.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use wharf_model::{DriftKind, ErrorKind, Failure, Handoff, Protocol, Reach, Speaks, UnitName};

use super::*;

mod register;

fn terms(name: &str) -> Terms {
    Terms {
        uid: 1000,
        key: None,
        service: "agent".into(),
        name: name.into(),
        protocol: Protocol::Tcp,
        network: HOST.into(),
        want: None,
        purpose: None,
        reach: Reach::Loopback,
        handoff: Handoff::Park,
        sticky: true,
        ttl_ms: None,
        holder: None,
    }
}

fn take(ledger: &mut Ledger, terms: Terms) -> Result<PortLease, Failure> {
    let lease = ledger.lease((0, 0), terms, &Ranges::default(), |_| None, |_| Ok(())).cloned();
    ledger.check().unwrap();
    lease
}

#[test]
fn the_table_is_that_of_the_manager_it_replaces() {
    // SN-79 to SN-85.
    let ranges = Ranges::default();
    let purpose = |port| ranges.at(port).map(|row| row.purpose.as_str());
    assert_eq!([8000, 8009, 8010, 8019].map(purpose), [Some("gpu"), Some("gpu"), Some("ml"), Some("ml")]);
    assert_eq!([8020, 8039, 8040, 8059].map(purpose), [Some("data"), Some("data"), Some("utility"), Some("utility")]);
    assert_eq!([8060, 8079, 9000, 9099].map(purpose), [Some("ui"), Some("ui"), Some("mcp"), Some("mcp")]);
    assert_eq!(ranges.reserved(8080), Some("the manager"));
    assert_eq!(ranges.lint(), []);
}

#[test]
fn a_port_outside_its_range_is_advice() {
    // SN-86: the examples that were given break the table: a service without a GPU on 8002.
    let ranges = Ranges::default();
    let kinds = |purpose, port| ranges.advise(purpose, port).iter().map(|l| l.kind).collect::<Vec<_>>();
    assert_eq!(kinds(None, 8002), [DriftKind::PortOutsideRange]);
    assert_eq!(kinds(Some("gpu"), 8002), []);
    assert_eq!(kinds(Some("data"), 8002), [DriftKind::PortOutsideRange]);
    assert_eq!(kinds(None, 6379), []);
    assert_eq!(kinds(Some("gpu"), 8080), [DriftKind::PortReserved]);
    assert!(DriftKind::PortOutsideRange.is_advice() && DriftKind::PortReserved.is_advice());
}

#[test]
fn ranges_are_held_against_each_other_and_the_kernel() {
    let row =
        |purpose: &str, from, to| wharf_model::PortRange { purpose: purpose.into(), from, to, reserved_for: None };
    let rows = vec![row("a", 8000, 8010), row("b", 8010, 8020), row("c", 40_000, 40_010)];
    let ranges = Ranges::new(rows, vec![Span { from: 32_768, to: 40_004 }]);
    let found: Vec<DriftKind> = ranges.lint().iter().map(|lint| lint.kind).collect();
    assert_eq!(found, [DriftKind::PortOutsideRange, DriftKind::EphemeralOverlap]);
    assert_eq!(ranges.ephemeral_in(Span { from: 40_000, to: 40_010 }), Some(Span { from: 40_000, to: 40_004 }));
}

#[test]
fn the_same_key_is_the_same_lease_and_a_new_holder_a_new_epoch() {
    let mut ledger = Ledger::default();
    let with = |holder| Terms { key: Some("k".into()), holder, ..terms("http") };
    let (a, b) = (Outside { pid: 7, identity: 70 }, Outside { pid: 8, identity: 80 });
    let first = take(&mut ledger, with(Some(a))).unwrap();
    let again = take(&mut ledger, with(Some(a))).unwrap();
    assert_eq!((first.id, first.epoch, &first.ports), (again.id, again.epoch, &again.ports));
    let taken_over = take(&mut ledger, with(Some(b))).unwrap();
    assert_eq!((taken_over.id, &taken_over.ports), (first.id, &first.ports));
    assert!(taken_over.epoch > first.epoch);
    let stale = ledger.renew(first.id, first.epoch, 1000, 0).unwrap_err();
    assert_eq!(stale.kind, ErrorKind::StalePortEpoch);
    ledger.renew(first.id, taken_over.epoch, 1000, 0).unwrap();
    let other = take(&mut ledger, Terms { reach: Reach::Any, ..with(Some(b)) }).unwrap_err();
    assert_eq!(other.kind, ErrorKind::Conflict);
    let theirs = ledger.release(first.id, taken_over.epoch, 1001, false).unwrap_err();
    assert_eq!(theirs.kind, ErrorKind::LeaseDenied);
    ledger.release(first.id, taken_over.epoch, 1000, false).unwrap();
    let late = ledger.renew(first.id, taken_over.epoch, 1000, 0).unwrap_err();
    assert_eq!(late.kind, ErrorKind::StalePortEpoch);
}

#[test]
fn a_sticky_number_comes_back_and_gives_way() {
    let mut ledger = Ledger::default();
    let first = take(&mut ledger, terms("http")).unwrap();
    ledger.release(first.id, first.epoch, 1000, false).unwrap();
    let rows: Vec<(String, String)> = rows(&mut ledger).into_iter().collect();
    let mut ledger = Ledger::restore(&rows, true).unwrap();
    let second = take(&mut ledger, terms("http")).unwrap();
    assert_eq!(second.ports, first.ports);
    assert!(second.id > first.id && second.epoch > first.epoch, "numbers are never handed out twice");
    let third = take(&mut ledger, terms("http")).unwrap();
    assert_ne!(third.ports, second.ports, "a second lease of the name gets another port");
    ledger.release(second.id, second.epoch, 1000, true).unwrap();
}

#[test]
fn units_reserves_and_networks_are_kept_apart() {
    let mut ledger = Ledger::default();
    let number = |n| Terms { want: Some(Want::Number(n)), ..terms("x") };
    let units = |(port, _): Claim| (port == 6379).then(|| "redis".to_owned());
    let mut lease = |terms| ledger.lease((0, 0), terms, &Ranges::default(), units, |_| Ok(())).cloned();
    let refused = lease(number(6379)).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::PortConflict);
    assert!(refused.message.contains("the unit redis"), "{refused}");
    // JC-30: one number on two networks is two ports.
    lease(Terms { network: "cluster".into(), ..number(6379) }).unwrap();
    lease(number(8080)).unwrap();
    lease(Terms { network: "cluster".into(), ..number(8080) }).unwrap();
    let taken = lease(number(8080)).unwrap_err();
    assert!(taken.message.contains("agent/x"), "{taken}");
    lease(Terms { protocol: Protocol::Udp, ..number(8080) }).unwrap();
    let within = |from, to, count, contiguous| Terms {
        want: Some(Want::Within { span: Span { from, to }, count, contiguous }),
        ..terms("many")
    };
    assert_eq!(lease(within(8078, 8081, 3, false)).unwrap().ports, [8078, 8079, 8081], "8080 is reserved, and had");
    let none = lease(within(8078, 8081, 1, false)).unwrap_err();
    assert_eq!(none.kind, ErrorKind::RangeExhausted);
    let ephemeral = Ranges::default().beside(vec![Span { from: 32_768, to: 60_999 }]);
    let refused = ledger.lease((0, 0), within(40_000, 40_100, 1, false), &ephemeral, units, |_| Ok(())).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::EphemeralOverlap);
}

/// The journal, as the rows would leave it.
fn rows(ledger: &mut Ledger) -> BTreeMap<String, String> {
    let mut journal = BTreeMap::new();
    put(&mut journal, ledger);
    journal
}

fn put(journal: &mut BTreeMap<String, String>, ledger: &mut Ledger) {
    for (key, row) in ledger.take_unsaved() {
        match row {
            Some(row) => journal.insert(key, row),
            None => journal.remove(&key),
        };
    }
}

#[derive(Debug, Clone)]
enum Step {
    Take { name: u8, key: Option<u8>, want: u16, count: u16, side_by_side: bool, ttl: Option<u16>, holder: u8 },
    Renew { nth: usize, epoch: bool },
    Release { nth: usize, forget: bool },
    Dies { holder: u8 },
    Wait { ms: u16 },
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let take = (0..4_u8, proptest::option::of(0..3_u8), 0..14_u16, 1..4_u16, any::<bool>());
    prop_oneof![
        4 => (take, proptest::option::of(1..200_u16), 0..3_u8).prop_map(
            |((name, key, want, count, side_by_side), ttl, holder)| {
                Step::Take { name, key, want, count, side_by_side, ttl, holder }
            }
        ),
        1 => (0..8_usize, any::<bool>()).prop_map(|(nth, epoch)| Step::Renew { nth, epoch }),
        2 => (0..8_usize, any::<bool>()).prop_map(|(nth, forget)| Step::Release { nth, forget }),
        1 => (0..3_u8).prop_map(|holder| Step::Dies { holder }),
        1 => (1..100_u16).prop_map(|ms| Step::Wait { ms }),
        1 => Just(Step::Crash),
    ]
}

/// Ten ports, one of a unit, one reserved: every order of requests, deaths and crashes.
fn play(steps: Vec<Step>) {
    let row = |purpose: &str, from, to, reserved_for: Option<&str>| wharf_model::PortRange {
        purpose: purpose.into(),
        from,
        to,
        reserved_for: reserved_for.map(str::to_owned),
    };
    let ranges = Ranges::new(vec![row("any", 100, 109, None), row("kept", 105, 105, Some("others"))], vec![]);
    let (mut ledger, mut journal, mut now) = (Ledger::default(), BTreeMap::new(), 0_u64);
    let mut newest = (0, 0);
    // Who has named the reserved port once gets it back as its sticky one.
    let mut named = BTreeSet::new();
    for step in steps {
        let nth = |ledger: &Ledger, n: usize| {
            let all: Vec<PortLease> = ledger.leases().cloned().collect();
            all.get(n % all.len().max(1)).cloned()
        };
        match step {
            Step::Take { name, key, want, count, side_by_side, ttl, holder } => {
                let span = Span { from: 100, to: 109 };
                let want = match want {
                    0..10 => Some(Want::Number(100 + want)),
                    10..12 => Some(Want::Within { span, count, contiguous: side_by_side }),
                    _ => None,
                };
                let holder = (holder > 0).then(|| Outside { pid: holder.into(), identity: 1 });
                let asked = Terms {
                    key: key.map(|key| key.to_string()),
                    want,
                    ttl_ms: ttl.map(u64::from),
                    holder,
                    ..terms(&name.to_string())
                };
                let by_number = matches!(asked.want, Some(Want::Number(_)));
                let before: BTreeSet<u16> = ledger.leases().flat_map(|l| l.ports.clone()).collect();
                let was_there = ledger.leases().any(|l| l.terms.key.is_some() && l.terms.key == asked.key);
                let units = |(port, _): Claim| (port == 103).then(|| "unit".to_owned());
                let lease = ledger.lease((now, 0), asked.clone(), &ranges, units, |_| Ok(())).cloned();
                if let Ok(lease) = lease {
                    assert!(!lease.ports.contains(&103), "a port of a unit was leased");
                    let has_105 = lease.ports.contains(&105);
                    if by_number && has_105 {
                        named.insert(name);
                    }
                    assert!(!has_105 || was_there || named.contains(&name), "a reserved port was chosen");
                    assert!(was_there || lease.ports.iter().all(|p| !before.contains(p)), "a port has two holders");
                    assert!(was_there || lease.id.0 > newest.0, "a number was handed out twice");
                    if let (Some(Want::Within { contiguous: true, .. }), false) = (asked.want, was_there) {
                        let side_by_side = lease.ports.windows(2).all(|two| two[0] + 1 == two[1]);
                        // A sticky row may be one that was not asked for side by side.
                        let sticky = lease.ports.len() > 1 && !side_by_side;
                        assert!(side_by_side || sticky);
                    }
                    newest = (newest.0.max(lease.id.0), newest.1.max(lease.epoch));
                }
            }
            Step::Renew { nth: n, epoch } => {
                if let Some(lease) = nth(&ledger, n) {
                    let renewed = ledger.renew(lease.id, lease.epoch - u64::from(!epoch), 1000, now).is_ok();
                    assert_eq!(renewed, epoch, "only the present epoch is heard");
                }
            }
            Step::Release { nth: n, forget } => {
                if let Some(lease) = nth(&ledger, n) {
                    ledger.release(lease.id, lease.epoch, 1000, forget).unwrap();
                    assert!(ledger.renew(lease.id, lease.epoch, 1000, now).is_err(), "a lease lives after its end");
                }
            }
            Step::Dies { holder } => {
                let theirs = |l: &&PortLease| l.terms.holder.is_some_and(|h| h.pid == i32::from(holder));
                let ids: Vec<_> = ledger.leases().filter(theirs).map(|l| l.id).collect();
                for id in ids {
                    ledger.saw(id, [Outside { pid: 40, identity: 4 }]);
                    ledger.end(id).unwrap();
                }
            }
            Step::Wait { ms } => {
                now += u64::from(ms);
                ledger.expire(now);
                assert!(ledger.next_end_ms().is_none_or(|at| at > now));
            }
            Step::Crash => {
                let live: Vec<PortLease> = ledger.leases().cloned().collect();
                put(&mut journal, &mut ledger);
                let rows: Vec<(String, String)> = journal.clone().into_iter().collect();
                ledger = Ledger::restore(&rows, true).unwrap();
                assert_eq!(
                    live,
                    ledger.leases().cloned().collect::<Vec<_>>(),
                    "a lease is lost, or comes from nowhere"
                );
            }
        }
        ledger.check().unwrap();
    }
    put(&mut journal, &mut ledger);
    let rows: Vec<(String, String)> = journal.into_iter().collect();
    let after_boot = Ledger::restore(&rows, false).unwrap();
    assert_eq!(after_boot.leases().count(), 0, "no holder lives through a boot");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_port_never_has_two_holders(steps in proptest::collection::vec(step(), 1..60)) {
        play(steps);
    }
}

fn declared(unit: &str, port: u16) -> Declared {
    Declared {
        unit: unit.parse().unwrap(),
        name: "main".into(),
        speaks: Speaks::Tcp,
        port,
        is_up: true,
        reach: Reach::Loopback,
        purpose: None,
    }
}

fn observed(address: &str, owner: Owner) -> Observed {
    let who = format!("{owner:?}");
    Observed { protocol: Protocol::Tcp, address: address.parse().unwrap(), dual: false, owner, who }
}

fn unit(name: &str) -> Owner {
    Owner::Unit(name.parse::<UnitName>().unwrap())
}

fn kinds(declared: &[Declared], observed: &[Observed]) -> Vec<DriftKind> {
    drift(Said { declared, ..Said::default() }, observed, &Ranges::default()).into_iter().map(|d| d.kind).collect()
}

#[test]
fn what_is_as_declared_does_not_drift() {
    let own = [declared("redis", 6379)];
    assert_eq!(kinds(&own, &[observed("127.0.0.1:6379", unit("redis"))]), []);
    assert_eq!(kinds(&own, &[observed("[::1]:6379", unit("redis")), observed("127.0.0.1:6379", unit("redis"))]), []);
    // Another of the machine's addresses is another port.
    let elsewhere = observed("10.0.0.7:6379", Owner::Other("x".into()));
    assert_eq!(kinds(&own, &[observed("127.0.0.1:6379", unit("redis")), elsewhere]), []);
    // The daemon waits at the door of a unit that runs on demand.
    assert_eq!(kinds(&own, &[observed("127.0.0.1:6379", Owner::Daemon)]), []);
}

#[test]
fn each_difference_has_its_name() {
    let own = [declared("redis", 6379)];
    let other = || Owner::Other("pid 9".into());
    assert_eq!(kinds(&own, &[]), [DriftKind::NotListening]);
    assert_eq!(kinds(&[Declared { is_up: false, ..declared("redis", 6379) }], &[]), []);
    assert_eq!(kinds(&own, &[observed("0.0.0.0:6379", unit("redis"))]), [DriftKind::Open]);
    assert_eq!(kinds(&own, &[observed("[::]:6379", other())]), [DriftKind::Intruder, DriftKind::NotListening]);
    let udp = Observed { protocol: Protocol::Udp, ..observed("127.0.0.1:6379", unit("redis")) };
    assert_eq!(kinds(&own, &[udp]), [DriftKind::WrongProtocol]);
    let listens = observed("127.0.0.1:6379", unit("redis"));
    assert_eq!(kinds(&own, &[listens.clone(), observed("127.0.0.1:7000", unit("redis"))]), [DriftKind::NotDeclared]);
    assert_eq!(kinds(&own, &[listens.clone(), observed("0.0.0.0:7000", unit("redis"))]), [DriftKind::Open]);
    let twice = [declared("redis", 6379), declared("valkey", 6379)];
    assert_eq!(kinds(&twice, std::slice::from_ref(&listens)), [DriftKind::DeclaredTwice, DriftKind::NotListening]);
    assert_eq!(kinds(&own, &[listens.clone(), observed("127.0.0.1:6379", other())]), [DriftKind::Duplicate]);
    assert_eq!(kinds(&own, &[listens, observed("0.0.0.0:6379", other())]), [DriftKind::Duplicate]);
}

#[test]
fn two_are_duplicates_only_where_a_connection_could_reach_either() {
    let (a, b) = (Owner::Other("a".into()), Owner::Other("b".into()));
    let pair = |one: &str, other: &str, dual| {
        let second = Observed { dual, ..observed(other, b.clone()) };
        kinds(&[], &[observed(one, a.clone()), second]) == [DriftKind::Duplicate]
    };
    assert!(pair("127.0.0.1:80", "127.0.0.1:80", false));
    assert!(pair("127.0.0.1:80", "0.0.0.0:80", false));
    assert!(pair("127.0.0.1:80", "[::]:80", true));
    assert!(!pair("127.0.0.1:80", "[::]:80", false), "v6 only");
    assert!(!pair("127.0.0.1:80", "[::1]:80", false));
    assert!(!pair("127.0.0.1:80", "127.0.0.2:80", false));
    assert!(!pair("127.0.0.1:80", "127.0.0.1:81", false));
    // Workers of one program.
    assert_eq!(kinds(&[], &[observed("127.0.0.1:80", a.clone()), observed("127.0.0.1:80", a)]), []);
}

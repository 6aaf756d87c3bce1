//! Who listens on the ports of units, and which units can be reached from outside.

use std::collections::BTreeSet;

use wharf_api::rpc::infra::Severity;
use wharf_runtime::{
    launch::Seen,
    ports::{self, Listener},
};

use super::{
    ground::{self, Ground, Known},
    report::Report,
};

pub fn check(ground: &Ground, report: &mut Report) {
    let table = ports::table();
    for unit in &ground.units {
        let pids = unit.run.and_then(|run| ground.run(run)).map(members).unwrap_or_default();
        let own = |listener: &&Listener| listener.pids.iter().any(|pid| pids.contains(pid));
        for (port, number) in &unit.ports {
            let (mine, theirs): (Vec<&Listener>, Vec<&Listener>) =
                table.iter().filter(|listener| listener.address.port() == *number).partition(own);
            of_port(ground, unit, (port, *number), &mine, &theirs, report);
        }
        outside(unit, &table.iter().filter(own).collect::<Vec<_>>(), report);
    }
    report.fine("port-taken", format!("{} listeners on this machine", table.len()));
    report.fine("port-duplicate", "two listeners on a unit's port");
    report.fine("port-open", "units that can be reached from outside");
}

/// The processes of a run: those in its cgroup, or the main process and what it made.
fn members(seen: &Seen) -> BTreeSet<i32> {
    let of_group = seen.cgroup.iter().flat_map(|group| ground::pids(group));
    let mut pids: BTreeSet<i32> = of_group.chain(seen.main).collect();
    let mut look: Vec<i32> = seen.main.into_iter().chain(seen.shim).collect();
    while let Some(pid) = look.pop() {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children = children.split_ascii_whitespace().filter_map(|child| child.parse().ok());
        look.extend(children.filter(|child| pids.insert(*child)));
    }
    pids
}

fn of_port(
    ground: &Ground,
    unit: &Known,
    (port, number): (&str, u16),
    mine: &[&Listener],
    theirs: &[&Listener],
    report: &mut Report,
) {
    let name = &unit.name;
    // A unit on demand: the daemon itself waits at its port.
    let is_ours = |l: &&&Listener| ground.is_daemon && l.pids.contains(&std::process::id().cast_signed());
    let is_of_unit = |l: &&&Listener| {
        let others = ground.units.iter().filter(|other| other.name != *name && other.run.is_some());
        others.filter(|other| other.ports.iter().any(|(_, n)| *n == number)).any(|other| {
            let seen = other.run.and_then(|run| ground.run(run));
            seen.is_some_and(|seen| l.pids.iter().any(|pid| members(seen).contains(pid)))
        })
    };
    let strangers: Vec<&&Listener> = theirs.iter().filter(|l| !is_ours(l)).collect();
    let overlaps = |l: &&&&Listener| {
        let ip = l.address.ip();
        ip.is_unspecified() || mine.iter().any(|m| m.address.ip() == ip || m.address.ip().is_unspecified())
    };
    if mine.is_empty() {
        // A unit that shares its port with another one of ours takes turns with it: `verify` names those.
        let taken = strangers.iter().find(|l| l.address.ip().is_loopback() || l.address.ip().is_unspecified());
        if let Some(stranger) = taken.filter(|l| !is_of_unit(l)) {
            let title = format!("port {number} ({port}) of {name} is taken by {}", stranger.holder);
            let found = report.say("port-taken", Severity::Warning, title, stranger.address.to_string());
            found.about([name.to_string(), format!("port {number}")]).fleeting();
            let command = format!("wharf start {name} --port {port}=auto");
            found.fix("stop it, or let Wharf choose another port", Some(command));
        }
    } else if let Some(stranger) = strangers.iter().find(overlaps) {
        let title = format!("port {number} ({port}) of {name} has a second listener: {}", stranger.holder);
        let detail = format!("{}: each connection goes to one of them by chance (SO_REUSEPORT)", stranger.address);
        let found = report.say("port-duplicate", Severity::Error, title, detail);
        found.about([name.to_string(), format!("port {number}")]).fleeting();
        found.fix("end one of the two", stranger.holder.pid.map(|pid| format!("kill {pid}")));
    }
}

/// C22: what cannot be told to listen on loopback alone is at least named.
fn outside(unit: &Known, own: &[&Listener], report: &mut Report) {
    let open: BTreeSet<String> =
        own.iter().filter(|l| !l.address.ip().is_loopback()).map(|l| l.address.to_string()).collect();
    if !open.is_empty() {
        let list = open.into_iter().collect::<Vec<_>>().join(", ");
        let title = format!("{} can be reached from outside", unit.name);
        let found = report.say("port-open", Severity::Warning, title, format!("it listens on {list}"));
        found.about([unit.name.to_string()]).fleeting();
        let text = "let it listen on 127.0.0.1 where it can, or close the port in the firewall";
        found.fix(text, Some(format!("wharf inspect {}", unit.name)));
    }
}

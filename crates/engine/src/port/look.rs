//! What is declared, leased and observed at this moment, and whose each socket is.

use std::{
    cell::OnceCell,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use wharf_core::{
    Unit,
    ports::{Declared, Observed, Owner, PortLease, Ranges, Said, Span, drift},
};
use wharf_model::{Drift, Failure, FoundBy, Occupant, Phase, PortEntry, Protocol, RunId, Speaks, UnitName};
use wharf_runtime::{
    compose::{self, Record},
    launch::LiveRun,
    ports::{self, Census, Settings, Socket, Use},
};

use super::rows::Uses;
use crate::engine::Shared;

/// A chain of parents is not longer.
const MOST_PARENTS: usize = 64;

/// A socket with whose it is.
pub struct Seen {
    pub socket: Socket,
    pub who: Occupant,
    pub owner: Owner,
    /// The run, where it is a unit's.
    pub run: Option<RunId>,
}

impl Seen {
    /// Who it is, for people.
    pub fn text(&self) -> String {
        let who = &self.who;
        let name = who.command.as_deref().unwrap_or(match who.found_by {
            FoundBy::Lease | FoundBy::Process | FoundBy::Cgroup => "a process",
            FoundBy::User => "a process that cannot be seen from here",
        });
        let mut facts: Vec<String> = who.pid.iter().map(|pid| format!("pid {pid}")).collect();
        match &self.owner {
            Owner::Unit(unit) => facts.push(format!("unit {unit}")),
            Owner::Lease(id) => facts.push(id.to_string()),
            Owner::Daemon => facts.push("this daemon".into()),
            Owner::Other(_) => {
                facts.push(who.user.as_ref().map_or_else(|| format!("uid {}", who.uid), |user| format!("user {user}")));
                facts.extend(who.systemd_unit.iter().map(|unit| format!("systemd unit {unit}")));
                facts.extend(who.container.iter().map(|id| format!("container {}", id.get(..12).unwrap_or(id))));
            }
        }
        format!("{name} ({})", facts.join(", "))
    }

    /// As drift looks at it.
    pub fn observed(&self) -> Observed {
        let Socket { protocol, local, dual, .. } = self.socket;
        Observed { protocol, address: local, dual, owner: self.owner.clone(), who: self.text() }
    }
}

/// One look at everything.
pub struct View {
    pub declared: Vec<Declared>,
    pub leases: Vec<PortLease>,
    pub entries: Vec<PortEntry>,
    pub seen: Vec<Seen>,
    pub ranges: Ranges,
}

impl View {
    /// Looks at the sockets that `wanted` says. It reads all of /proc where one is not told by its cgroup.
    pub fn of(shared: &Shared, wanted: impl Fn(&Socket) -> bool) -> Result<Self, Failure> {
        let sockets = ports::listening().into_iter().filter(wanted).collect();
        Self::with(shared, sockets)
    }

    /// Looks at these sockets.
    pub fn with(shared: &Shared, sockets: Vec<Socket>) -> Result<Self, Failure> {
        let settings = Settings::read(&shared.layout.ports_file())?;
        let ranges = ranges(&settings);
        let declared = declared(shared, &settings);
        let leases: Vec<PortLease> = shared.ports.leases().into_iter().map(|(lease, _)| lease).collect();
        let entries = shared.ports.see(|ledger| ledger.entries().cloned().collect());
        let kin = Kin::new(shared, &declared, &leases);
        let census = Census::default();
        let seen = sockets.into_iter().map(|socket| kin.name(&census, socket)).collect();
        Ok(Self { declared, leases, entries, seen, ranges })
    }

    /// How it differs.
    pub fn drift(&self) -> Vec<Drift> {
        let listens = self.seen.iter().filter(|seen| seen.socket.used == Use::Listens);
        let observed: Vec<Observed> = listens.map(Seen::observed).collect();
        let said = Said { declared: &self.declared, leased: &self.leases, entries: &self.entries };
        drift(said, &observed, &self.ranges)
    }
}

/// The table, with what the kernel gives to outgoing connections.
pub fn ranges(settings: &Settings) -> Ranges {
    let ephemeral = ports::ephemeral().into_iter().map(|(from, to)| Span { from, to }).collect();
    if settings.ranges.is_empty() {
        Ranges::default().beside(ephemeral)
    } else {
        Ranges::new(settings.ranges.clone(), ephemeral)
    }
}

/// What every unit declares.
pub fn declared(shared: &Shared, settings: &Settings) -> Vec<Declared> {
    let world = shared.world.load();
    world.values().flat_map(|unit| of_unit(shared, unit, settings)).collect()
}

fn of_unit(shared: &Shared, unit: &Arc<Unit>, settings: &Settings) -> Vec<Declared> {
    if unit.wishes.is_empty() {
        return vec![];
    }
    let said = settings.units.get(&unit.name).cloned().unwrap_or_default();
    let purpose = said.purpose.or_else(|| unit.policy.gpu.as_ref().map(|_| "gpu".to_owned()));
    let facts = shared.service(&unit.name).map(|service| service.facts().ports).unwrap_or_default();
    let ready = is_ready(unit);
    let make = |(name, port): (&str, u16)| Declared {
        unit: unit.name.clone(),
        name: name.to_owned(),
        speaks: facts.iter().find(|fact| fact.name == name).map_or(Speaks::Tcp, |fact| fact.speaks),
        port,
        is_up: ready && !unit.policy.is_job(),
        reach: said.bind.unwrap_or_default(),
        purpose: purpose.clone(),
    };
    unit.fixed_ports().map(make).collect()
}

/// It said that it runs, or answered once: it should listen.
pub fn is_ready(unit: &Unit) -> bool {
    matches!(unit.phase(), Phase::Running | Phase::Degraded | Phase::Unhealthy)
}

/// Who needs whom.
pub fn uses(shared: &Shared) -> Uses {
    let mut uses = Uses::new();
    for unit in shared.world.load().values() {
        for need in &unit.policy.needs {
            uses.entry(need.unit.clone()).or_default().insert(unit.name.clone());
        }
    }
    uses
}

/// Who belongs to whom.
struct Kin<'a> {
    shared: &'a Shared,
    declared: &'a [Declared],
    leases: &'a [PortLease],
    runs: Vec<(UnitName, LiveRun)>,
    /// Main processes and their shims.
    heads: OnceCell<BTreeMap<i32, usize>>,
    /// The containers of units.
    records: OnceCell<Vec<Record>>,
}

impl<'a> Kin<'a> {
    fn new(shared: &'a Shared, declared: &'a [Declared], leases: &'a [PortLease]) -> Self {
        let world = shared.world.load();
        let live = |unit: &Arc<Unit>| Some((unit.name.clone(), shared.hands.live(unit.life.run()?)?));
        Self {
            shared,
            declared,
            leases,
            runs: world.values().filter_map(live).collect(),
            heads: OnceCell::new(),
            records: OnceCell::new(),
        }
    }

    fn name(&self, census: &Census, socket: Socket) -> Seen {
        let who = ports::who(census, &socket);
        let (owner, run) = self.owner(&socket, &who);
        Seen { socket, who, owner, run }
    }

    fn owner(&self, socket: &Socket, who: &Occupant) -> (Owner, Option<RunId>) {
        // A socket that we keep for somebody is theirs as soon as they have it, too.
        let is_own = |pid: &&i32| **pid == std::process::id().cast_signed();
        let is_kept = who.pids.iter().any(|pid| is_own(&pid));
        let chains: Vec<Vec<i32>> =
            who.pids.iter().filter(|pid| !is_own(pid)).take(4).map(|pid| parents(*pid)).collect();
        if is_kept && chains.is_empty() {
            return (Owner::Daemon, None);
        }
        let place = (socket.protocol, socket.local.port());
        let lease = self.leases.iter().find(|lease| lease.covers(place.0, place.1));
        if let Some(lease) = lease.filter(|lease| holds(lease, who, &chains)) {
            return (Owner::Lease(lease.id), None);
        }
        if let Some((unit, live)) = self.run(place, who, &chains) {
            return (Owner::Unit(unit.clone()), Some(live.run()));
        }
        // On its way to somebody.
        if is_kept { (Owner::Daemon, None) } else { (Owner::Other(stranger(who)), None) }
    }

    fn run(&self, place: (Protocol, u16), who: &Occupant, chains: &[Vec<i32>]) -> Option<&(UnitName, LiveRun)> {
        let by_group = self.runs.iter().find(|(_, live)| {
            let own = live.cgroup().map(below_root);
            own.zip(who.cgroup.as_deref()).is_some_and(|(own, group)| Path::new(group).starts_with(&own))
        });
        if by_group.is_some() {
            return by_group;
        }
        let heads = self.heads.get_or_init(|| self.heads());
        let by_parents = chains.iter().flatten().find_map(|pid| heads.get(pid));
        if let Some(&nth) = by_parents {
            return self.runs.get(nth);
        }
        // A child that has left its parents, of a run whose shim was killed: the lock still tells.
        let declare = |unit: &UnitName| self.declared.iter().any(|d| d.unit == *unit && d.place() == place);
        let by_lock = self.runs.iter().find(|(unit, live)| {
            declare(unit) && {
                let members: BTreeSet<i32> = live.pids().into_iter().collect();
                who.pids.iter().any(|pid| members.contains(pid))
            }
        });
        by_lock.or_else(|| self.by_container(place, who))
    }

    /// A container of a unit, or the engine that listens for one.
    fn by_container(&self, place: (Protocol, u16), who: &Occupant) -> Option<&(UnitName, LiveRun)> {
        let records = self.records.get_or_init(|| compose::recorded(self.shared.layout.units()));
        let is_engine = who.command.as_deref().is_some_and(ports::is_engine);
        let its = |record: &&Record| match &who.container {
            Some(id) => record.containers.contains(id),
            None => is_engine && place.0 == Protocol::Tcp && record.ports.contains(&place.1),
        };
        let record = records.iter().find(its)?;
        self.runs.iter().find(|(unit, live)| *unit == record.unit && live.run() == record.run)
    }

    fn heads(&self) -> BTreeMap<i32, usize> {
        let own = std::process::id().cast_signed();
        let mut heads = BTreeMap::new();
        for (nth, (_, live)) in self.runs.iter().enumerate() {
            let main = live.pid();
            heads.insert(main, nth);
            // Its shim takes the orphans.
            if let Some(shim) = parent(main).filter(|pid| *pid > 1 && *pid != own && is_shim(self.shared, *pid)) {
                heads.insert(shim, nth);
            }
        }
        heads
    }
}

/// The process, what it started, or what is in its cgroup; without a process: whatever is its user's.
fn holds(lease: &PortLease, who: &Occupant, chains: &[Vec<i32>]) -> bool {
    let Some(holder) = lease.terms.holder else { return lease.terms.uid == who.uid };
    let in_tree = chains.iter().flatten().any(|pid| *pid == holder.pid);
    let is_seen = |pid: &i32| lease.seen.iter().any(|seen| seen.pid == *pid && Some(seen.identity) == who.identity);
    if (in_tree && lives(holder.pid, holder.identity)) || who.pid.is_some_and(|pid| is_seen(&pid)) {
        return true;
    }
    let group = |pid: i32| {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("0::").map(str::to_owned)).filter(|group| group != "/")
    };
    // A service or a container of its own; a user's whole session is none.
    let own = group(holder.pid).filter(|group| ports::belongs_to(group) != (None, None));
    own.is_some() && own == who.cgroup && lives(holder.pid, holder.identity)
}

fn lives(pid: i32, identity: u64) -> bool {
    wharf_sys::pidfd::open_exact(pid, identity).is_ok_and(|process| !wharf_sys::pidfd::has_exited(process))
}

/// What tells one stranger from another: a service, a container, a session of processes.
fn stranger(who: &Occupant) -> String {
    let session = || who.pid.and_then(|pid| field(pid, 3)).map(|session| format!("session {session}"));
    let group = || who.container.clone().or_else(|| who.systemd_unit.clone());
    group().or_else(session).unwrap_or_else(|| format!("uid {}", who.uid))
}

fn is_shim(shared: &Shared, pid: i32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.starts_with(shared.layout.shim_dir()))
}

fn below_root(cgroup: &Path) -> PathBuf {
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let rest = roots.iter().find_map(|root| cgroup.strip_prefix(root).ok()).unwrap_or(cgroup);
    Path::new("/").join(rest)
}

/// The process, its parent, and so on.
fn parents(pid: i32) -> Vec<i32> {
    let chain = std::iter::successors(Some(pid), |pid| parent(*pid).filter(|parent| *parent > 1));
    chain.take(MOST_PARENTS).collect()
}

fn parent(pid: i32) -> Option<i32> {
    field(pid, 1)
}

/// A number of /proc/PID/stat, counted from the state on: 1 is the parent, 3 the session.
fn field(pid: i32, nth: usize) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(nth)?.parse().ok()
}

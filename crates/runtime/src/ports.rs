//! Who listens where, by the kernel's tables.
//!
//! It owns the question whether a port is free, the name of its holder, and the choice of a free
//! one. It refuses to know which unit wants which port, and who may have one.

mod bind;
mod containers;
mod diag;
mod evict;
mod listens;
mod proc_net;
mod settings;
mod socket;
mod who;

use std::{
    collections::BTreeSet,
    fmt, fs,
    io::ErrorKind as Io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
};

use wharf_model::{ErrorKind, Failure, Protocol, UnitName};

pub use bind::{attempt, listen, park};
pub(crate) use containers::sockets as engine_sockets;
pub use containers::{Container, is_engine, running as running_containers};
pub use evict::{Ended, end};
pub(crate) use listens::Listens;
pub use settings::{OfUnit, Settings, ephemeral};
pub use socket::{Socket, Use, at, bound, has_diag, listening, listening_tcp};
pub use who::{Census, belongs_to, of as who, user};

/// Where ports are chosen: below the range that the kernel gives to outgoing connections.
const CHOSEN: std::ops::Range<u16> = 20_000..32_000;

/// Who stands in the way of listening on a port.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Holder {
    /// The port.
    pub port: u16,
    /// The process, where it can be seen.
    pub pid: Option<i32>,
    /// Its name.
    pub command: Option<String>,
    /// Whose it is.
    pub uid: Option<u32>,
    /// What it belongs to: `systemd unit redis.service`, `container 0123456789ab`.
    pub belongs_to: Option<String>,
    /// What the kernel said: `Address already in use (os error 98)`.
    pub error: String,
    /// The port is free, and this user may not listen on it.
    pub forbidden: bool,
    /// What it does with the port, where it does not listen: `has bound it and does not listen`.
    pub doing: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts: Vec<String> = [
            self.pid.map(|pid| format!("pid {pid}")),
            self.uid.map(|uid| format!("uid {uid}")),
            self.belongs_to.clone(),
            self.doing.clone(),
        ]
        .into_iter()
        .flatten()
        .collect();
        let who = self.command.as_deref().unwrap_or("a process that cannot be seen from here");
        if facts.is_empty() { f.write_str(who) } else { write!(f, "{who} ({})", facts.join(", ")) }
    }
}

impl Holder {
    fn of_process(mut self, pid: i32) -> Self {
        self.pid = Some(pid);
        self.command = who::name(pid);
        self.belongs_to = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok().and_then(|c| owner_in(&c));
        self
    }

    /// Why `unit` cannot have its port of this name.
    pub fn failure(&self, unit: &UnitName, name: &str) -> Failure {
        let Self { port, error, .. } = self;
        if self.forbidden {
            return Failure::new(ErrorKind::Permission, format!("port {port} is not allowed to this user: {error}"))
                .hint(format!("choose one above 1023: wharf start {unit} --port {name}=auto"))
                .about(unit);
        }
        Failure::new(ErrorKind::PortTaken, format!("port {port} is taken by {self}"))
            .hint(format!("stop it, or let Wharf choose: wharf start {unit} --port {name}=auto"))
            .cause(format!("port {port} unavailable for {unit}: {error}"))
            .about(unit)
    }
}

/// Whether a program could listen on this port now, tried by listening on 127.0.0.1 and on all addresses.
pub fn check(port: u16) -> Result<(), Box<Holder>> {
    for address in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED] {
        if let Err(e) = TcpListener::bind((address, port)) {
            let holder = match e.kind() {
                Io::PermissionDenied => Holder { port, forbidden: true, ..Holder::default() },
                _ => holder(port).unwrap_or(Holder { port, ..Holder::default() }),
            };
            return Err(Box::new(Holder { error: e.to_string(), ..holder }));
        }
    }
    Ok(())
}

/// Who has this port, as far as it can be seen: who listens, else who has bound it, else whose connection begins there.
pub fn holder(port: u16) -> Option<Holder> {
    let sockets = socket::at(Protocol::Tcp, port);
    let of = |used| sockets.iter().find(|s| s.used == used);
    let socket = of(Use::Listens).or_else(|| of(Use::Bound)).or_else(|| of(Use::Connected))?;
    let mut holder = Holder { port, uid: Some(socket.uid), ..Holder::default() };
    if let Some(&pid) = Census::default().pids(socket.inode).first() {
        holder = holder.of_process(pid);
    }
    holder.doing = match (socket.used, socket.remote) {
        (Use::Bound, _) => Some("has bound it and does not listen".into()),
        (Use::Connected | Use::TimeWait, Some(remote)) => Some(format!("has a connection from it to {remote}")),
        (Use::Listens | Use::Connected | Use::TimeWait, _) => None,
    };
    Some(holder)
}

/// Somebody who listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Where.
    pub address: SocketAddr,
    /// Which socket: two on one port are two.
    pub inode: u64,
    /// The processes that hold it, as far as they can be seen.
    pub pids: Vec<i32>,
    /// Who it is, for people.
    pub holder: Holder,
}

/// Everybody who listens on this machine with TCP. Reads all of /proc: some milliseconds.
pub fn table() -> Vec<Listener> {
    let census = Census::default();
    let named = |socket: Socket| {
        let pids = census.pids(socket.inode).to_vec();
        let holder = Holder { port: socket.local.port(), uid: Some(socket.uid), ..Holder::default() };
        let holder = pids.first().map_or(holder.clone(), |pid| holder.of_process(*pid));
        Listener { address: socket.local, inode: socket.inode, pids, holder }
    };
    listening_tcp().into_iter().map(named).collect()
}

/// Where these processes listen with TCP.
pub fn listeners(pids: impl IntoIterator<Item = i32>) -> Vec<SocketAddr> {
    let theirs: BTreeSet<u64> = pids.into_iter().flat_map(who::sockets_of).collect();
    listening_tcp().into_iter().filter(|s| theirs.contains(&s.inode)).map(|s| s.local).collect()
}

/// A port that is free now.
pub fn free() -> Result<u16, Failure> {
    free_but(&BTreeSet::new())
}

/// A port that is free now and is none of these.
pub fn free_but(promised: &BTreeSet<u16>) -> Result<u16, Failure> {
    let mut seed = [0; 2];
    crate::secret::fill(&mut seed)?;
    let count = CHOSEN.end - CHOSEN.start;
    let first = u16::from_ne_bytes(seed) % count;
    (0..count)
        .map(|n| CHOSEN.start + (first + n) % count)
        .find(|port| !promised.contains(port) && check(*port).is_ok())
        .ok_or_else(|| {
            let text = format!("no port between {} and {} is free", CHOSEN.start, CHOSEN.end - 1);
            Failure::new(ErrorKind::PortTaken, text).hint("name one: --port NAME=NUMBER")
        })
}

/// The systemd unit or the container in a `/proc/PID/cgroup`.
pub(crate) fn owner_in(cgroup: &str) -> Option<String> {
    let segments = || cgroup.lines().filter_map(|l| l.splitn(3, ':').nth(2)).flat_map(|p| p.split('/').rev());
    let container = |segment: &str| {
        let id = segment.strip_suffix(".scope").unwrap_or(segment);
        let id = id.rsplit('-').next().unwrap_or(id);
        (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| format!("container {}", &id[..12]))
    };
    segments()
        .find_map(container)
        .or_else(|| segments().find(|s| s.ends_with(".service")).map(|s| format!("systemd unit {s}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_of_a_taken_port_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let holder = check(port).unwrap_err();
        assert_eq!(holder.pid, Some(std::process::id().cast_signed()));
        let failure = holder.failure(&"redis".parse().unwrap(), "main");
        assert!(failure.message.starts_with(&format!("port {port} is taken by ")), "{failure}");
        assert!(failure.causes[0].contains("Address already in use"));
        assert_eq!(failure.hint.as_deref(), Some("stop it, or let Wharf choose: wharf start redis --port main=auto"));
        assert!(listeners([std::process::id().cast_signed()]).contains(&listener.local_addr().unwrap()));
        drop(listener);
        assert!(check(port).is_ok());
    }

    #[test]
    fn a_port_of_all_addresses_is_taken_too() {
        for address in ["0.0.0.0:0", "[::]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            assert!(check(listener.local_addr().unwrap().port()).is_err(), "{address}");
        }
    }

    #[test]
    fn a_chosen_port_is_free_and_not_promised() {
        let port = free().unwrap();
        assert!(CHOSEN.contains(&port));
        let promised: BTreeSet<u16> = (CHOSEN.start..CHOSEN.end - 500).collect();
        assert!(free_but(&promised).unwrap() >= CHOSEN.end - 500);
    }

    #[test]
    fn a_cgroup_tells_the_unit_or_the_container() {
        let of = |text: &str| owner_in(text);
        assert_eq!(of("0::/system.slice/redis.service\n").as_deref(), Some("systemd unit redis.service"));
        let id = "0123456789abcdef".repeat(4);
        assert_eq!(of(&format!("0::/system.slice/docker-{id}.scope\n")).as_deref(), Some("container 0123456789ab"));
        assert_eq!(of(&format!("0::/docker/{id}\n")).as_deref(), Some("container 0123456789ab"));
        assert_eq!(of("0::/user.slice\n"), None);
    }
}

//! Who listens where, by the kernel's tables.
//!
//! It owns the question whether a port is free, the name of its holder, and the choice of a free
//! one. It refuses to know which unit wants which port.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt, fs,
    io::{self, ErrorKind as Io},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
};

use wharf_model::{ErrorKind, Failure, UnitName};

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
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts: Vec<String> = [
            self.pid.map(|pid| format!("pid {pid}")),
            self.uid.map(|uid| format!("uid {uid}")),
            self.belongs_to.clone(),
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
        self.command = fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|c| c.trim().to_owned());
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

/// Who listens on this port, as far as it can be seen.
pub fn holder(port: u16) -> Option<Holder> {
    let socket = listening().into_iter().find(|s| s.address.port() == port)?;
    let mut holder = Holder { port, uid: Some(socket.uid), ..Holder::default() };
    if let Some(pid) = pids().into_iter().find(|pid| sockets_of(*pid).contains(&socket.inode)) {
        holder = holder.of_process(pid);
    }
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

/// Everybody who listens on this machine. Reads all of /proc: some milliseconds.
pub fn table() -> Vec<Listener> {
    let mut holders: HashMap<u64, Vec<i32>> = HashMap::new();
    for pid in pids() {
        for inode in sockets_of(pid) {
            holders.entry(inode).or_default().push(pid);
        }
    }
    let mut named = |socket: Listening| {
        let pids = holders.remove(&socket.inode).unwrap_or_default();
        let holder = Holder { port: socket.address.port(), uid: Some(socket.uid), ..Holder::default() };
        let holder = pids.first().map_or(holder.clone(), |pid| holder.of_process(*pid));
        Listener { address: socket.address, inode: socket.inode, pids, holder }
    };
    listening().into_iter().map(&mut named).collect()
}

/// Where these processes listen.
pub fn listeners(pids: impl IntoIterator<Item = i32>) -> Vec<SocketAddr> {
    let theirs: HashSet<u64> = pids.into_iter().flat_map(sockets_of).collect();
    listening().into_iter().filter(|s| theirs.contains(&s.inode)).map(|s| s.address).collect()
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

struct Listening {
    address: SocketAddr,
    uid: u32,
    inode: u64,
}

fn listening() -> Vec<Listening> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| text.lines().skip(1).filter_map(parse_line).collect::<Vec<_>>())
        .collect()
}

/// `sl local_address rem_address st tx:rx tr:tm retrnsmt uid timeout inode …`; state 0A is LISTEN.
fn parse_line(line: &str) -> Option<Listening> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    if *fields.get(3)? != "0A" {
        return None;
    }
    let (address, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(Listening {
        address: SocketAddr::new(parse_address(address)?, port),
        uid: fields.get(7)?.parse().ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// The kernel prints each four bytes of an address as one number of this machine.
fn parse_address(hex: &str) -> Option<IpAddr> {
    let words: Option<Vec<[u8; 4]>> = (0..hex.len() / 8)
        .map(|n| u32::from_str_radix(hex.get(n * 8..n * 8 + 8)?, 16).ok().map(u32::to_ne_bytes))
        .collect();
    let bytes = words?.concat();
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|b| IpAddr::V4(Ipv4Addr::from(b))),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|b| IpAddr::V6(Ipv6Addr::from(b))),
        _ => None,
    }
}

fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![] };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// The inodes of the sockets that a process holds; none where it may not be looked at.
fn sockets_of(pid: i32) -> HashSet<u64> {
    let entries: io::Result<fs::ReadDir> = fs::read_dir(format!("/proc/{pid}/fd"));
    let Ok(entries) = entries else { return HashSet::new() };
    entries
        .flatten()
        .filter_map(|e| fs::read_link(e.path()).ok())
        .filter_map(|target| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// The systemd unit or the container in a `/proc/PID/cgroup`.
fn owner_in(cgroup: &str) -> Option<String> {
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

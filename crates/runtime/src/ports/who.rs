//! Whose a socket is: by its cgroup, by who holds it open, by its user; and what that process belongs to.

use std::{
    cell::OnceCell,
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::{Uid, User};
use wharf_sys::pidfd;

use super::socket::Socket;

/// A walk through all cgroups ends here.
const MOST_GROUPS: usize = 20_000;

/// One look at the machine's processes and cgroups. Each part is made when it is first needed.
#[derive(Default)]
pub struct Census {
    // HashMaps, because nothing is decided by their order.
    holders: OnceCell<HashMap<u64, Vec<i32>>>,
    groups: OnceCell<HashMap<u64, String>>,
}

impl Census {
    /// The processes that hold a socket, as far as they may be looked at, in the order of their numbers.
    pub fn pids(&self, inode: u64) -> &[i32] {
        let holders = self.holders.get_or_init(|| {
            let mut holders: HashMap<u64, Vec<i32>> = HashMap::new();
            for pid in pids() {
                for inode in sockets_of(pid) {
                    holders.entry(inode).or_default().push(pid);
                }
            }
            holders.values_mut().for_each(|pids| {
                pids.sort_unstable();
                pids.dedup();
            });
            holders
        });
        if inode == 0 { &[] } else { holders.get(&inode).map_or(&[], Vec::as_slice) }
    }

    /// The path of a cgroup, from the root of cgroup2 on: `/system.slice/redis.service`.
    pub fn group(&self, id: u64) -> Option<&str> {
        self.groups.get_or_init(walk).get(&id).map(String::as_str)
    }
}

/// Whoever has a socket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Who {
    /// The process; of several the first.
    pub pid: Option<i32>,
    /// Which one of that number: its pidfs inode, or its start.
    pub identity: Option<u64>,
    /// All that hold the socket.
    pub pids: Vec<i32>,
    /// When it began, in milliseconds since 1970.
    pub started_at_ms: Option<i64>,
    /// Its name.
    pub command: Option<String>,
    /// Its program.
    pub exe: Option<String>,
    /// How it was called, cut to what a person reads.
    pub cmdline: Option<String>,
    /// Whose it is.
    pub uid: u32,
    /// The same as a name.
    pub user: Option<String>,
    /// Its cgroup.
    pub cgroup: Option<String>,
    /// Its systemd unit.
    pub systemd_unit: Option<String>,
    /// Its container, by 64 hex digits.
    pub container: Option<String>,
    /// By what it was found.
    pub by: By,
}

/// By what a socket's owner was found, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum By {
    /// The process that holds it open.
    Process,
    /// The cgroup that it was made in.
    Cgroup,
    /// Its user alone.
    #[default]
    User,
}

/// Who has it.
pub fn of(census: &Census, socket: &Socket) -> Who {
    let made_in = socket.cgroup.and_then(|id| census.group(id)).map(str::to_owned);
    let mut who = Who { uid: socket.uid, user: user(socket.uid), ..Who::default() };
    let pids = census.pids(socket.inode);
    if let Some(&first) = pids.first() {
        who.pids = pids.to_vec();
        who.by = By::Process;
        describe(first, &mut who);
        // A connection that an unprivileged look cannot see into has its maker's cgroup all the same.
        who.cgroup = who.cgroup.or(made_in);
    } else if let Some(group) = made_in.filter(|group| group != "/") {
        who.by = By::Cgroup;
        who.cgroup = Some(group);
    }
    let belongs = belongs_to(who.cgroup.as_deref().unwrap_or_default());
    (who.systemd_unit, who.container) = belongs;
    who
}

fn describe(pid: i32, who: &mut Who) {
    let file = |name: &str| fs::read(format!("/proc/{pid}/{name}")).ok();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    who.pid = Some(pid);
    who.identity = pidfd::open(pid).and_then(|fd| pidfd::identity(&fd, pid)).ok();
    who.command = file("comm").map(text);
    who.exe = fs::read_link(format!("/proc/{pid}/exe")).ok().map(|path| path.display().to_string());
    who.cmdline = file("cmdline").map(|bytes| {
        let words: Vec<String> = bytes
            .split(|b| *b == 0)
            .filter(|w| !w.is_empty())
            .map(|w| String::from_utf8_lossy(w).into_owned())
            .collect();
        words.join(" ").chars().take(200).collect()
    });
    who.cgroup = file("cgroup").map(text).map(|cgroups| innermost(&cgroups));
    who.started_at_ms = started_at_ms(pid);
    // Whose the process is counts, not who made the socket.
    if let Ok(meta) = fs::metadata(format!("/proc/{pid}")) {
        who.uid = meta.uid();
        who.user = user(meta.uid());
    }
}

/// Of `/proc/PID/cgroup`: the cgroup2 line, else the longest of the others.
fn innermost(cgroups: &str) -> String {
    let paths = || cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    let unified = cgroups.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| *path != "/");
    let named = || paths().find(|path| belongs_to(path) != (None, None));
    unified.or_else(named).or_else(|| paths().max_by_key(|path| path.len())).unwrap_or_default().to_owned()
}

/// The name of a user.
pub fn user(uid: u32) -> Option<String> {
    User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name)
}

/// The systemd unit and the container that a cgroup's path names.
pub fn belongs_to(cgroup: &str) -> (Option<String>, Option<String>) {
    let container = cgroup.split('/').rev().find_map(|segment| {
        let id = segment.strip_suffix(".scope").unwrap_or(segment);
        let id = id.rsplit(['-', ':']).next().unwrap_or(id);
        (id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit())).then(|| id.to_owned())
    });
    let unit = cgroup.split('/').rev().find(|segment| segment.ends_with(".service")).map(str::to_owned);
    (unit, container)
}

/// Field 22 of /proc/PID/stat and the boot's time, to a hundredth of a second.
fn started_at_ms(pid: i32) -> Option<i64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let ticks: i64 = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()?;
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let since_boot_ms = boot.tv_sec * 1000 + boot.tv_nsec / 1_000_000;
    // USER_HZ is 100 on every Linux of this century.
    Some(wharf_sys::clock::wall_ms() - since_boot_ms + ticks * 10)
}

/// Every process.
pub fn pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![] };
    entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect()
}

/// The inodes of the sockets that a process holds; none where it may not be looked at.
pub fn sockets_of(pid: i32) -> Vec<u64> {
    let entries: io::Result<fs::ReadDir> = fs::read_dir(format!("/proc/{pid}/fd"));
    let Ok(entries) = entries else { return vec![] };
    entries
        .flatten()
        .filter_map(|e| fs::read_link(e.path()).ok())
        .filter_map(|target| target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok())
        .collect()
}

/// Every cgroup by the inode of its folder. The root's is 1.
fn walk() -> HashMap<u64, String> {
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
    let root = roots.iter().find(|root| Path::new(root).join("cgroup.controllers").exists());
    let mut found = HashMap::new();
    let Some(root) = root.map(PathBuf::from) else { return found };
    let mut open = vec![root.clone()];
    while let Some(folder) = open.pop() {
        let Ok(meta) = fs::symlink_metadata(&folder) else { continue };
        let path = folder.strip_prefix(&root).unwrap_or(Path::new(""));
        found.insert(meta.ino(), format!("/{}", path.display()));
        if found.len() >= MOST_GROUPS {
            break;
        }
        let inside = fs::read_dir(&folder).into_iter().flatten().flatten();
        open.extend(inside.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::ports::socket;

    #[test]
    fn a_listener_of_ours_is_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let found = socket::at(wharf_model::Protocol::Tcp, port);
        let who = of(&Census::default(), &found[0]);
        assert_eq!((who.pid, who.by), (Some(std::process::id().cast_signed()), By::Process));
        assert_eq!(who.uid, rustix::process::getuid().as_raw());
        assert!(who.identity.is_some() && who.exe.is_some() && who.cmdline.is_some());
        let age_ms = wharf_sys::clock::wall_ms() - who.started_at_ms.unwrap();
        assert!((-1_000..600_000).contains(&age_ms), "{age_ms}");
    }

    #[test]
    fn a_cgroup_names_unit_and_container() {
        let id = "0123456789abcdef".repeat(4);
        let (unit, container) = belongs_to("/user.slice/user-1000.slice/user@1000.service/app.slice/web.service");
        assert_eq!((unit.as_deref(), container), (Some("web.service"), None));
        for path in [format!("/docker/{id}"), format!("/system.slice/docker-{id}.scope"), format!("/x/cri:{id}")] {
            assert_eq!(belongs_to(&path).1.as_deref(), Some(id.as_str()), "{path}");
        }
        assert_eq!(belongs_to("/user.slice"), (None, None));
    }

    #[test]
    fn the_innermost_cgroup_is_that_of_cgroup2_where_there_is_one() {
        assert_eq!(innermost("4:memory:/a/b\n0::/system.slice/x.service\n"), "/system.slice/x.service");
        assert_eq!(innermost("4:memory:/a/b\n1:name=systemd:/x.service\n0::/\n"), "/x.service");
        assert_eq!(innermost("4:memory:/a/b\n0::/\n"), "/a/b");
    }
}

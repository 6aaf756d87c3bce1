//! Whose a socket is: by its cgroup, by who holds it open, by its user; and what that process belongs to.

use std::{
    cell::OnceCell,
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::unistd::{Uid, User};
use wharf_model::{FoundBy, Occupant};
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
    /// The processes that hold a socket, as far as they may be looked at, in the order of their numbers; this one last.
    pub fn pids(&self, inode: u64) -> &[i32] {
        let holders = self.holders.get_or_init(|| {
            let mut holders: HashMap<u64, Vec<i32>> = HashMap::new();
            for pid in pids() {
                for inode in sockets_of(pid) {
                    holders.entry(inode).or_default().push(pid);
                }
            }
            // Of a socket that we keep for somebody, that one is asked for.
            let own = std::process::id().cast_signed();
            holders.values_mut().for_each(|pids| {
                pids.sort_unstable_by_key(|pid| (*pid == own, *pid));
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

/// Who has it.
pub fn of(census: &Census, socket: &Socket) -> Occupant {
    let made_in = socket.cgroup.and_then(|id| census.group(id)).map(str::to_owned);
    let mut who = Occupant { uid: socket.uid, user: user(socket.uid), ..Occupant::default() };
    let pids = census.pids(socket.inode);
    if let Some(&first) = pids.first() {
        who.pids = pids.to_vec();
        who.found_by = FoundBy::Process;
        describe(first, &mut who);
        // A connection that an unprivileged look cannot see into has its maker's cgroup all the same.
        who.cgroup = who.cgroup.or(made_in);
    } else if let Some(group) = made_in.filter(|group| group != "/") {
        who.found_by = FoundBy::Cgroup;
        who.cgroup = Some(group);
    }
    let belongs = belongs_to(who.cgroup.as_deref().unwrap_or_default());
    (who.systemd_unit, who.container) = belongs;
    who
}

fn describe(pid: i32, who: &mut Occupant) {
    let file = |name: &str| fs::read(format!("/proc/{pid}/{name}")).ok();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).trim().to_owned();
    who.pid = Some(pid);
    who.identity = pidfd::open(pid).and_then(|fd| pidfd::identity(&fd, pid)).ok();
    let words = words(pid);
    (who.command, who.exe) = program(pid, words.first());
    who.cmdline = (!words.is_empty()).then(|| words.join(" ").chars().take(200).collect());
    who.cgroup = file("cgroup").map(text).map(|cgroups| innermost(&cgroups));
    who.started_at_ms = started_at_ms(pid);
    // Whose the process is counts, not who made the socket.
    if let Ok(meta) = fs::metadata(format!("/proc/{pid}")) {
        who.uid = meta.uid();
        who.user = user(meta.uid());
    }
}

/// The name of a process's program, as people know it.
pub fn name(pid: i32) -> Option<String> {
    program(pid, words(pid).first()).0
}

/// How a process was called.
fn words(pid: i32) -> Vec<String> {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = text.split(|b| *b == 0).filter(|w| !w.is_empty());
    words.map(|w| String::from_utf8_lossy(w).into_owned()).collect()
}

/// The name and the file of a process's program. `first` is the first word that it was called with.
fn program(pid: i32, first: Option<&String>) -> (Option<String>, Option<String>) {
    let own = fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| name.trim().to_owned());
    let Ok(exe) = fs::read_link(format!("/proc/{pid}/exe")) else { return (own, None) };
    match first.and_then(|first| called(pid, first, &exe)) {
        Some(link) => {
            let name = link.file_name().map(|name| name.to_string_lossy().into_owned());
            (name.or(own), Some(link.display().to_string()))
        }
        None => (own, Some(exe.display().to_string())),
    }
}

/// The name that a program was called by, where that is a link to its file: redis-server is one to redis-check-rdb.
/// A process can call itself anything: what does not lead to its file is not believed.
fn called(pid: i32, first: &str, exe: &Path) -> Option<PathBuf> {
    // Some write more than a name there: `/usr/bin/redis-server 127.0.0.1:6379`.
    let first = Path::new(first.split_ascii_whitespace().next()?);
    let near = match first.components().count() {
        0 => return None,
        1 => exe.parent()?.to_owned(),
        _ => fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default(),
    };
    let path = near.join(first);
    let is_link = path.file_name() != exe.file_name() && fs::canonicalize(&path).is_ok_and(|target| target == exe);
    is_link.then_some(path)
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
        assert_eq!((who.pid, who.found_by), (Some(std::process::id().cast_signed()), FoundBy::Process));
        assert_eq!(who.uid, rustix::process::getuid().as_raw());
        assert!(who.identity.is_some() && who.exe.is_some() && who.cmdline.is_some());
        let age_ms = wharf_sys::clock::wall_ms() - who.started_at_ms.unwrap();
        assert!((-1_000..600_000).contains(&age_ms), "{age_ms}");
    }

    #[test]
    fn a_program_behind_a_link_has_the_name_that_it_was_called_by() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("check-rdb"), folder.path().join("server"));
        let sleep = ["/bin/sleep", "/usr/bin/sleep"].into_iter().find_map(|path| fs::canonicalize(path).ok()).unwrap();
        if !sleep.ends_with("sleep") {
            println!(
                "CANNOT BE DONE HERE: a program that is a file of its own (sleep is a part of {})",
                sleep.display()
            );
            return;
        }
        fs::copy(sleep, &file).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let named = |program: &Path, first: &str| {
            use std::os::unix::process::CommandExt;
            let mut child = std::process::Command::new(program).arg0(first).arg("60").spawn().unwrap();
            let (pid, mut who) = (child.id().cast_signed(), Occupant::default());
            // For an instant it has no words yet.
            let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
            while words(pid).is_empty() && std::time::Instant::now() < until {
                std::thread::yield_now();
            }
            describe(pid, &mut who);
            child.kill().unwrap();
            child.wait().unwrap();
            (who.command.unwrap(), who.exe.unwrap())
        };
        let text = |path: &Path| path.display().to_string();
        assert_eq!(named(&link, &text(&link)), ("server".into(), text(&link)));
        // By its name alone, and with more than a name.
        assert_eq!(named(&link, "server"), ("server".into(), text(&link)));
        assert_eq!(named(&link, &format!("{} 127.0.0.1:6379", link.display())), ("server".into(), text(&link)));
        // What a process only says of itself is not believed.
        assert_eq!(named(&file, "/usr/sbin/innocent"), ("check-rdb".into(), text(&file)));
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

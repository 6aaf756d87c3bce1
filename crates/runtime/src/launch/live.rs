//! A run of which something lives, or lived a moment ago.

mod ended;
mod killed;

use std::{
    fmt, io,
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, OnceCell},
    time::sleep,
};
use wharf_model::{Exit, RunId, Signal, UnitName};
use wharf_shim::StartRecord;
use wharf_sys::pidfd;

use super::{containment, folder::RunFolder, line::Ending, members, oom::OomSeen, watched::Watched};

pub(super) use ended::outcome;

/// Where nothing tells of an end (a process that we may not look into holds the lock), we look this often.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A run. Clones are the same run; dropping them changes nothing for its processes.
#[derive(Clone)]
pub struct LiveRun {
    inner: Arc<Inner>,
}

struct Inner {
    unit: UnitName,
    run: RunId,
    folder: RunFolder,
    start: StartRecord,
    main: Mutex<Main>,
    main_changed: Notify,
    /// Where the shim's news arrive; none for a run of an earlier daemon.
    ending: Option<Arc<Ending>>,
    notify: Option<Arc<OwnedFd>>,
    oom: OomSeen,
    exit: OnceCell<Exit>,
    is_walking: AtomicBool,
    /// Somebody of ours has sent SIGKILL.
    was_killed: AtomicBool,
}

/// The process whose end is the run's.
#[derive(Clone)]
struct Main {
    pid: i32,
    /// None: it had gone when it was looked for.
    watched: Option<Arc<Watched>>,
    /// The shim started it, and writes down its exit. Else the run has named another one.
    is_first: bool,
}

/// What a live run is made of beside its start record.
pub(super) struct Parts {
    pub unit: UnitName,
    pub run: RunId,
    pub folder: RunFolder,
    pub ending: Option<Arc<Ending>>,
    pub notify: Option<Arc<OwnedFd>>,
    pub oom: OomSeen,
}

impl LiveRun {
    /// Opens the processes of a start record of this boot.
    pub(super) async fn open(parts: Parts, start: StartRecord) -> Self {
        let Parts { unit, run, folder, ending, notify, oom } = parts;
        let named = ending.is_none().then(|| folder.named_main()).flatten();
        let ((pid, identity), is_first) = named.map_or(((start.pid, start.pid_id), true), |named| (named, false));
        let main = Main { pid, watched: Watched::open(pid, identity).await.map(Arc::new), is_first };
        let inner = Inner {
            unit,
            run,
            folder,
            start,
            main: Mutex::new(main),
            main_changed: Notify::new(),
            ending,
            notify,
            oom,
            exit: OnceCell::new(),
            is_walking: AtomicBool::new(false),
            was_killed: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Which run it is.
    pub fn run(&self) -> RunId {
        self.inner.run
    }

    /// The main process's pid. For people: nothing is signalled by it.
    pub fn pid(&self) -> i32 {
        self.inner.main().pid
    }

    /// When it began, in milliseconds since 1970.
    pub fn started_at_ms(&self) -> i64 {
        self.inner.start.wall_ms
    }

    /// Whether the main process lives at this moment.
    pub(super) fn main_lives(&self) -> bool {
        self.inner.main().watched.is_some_and(|main| !main.has_exited())
    }

    /// The run's cgroup, where it has one.
    pub fn cgroup(&self) -> Option<&Path> {
        self.inner.cgroup()
    }

    /// Waits until the main process has ended. Its exit, where that is known in the same moment;
    /// else [`LiveRun::exit_known`] has it soon.
    pub async fn gone(&self) -> Option<Exit> {
        self.inner.gone().await;
        self.inner.exit_by_now()
    }

    /// Waits until the main process has ended and it is known how: as the shim or the kernel saw it,
    /// else `Unknown`, after 5 s at most.
    pub async fn exit_known(&self) -> Exit {
        self.inner.exit.get_or_init(|| self.inner.learn_exit()).await.clone()
    }

    /// The same, under the name that most ask by.
    pub async fn exited(&self) -> Exit {
        self.exit_known().await
    }

    /// Whether nothing of the run lives, its shim included.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    /// Waits until nothing of the run lives, its shim included.
    pub async fn emptied(&self) {
        self.inner.emptied().await;
    }

    /// Asks politely. What ends a program goes to the main process's whole group, as Ctrl-C does; HUP,
    /// USR1 and USR2 mean something only to the main process and would end the others. A main
    /// process that has ended is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(main) = self.inner.main().watched else { return Ok(()) };
        match signal {
            Signal::Term | Signal::Int | Signal::Quit => main.signal_group(signal.number()),
            Signal::Kill => {
                self.inner.was_killed.store(true, Ordering::Release);
                main.signal_group(signal.number())
            }
            Signal::Hup | Signal::Usr1 | Signal::Usr2 => main.signal(signal.number()),
        }
    }

    /// Sends SIGKILL to every process of the run. Returns at once: wait for [`LiveRun::emptied`].
    pub fn kill_all(&self) {
        killed::kill_all(&self.inner);
    }

    /// All live processes of the run, without its shim. Reads all of /proc: some milliseconds.
    pub fn pids(&self) -> Vec<i32> {
        self.inner.members().iter().map(|m| m.pid).collect()
    }

    /// Makes another process of the run the one whose end is the run's end, as a program asks by
    /// `MAINPID=`. A process that does not belong to the run is refused. Later daemons know it too.
    pub fn set_main(&self, pid: i32) -> io::Result<()> {
        let inner = &self.inner;
        if inner.main().pid == pid {
            return Ok(());
        }
        let fd = pidfd::open(pid)?;
        let identity = pidfd::identity(&fd, pid)?;
        // Looked at after the open: what is a member now, and still lives then, is what we opened.
        if !inner.has_member(pid) || pidfd::has_exited(&fd) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, format!("process {pid} is not of this run")));
        }
        let watched = Some(Arc::new(Watched::of(pid, fd)?));
        inner.folder.name_main(pid, identity)?;
        *inner.main.lock().unwrap_or_else(PoisonError::into_inner) = Main { pid, watched, is_first: false };
        inner.main_changed.notify_waiters();
        Ok(())
    }

    /// The socket that was given with the plan: where the run sends its notices. After a daemon's death
    /// the shim still has it, with all that was sent meanwhile. None: there was none, or the shim is
    /// dead or out of reach, and the path must be bound anew.
    pub fn notify_fd(&self) -> Option<OwnedFd> {
        let inner = &self.inner;
        if let Some(ours) = &inner.notify {
            return ours.try_clone().ok();
        }
        let shim = pidfd::open_exact(inner.start.shim_pid, inner.start.shim_id).ok()?;
        pidfd::descriptor_of(shim, inner.start.notify_fd?).ok()
    }
}

impl fmt::Debug for LiveRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LiveRun({} {} pid {})", self.inner.unit, self.inner.run, self.pid())
    }
}

impl Inner {
    fn main(&self) -> Main {
        self.main.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn cgroup(&self) -> Option<&Path> {
        self.start.cgroup.as_deref()
    }

    /// Opened when it is wanted: a run that lives needs no descriptor for its shim.
    fn shim(&self) -> Option<OwnedFd> {
        let shim = pidfd::open_exact(self.start.shim_pid, self.start.shim_id).ok()?;
        if pidfd::has_exited(&shim) { None } else { Some(shim) }
    }

    fn is_empty(&self) -> bool {
        let main_lives = self.main().watched.is_some_and(|main| !main.has_exited());
        !main_lives && !self.cgroup().is_some_and(containment::is_populated) && !self.folder.is_locked()
    }

    /// Waits for each of those who live to end, from the one that is cheapest to watch on.
    async fn emptied(&self) {
        if let Some(main) = self.main().watched {
            main.exited().await;
        }
        if let Some(cgroup) = self.cgroup() {
            containment::emptied(cgroup).await;
        }
        // It goes after the last of its descendants.
        if let Some(shim) = self.shim().and_then(|fd| Watched::of(self.start.shim_pid, fd).ok()) {
            shim.exited().await;
        }
        // Only where the shim was killed is anybody left by now: whoever holds the lock.
        while !self.is_empty() {
            let left: Vec<Watched> = self.members().iter().filter_map(|m| Watched::of(m.pid, m.open()?).ok()).collect();
            for process in &left {
                process.exited().await;
            }
            if left.is_empty() {
                sleep(LOOK_EVERY).await;
            }
        }
    }

    fn has_member(&self, pid: i32) -> bool {
        let by_cgroup = self.cgroup().is_some_and(|cgroup| containment::pids(cgroup).contains(&pid));
        by_cgroup || self.members().iter().any(|member| member.pid == pid)
    }

    fn members(&self) -> Vec<members::Member> {
        let roots = members::Roots {
            // Once the shim is dead its descendants are init's: the lock tells of them.
            shim: self.shim().map(|_| self.start.shim_pid),
            shim_pid: self.start.shim_pid,
            main: self.main().watched.filter(|m| !m.has_exited()).map(|m| m.pid()),
            lock: self.folder.lock_path(),
            cgroup: self.start.cgroup.clone(),
        };
        members::find(&roots)
    }
}

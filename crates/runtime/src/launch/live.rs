//! A run of which something lives, or lived a moment ago.

use std::{
    fmt, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::OnceCell, time::sleep};
use wharf_model::{Exit, RunId, Signal, UnitName};
use wharf_shim::{Outcome, StartRecord};
use wharf_sys::pidfd::Ended;

use super::{containment, folder::RunFolder, members, watched::Watched};

/// How long an exit record may be waited for once the main process has ended, and how long the
/// kernel's word where the shim is dead: pid 1 of some machines reaps once a second.
const RECORD_WAIT: Duration = Duration::from_secs(5);
/// How long SIGKILL is repeated for processes that are found one by one.
const WALK_LIMIT: Duration = Duration::from_secs(30);

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
    /// None: it had gone when the run was found.
    main: Option<Watched>,
    shim: Option<Watched>,
    exit: OnceCell<Exit>,
    is_walking: AtomicBool,
}

impl LiveRun {
    /// Opens the processes of a start record of this boot. Must be called within the async runtime.
    pub(super) fn open(unit: UnitName, run: RunId, folder: RunFolder, start: StartRecord) -> Self {
        let main = Watched::open(start.pid, start.pid_id);
        let shim = Watched::open(start.shim_pid, start.shim_id);
        let (exit, is_walking) = (OnceCell::new(), AtomicBool::new(false));
        Self { inner: Arc::new(Inner { unit, run, folder, start, main, shim, exit, is_walking }) }
    }

    /// The main process's pid. For people: nothing is signalled by it.
    pub fn pid(&self) -> i32 {
        self.inner.start.pid
    }

    /// When it began, in milliseconds since 1970.
    pub fn started_at_ms(&self) -> i64 {
        self.inner.start.wall_ms
    }

    /// Waits until the main process has ended: how, as the shim or the kernel saw it, else `Unknown`.
    pub async fn exited(&self) -> Exit {
        self.inner.exit.get_or_init(|| self.inner.watch_exit()).await.clone()
    }

    /// Whether nothing of the run lives, its shim included.
    pub fn is_empty(&self) -> bool {
        self.inner.is_empty()
    }

    /// Waits until nothing of the run lives, its shim included.
    pub async fn emptied(&self) {
        let inner = &self.inner;
        // The shim goes after the last process, so its end is the news. Only where it was killed is
        // there nothing to wait on, and we look: often at first, then twenty times a second.
        if let Some(shim) = &inner.shim {
            shim.exited().await;
        }
        if let Some(main) = &inner.main {
            main.exited().await;
        }
        let mut pause = Duration::from_millis(1);
        while !inner.is_empty() {
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Asks politely. What ends a program goes to the main process's whole group, as Ctrl-C does; HUP,
    /// USR1 and USR2 mean something only to the main process and would end the others. A main
    /// process that has ended is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let Some(main) = &self.inner.main else { return Ok(()) };
        match signal {
            Signal::Term | Signal::Int | Signal::Quit | Signal::Kill => main.signal_group(signal.number()),
            Signal::Hup | Signal::Usr1 | Signal::Usr2 => main.signal(signal.number()),
        }
    }

    /// Sends SIGKILL to every process of the run. Returns at once: wait for [`LiveRun::emptied`].
    pub fn kill_all(&self) {
        let inner = self.inner.clone();
        if let Some(cgroup) = &inner.start.cgroup
            && let Err(e) = containment::kill(cgroup)
        {
            tracing::warn!(unit = %inner.unit, run = %inner.run, "could not kill the cgroup: {e}");
        }
        if let Some(shim) = &inner.shim {
            // A shim that somebody stopped would never reap.
            const SIGCONT: i32 = 18;
            let _ = shim.signal(SIGCONT);
        }
        if inner.is_walking.swap(true, Ordering::AcqRel) {
            return;
        }
        // The rest one by one, on a thread of its own: reading /proc blocks.
        let walker = inner.clone();
        let spawned = std::thread::Builder::new().name("wharf-kill".into()).spawn(move || {
            walker.kill_one_by_one();
            walker.is_walking.store(false, Ordering::Release);
        });
        if let Err(e) = spawned {
            inner.is_walking.store(false, Ordering::Release);
            tracing::warn!(unit = %inner.unit, run = %inner.run, "could not look for the run's processes: {e}");
        }
    }

    /// All live processes of the run, without its shim. Reads all of /proc: some milliseconds.
    pub fn pids(&self) -> Vec<i32> {
        self.inner.members().iter().map(|m| m.pid).collect()
    }
}

impl fmt::Debug for LiveRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LiveRun({} {} pid {})", self.inner.unit, self.inner.run, self.inner.start.pid)
    }
}

impl Inner {
    fn cgroup(&self) -> Option<&Path> {
        self.start.cgroup.as_deref()
    }

    fn shim_lives(&self) -> bool {
        self.shim.as_ref().is_some_and(|shim| !shim.has_exited())
    }

    fn is_empty(&self) -> bool {
        let main_lives = self.main.as_ref().is_some_and(|main| !main.has_exited());
        !main_lives && !self.cgroup().is_some_and(containment::is_populated) && !self.folder.is_locked()
    }

    async fn watch_exit(&self) -> Exit {
        if let Some(main) = &self.main {
            main.exited().await;
        }
        let (began, mut pause) = (Instant::now(), Duration::from_millis(1));
        loop {
            // Asked before the record is read: a shim that ends after it has written it all.
            let shim_lives = self.shim_lives();
            if let Some(record) = self.folder.exit() {
                return outcome(record.outcome);
            }
            let kernel = self.main.as_ref().and_then(Watched::exit_seen_by_kernel);
            if !shim_lives && kernel.is_some() {
                return kernel.map_or(Exit::Unknown, seen);
            }
            let hopeless = !shim_lives && self.main.is_none();
            if hopeless || began.elapsed() > RECORD_WAIT {
                return kernel.map_or(Exit::Unknown, seen);
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn members(&self) -> Vec<members::Member> {
        let roots = members::Roots {
            // Once the shim is dead its descendants are init's: the lock tells of them.
            shim: self.shim_lives().then_some(self.start.shim_pid),
            shim_pid: self.start.shim_pid,
            main: self.main.as_ref().filter(|m| !m.has_exited()).map(Watched::pid),
            lock: self.folder.lock_path(),
            cgroup: self.start.cgroup.clone(),
        };
        members::find(&roots)
    }

    /// Where there is a cgroup it has been killed, and this finds who left it. Elsewhere: first all
    /// are stopped, so that none forks behind our back, then all are killed.
    fn kill_one_by_one(&self) {
        const SIGKILL: i32 = 9;
        const SIGSTOP: i32 = 19;
        let began = Instant::now();
        if self.cgroup().is_some() {
            while !self.is_empty() && began.elapsed() < Duration::from_millis(100) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        while !self.is_empty() && began.elapsed() < WALK_LIMIT {
            for _ in 0..20 {
                let moving: Vec<_> = self.members().into_iter().filter(|m| !m.is_stopped).collect();
                if moving.is_empty() {
                    break;
                }
                moving.iter().for_each(|member| member.signal(SIGSTOP));
            }
            self.members().iter().for_each(|member| member.signal(SIGKILL));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The shim's word in the model's.
pub(super) fn outcome(outcome: Outcome) -> Exit {
    match outcome {
        Outcome::Exited(code) => Exit::Exited { code },
        Outcome::Signaled(signal) => Exit::Signaled { signal },
        Outcome::StartFailed(stage, errno) => Exit::StartFailed { stage: stage.word().into(), errno },
    }
}

fn seen(ended: Ended) -> Exit {
    match ended {
        Ended::Exited(code) => Exit::Exited { code },
        Ended::Signaled(signal) => Exit::Signaled { signal },
    }
}

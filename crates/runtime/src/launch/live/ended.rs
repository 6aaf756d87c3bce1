//! That a run's main process has ended, and how. The one is told at once, the other as soon as
//! anybody knows it; what nobody saw is `unknown`.

use std::{future::pending, sync::atomic::Ordering, time::Duration};

use tokio::time::{sleep, timeout};
use wharf_model::Exit;
use wharf_shim::Outcome;
use wharf_sys::pidfd::Ended;

use super::{Inner, Main};

/// How long how it ended may be waited for: pid 1 of some machines reaps once a second.
const LIMIT: Duration = Duration::from_secs(5);
/// A shim writes its record within this; it is read anew until then where nothing else tells.
const RECORD_PAUSE: Duration = Duration::from_millis(2);
/// A shim that is let run has reaped its main process within this.
const SHIM_TIME: Duration = Duration::from_millis(200);
const SIGKILL: i32 = 9;

impl Inner {
    /// Until the process that is the main one by then has ended. Told by the kernel or by the shim,
    /// whoever is first.
    pub(super) async fn gone(&self) {
        loop {
            // Listens before it looks: a change in between is not missed.
            let changed = self.main_changed.notified();
            let main = self.main();
            let ended = async {
                if let Some(watched) = &main.watched {
                    watched.exited().await;
                }
            };
            let told = async {
                match &self.ending {
                    Some(ending) if main.is_first => drop(ending.told().await),
                    _ => pending().await,
                }
            };
            tokio::select! {
                () = ended => {}
                () = told => {}
                () = changed => continue,
            }
            if self.main().pid == main.pid {
                return;
            }
        }
    }

    /// How it ended, from what has been told already.
    pub(super) fn exit_by_now(&self) -> Option<Exit> {
        if let Some(exit) = self.exit.get() {
            return Some(exit.clone());
        }
        self.told_by_now(&self.main()).map(|exit| self.with_oom(exit))
    }

    fn told_by_now(&self, main: &Main) -> Option<Exit> {
        let told = self.ending.as_ref().filter(|_| main.is_first).and_then(|ending| ending.known());
        let kernel = || main.watched.as_ref().and_then(|watched| watched.exit_seen_by_kernel());
        told.map(outcome).or_else(|| kernel().map(seen))
    }

    pub(super) async fn learn_exit(&self) -> Exit {
        self.gone().await;
        let main = self.main();
        let exit = match self.told_by_now(&main) {
            Some(exit) => exit,
            None => timeout(LIMIT, self.await_news(&main)).await.unwrap_or(Exit::Unknown),
        };
        self.with_oom(exit)
    }

    /// A shim that somebody stopped does not reap: after a while it is told to go on.
    async fn nudge_shim(&self) -> Exit {
        const SIGCONT: i32 = 18;
        sleep(SHIM_TIME).await;
        if let Some(shim) = self.shim() {
            let _ = wharf_sys::pidfd::signal(shim, SIGCONT);
        }
        pending().await
    }

    /// From the shim, the kernel, or the shim's record: whichever is first.
    async fn await_news(&self, main: &Main) -> Exit {
        let told = async {
            match &self.ending {
                Some(ending) if main.is_first => outcome(ending.told().await),
                _ => pending().await,
            }
        };
        let kernel = async {
            if let Some(watched) = &main.watched {
                watched.reaped().await;
                if let Some(ended) = watched.exit_seen_by_kernel() {
                    return seen(ended);
                }
            }
            pending().await
        };
        tokio::select! {
            exit = told => exit,
            exit = kernel => exit,
            exit = self.await_record(main) => exit,
            exit = self.nudge_shim() => exit,
        }
    }

    async fn await_record(&self, main: &Main) -> Exit {
        loop {
            // Asked before the record is read: a shim that ends after it has written it all.
            let shim_lives = self.shim().is_some();
            if let Some(record) = self.folder.exit().filter(|_| main.is_first) {
                return outcome(record.outcome);
            }
            match (shim_lives && main.is_first, &main.watched) {
                (true, _) => sleep(RECORD_PAUSE).await,
                // The kernel may still say it, once somebody has reaped it.
                (false, Some(_)) => pending().await,
                (false, None) => return Exit::Unknown,
            }
        }
    }

    /// The kernel's own kills look like anybody's: its counters tell them apart.
    fn with_oom(&self, exit: Exit) -> Exit {
        if exit != (Exit::Signaled { signal: SIGKILL }) {
            return exit;
        }
        let ours = self.was_killed.load(Ordering::Acquire);
        let counted = self.oom.counted(self.cgroup(), &self.start.limit_groups);
        if counted.groups > 0 || !ours && counted.processes > 0 {
            return Exit::OomKilled;
        }
        if !ours && self.oom.happened_anywhere() { Exit::OomSuspected } else { exit }
    }
}

/// The shim's word in the model's.
pub fn outcome(outcome: Outcome) -> Exit {
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

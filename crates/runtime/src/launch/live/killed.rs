//! The end of all processes of a run, whether they want it or not.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, time::timeout};

use super::{super::containment, Inner};

/// How long SIGKILL is repeated for processes that are found one by one.
const WALK_LIMIT: Duration = Duration::from_secs(30);
/// A killed cgroup is empty within this; who lives then has left it.
const CGROUP_TIME: Duration = Duration::from_millis(100);
const SIGKILL: i32 = 9;
const SIGCONT: i32 = 18;
const SIGSTOP: i32 = 19;

pub fn kill_all(inner: &Arc<Inner>) {
    inner.was_killed.store(true, Ordering::Release);
    if let Some(cgroup) = inner.cgroup()
        && let Err(e) = containment::kill(cgroup)
    {
        tracing::warn!(unit = %inner.unit, run = %inner.run, "could not kill the cgroup: {e}");
    }
    if let Ok(shim) = wharf_sys::pidfd::open_exact(inner.start.shim_pid, inner.start.shim_id) {
        // A shim that somebody stopped would never reap.
        let _ = wharf_sys::pidfd::signal(shim, SIGCONT);
    }
    if inner.is_walking.swap(true, Ordering::AcqRel) {
        return;
    }
    let walker = inner.clone();
    match (inner.cgroup(), Handle::try_current()) {
        (Some(_), Ok(runtime)) => drop(runtime.spawn(async move {
            let is_empty = timeout(CGROUP_TIME, walker.emptied()).await.is_ok();
            if is_empty { walker.is_walking.store(false, Ordering::Release) } else { walk(walker) }
        })),
        (_, _) => walk(walker),
    }
}

/// The rest one by one, on a thread of its own: reading /proc blocks.
fn walk(inner: Arc<Inner>) {
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

impl Inner {
    /// First all are stopped, so that none forks behind our back, then all are killed.
    fn kill_one_by_one(&self) {
        let began = Instant::now();
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

//! `wharf down`: nothing runs any more, and nothing that was wanted is forgotten.

use std::{
    fs::{self, File},
    io,
    os::unix::net::UnixStream,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use rustix::{
    fs::FlockOperation,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use serde_json::{Value, json};
use wharf_api::{DaemonHealth, ListRow, StopParams, StopReport};
use wharf_model::{ErrorKind, Failure, Phase, UnitName};
use wharf_runtime::Layout;

use super::stop;
use crate::{
    Exit,
    daemon::handover,
    detach, given,
    progress::Progress,
    session::{self, Session},
    socket,
    trouble::{Outcome, Trouble},
};

/// Stop all services and the daemon
///
/// The services stay wanted: the next `wharf up` starts them again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf down\n  wharf down --leave-running    end the daemon alone, services go on")]
pub(crate) struct Down {
    /// End the daemon alone; services go on without it
    #[arg(long)]
    leave_running: bool,
}

const ENDS_WITHIN: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl Down {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        if handover::look(&Layout::from_env()).is_some_and(|daemon| daemon.is_supervised) {
            return Err(kept_running().into());
        }
        let health = match session.block_on(detach::health(session))? {
            Some(health) => health,
            None => match self.without_daemon(session)? {
                Some(health) => health,
                None => return Ok(Exit::Done),
            },
        };
        let mut stopped = vec![];
        if !self.leave_running {
            let (exit, results) = session.block_on(stop_all(session))?;
            if exit != Exit::Done {
                session.note("the daemon goes on, so that you can look; `wharf down --leave-running` ends it alone");
                return Ok(exit);
            }
            stopped = results;
        }
        session.block_on(end(session, &health))?;
        if session.json {
            session.say_json(&json!({ "stopped": stopped, "daemon_pid": health.pid }).to_string())?;
        } else if self.leave_running {
            session.say("the daemon has ended; services go on, `wharf up` takes them back")?;
        } else {
            session.say("the daemon has ended; nothing runs any more")?;
        }
        Ok(Exit::Done)
    }

    /// A daemon for services that were left without one; `None`: there is nothing to end.
    fn without_daemon(&self, session: &Session) -> Result<Option<DaemonHealth>, Trouble> {
        let left = if self.leave_running { vec![] } else { left_alone(&socket::runs()) };
        if left.is_empty() {
            if session.json {
                session.say_json(&json!({ "stopped": [], "daemon_pid": null }).to_string())?;
            } else if self.leave_running {
                session.say("no daemon was running")?;
            } else {
                session.say("nothing was running")?;
            }
            return Ok(None);
        }
        let (run, them) = if left.len() == 1 { ("runs", "it") } else { ("run", "them") };
        let left = left.join(", ");
        session.note(&format!("no daemon answers, but {left} {run}; a daemon is started to end {them}"));
        detach::start(session).map(Some)
    }
}

/// It would start the daemon again at once, and that one the services that are wanted.
fn kept_running() -> Failure {
    Failure::new(ErrorKind::Conflict, "a service manager keeps this daemon running, and would start it again")
        .hint("`systemctl stop wharf.socket wharf.service` ends it (with --user a user's), then `wharf down` the services")
}

/// Units with a process that lives: it holds its run's lock.
fn left_alone(runs: &Path) -> Vec<String> {
    let entries = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten();
    let is_held = |lock: &Path| {
        File::open(lock).is_ok_and(|file| rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err())
    };
    let mut left: Vec<String> = entries(runs)
        .filter(|unit| entries(&unit.path()).any(|run| is_held(&run.path().join("lock"))))
        .map(|unit| unit.file_name().to_string_lossy().into_owned())
        .collect();
    left.sort();
    left
}

/// Also what waits for its next try: it could begin while the others end.
pub(super) fn may_run(phase: Phase) -> bool {
    phase.is_live() || matches!(phase, Phase::Backoff | Phase::Blocked)
}

async fn stop_all(session: &Session) -> Result<(Exit, Vec<Value>), Trouble> {
    let raw = session.client.raw("service.list", json!({})).await?;
    let rows: Vec<ListRow> = session::read(&raw)?;
    let names: Vec<UnitName> = rows.into_iter().filter(|row| may_run(row.status)).map(|row| row.name).collect();
    let calls = given::calls(&names, |name| {
        given::params(&StopParams { name: name.clone(), keep_want: true, retire: false, wait: true })
    })?;
    let progress = Progress::watched();
    // Not one JSON-RPC batch: each is told when it is done, not when the slowest is.
    let mut stops = stream::iter(&calls)
        .map(|(name, params)| progress.call(&session.client, "service.stop", name, params.clone()))
        .buffer_unordered(32);
    let (mut exit, mut results) = (Exit::Done, vec![]);
    while let Some(stopped) = stops.next().await {
        match stopped {
            Ok(raw) => {
                if !session.json {
                    let report: StopReport = session::read(&raw)?;
                    progress.suspend(|| session.say(&stop::text(&report)))?;
                }
                results.push(session::read(&raw)?);
            }
            Err(failure) => exit = exit.and(progress.suspend(|| Trouble::Client(failure).report(session.json))),
        }
    }
    Ok((exit, results))
}

/// Ends the daemon and waits until its socket is gone.
async fn end(session: &Session, health: &DaemonHealth) -> Result<(), Trouble> {
    let no_pid = || Failure::new(ErrorKind::Internal, format!("{} is no pid of a daemon", health.pid));
    let pid = i32::try_from(health.pid).ok().filter(|pid| *pid > 1).and_then(Pid::from_raw).ok_or_else(no_pid)?;
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(e) => return Err(io::Error::from(e).into()),
    };
    // The number is the daemon's only if the daemon still answers now that the process is held.
    if detach::health(session).await?.is_none_or(|now| now.pid != health.pid) {
        return Err(Failure::new(ErrorKind::Conflict, "the daemon was replaced in the meantime")
            .hint("try again")
            .into());
    }
    pidfd_send_signal(&process, Signal::TERM).map_err(|e| not_signalled(e.into(), health.pid))?;
    let deadline = Instant::now() + ENDS_WITHIN;
    while Instant::now() < deadline {
        if is_silent(session.client.socket()) && is_dead(health.pid) {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    let message = format!("the daemon (pid {}) did not end within {} s", health.pid, ENDS_WITHIN.as_secs());
    let hint = format!("kill -KILL {} ends it; services go on", health.pid);
    Err(Failure::new(ErrorKind::Timeout, message).hint(hint).into())
}

fn not_signalled(error: io::Error, pid: u32) -> Trouble {
    let failure = Failure::from(error).while_doing(format!("end the daemon (pid {pid})"));
    Trouble::Failure(failure.hint("call it as the user that the daemon runs as, or as root"))
}

fn is_silent(socket: &Path) -> bool {
    match UnixStream::connect(socket) {
        Ok(_) => false,
        Err(e) => matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused),
    }
}

/// Gone, or a zombie that only waits for its parent.
fn is_dead(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let state = stat.rsplit_once(')').map_or("", |(_, rest)| rest.trim_start());
    state.starts_with(['Z', 'X'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_lives_while_its_lock_is_held() {
        let folder = tempfile::tempdir().unwrap();
        let lock = |unit: &str| {
            let run = folder.path().join(unit).join("3");
            fs::create_dir_all(&run).unwrap();
            File::create(run.join("lock")).unwrap()
        };
        let (redis, _stopped) = (lock("redis"), lock("hello"));
        rustix::fs::flock(&redis, FlockOperation::LockExclusive).unwrap();
        assert_eq!(left_alone(folder.path()), ["redis"]);
        drop(redis);
        assert!(left_alone(folder.path()).is_empty());
        assert!(left_alone(Path::new("/nowhere")).is_empty());
    }

    #[test]
    fn this_process_lives_and_the_last_pid_does_not() {
        assert!(!is_dead(std::process::id()));
        assert!(is_dead(u32::MAX));
    }
}

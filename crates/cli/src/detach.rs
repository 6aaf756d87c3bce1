//! Starts a daemon that outlives this process, and waits until it answers.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use wharf_api::DaemonHealth;
use wharf_model::{ErrorKind, Failure};

use crate::{
    session::{self, Session},
    trouble::Trouble,
};

/// A daemon that adopts many services answers later than one without any.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(20);
const TAIL_LINES: usize = 20;
/// What is closed to others is made so by name.
pub(crate) const UMASK: u32 = 0o022;

/// How the daemon is; `None` where none answers.
pub(crate) async fn health(session: &Session) -> Result<Option<DaemonHealth>, Trouble> {
    match session.client.raw("rpc.health", serde_json::json!({})).await {
        Ok(raw) => session::read(&raw).map(Some),
        Err(failure) if failure.is_unreachable() => Ok(None),
        Err(failure) => Err(failure.into()),
    }
}

/// Waits until a daemon answers. `is_gone` says when that is in vain.
pub(crate) async fn answering(
    session: &Session,
    mut is_gone: impl FnMut() -> Result<bool, Trouble>,
) -> Result<Option<DaemonHealth>, Trouble> {
    let deadline = Instant::now() + ANSWERS_WITHIN;
    while Instant::now() < deadline {
        if let Some(health) = health(session).await? {
            return Ok(Some(health));
        }
        if is_gone()? {
            // It can have lost against another one that answers by now.
            return health(session).await;
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Ok(None)
}

/// Where a daemon that nobody watches writes.
pub(crate) fn log_path(socket: &Path) -> PathBuf {
    socket.with_file_name("daemon.log")
}

/// Starts `wharf daemon` in the background; answers when it does.
pub(crate) fn start(session: &Session) -> Result<DaemonHealth, Trouble> {
    // A shell that closes what it makes is not meant for folders that services of other users pass.
    wharf_sys::process::set_umask(UMASK);
    let path = log_path(session.client.socket());
    let (log, began_at) = open_log(&path)?;
    let mut child = spawn(session, log)?;
    let mut ended = None;
    let health = session.block_on(answering(session, || {
        ended = child.try_wait()?;
        Ok(ended.is_some())
    }))?;
    if let Some(health) = health {
        return Ok(health);
    }
    let failure = match ended {
        Some(status) => Failure::new(ErrorKind::Internal, format!("the daemon ended before it answered ({status})")),
        None => late(),
    };
    let hint = format!("`wharf daemon` shows what it does; its log is {}", path.display());
    Err(failure.causes(tail(&path, began_at)).hint(hint).into())
}

/// It lives and does not answer.
pub(crate) fn late() -> Failure {
    Failure::new(ErrorKind::Timeout, format!("the daemon did not answer within {} s", ANSWERS_WITHIN.as_secs()))
}

fn spawn(session: &Session, log: File) -> Result<Child, Trouble> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("daemon");
    if let Some(socket) = &session.named_socket {
        command.arg("--socket").arg(std::path::absolute(socket)?);
    }
    if let Some(home) = std::env::var_os("WHARF_HOME").filter(|v| !v.is_empty()) {
        command.env("WHARF_HOME", std::path::absolute(home)?);
    }
    // What a service manager told this process is not meant for a daemon that outlives it.
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        command.env_remove(name);
    }
    // A group of its own: Ctrl-C in this terminal, and the end of the terminal, do not reach it.
    command.current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    command.spawn().map_err(|e| Trouble::Failure(Failure::from(e).while_doing("start the daemon")))
}

fn open_log(path: &Path) -> Result<(File, u64), Trouble> {
    let open = || -> io::Result<(File, u64)> {
        if let Some(folder) = path.parent() {
            // Only the folder itself is closed: services that run as another user must pass those above it.
            if let Some(above) = folder.parent() {
                std::fs::create_dir_all(above)?;
            }
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        let began_at = log.metadata()?.len();
        Ok((log, began_at))
    };
    open().map_err(|e| Trouble::Failure(Failure::from(e).while_doing(format!("open {}", path.display()))))
}

/// The last lines that were written since.
fn tail(path: &Path, began_at: u64) -> Vec<String> {
    let mut bytes = vec![];
    // A log that cannot be read has nothing to add to the failure.
    let _ = fs::File::open(path).and_then(|mut log| {
        log.seek(SeekFrom::Start(began_at))?;
        log.read_to_end(&mut bytes)
    });
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].iter().map(|line| (*line).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_what_this_daemon_wrote_is_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = log_path(&folder.path().join("run/service.sock"));
        let (mut log, began_at) = open_log(&path).unwrap();
        assert_eq!(began_at, 0);
        writeln!(log, "of yesterday").unwrap();
        let (mut log, began_at) = open_log(&path).unwrap();
        for n in 0..30 {
            writeln!(log, "line {n}").unwrap();
        }
        let tail = tail(&path, began_at);
        assert_eq!((tail.len(), tail[0].as_str()), (TAIL_LINES, "line 10"));
    }
}

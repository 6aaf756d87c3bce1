//! A successor that the running daemon starts itself: in its own cgroup, with its environment and its
//! log, so that a service manager goes on watching the same service.

use std::{
    io,
    os::fd::AsFd,
    path::Path,
    process::{Command, Stdio},
};

use wharf_model::{ErrorKind, Failure};
use wharf_sys::process::{Fork, exit_now, fork};

use super::channel::Channel;

/// What a service manager said to one process and not to another.
const OF_ONE_PROCESS: [&str; 5] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID", "SYSTEMD_EXEC_PID"];

/// Starts `program daemon --successor`; its standard input is the other end.
pub(super) fn start(program: &Path, named_socket: Option<&Path>) -> Result<Channel, Failure> {
    let (ours, theirs) = Channel::pair()?;
    let mut command = Command::new(program);
    command.args(["daemon", "--successor"]);
    if let Some(path) = named_socket {
        command.arg("--socket").arg(path);
    }
    for name in OF_ONE_PROCESS {
        command.env_remove(name);
    }
    command.stdin(Stdio::from(theirs));
    let doing = |e: io::Error| Failure::from(e).while_doing(format_args!("start {}", program.display()));
    // It leaves at once and lets its child go on: see `become_orphan`.
    let status = command.status().map_err(doing)?;
    // Here, since the command holds the other end.
    drop(command);
    if !status.success() {
        let text = format!("{} cannot be a successor ({status})", program.display());
        return Err(Failure::new(ErrorKind::Precondition, text).hint("its own words are in this daemon's log"));
    }
    Ok(ours)
}

/// Goes on as a child of init, or of the service manager: only of their own children do they hear the
/// end. Called before there is a second thread.
pub(crate) fn become_orphan() -> io::Result<()> {
    match fork()? {
        Fork::Parent(_) => exit_now(0),
        Fork::Child => Ok(()),
    }
}

/// The parent's end, which came as standard input; that becomes empty.
pub(super) fn parents_end() -> io::Result<Channel> {
    let end = io::stdin().as_fd().try_clone_to_owned()?;
    let nothing = std::fs::File::open("/dev/null")?;
    wharf_sys::files::become_standard(nothing.as_fd(), 0)?;
    Channel::new(end)
}

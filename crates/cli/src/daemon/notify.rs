//! What the daemon tells its service manager: datagrams of `NAME=value` lines, as sd_notify(3) has them.
//!
//! Own lines and no crate: it is one datagram, and who is the main process is ours to know.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// The way to the service manager, where there is one.
#[derive(Debug, Clone, Default)]
pub(super) struct Notify(Option<Arc<Way>>);

#[derive(Debug)]
struct Way {
    socket: UnixDatagram,
    manager: SocketAddr,
}

impl Notify {
    /// By `NOTIFY_SOCKET`; a socket that cannot be reached is none.
    pub(super) fn from_env() -> Self {
        let way = env::var_os("NOTIFY_SOCKET").filter(|v| !v.is_empty()).map(|named| way(&named));
        Self(match way {
            Some(Ok(way)) => Some(Arc::new(way)),
            Some(Err(e)) => {
                tracing::warn!("the service manager cannot be told anything: {e}");
                None
            }
            None => None,
        })
    }

    /// Whether anybody is told.
    pub(super) fn is_heard(&self) -> bool {
        self.0.is_some()
    }

    /// All sockets are served, every recorded run was looked at.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// The loop answered.
    pub(super) fn alive(&self, status: &str) {
        self.tell(&format!("WATCHDOG=1\nSTATUS={status}"));
    }

    /// It ends.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=the daemon ends; services go on");
    }

    /// Another process is about to take over.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let now_us = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}\nSTATUS=another daemon takes over"));
    }

    /// That process is the main one now.
    pub(super) fn main_is(&self, pid: u32) {
        self.tell(&format!("MAINPID={pid}"));
    }

    fn tell(&self, text: &str) {
        let Some(way) = &self.0 else { return };
        if let Err(e) = way.socket.send_to_addr(text.as_bytes(), &way.manager) {
            tracing::warn!("the service manager was not told {text:?}: {e}");
        }
    }
}

fn way(named: &OsStr) -> io::Result<Way> {
    let manager = match named.as_bytes().split_first() {
        Some((b'@', name)) => SocketAddr::from_abstract_name(name)?,
        Some((b'/', _)) => SocketAddr::from_pathname(Path::new(named))?,
        _ => return Err(io::Error::other("NOTIFY_SOCKET is neither a path nor an abstract name")),
    };
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not hold up the daemon.
    socket.set_nonblocking(true)?;
    Ok(Way { socket, manager })
}

/// How often the manager wants to hear that the daemon is well; half of its limit. `None`: never.
pub(super) fn watchdog() -> Option<Duration> {
    let number = |name| env::var(name).ok()?.parse::<u64>().ok();
    let limit_us = number("WATCHDOG_USEC").filter(|us| *us > 0)?;
    // Named for another process, it is not ours.
    let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    ours.then(|| Duration::from_micros(limit_us / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manager_hears_lines_at_a_path_and_at_an_abstract_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("wharf-notify-{}", std::process::id());
        let at_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let at_path = UnixDatagram::bind(&path).unwrap();
        for (manager, named) in [(at_path, path.into_os_string()), (at_name, format!("@{name}").into())] {
            Notify(Some(Arc::new(way(&named).unwrap()))).ready("3 of 4 units run");
            let mut heard = [0; 100];
            let length = manager.recv(&mut heard).unwrap();
            assert_eq!(&heard[..length], b"READY=1\nSTATUS=3 of 4 units run");
        }
        assert!(way(OsStr::new("relative")).is_err());
    }
}

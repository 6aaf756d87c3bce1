//! What a daemon holds to be the one of an installation: the locks, and the sockets by their names.
//!
//! It refuses to know what is served where. A further socket is one line in `SOCKETS`.

use std::{
    env,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::net::SocketAddrUnix;
use wharf_model::Failure;
use wharf_runtime::Layout;
use wharf_server::{Door, Keeper, Listener, Lock, bind, lock};

use super::{DaemonOptions, handover::Taken};

/// service.* and rpc.*, JSON-RPC over HTTP.
pub(super) const SERVICE: &str = "service.sock";

/// event.*, op.* and the other namespaces, the same.
pub(super) const RPC: &str = "rpc.sock";

/// The page for people.
pub(super) const ADMIN: &str = "admin.sock";

/// Every socket that a daemon serves, by its file's name.
const SOCKETS: [&str; 3] = [SERVICE, RPC, ADMIN];

/// The right and the means to be the daemon.
pub(super) struct Seat {
    pub(super) locks: Vec<Lock>,
    pub(super) doors: Vec<(String, Door)>,
    /// Where it was taken over from.
    pub(super) taken: Option<Taken>,
}

/// The sockets that this daemon is to serve, and where.
pub(super) fn wanted(layout: &Layout, options: &DaemonOptions) -> Result<Vec<(String, PathBuf)>, Failure> {
    let mut wanted = vec![];
    for name in SOCKETS {
        let path = match &options.socket {
            Some(path) if name == SERVICE => path.clone(),
            Some(path) => wharf_client::beside(path, name),
            None => layout.sockets().join(name),
        };
        wanted.push((name.to_owned(), std::path::absolute(path)?));
    }
    Ok(wanted)
}

/// Whether a socket of this name is one of ours.
pub(super) fn is_known(name: &str) -> bool {
    SOCKETS.contains(&name)
}

/// The folders that belong to one daemon: they may be on different paths.
pub(super) fn locked_folders(layout: &Layout) -> [PathBuf; 2] {
    [layout.sockets(), layout.state().to_owned()]
}

impl Seat {
    /// Where no daemon runs.
    pub(super) fn fresh(layout: &Layout, options: &DaemonOptions) -> Result<Self, Failure> {
        let locks = locked_folders(layout).iter().map(lock).collect::<Result<_, _>>()?;
        Self::with_locks(locks, layout, options)
    }

    /// The same with the locks held already.
    pub(super) fn with_locks(locks: Vec<Lock>, layout: &Layout, options: &DaemonOptions) -> Result<Self, Failure> {
        let mut seat = Self { locks, ..Self::of_manager(layout, options)? };
        seat.bind_missing(layout, options)?;
        Ok(seat)
    }

    /// With the sockets alone that a service manager has passed.
    pub(super) fn of_manager(layout: &Layout, options: &DaemonOptions) -> Result<Self, Failure> {
        Ok(Self { locks: vec![], doors: passed(&wanted(layout, options)?)?, taken: None })
    }

    /// Binds what nobody has passed.
    pub(super) fn bind_missing(&mut self, layout: &Layout, options: &DaemonOptions) -> Result<(), Failure> {
        for (name, path) in wanted(layout, options)? {
            if !self.doors.iter().any(|(there, _)| *there == name) {
                self.doors.push((name, bind(&path)?.into()));
            }
        }
        Ok(())
    }

    /// Lets go of everything that another process goes on with.
    pub(super) fn leave(self) {
        for (_, door) in self.doors {
            door.listener.leave();
        }
    }
}

/// Sockets that a service manager has opened (`LISTEN_FDS`), by the places where they are wanted.
fn passed(wanted: &[(String, PathBuf)]) -> Result<Vec<(String, Door)>, Failure> {
    let number = |name| env::var(name).ok()?.parse::<u32>().ok();
    // Meant for another process: a shell between the manager and us, say.
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(vec![]);
    }
    let count = number("LISTEN_FDS").and_then(|n| u16::try_from(n).ok()).unwrap_or(0);
    let mut doors = vec![];
    for descriptor in wharf_sys::passed::descriptors(count)? {
        let address = rustix::net::getsockname(&descriptor).map_err(std::io::Error::from)?;
        let bound = SocketAddrUnix::try_from(address).ok();
        let bound = bound.as_ref().and_then(SocketAddrUnix::path_bytes).map(|path| Path::new(OsStr::from_bytes(path)));
        // The name in LISTEN_FDNAMES is one for all sockets of a unit: where it is bound says more.
        match wanted.iter().find(|(_, path)| Some(path.as_path()) == bound) {
            Some((name, path)) => {
                doors.push((name.clone(), Listener::received(descriptor, path, Keeper::Manager)?.into()));
            }
            None => {
                let bound = bound.map_or_else(|| "-".into(), |path| path.display().to_string());
                tracing::warn!("a passed socket is none of ours and is closed: {bound}");
            }
        }
    }
    Ok(doors)
}

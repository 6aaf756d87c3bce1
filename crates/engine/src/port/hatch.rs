//! The hatch: where the holder of a lease fetches its listening sockets.
//!
//! ```text
//!   port.lease, handoff fd ──> the daemon listens on the ports, and on a Unix socket of the lease
//!   connect ──> the kernel says who: the lease's user? ──> one line of JSON, and the sockets beside it (SCM_RIGHTS)
//! ```
//!
//! It is open until the lease is over: a program that is restarted fetches the same sockets again, and whoever connects
//! meanwhile waits. It refuses to know who may have a lease.
//!
//! Limitation: a daemon that ends lets its copies go, and the next one cannot listen beside the holder. The holder's own
//! go on; there is no hatch until it has closed them.

use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, MetadataExt, PermissionsExt},
            net::UnixListener,
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{net, task::JoinHandle};
use wharf_core::ports::PortLease;
use wharf_runtime::{Layout, ports};

use crate::engine::Shared;

/// After a connection that could not be taken.
const AGAIN: Duration = Duration::from_millis(100);

/// The sockets of one lease, and the way to them. It closes with the value.
pub struct Hatch {
    path: PathBuf,
    /// Which file it is: by now another daemon can have made one there.
    file: (u64, u64),
    task: JoinHandle<()>,
}

/// What goes through it.
struct Goods {
    uid: u32,
    words: Vec<u8>,
    sockets: Vec<OwnedFd>,
}

/// Makes the folder anew: what lies there is of a daemon that has ended.
pub fn clear(layout: &Layout) -> io::Result<()> {
    let folder = layout.hatches();
    match fs::remove_dir_all(&folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::DirBuilder::new().mode(0o700).create(folder)
}

impl Hatch {
    /// Listens on the lease's ports, and opens.
    ///
    /// # Errors
    /// Somebody else listens on one of them.
    pub fn open(shared: &Shared, lease: &PortLease) -> io::Result<Self> {
        let reach = lease.terms.reach;
        let sockets = lease.ports.iter().map(|port| ports::listen(*port, reach)).collect::<io::Result<_>>()?;
        let path = shared.layout.hatches().join(lease.id.0.to_string());
        let door = bind(&path)?;
        let file = file(&path)?;
        let goods = Arc::new(Goods { uid: lease.terms.uid, words: words(lease), sockets });
        let task = shared.tasks.spawn(serve(door, goods));
        Ok(Self { path, file, task })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Hatch {
    fn drop(&mut self) {
        if file(&self.path).is_ok_and(|file| file == self.file) {
            let _ = fs::remove_file(&self.path);
        }
        self.task.abort();
    }
}

fn file(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let door = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    door.set_nonblocking(true)?;
    Ok(door)
}

/// What comes with the sockets: which is which.
fn words(lease: &PortLease) -> Vec<u8> {
    let words = serde_json::json!({
        "lease": lease.id, "ports": lease.ports, "service": lease.terms.service, "port_name": lease.terms.name,
    });
    format!("{words}\n").into_bytes()
}

async fn serve(door: UnixListener, goods: Arc<Goods>) {
    let door = match net::UnixListener::from_std(door) {
        Ok(door) => door,
        Err(e) => return tracing::warn!("a hatch cannot be served: {e}"),
    };
    loop {
        match door.accept().await {
            Ok((guest, _)) => {
                if let Err(e) = hand(&guest, &goods) {
                    tracing::debug!("a listening socket was not handed over: {e}");
                }
            }
            // No descriptor is free, say.
            Err(e) => {
                tracing::debug!("a connection to a hatch was not taken: {e}");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

fn hand(guest: &net::UnixStream, goods: &Goods) -> io::Result<()> {
    let uid = guest.peer_cred()?.uid();
    if uid != goods.uid {
        return Err(io::Error::other(format!("uid {uid} asks for what is of uid {}", goods.uid)));
    }
    let sockets: Vec<BorrowedFd<'_>> = goods.sockets.iter().map(AsFd::as_fd).collect();
    // A new connection has room for a line.
    wharf_sys::socket::send(guest, &goods.words, &sockets)
}

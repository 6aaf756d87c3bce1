//! Where sockets live: a folder that only its owner can enter, sockets that appear there complete
//! or not at all, and one lock a daemon.
//!
//! Refuses to guess: a folder or a file that is not as expected is left as it is, and the failure
//! names the command that mends it.

mod folder;
mod lock;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::{UnixListener, UnixStream};
use wharf_model::{ErrorKind, Failure};

pub use lock::{Lock, lock};

/// The kernel's `sun_path`, less its final zero.
const PATH_BYTES: usize = 107;

/// Connections that wait to be accepted. Past it a client that blocks hangs, and one that does not gets EAGAIN.
const BACKLOG: i32 = 1024;

/// A bound socket. Dropped, its file is removed, if it is still this one's.
#[derive(Debug)]
pub struct Listener {
    inner: UnixListener,
    path: PathBuf,
    /// Device and inode of the socket's file.
    file: (u64, u64),
}

impl Listener {
    /// Where it is bound.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        self.inner.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A newer daemon may have renamed its own socket over this one: that one stays.
        if fs::symlink_metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == self.file)
            && let Err(e) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), "could not remove the socket: {e}");
        }
    }
}

/// Binds a socket of mode 0600 in a folder of mode 0700, which is made if it is not there. The
/// socket of a daemon that died is replaced; one that answers is not. Needs a tokio runtime.
pub fn bind(path: impl AsRef<Path>) -> Result<Listener, Failure> {
    let path = std::path::absolute(path.as_ref())?;
    bind_at(&path).map_err(|failure| failure.while_doing(format_args!("open the socket {}", path.display())))
}

fn bind_at(path: &Path) -> Result<Listener, Failure> {
    check_length(path)?;
    let Some(folder) = path.parent() else {
        return Err(Failure::new(ErrorKind::InvalidParams, "the path names no folder"));
    };
    folder::prepare(folder)?;
    check_vacant(path)?;
    let fresh = fresh_name(folder);
    check_length(&fresh)?;
    let listener = bind_new(&fresh).inspect_err(|_| _ = fs::remove_file(&fresh))?;
    let file = fs::symlink_metadata(&fresh)?;
    // Renaming is atomic: nobody ever finds the path missing, or the socket with another mode.
    fs::rename(&fresh, path).inspect_err(|_| _ = fs::remove_file(&fresh))?;
    Ok(Listener { inner: UnixListener::from_std(listener)?, path: path.into(), file: (file.dev(), file.ino()) })
}

fn bind_new(fresh: &Path) -> Result<StdListener, Failure> {
    match fs::remove_file(fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(io::Error::from)?;
    let address = SocketAddrUnix::new(fresh).map_err(io::Error::from)?;
    net::bind(&socket, &address).map_err(io::Error::from)?;
    fs::set_permissions(fresh, Permissions::from_mode(0o600))?;
    net::listen(&socket, BACKLOG).map_err(io::Error::from)?;
    Ok(socket.into())
}

/// A name that no other bind uses: the process's id and a count, short enough for tight paths.
fn fresh_name(folder: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    folder.join(format!(".{:x}{:x}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
}

fn check_length(path: &Path) -> Result<(), Failure> {
    let bytes = path.as_os_str().len();
    if bytes <= PATH_BYTES {
        return Ok(());
    }
    let message = format!("its path is {bytes} bytes long; the kernel takes {PATH_BYTES}");
    Err(Failure::new(ErrorKind::Precondition, message)
        .hint("choose a shorter folder with WHARF_HOME or XDG_RUNTIME_DIR"))
}

/// What is at the path may be replaced only if it is a socket that nobody listens on.
fn check_vacant(path: &Path) -> Result<(), Failure> {
    let there = match fs::symlink_metadata(path) {
        Ok(there) => there,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    if !there.file_type().is_socket() {
        let failure = Failure::new(ErrorKind::Precondition, "something that is no socket is there");
        return Err(failure.hint(format!("look at it, then move it away: ls -l {0}; mv {0} {0}.old", path.display())));
    }
    if is_dead(path)? {
        return Ok(());
    }
    let failure = Failure::new(ErrorKind::Conflict, "another process listens there");
    Err(failure.hint(format!("`ss -xlp src {}` names it", path.display())))
}

/// Asks without blocking: a full backlog is a live listener too.
fn is_dead(path: &Path) -> Result<bool, Failure> {
    use rustix::io::Errno;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(io::Error::from)?;
    let address = SocketAddrUnix::new(path).map_err(io::Error::from)?;
    match net::connect(&socket, &address) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(true),
        Ok(()) | Err(Errno::AGAIN | Errno::INPROGRESS) => Ok(false),
        Err(e) => Err(io::Error::from(e).into()),
    }
}

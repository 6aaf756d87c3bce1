//! Where sockets live: a folder that only its owner can enter, sockets that appear there complete
//! or not at all, and one lock a daemon.
//!
//! Refuses to guess: a folder or a file that is not as expected is left as it is, and the failure
//! names the command that mends it.

mod folder;
mod lock;

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tokio::net::UnixListener;
use wharf_model::{ErrorKind, Failure};

pub use lock::{Holder, Lock, holder, lock};

/// The kernel's `sun_path`, less its final zero.
const PATH_BYTES: usize = 107;

/// Connections that wait to be accepted. Past it a client that blocks hangs, and one that does not gets EAGAIN.
const BACKLOG: i32 = 1024;

/// Who made a socket's file, and removes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeper {
    /// The daemon itself.
    Daemon,
    /// Whoever started it with the socket open: a service manager, which goes on listening.
    Manager,
}

/// A bound socket. Dropped, its file is removed, if it is the daemon's and still this one's.
#[derive(Debug)]
pub struct Listener {
    inner: StdListener,
    path: PathBuf,
    keeper: Keeper,
    /// Another process may still go on with it: its file is not ours to remove.
    is_lent: bool,
    /// Device and inode of the socket's file.
    file: (u64, u64),
}

impl Listener {
    /// A socket that somebody else has bound there and listens on: a service manager, or another daemon.
    ///
    /// It is refused unless it is a listening Unix stream socket, in a folder that only its owner can
    /// enter, with a file that is closed to others.
    pub fn received(descriptor: OwnedFd, path: &Path, keeper: Keeper) -> Result<Self, Failure> {
        received(descriptor, path, keeper)
            .map_err(|failure| failure.while_doing(format_args!("use the socket {} that was passed", path.display())))
    }

    /// Where it is bound.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose the file is.
    pub fn keeper(&self) -> Keeper {
        self.keeper
    }

    /// From now on it is this process's alone, and where no manager keeps it, its file as well.
    pub fn own(&mut self) {
        self.is_lent = false;
    }

    /// Lets go of it and leaves its file: another process listens on.
    pub fn leave(mut self) {
        self.is_lent = true;
    }

    /// To accept from; it listens for as long as this value lives. Needs a tokio runtime.
    pub(crate) fn accepting(&self) -> io::Result<UnixListener> {
        UnixListener::from_std(self.inner.try_clone()?)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // A newer daemon may have renamed its own socket over this one: that one stays.
        if self.keeper == Keeper::Daemon
            && !self.is_lent
            && fs::symlink_metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == self.file)
            && let Err(e) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), "could not remove the socket: {e}");
        }
    }
}

fn received(descriptor: OwnedFd, path: &Path, keeper: Keeper) -> Result<Listener, Failure> {
    use net::sockopt;
    let wrong = |what: &str| Failure::new(ErrorKind::Precondition, what.to_owned());
    let domain = sockopt::socket_domain(&descriptor).map_err(io::Error::from)?;
    let kind = sockopt::socket_type(&descriptor).map_err(io::Error::from)?;
    if domain != AddressFamily::UNIX || kind != SocketType::STREAM {
        return Err(wrong("it is no Unix stream socket").hint("in a socket unit: ListenStream= with a path"));
    }
    if !sockopt::socket_acceptconn(&descriptor).map_err(io::Error::from)? {
        return Err(wrong("it does not listen").hint("in a socket unit: Accept=no"));
    }
    if let Some(folder) = path.parent() {
        folder::prepare(folder)?;
    }
    let there = fs::symlink_metadata(path)?;
    if !there.file_type().is_socket() {
        return Err(wrong("something that is no socket is there"));
    }
    let mode = there.mode() & 0o7777;
    if mode & 0o077 != 0 {
        let failure = Failure::new(ErrorKind::Permission, format!("its file is open to others (mode {mode:04o})"));
        return Err(failure.hint(format!("in a socket unit: SocketMode=0600; or now: chmod 600 {}", path.display())));
    }
    let inner = StdListener::from(descriptor);
    inner.set_nonblocking(true)?;
    Ok(Listener { inner, path: path.into(), keeper, is_lent: true, file: (there.dev(), there.ino()) })
}

/// Binds a socket of mode 0600 in a folder of mode 0700, which is made if it is not there. The
/// socket of a daemon that died is replaced; one that answers is not.
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
    Ok(Listener {
        inner: listener,
        path: path.into(),
        keeper: Keeper::Daemon,
        is_lent: false,
        file: (file.dev(), file.ino()),
    })
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

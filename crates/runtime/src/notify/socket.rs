//! The socket of a run: where it lies, and whose it is.

use std::{
    fs::{self, DirBuilder, Permissions},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown},
            net::UnixDatagram,
        },
    },
    path::{Path, PathBuf},
};

use wharf_model::{ErrorKind, Failure};

/// What fits into the address of a Unix socket, in bytes.
const PATH_BYTES: usize = 107;
/// Behind the path: a new socket, until it takes the old one's place.
const DRAFT: &str = ".new";
/// Behind the path: a mark that the run has said that it is ready.
const READY: &str = ".ready";

/// A bound datagram socket. Its file stays until somebody removes it.
///
/// Its folder belongs to the daemon: in one of the service's own, a link could be put where the
/// daemon is about to give a file away. The socket itself is open to the run's user alone, so that
/// nobody else can keep the daemon busy.
#[derive(Debug)]
pub struct Socket {
    socket: UnixDatagram,
    path: PathBuf,
    owner: Option<(u32, u32)>,
}

impl Socket {
    /// Binds it at this path. `owner` is the user and group of the run, where they are not the daemon's.
    pub fn bind(path: &Path, owner: Option<(u32, u32)>) -> Result<Self, Failure> {
        if path.as_os_str().len() + DRAFT.len() > PATH_BYTES {
            let text = format!("{} is too long for a socket: {PATH_BYTES} bytes are the most", path.display());
            return Err(Failure::new(ErrorKind::Precondition, text)
                .hint("let WHARF_HOME be a shorter path, or do without `notify` and `watchdog_ms`"));
        }
        let made = || {
            if let Some(folder) = path.parent() {
                // Passed by those who know a socket's name, listed by nobody.
                DirBuilder::new().recursive(true).mode(0o711).create(folder)?;
            }
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                Ok(()) | Err(_) => bound(path, owner),
            }
        };
        let socket = made().map_err(|e| Failure::from(e).while_doing(format_args!("make {}", path.display())))?;
        Ok(Self { socket, path: path.to_owned(), owner })
    }

    /// Takes over a socket that is bound at this path.
    pub fn held(socket: OwnedFd, path: &Path, owner: Option<(u32, u32)>) -> io::Result<Self> {
        let socket = UnixDatagram::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self { socket, path: path.to_owned(), owner })
    }

    /// Whose the file at this path is, where it is not ours.
    pub fn owner_of(path: &Path) -> Option<(u32, u32)> {
        let found = fs::symlink_metadata(path).ok()?;
        (found.uid() != wharf_sys::process::acts_as().0).then_some((found.uid(), found.gid()))
    }

    /// Whether it was renewed: the run has said that it is ready.
    pub fn was_ready(path: &Path) -> bool {
        beside(path, READY).exists()
    }

    /// The run is over. Nothing may lie there.
    pub fn remove(path: &Path) {
        if fs::remove_file(path).is_ok() {
            let _ = fs::remove_file(beside(path, READY));
        }
    }

    /// For NOTIFY_SOCKET.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The same socket once more.
    pub(super) fn open(&self) -> io::Result<UnixDatagram> {
        self.socket.try_clone()
    }

    /// Another socket takes its path, from one moment to the next: nobody finds none.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        // Outlives a daemon that ends before it has written down what it heard.
        fs::write(beside(&self.path, READY), "")?;
        let draft = beside(&self.path, DRAFT);
        let _ = fs::remove_file(&draft);
        let socket = bound(&draft, self.owner)?;
        fs::rename(&draft, &self.path)?;
        self.socket = socket;
        Ok(())
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn beside(path: &Path, what: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(what);
    name.into()
}

fn bound(path: &Path, owner: Option<(u32, u32)>) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::bind(path)?;
    socket.set_nonblocking(true)?;
    wharf_sys::datagram::name_senders(&socket)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    if let Some((uid, gid)) = owner {
        lchown(path, Some(uid), Some(gid))?;
    }
    Ok(socket)
}

//! The daemon that runs: it hears who wants its place, and gives everything away or goes on.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    fs::MemfdFlags,
    net::{self, SocketAddrUnix, SocketFlags},
};
use tokio::{net::UnixListener, sync::mpsc};
use wharf_model::{ErrorKind, Failure};
use wharf_server::Carried;

use super::{
    channel::{self, Channel, Unheard},
    successor,
    words::{Offer, PROTOCOL, Socket, Wish, Word},
};
use crate::daemon::{notify::Notify, seat::Seat, signals::Quit};

/// For a first word.
const GREETED_WITHIN: Duration = Duration::from_secs(2);
/// For all that a taker tries out before.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// For the start of the taker's engine.
const TAKEN_WITHIN: Duration = Duration::from_secs(20);
/// For a process that was killed.
const DEAD_WITHIN: Duration = Duration::from_secs(5);
/// Those who talk at the same time.
const TALKS: usize = 8;

/// The private socket. Dropped, its file is removed, if it is still this one's.
pub(crate) struct Post {
    /// Of records, not of bytes; tokio waits for both alike.
    socket: UnixListener,
    path: PathBuf,
    file: (u64, u64),
}

impl Drop for Post {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == self.file) {
            // A file that stays is replaced by the next daemon.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Where it lies.
pub(super) fn path(folder: &Path) -> PathBuf {
    folder.join("handover.sock")
}

/// Opens the private socket, mode 0600, in place of a former daemon's. Needs a tokio runtime.
pub(crate) fn listen(folder: &Path) -> Result<Post, Failure> {
    let open = || -> io::Result<Post> {
        let (path, fresh) = (path(folder), folder.join(format!(".h{:x}", std::process::id())));
        let _ = fs::remove_file(&fresh);
        let socket = channel::socket(SocketFlags::NONBLOCK)?;
        net::bind(&socket, &SocketAddrUnix::new(&fresh)?)?;
        fs::set_permissions(&fresh, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        net::listen(&socket, 16)?;
        let file = fs::symlink_metadata(&fresh)?;
        fs::rename(&fresh, &path)?;
        Ok(Post { socket: UnixListener::from_std(socket.into())?, path, file: (file.dev(), file.ino()) })
    };
    open().map_err(|e| Failure::from(e).while_doing(format_args!("open {}", path(folder).display())))
}

/// What a daemon offers, and how a successor of it is started.
#[derive(Clone)]
pub(crate) struct Terms {
    pub(crate) is_supervised: Arc<AtomicBool>,
    pub(crate) sockets: Vec<Socket>,
    /// The service socket, where its place was named on the command line.
    pub(crate) named_socket: Option<PathBuf>,
}

/// A taker that is ready. Dropped, it is told that it was in vain.
pub(crate) struct Request {
    channel: Channel,
    taker: OwnedFd,
    taker_pid: u32,
    version: String,
    /// How long calls in flight may take.
    pub(crate) patience: Duration,
    /// Who asked for a successor, and waits.
    asked_by: Option<Channel>,
    answered: bool,
    _claim: Claim,
}

/// There is one taker at a time.
struct Claim;

static CLAIMED: AtomicBool = AtomicBool::new(false);

impl Claim {
    fn take() -> Result<Self, Failure> {
        if CLAIMED.swap(true, Ordering::SeqCst) {
            let failure = Failure::new(ErrorKind::Conflict, "another process takes over at this moment");
            return Err(failure.hint("`wharf status` shows how it went; then try again"));
        }
        Ok(Self)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        CLAIMED.store(false, Ordering::SeqCst);
    }
}

impl Post {
    /// Hears whoever comes, until dropped.
    pub(crate) async fn hear(self, terms: Terms, requests: mpsc::Sender<Request>) {
        let places = Arc::new(tokio::sync::Semaphore::new(TALKS));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let accepted = self.socket.accept().await.and_then(|(stream, _)| stream.into_std());
            match accepted.and_then(Channel::accepted) {
                Ok(channel) => {
                    let (terms, requests) = (terms.clone(), requests.clone());
                    tokio::task::spawn_blocking(move || {
                        converse(channel, &terms, &requests);
                        drop(place);
                    });
                }
                Err(e) => {
                    tracing::warn!("a taker could not be heard: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

fn converse(channel: Channel, terms: &Terms, requests: &mpsc::Sender<Request>) {
    let refused = match greeted(&channel) {
        Ok((pid, version, wish)) => match wish {
            Wish::Look => channel.say(&Word::Offer(terms.offer()), &[]).map_err(Failure::from),
            Wish::Take { .. } if terms.is_supervised.load(Ordering::SeqCst) => Err(supervised()),
            Wish::Take { patience_ms } => negotiate(&channel, pid, terms).map(|(taker, claim)| {
                let patience = Duration::from_millis(patience_ms);
                let end = channel.as_fd().try_clone_to_owned().and_then(Channel::new);
                if let Ok(channel) = end {
                    request(
                        requests,
                        Request {
                            channel,
                            taker,
                            taker_pid: pid,
                            version,
                            patience,
                            asked_by: None,
                            answered: false,
                            _claim: claim,
                        },
                    );
                }
            }),
            Wish::Succeed { program, patience_ms } => {
                let patience = Duration::from_millis(patience_ms);
                succeed(&channel, &program, patience, terms, requests)
            }
        },
        Err(failure) => Err(failure),
    };
    if let Err(failure) = refused {
        tracing::warn!("nobody takes over: {failure}");
        // Whoever has left need not be told.
        let _ = channel.say(&Word::Refused { failure }, &[]);
    }
}

fn supervised() -> Failure {
    Failure::new(ErrorKind::Conflict, "a service manager watches this daemon, and another one would take its place")
        .hint("start the new one in its place: `wharf daemon --replace` from a shell does, or `systemctl reload wharf`")
}

/// Who it is and what it wants. The kernel says whether it may.
fn greeted(channel: &Channel) -> Result<(u32, String, Wish), Failure> {
    let peer = channel.peer()?;
    let (own, uid) = (rustix::process::geteuid(), peer.uid);
    if uid != own && !uid.is_root() {
        let text = format!("uid {} may not take over from a daemon of uid {}", uid.as_raw(), own.as_raw());
        return Err(Failure::new(ErrorKind::Permission, text).hint("call it as the user that the daemon runs as"));
    }
    hello(channel)
}

fn hello(channel: &Channel) -> Result<(u32, String, Wish), Failure> {
    match channel.hear(GREETED_WITHIN).map_err(unheard)?.0 {
        Word::Hello { protocol: PROTOCOL, version, pid, wish } => Ok((pid, version, wish)),
        Word::Hello { protocol, version, .. } => {
            let text = format!("wharf {version} hands over by protocol {protocol}, this one by {PROTOCOL}");
            Err(Failure::new(ErrorKind::Conflict, text)
                .hint("end this daemon (`wharf down --leave-running`), start the other"))
        }
        other => Err(Failure::new(ErrorKind::Internal, format!("a taker began with {other:?}"))),
    }
}

fn unheard(unheard: Unheard) -> Failure {
    Failure::new(ErrorKind::Internal, unheard.to_string())
}

/// Offers, and waits until the taker is ready.
fn negotiate(channel: &Channel, pid: u32, terms: &Terms) -> Result<(OwnedFd, Claim), Failure> {
    let claim = Claim::take()?;
    let taker = wharf_sys::pidfd::open(pid.cast_signed())?;
    channel.say(&Word::Offer(terms.offer()), &[])?;
    match channel.hear(READY_WITHIN).map_err(unheard)?.0 {
        Word::Ready => Ok((taker, claim)),
        Word::Refused { failure } => Err(failure),
        other => Err(Failure::new(ErrorKind::Internal, format!("a taker said {other:?}"))),
    }
}

/// Starts a program in this daemon's place, and treats it as one that came by itself.
fn succeed(
    asked_by: &Channel,
    program: &Path,
    patience: Duration,
    terms: &Terms,
    requests: &mpsc::Sender<Request>,
) -> Result<(), Failure> {
    let channel = successor::start(program, terms.named_socket.as_deref())?;
    let (pid, version, _) = hello(&channel).map_err(|e| e.while_doing(format_args!("start {}", program.display())))?;
    let (taker, claim) = negotiate(&channel, pid, terms)?;
    let asked_by = Some(Channel::new(asked_by.as_fd().try_clone_to_owned()?)?);
    request(
        requests,
        Request { channel, taker, taker_pid: pid, version, patience, asked_by, answered: false, _claim: claim },
    );
    Ok(())
}

fn request(requests: &mpsc::Sender<Request>, request: Request) {
    // A daemon that ends meanwhile drops it, and so the taker is told.
    let _ = requests.blocking_send(request);
}

impl Terms {
    fn offer(&self) -> Offer {
        Offer {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            is_supervised: self.is_supervised.load(Ordering::SeqCst),
            sockets: self.sockets.clone(),
        }
    }
}

/// What became of a handover.
pub(crate) enum Given {
    /// The other daemon has everything.
    Away,
    /// It has nothing, and does not live any more; this daemon goes on with what it has.
    Back(Seat),
}

impl Request {
    /// For people.
    pub(crate) fn taker(&self) -> String {
        format!("wharf {} (pid {})", self.version, self.taker_pid)
    }

    /// The taker has left: there is nobody to hand over to.
    pub(crate) fn is_gone(&self) -> bool {
        self.channel.is_gone()
    }

    /// Gives everything. The engine and all tasks of this process have ended before.
    pub(crate) fn give(
        mut self,
        seat: Seat,
        notify: &Notify,
        is_supervised: bool,
        quit: &Quit,
    ) -> Result<Given, Failure> {
        let heard = match self.send(&seat) {
            Ok(()) => self.channel.hear(TAKEN_WITHIN).map(|(word, _)| word),
            Err(e) => Err(Unheard::Wrong(e.to_string())),
        };
        let why = match heard {
            Ok(Word::Taken) => {
                if is_supervised {
                    notify.main_is(self.taker_pid);
                }
                self.answered = true;
                // It has everything: whether it hears this changes nothing for its clients.
                let _ = self.channel.say(&Word::Done { is_main: is_supervised, quits: *quit.borrow() }, &[]);
                self.tell(&Word::Replaced { pid: self.taker_pid, version: self.version.clone() });
                seat.leave();
                return Ok(Given::Away);
            }
            Ok(Word::Refused { failure }) => failure,
            Ok(other) => Failure::new(ErrorKind::Internal, format!("a taker said {other:?}")),
            Err(e) => unheard(e),
        };
        self.answered = true;
        self.tell(&Word::Refused { failure: why.clone().while_doing("take over") });
        tracing::error!("{} did not take over, this daemon goes on: {why}", self.taker());
        // It must not wake up later and be a second daemon.
        self.end_taker()?;
        for lock in &seat.locks {
            lock.sign()?;
        }
        Ok(Given::Back(seat))
    }

    fn send(&self, seat: &Seat) -> io::Result<()> {
        for lock in &seat.locks {
            let folder = lock.path().parent().unwrap_or(lock.path()).to_owned();
            self.channel.say(&Word::Lock { folder }, &[lock.as_fd()])?;
        }
        for (name, door) in &seat.doors {
            let socket = Socket::of(name, &door.listener);
            self.channel.say(&Word::Listener(socket), &[door.listener.as_fd()])?;
            for Carried { stream, unread } in &door.guests {
                let word = Word::Guest { name: name.clone() };
                if unread.is_empty() {
                    self.channel.say(&word, &[stream.as_fd()])?;
                } else {
                    let text = rustix::fs::memfd_create("unread", MemfdFlags::CLOEXEC)?;
                    io::Write::write_all(&mut fs::File::from(text.try_clone()?), unread)?;
                    self.channel.say(&word, &[stream.as_fd(), text.as_fd()])?;
                }
            }
        }
        self.channel.say(&Word::Go, &[])
    }

    fn end_taker(&self) -> Result<(), Failure> {
        let until = Instant::now() + DEAD_WITHIN;
        // One that failed by itself is about to end; a signal to one that has ended is an error of no interest.
        let _ = wharf_sys::pidfd::signal(&self.taker, rustix::process::Signal::KILL.as_raw());
        while !wharf_sys::pidfd::has_exited(&self.taker) {
            if Instant::now() > until {
                let text = format!("{} neither took over nor ended", self.taker());
                return Err(Failure::new(ErrorKind::Conflict, text).hint(format!("kill -KILL {}", self.taker_pid)));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn tell(&self, word: &Word) {
        if let Some(asked_by) = &self.asked_by {
            // Whoever asked may have left.
            let _ = asked_by.say(word, &[]);
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        let failure = Failure::new(ErrorKind::Conflict, "the daemon goes on, or ends, without a handover")
            .hint("its log says why; then try again");
        let _ = self.channel.say(&Word::Refused { failure: failure.clone() }, &[]);
        self.tell(&Word::Refused { failure });
    }
}

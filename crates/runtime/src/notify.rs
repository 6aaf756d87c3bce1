//! What programs say of themselves (sd_notify): one datagram socket for each run, whose path is the
//! run's identity.
//!
//! It owns the sockets, who is listened to, and how often. It refuses to know what follows from what
//! is said. A sender is found out by the kernel's word on its process, never by a pid that another
//! may have by now; who is no process of the run is not heard.
//!
//! The first socket of a run is also held open by its shim: what the program says while no daemon
//! lives waits in it. A program that has got ready is given a new one under the same path, held by
//! the daemon alone: else its sends would wait for ever once no daemon reads and the few places of
//! the kernel's queue are taken (`net.unix.max_dgram_qlen`).

mod crowd;
mod message;
mod socket;

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use tokio::{io::Interest, net::UnixDatagram};
use wharf_model::Failure;
use wharf_sys::{datagram::Datagram, pidfd};

use message::{MOST_BYTES, Message, Watchdog};
pub use socket::Socket;

/// What more comes within a second is dropped.
const MOST_PER_SECOND: u32 = 100;
/// How long a program that says too much is not read.
const PAUSE: Duration = Duration::from_millis(10);
/// Datagrams of one turn.
const BATCH: usize = 64;
/// Senders that are known to belong to the run, or not to.
const MOST_KNOWN: usize = 64;

/// What a program says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// READY=1.
    Ready,
    /// STOPPING=1.
    Stopping,
    /// How it is, in its words; empty: it takes back what it said.
    Status(String),
    /// WATCHDOG=1.
    Alive,
    /// WATCHDOG=trigger.
    Trigger,
    /// It will say that it is alive this often, in milliseconds.
    WatchdogPeriod(u64),
    /// From now on it needs so many milliseconds more.
    Extend(u64),
    /// Its main process is another one, and of the run.
    MainPid(i32),
}

/// What was heard at once, in order.
#[derive(Debug, Default)]
pub struct Heard {
    /// What was said. May be empty.
    pub said: Vec<Said>,
    /// Who passed these waits until they are closed: until all of `said` is taken in.
    pub barriers: Vec<OwnedFd>,
}

/// What was not taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unheard {
    /// Datagrams of processes that do not belong to the run.
    pub strangers: u64,
    /// Datagrams beyond the hundred of a second.
    pub dropped: u64,
    /// Datagrams longer than 4 KiB.
    pub cut: u64,
    /// Datagrams with descriptors to be kept: none are.
    pub not_stored: u64,
}

/// Who belongs to a run.
pub trait Crowd: Send + Sync {
    /// Whether the process does, or did before it ended. May read all of /proc.
    fn holds(&self, pidfd: Option<&OwnedFd>, pid: i32) -> bool;
}

/// Listens to one run.
pub struct Ear {
    socket: Socket,
    /// The present one is the last.
    open: Vec<UnixDatagram>,
    /// Somebody else holds the present one open, too.
    is_shared: bool,
    crowd: Box<dyn Crowd>,
    known: VecDeque<(u64, bool)>,
    window: (Instant, u32),
    unheard: Unheard,
    told: BTreeSet<&'static str>,
    status: String,
    is_reloading: bool,
    /// Known before anything is heard.
    waiting: Vec<Said>,
}

impl Ear {
    /// Listens on a socket that was bound before the run began. `is_shared`: its shim holds it open as well.
    /// Must be called within the async runtime.
    pub fn new(socket: Socket, is_shared: bool, crowd: impl Crowd + 'static) -> io::Result<Self> {
        let first = UnixDatagram::from_std(socket.open()?)?;
        Ok(Self {
            socket,
            open: vec![first],
            is_shared,
            crowd: Box::new(crowd),
            known: VecDeque::new(),
            window: (Instant::now(), 0),
            unheard: Unheard::default(),
            told: BTreeSet::new(),
            status: String::new(),
            is_reloading: false,
            waiting: vec![],
        })
    }

    /// Listens again to a run of an earlier daemon. `held` is the run's first socket, if its shim still
    /// has it: what was said while no daemon lived waits there. Must be called within the async runtime.
    pub fn again(
        path: &Path,
        held: Option<OwnedFd>,
        is_starting: bool,
        crowd: impl Crowd + 'static,
    ) -> Result<Self, Failure> {
        let (owner, was_ready) = (Socket::owner_of(path), Socket::was_ready(path));
        let mut ear = match held {
            Some(held) if is_starting && !was_ready => {
                return Ok(Self::new(Socket::held(held, path, owner)?, true, crowd)?);
            }
            None => Self::new(Socket::bind(path, owner)?, false, crowd)?,
            Some(held) => {
                let mut ear = Self::new(Socket::bind(path, owner)?, false, crowd)?;
                ear.open.insert(0, UnixDatagram::from_std(Socket::held(held, path, owner)?.open()?)?);
                ear
            }
        };
        if is_starting && was_ready {
            // Heard by a daemon that ended before it could write it down.
            ear.waiting.push(Said::Ready);
        }
        Ok(ear)
    }

    /// What was not taken so far.
    pub fn unheard(&self) -> Unheard {
        self.unheard
    }

    /// Waits until something is said. Nothing is lost when this is dropped.
    pub async fn hear(&mut self) -> Heard {
        if !self.waiting.is_empty() {
            return Heard { said: std::mem::take(&mut self.waiting), barriers: vec![] };
        }
        loop {
            if self.window.1 > MOST_PER_SECOND && self.window.0.elapsed() < Duration::from_secs(1) {
                tokio::time::sleep(PAUSE).await;
            }
            let readable = self.open.iter().map(|socket| Box::pin(socket.readable()));
            let (ready, at, _) = futures_util::future::select_all(readable).await;
            if ready.is_err() {
                // Nothing more will come of it; a run goes on without being heard.
                std::future::pending::<()>().await;
            }
            let mut heard = Heard::default();
            let is_full = self.drain(at, &mut heard);
            if is_full || !heard.said.is_empty() || !heard.barriers.is_empty() {
                return heard;
            }
        }
    }

    fn drain(&mut self, at: usize, heard: &mut Heard) -> bool {
        let mut buffer = [0; MOST_BYTES];
        for _ in 0..BATCH {
            let Some(socket) = self.open.get(at) else { return false };
            let got = socket.try_io(Interest::READABLE, || wharf_sys::datagram::receive(socket.as_fd(), &mut buffer));
            match got {
                Ok(datagram) => {
                    let text = buffer.get(..datagram.length).unwrap_or_default();
                    self.take(text, datagram, heard);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    if e.kind() != io::ErrorKind::WouldBlock {
                        self.warn("read", &format!("its notify socket cannot be read: {e}"));
                    }
                    return false;
                }
            }
        }
        true
    }

    fn take(&mut self, text: &[u8], datagram: Datagram, heard: &mut Heard) {
        if self.window.0.elapsed() >= Duration::from_secs(1) {
            self.window = (Instant::now(), 0);
        }
        self.window.1 = self.window.1.saturating_add(1);
        let mut message = Message::read(text);
        if self.window.1 > MOST_PER_SECOND {
            // What decides over its life is not lost among what does not.
            message = Message { ready: message.ready, stopping: message.stopping, ..Message::default() };
            if message == Message::default() {
                self.unheard.dropped += 1;
                self.warn("dropped", "it says more than 100 things a second: the rest is not heard");
                return;
            }
        }
        if !self.is_of_run(&datagram) {
            self.unheard.strangers += 1;
            self.warn("stranger", "a process that is not of its run writes to its notify socket: not heard");
            return;
        }
        if datagram.is_cut {
            self.unheard.cut += 1;
            self.warn("cut", "a notification longer than 4 KiB was cut");
        }
        if message.fd_store {
            self.unheard.not_stored += 1;
            self.warn("store", "it wants descriptors to be kept (FDSTORE), which are not");
        }
        if message.barrier {
            heard.barriers.extend(datagram.fds);
        }
        self.interpret(message, &mut heard.said);
    }

    fn interpret(&mut self, message: Message, said: &mut Vec<Said>) {
        let before = self.shown();
        if message.reloading {
            self.is_reloading = true;
        }
        // A reload ends with READY=1. In one datagram with RELOADING=1 it is the reload that has begun.
        if message.ready && !message.reloading {
            self.is_reloading = false;
        }
        if message.status.is_some() || message.errno.is_some() || message.bus_error.is_some() {
            let errno = message.errno.map(|n| io::Error::from_raw_os_error(n).to_string());
            let parts = [message.status, errno, message.bus_error].into_iter().flatten();
            self.status = parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
        }
        if self.shown() != before {
            // Only the last one of a batch is worth telling.
            said.retain(|s| !matches!(s, Said::Status(_)));
            said.push(Said::Status(self.shown()));
        }
        if let Some(pid) = message.main_pid
            && self.is_main(pid, message.main_id)
        {
            said.push(Said::MainPid(pid));
        }
        said.extend(message.watchdog_ms.map(Said::WatchdogPeriod));
        said.extend(message.extend_ms.map(Said::Extend));
        match message.watchdog {
            Some(Watchdog::Alive) if said.contains(&Said::Alive) => {}
            Some(Watchdog::Alive) => said.push(Said::Alive),
            Some(Watchdog::Trigger) => said.push(Said::Trigger),
            None => {}
        }
        if message.ready && !said.contains(&Said::Ready) {
            said.push(Said::Ready);
            self.renew();
        }
        if message.stopping && !said.contains(&Said::Stopping) {
            said.push(Said::Stopping);
        }
    }

    fn shown(&self) -> String {
        match (self.is_reloading, self.status.as_str()) {
            (false, status) => status.to_owned(),
            (true, "") => "it is reloading".into(),
            (true, status) => format!("it is reloading: {status}"),
        }
    }

    /// A socket that the daemon alone holds. The older one is still read: some programs stay connected.
    fn renew(&mut self) {
        if !std::mem::take(&mut self.is_shared) {
            return;
        }
        let renewed = self.socket.renew().and_then(|()| UnixDatagram::from_std(self.socket.open()?));
        match renewed {
            Ok(new) => self.open.push(new),
            Err(e) => self.warn("renew", &format!("its notify socket could not be made anew: {e}")),
        }
    }

    fn is_of_run(&mut self, datagram: &Datagram) -> bool {
        let Some(sender) = datagram.sender else { return false };
        let identity = datagram.pidfd.as_ref().and_then(|fd| pidfd::identity(fd, sender.pid).ok());
        let known = identity.and_then(|id| self.known.iter().find(|(known, _)| *known == id));
        if let Some((_, is_of_run)) = known {
            return *is_of_run;
        }
        let is_of_run = self.crowd.holds(datagram.pidfd.as_ref(), sender.pid);
        if let Some(id) = identity {
            self.known.truncate(MOST_KNOWN - 1);
            self.known.push_front((id, is_of_run));
        }
        is_of_run
    }

    fn is_main(&mut self, pid: i32, id: Option<u64>) -> bool {
        let is_it = pidfd::open(pid).is_ok_and(|fd| {
            let is_same = id.is_none_or(|id| pidfd::identity(&fd, pid).is_ok_and(|found| found == id));
            is_same && !pidfd::has_exited(&fd) && self.crowd.holds(Some(&fd), pid)
        });
        if !is_it {
            self.warn("main", &format!("it names {pid} its main process, which is none of its run"));
        }
        is_it
    }

    /// Once for each reason.
    fn warn(&mut self, reason: &'static str, text: &str) {
        if self.told.insert(reason) {
            tracing::warn!("{}: {text}", self.socket.path().display());
        }
    }
}

#[cfg(test)]
mod tests;

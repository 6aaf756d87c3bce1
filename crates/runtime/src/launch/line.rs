//! The daemon's line to its launcher: requests go out, the news of all shims come in.
//!
//! One launcher serves all starts. It ends when the daemon closes the line, and nothing that runs
//! needs it. Where somebody kills it, the next start opens a new line; the shims that it had forked
//! go on telling on the old one. It refuses to know what a request asks for.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    process::Stdio,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    process::{Child, Command},
    sync::{Notify, SetOnce, oneshot},
};
use wharf_shim::{Began, LAUNCHER, News, Outcome, Report, Request, Stage, TITLE_ROOM};
use wharf_sys::{files, socket};

use super::{containment, watched::async_fd};

/// A shim that was forked before its launcher died tells within this what has become of its run.
const LAST_NEWS: Duration = Duration::from_millis(50);

/// What has come of a request.
#[derive(Debug)]
pub enum Answer {
    /// The program runs.
    Began(Began),
    /// A step failed.
    Failed(Stage, i32),
    /// The shim gave the run up: one of `wharf_shim::ends`.
    Refused(u8),
    /// The launcher died: the run's folder knows.
    Cut,
}

/// Where the news of one run's end arrives.
#[derive(Debug)]
pub struct Ending {
    told: SetOnce<Outcome>,
    token: u64,
    line: Weak<Line>,
}

impl Ending {
    /// What the shim has told by now.
    pub fn known(&self) -> Option<Outcome> {
        self.told.get().copied()
    }

    /// Waits for what the shim tells; for ever, where it was killed.
    pub async fn told(&self) -> Outcome {
        *self.told.wait().await
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(line) = self.line.upgrade() {
            line.endings().remove(&self.token);
        }
    }
}

/// A launcher process, and the socket that it and its shims share.
#[derive(Debug)]
pub struct Line {
    socket: AsyncFd<OwnedFd>,
    is_cut: AtomicBool,
    next_token: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Answer>>>,
    // A HashMap of what LiveRuns own: a run that nobody holds any more needs no news.
    endings: Mutex<HashMap<u64, Weak<Ending>>>,
    launcher: Option<i32>,
    closing: Notify,
}

impl Line {
    /// Starts a launcher. Must be called within the async runtime, whose end closes the line.
    pub fn open(shim: &Path) -> io::Result<Arc<Self>> {
        let (ours, theirs) = socket::pair()?;
        let mut command = Command::new(shim);
        // The second word makes room for the title of any shim.
        command.args([LAUNCHER, &" ".repeat(TITLE_ROOM)]).env_clear().current_dir("/");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = containment::spawn_placed(|| {
            command.stdin(theirs.try_clone()?);
            command.spawn()
        })?;
        let line = Arc::new(Self {
            socket: async_fd(ours, Interest::READABLE | Interest::WRITABLE)?,
            is_cut: AtomicBool::new(false),
            next_token: AtomicU64::new(1),
            waiting: Mutex::default(),
            endings: Mutex::default(),
            launcher: child.id().map(u32::cast_signed),
            closing: Notify::new(),
        });
        tokio::spawn(listen(Arc::downgrade(&line), child));
        Ok(line)
    }

    /// Whether a new one is needed.
    pub fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }

    /// Hangs up: the launcher ends. Runs do not notice.
    pub fn close(&self) {
        self.cut();
        self.closing.notify_one();
    }

    /// Sends a request for a run; what comes of it arrives by itself.
    pub async fn ask(
        self: &Arc<Self>,
        spec: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<(oneshot::Receiver<Answer>, Arc<Ending>)> {
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        let ending = Arc::new(Ending { told: SetOnce::new(), token, line: Arc::downgrade(self) });
        let (sender, answer) = oneshot::channel();
        self.waiting().insert(token, sender);
        self.endings().insert(token, Arc::downgrade(&ending));
        let sent = self.send(token, spec, fds).await;
        if sent.is_err() || self.is_cut() {
            self.waiting().remove(&token);
        }
        sent.map(|()| (answer, ending))
    }

    /// Somebody may have stopped the launcher: it is told to go on.
    pub fn nudge(&self) {
        const SIGCONT: i32 = 18;
        // The pid is our own unreaped child's as long as the line is not cut.
        if let (Some(pid), false) = (self.launcher, self.is_cut())
            && let Ok(fd) = wharf_sys::pidfd::open(pid)
        {
            let _ = wharf_sys::pidfd::signal(fd, SIGCONT);
        }
    }

    async fn send(&self, token: u64, spec: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let outside = if Request::holds(spec.len()) { None } else { Some(in_file(spec)?) };
        let fds: Vec<_> = outside.iter().map(AsFd::as_fd).chain(fds.iter().copied()).collect();
        let message = Request { token, spec: outside.is_none().then_some(spec) }.encode();
        loop {
            // Tried at once: there is nearly always room.
            match socket::send(&self.socket, &message, &fds) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.socket.writable().await?.clear_ready(),
                other => return other,
            }
        }
    }

    /// Takes in all the news that are there. `false`: nobody is left who could tell any.
    fn take_in(&self) -> bool {
        let (mut bytes, mut fds) = ([0; Report::ROOM], vec![]);
        loop {
            match socket::receive(&self.socket, &mut bytes, &mut fds) {
                Ok(0) => return false,
                Ok(length) => {
                    if let Ok(report) = Report::decode(&bytes[..length]) {
                        self.hear(report);
                    }
                }
                Err(e) => return e.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    fn hear(&self, report: Report) {
        let answer = match report.news {
            News::Began(began) => Answer::Began(began),
            News::Failed(stage, errno) => Answer::Failed(stage, errno),
            News::Refused(code) => Answer::Refused(code),
            News::Ended(outcome) => {
                let ending = self.endings().remove(&report.token).and_then(|ending| ending.upgrade());
                if let Some(ending) = ending {
                    let _ = ending.told.set(outcome);
                }
                return;
            }
        };
        if let Some(waiting) = self.waiting().remove(&report.token) {
            let _ = waiting.send(answer);
        }
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
    }

    fn answer_all_with_cut(&self) {
        for (_, waiting) in self.waiting().drain() {
            let _ = waiting.send(Answer::Cut);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<u64, oneshot::Sender<Answer>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endings(&self) -> MutexGuard<'_, HashMap<u64, Weak<Ending>>> {
        self.endings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever waits is not left waiting, also when the runtime ends.
struct CutAtEnd(Weak<Line>);

impl Drop for CutAtEnd {
    fn drop(&mut self) {
        if let Some(line) = self.0.upgrade() {
            line.cut();
            line.answer_all_with_cut();
        }
    }
}

/// Listens until the launcher and all its shims have gone.
async fn listen(line: Weak<Line>, mut launcher: Child) {
    let _cut = CutAtEnd(line.clone());
    let Some(line) = line.upgrade() else { return };
    let mut lives = true;
    loop {
        let ended = async {
            match lives {
                true => drop(launcher.wait().await),
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = line.closing.notified() => return,
            ready = line.socket.readable() => {
                let Ok(mut ready) = ready else { return };
                ready.clear_ready();
                if !line.take_in() {
                    // The launcher has gone, or closes the line in this moment.
                    if lives {
                        line.cut();
                        let _ = launcher.wait().await;
                    }
                    return;
                }
            }
            () = ended => {
                lives = false;
                line.cut();
                tokio::time::sleep(LAST_NEWS).await;
                let anybody = line.take_in();
                line.answer_all_with_cut();
                if !anybody {
                    return;
                }
            }
        }
    }
}

/// A spec too long for a message, in a file without a name.
fn in_file(spec: &[u8]) -> io::Result<OwnedFd> {
    let file = files::in_memory(c"wharf-spec")?;
    File::from(file.try_clone()?).write_all(spec)?;
    Ok(file)
}

//! The daemon: holds the locks and the sockets, opens the journal, adopts what lives, serves until it is
//! told to end or another daemon takes over. Services go on when it ends.
//!
//! ```text
//! seat ──> round: engine, sockets, watchdog ──> it is told to end: done
//!   ^                     │ a taker is ready
//!   │                     v
//!   └──── back ──── give everything ──> away: done
//! ```
//!
//! A round has a runtime of its own: when it is over, nothing of it acts any more.

pub(crate) mod handover;
mod notify;
mod seat;
mod serving;
mod signals;
mod watchdog;

use std::{
    io::IsTerminal,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{sync::mpsc, task::JoinHandle};
use wharf_engine::{End, Engine, Settings};
use wharf_model::{ErrorKind, Failure};
use wharf_runtime::{Layout, redact::Redacting};
use wharf_server::{Leave, Server};
use wharf_services::Catalogue;

use handover::{Given, Request, Taking, Terms};
use notify::Notify;
use seat::Seat;
use serving::Serving;
use signals::Quit;
use watchdog::{attend, looked_at};

/// How long the engine's loop may take for its last commit.
const ENDS_WITHIN: Duration = Duration::from_secs(2);
/// How long clients wait for a first look at all recorded runs, so that what runs is not told as unknown.
const FIRST_LOOKS: Duration = Duration::from_millis(100);
const LOOK_AGAIN: Duration = Duration::from_millis(2);
/// How long clients wait for a first word of services that are executables, so that they are not told as unknown.
const FIRST_WORDS: Duration = Duration::from_secs(1);

/// What a daemon is started with.
#[derive(Clone, Default)]
pub struct DaemonOptions {
    /// The services that it knows.
    pub catalogue: Catalogue,
    /// The service socket, where somebody named one; else the layout says.
    pub socket: Option<PathBuf>,
    /// Serve a raw byte echo on this Unix socket too: the floor that `cargo xtask bench` measures beside.
    pub echo_socket: Option<PathBuf>,
    /// Take over from a daemon that runs.
    pub replace: Option<Replace>,
    /// A daemon that runs has started this one, and gives it everything over standard input.
    pub is_successor: bool,
}

/// How a daemon takes over from another.
#[derive(Debug, Clone)]
pub struct Replace {
    /// End one that does not hand over; its clients are refused for a moment then.
    pub force: bool,
    /// Not in this process: where the running one is, with its environment and its log.
    pub detach: bool,
    /// How long calls in flight that change something may take.
    pub patience: Duration,
}

/// How a daemon's work in this process ended.
pub(crate) enum Ended {
    /// It was asked to end.
    Quit,
    /// Another one goes on in its place.
    Replaced,
    /// It was never this process: the daemon that ran has started this one.
    Succeeded { pid: u32, version: String },
    /// No daemon runs that could start one in its place.
    Nobody,
}

/// Runs the daemon in this thread until SIGINT or SIGTERM, or until another one takes over.
pub(crate) fn run(options: &DaemonOptions) -> Result<Ended, Failure> {
    listen_to_events();
    let layout = Layout::from_env();
    wharf_sys::process::set_umask(crate::detach::UMASK);
    layout.create()?;
    raise_file_limit();
    close_memory();
    let quit = signals::listen()?;
    let notify = Notify::from_env();
    let mut seat = match &options.replace {
        _ if options.is_successor => handover::take_from_parent(&layout, options)?,
        None => Seat::fresh(&layout, options)?,
        Some(how) => match handover::take(&layout, options, how)? {
            Taking::Seat(_) if how.detach => return Ok(Ended::Nobody),
            Taking::Seat(seat) => seat,
            Taking::Succeeded { pid, version } => return Ok(Ended::Succeeded { pid, version }),
        },
    };
    // A successor inherits the way to the service manager, and is not yet the one that it counts on.
    let is_supervised = Arc::new(AtomicBool::new(notify.is_heard() && !options.is_successor));
    loop {
        // Two workers: one may wait in a probe's system call while the other answers.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(64)
            .enable_all()
            .thread_name("wharf")
            .build()?;
        let round =
            Round { layout: &layout, options, notify: &notify, is_supervised: &is_supervised, quit: quit.clone() };
        let ended = runtime.block_on(round.run(seat));
        // A probe or a download that hangs does not hold up the end.
        runtime.shutdown_timeout(Duration::from_millis(500));
        let Some((request, kept)) = ended? else { return Ok(Ended::Quit) };
        tracing::info!("{} takes over", request.taker());
        match request.give(kept, &notify, is_supervised.load(Ordering::SeqCst), &quit)? {
            Given::Away => return Ok(Ended::Replaced),
            Given::Back(kept) => seat = kept,
        }
    }
}

/// Events go to stderr: text, or with `WHARF_LOG_FORMAT=json` a JSON object a line.
fn listen_to_events() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("WHARF_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let events = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Redacting(std::io::stderr()))
        .with_target(false);
    let as_json = std::env::var("WHARF_LOG_FORMAT").is_ok_and(|f| f == "json");
    // A second daemon in one process (a test) keeps the first one's listener.
    let _ = if as_json { events.json().try_init() } else { events.with_ansi(colours).try_init() };
}

/// One span of work, from the start of an engine to its end.
struct Round<'a> {
    layout: &'a Layout,
    options: &'a DaemonOptions,
    notify: &'a Notify,
    is_supervised: &'a Arc<AtomicBool>,
    quit: Quit,
}

/// A taker, and what it is given. `None`: the daemon was asked to end.
type Outcome = Option<(Request, Seat)>;

impl Round<'_> {
    async fn run(self, mut seat: Seat) -> Result<Outcome, Failure> {
        let own_binary = std::env::current_exe()?;
        let Self { layout, options, .. } = self;
        let settings = Settings { layout: layout.clone(), catalogue: options.catalogue.clone(), own_binary };
        let (engine, mut end) = Engine::start(settings)?;
        self.take_the_seat(&mut seat)?;
        let (post, terms) = (handover::listen(&layout.sockets())?, self.terms(&seat));
        // With very many runs some are still unknown then: an answer is better than none.
        let _ = tokio::time::timeout(FIRST_LOOKS, looked_at(&engine)).await;
        // Only where there are executables that were never heard; one that hangs is not waited for.
        let _ = tokio::time::timeout(FIRST_WORDS, engine.knows_its_services()).await;
        let Seat { locks, doors, .. } = seat;
        let serving = Serving::begin(doors, &engine);
        let (requests, mut takers) = mpsc::channel(1);
        let _post = AbortOnDrop(tokio::spawn(post.hear(terms, requests)));
        let _watchdog =
            AbortOnDrop(tokio::spawn(attend(engine.clone(), self.notify.clone(), self.is_supervised.clone())));
        if let Some(path) = &options.echo_socket {
            tokio::spawn(echo(path.clone()));
        }
        let (mut quit, quits) = (self.quit.clone(), self.quit.clone());
        loop {
            let ended = tokio::select! {
                // A sender that is gone means the same.
                _ = quit.wait_for(|q| *q) => Ok(()),
                end = &mut end => end.unwrap_or_else(|_| {
                    Err(Failure::new(ErrorKind::Internal, "the engine's loop ended by a fault of its own")
                        .hint("start the daemon again: it adopts what lives"))
                }),
                Some(request) = takers.recv() => {
                    if !self.is_settled(&serving.server, &request, quits.clone()).await {
                        continue;
                    }
                    engine.say_farewell();
                    let doors = serving.leave(Leave::HandOver).await;
                    quit_engine(&engine, end).await?;
                    return Ok(Some((request, Seat { locks, doors, taken: None })));
                }
            };
            if self.is_supervised.load(Ordering::SeqCst) {
                self.notify.stopping();
            }
            match &ended {
                Ok(()) => tracing::info!("the daemon ends; services go on"),
                Err(failure) => tracing::error!("the daemon ends, services go on: {failure}"),
            }
            engine.say_farewell();
            serving.leave(Leave::Close).await;
            if ended.is_ok()
                && let Err(e) = quit_engine(&engine, end).await
            {
                tracing::warn!("{e}");
            }
            return ended.map(|()| None);
        }
    }

    /// The engine runs: from here on this process is the daemon.
    fn take_the_seat(&self, seat: &mut Seat) -> Result<(), Failure> {
        if let Some(taken) = seat.taken.take() {
            let parting = handover::report_taken(taken, &seat.locks);
            self.is_supervised.fetch_or(parting.is_main, Ordering::SeqCst);
            tracing::info!("taken over from the daemon that ran");
            if parting.quits {
                // It was asked while it could not hear; we are asked in its place.
                let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGTERM);
            }
        }
        for (name, door) in &mut seat.doors {
            door.listener.own();
            tracing::info!(
                "wharf {} listens on {} ({name})",
                env!("CARGO_PKG_VERSION"),
                door.listener.path().display()
            );
        }
        Ok(())
    }

    fn terms(&self, seat: &Seat) -> Terms {
        let sockets = seat.doors.iter().map(|(name, door)| handover::Socket::of(name, &door.listener)).collect();
        let named_socket = self.options.socket.clone().map(|path| std::path::absolute(&path).unwrap_or(path));
        Terms { is_supervised: self.is_supervised.clone(), sockets, named_socket }
    }

    /// Nothing that changes something is in flight any more, or it was waited for long enough. False: the
    /// taker has left, or the daemon is to end; then all goes on as before.
    async fn is_settled(&self, server: &Server, request: &Request, mut quit: Quit) -> bool {
        if self.is_supervised.load(Ordering::SeqCst) {
            self.notify.reloading();
        }
        let left = async {
            while !request.is_gone() {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let settled = tokio::select! {
            settled = tokio::time::timeout(request.patience, server.settle()) => {
                if settled.is_err() {
                    tracing::warn!("a call is still in flight and is not waited for");
                }
                true
            }
            () = left => false,
            _ = quit.wait_for(|q| *q) => false,
        };
        if !settled {
            tracing::warn!("{} has left before it took over; this daemon goes on", request.taker());
            server.go_on();
            if self.is_supervised.load(Ordering::SeqCst) {
                self.notify.ready("goes on");
            }
        }
        settled
    }
}

/// The loop's last commit is done when this returns: another daemon may begin.
async fn quit_engine(engine: &Engine, end: End) -> Result<(), Failure> {
    engine.quit();
    engine.clear_up().await;
    match tokio::time::timeout(ENDS_WITHIN, end).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(_)) => Ok(()),
        Err(_) => Err(Failure::new(ErrorKind::Timeout, "the engine's loop did not end in time")),
    }
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Two descriptors a run, one a connection: the usual soft limit of 1,024 is for programs that use `select`.
/// Services get the usual limit back from their shim.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(e) = raised {
        tracing::warn!("the limit of open files could not be raised: {e}");
    }
}

/// The daemon knows secrets: no core is dumped of it, and no process of its user may look into it.
/// Services get the usual back by their exec, and the limit of cores from their policy.
fn close_memory() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    // For debuggers.
    if std::env::var_os("WHARF_DUMPABLE").is_some_and(|value| !value.is_empty()) {
        return;
    }
    // Only the soft limit: a service's hard one is inherited from here.
    let limited = getrlimit(Resource::RLIMIT_CORE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_CORE, 0, hard));
    let closed = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if limited.is_err() || closed.is_err() {
        tracing::warn!("the daemon's memory could not be closed to others: {limited:?} {closed:?}");
    }
}

/// One byte in, one byte out.
async fn echo(path: PathBuf) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Ok(listener) = tokio::net::UnixListener::bind(&path) else { return };
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() && stream.write_all(&byte).await.is_ok() {}
        });
    }
}

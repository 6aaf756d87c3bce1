//! Looks after the logs of all live runs, with one task for all of them that sleeps while nothing
//! is written. What it finds goes to whoever started it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{mpsc, watch as told},
    time::{Instant, sleep_until},
};
use wharf_model::{Policy, RunId, UnitName};
use wharf_sys::clock;

mod kept;
mod passes;
mod watch;

use passes::{Passes, Round};

/// Rounds are at least this far apart: many logs that grow a little share one.
const ROUND_GAP: Duration = Duration::from_millis(10);
/// Between two looks at whether another daemon has ended.
const LOCK_GAP: Duration = Duration::from_millis(20);

/// A unit, as far as its logs are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The unit.
    pub unit: UnitName,
    /// Its run, while one lives.
    pub run: Option<RunId>,
    /// The last of its runs that is known to be over. A newer one may have begun by now.
    pub ended: Option<RunId>,
    /// What is kept, and what counts as a fault.
    pub policy: Arc<Policy>,
}

impl Target {
    /// Whether a run is known to be over. What is said here is older than what is true: of a run that
    /// begins in this moment nothing may be removed.
    fn is_over(&self, run: RunId) -> bool {
        let before_the_present = self.run.is_some_and(|present| run < present);
        self.run != Some(run) && (before_the_present || self.ended.is_some_and(|last| run <= last))
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// An error comes again and again in a live run's log; `None`: no longer.
    Fault {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
        /// The line, as it was written last.
        line: Option<String>,
    },
    /// A run truncated its own log: so many bytes are lost that were not put away.
    Truncated {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
        /// How many, as far as they had been seen.
        bytes: u64,
    },
    /// There was no room on the disk to put these bytes away: they are lost.
    Lost {
        /// The unit.
        unit: UnitName,
        /// The run.
        run: RunId,
        /// How many.
        bytes: u64,
    },
    /// The disk that the logs are on fills up, or has room again.
    Space {
        /// How much of it is free, in percent.
        free_percent: f64,
        /// It is little.
        is_scarce: bool,
        /// So many archives were removed to make room.
        dropped: usize,
    },
}

/// Who waits for what a unit writes.
#[derive(Clone, Default)]
struct Waiting(Arc<Mutex<BTreeMap<UnitName, told::Sender<()>>>>);

impl Waiting {
    fn subscribe(&self, unit: &UnitName) -> told::Receiver<()> {
        // Held for a look-up.
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(unit.clone()).or_insert_with(|| told::Sender::new(())).subscribe()
    }

    fn followed(&self) -> BTreeSet<UnitName> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, sender| sender.receiver_count() > 0);
        all.keys().cloned().collect()
    }

    fn tell(&self, units: &BTreeSet<UnitName>) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in units.iter().filter_map(|unit| all.get(unit)) {
            sender.send_replace(());
        }
    }
}

/// A handle on the one who looks after the logs. It ends with the last handle.
#[derive(Clone)]
pub struct LogKeeper {
    targets: mpsc::UnboundedSender<Vec<Target>>,
    waiting: Waiting,
}

impl LogKeeper {
    /// Begins, with the units' folders below `all`. Call it inside a tokio runtime. `tell` is called
    /// with what is found, and must not block.
    pub fn start(all: PathBuf, tell: impl Fn(News) + Send + 'static) -> io::Result<Self> {
        let passes = match Passes::new(all.clone()) {
            Ok(passes) => Some(passes),
            // A daemon that gives way to this one has not put its pen down yet.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
            Err(e) => return Err(e),
        };
        let (targets, aims) = mpsc::unbounded_channel();
        let waiting = Waiting::default();
        let waits = waiting.clone();
        tokio::spawn(async move {
            let passes = match passes {
                Some(passes) => Ok(passes),
                None => alone(all).await,
            };
            let ended = match passes {
                Ok(passes) => go_round(passes, aims, waits, tell).await,
                Err(e) => Err(e),
            };
            if let Err(e) = ended {
                tracing::error!("logs are not looked after any more: {e}");
            }
        });
        Ok(Self { targets, waiting })
    }

    /// All units as they are now.
    pub fn aim(&self, targets: Vec<Target>) {
        let _ = self.targets.send(targets);
    }

    /// Changes each time that there may be more to read of a unit's log.
    pub fn growth(&self, unit: &UnitName) -> told::Receiver<()> {
        self.waiting.subscribe(unit)
    }
}

fn now_ms() -> u64 {
    u64::try_from(clock::boottime_ms()).unwrap_or(0)
}

/// Waits until nobody else looks after these logs.
async fn alone(all: PathBuf) -> io::Result<Passes> {
    loop {
        match Passes::new(all.clone()) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(LOCK_GAP).await,
            ended => return ended,
        }
    }
}

async fn go_round(
    mut passes: Passes,
    mut aims: mpsc::UnboundedReceiver<Vec<Target>>,
    waiting: Waiting,
    tell: impl Fn(News),
) -> io::Result<()> {
    // Deprecated for types whose descriptor can change under it; an OwnedFd's cannot, and its
    // successor is unsafe.
    #[allow(deprecated)]
    let readable: AsyncFd<OwnedFd> = AsyncFd::with_interest(passes.watched()?, Interest::READABLE)?;
    let (mut next_ms, mut last) = (now_ms(), Instant::now());
    loop {
        let mut targets = None;
        let pause = Duration::from_millis(next_ms.saturating_sub(now_ms()));
        tokio::select! {
            // Cleared first: what comes while the marks are read is news again.
            ready = readable.readable() => ready?.clear_ready(),
            aimed = aims.recv() => match aimed {
                Some(aimed) => targets = Some(aimed),
                None => return Ok(()),
            },
            () = tokio::time::sleep(pause) => {}
        }
        sleep_until(last + ROUND_GAP).await;
        // Only the newest counts.
        while let Ok(newer) = aims.try_recv() {
            targets = Some(newer);
        }
        let followed = waiting.followed();
        let done = tokio::task::spawn_blocking(move || {
            let now = now_ms();
            if let Some(targets) = targets {
                passes.aim(targets, now);
            }
            let round = passes.round(now, &followed);
            (passes, round)
        });
        let round: Round;
        (passes, round) = done.await.map_err(io::Error::other)?;
        (next_ms, last) = (round.next_ms, Instant::now());
        waiting.tell(&round.grown);
        round.news.into_iter().for_each(&tell);
    }
}

//! The bus: every change as a numbered event, kept for a while, read by whoever wants to.
//!
//! ```text
//!  loop ──publish──> ring: the last 4,096 events or 2 MiB, whichever is less
//!                     ▲ ▲ ▲   a reader has a place (a number), no queue
//!                     │ │ └─ one that is slow finds its place overwritten, and is told a `gap`
//!                     │ └─── one that comes back goes on after the number that it saw last
//!                     └───── one that waits is woken; without readers nobody is
//! ```
//!
//! The ring's lock is held for a push or for copying a few pointers, never across a wait: neither a
//! reader that reads nothing nor a thousand of them hold up the loop. It refuses to know what an
//! event means, and how it reaches its reader.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use tokio::{sync::watch, time::timeout};
use wharf_api::{Disk, EventRow, Follow, Following, Happened, WatchParams, WatchReport};
use wharf_model::{ErrorKind, Failure, RunId, UnitName};

use crate::turn;

/// How many events are kept.
const MOST_EVENTS: usize = 4_096;
/// How much they may be together, written as JSON.
const MOST_BYTES: usize = 2 << 20;
/// Readers at a time. Fewer than connections: there is always one left for a call.
const MOST_READERS: usize = 128;
/// Events that a reader is given at once.
const BATCH: usize = 64;
/// Events that are looked at while the lock is held.
const LOOK: usize = 512;
/// What an answer has, unless somebody says; and at most.
const LIMIT: u32 = 100;
const MOST_LIMIT: u32 = 1_000;
const MOST_WAIT_MS: u64 = 60_000;

/// What has happened to whom, before it has a number.
#[derive(Debug)]
pub struct News {
    /// The unit that it is about.
    pub unit: Option<UnitName>,
    /// The run that it is about.
    pub run: Option<RunId>,
    /// What.
    pub happened: Happened,
}

/// The events of one life of the daemon.
pub struct Bus {
    boot: String,
    ring: Mutex<Ring>,
    newest: watch::Sender<u64>,
    readers: AtomicUsize,
    is_disk_low: AtomicBool,
}

#[derive(Default)]
struct Ring {
    events: VecDeque<Held>,
    bytes: usize,
    /// The number of the last one.
    last: u64,
    /// The daemon ends: nothing follows.
    is_closed: bool,
}

struct Held {
    row: Arc<EventRow>,
    bytes: usize,
}

impl Ring {
    fn push(&mut self, row: EventRow) {
        let bytes = size(&row);
        self.last = row.seq;
        self.bytes += bytes;
        self.events.push_back(Held { row: Arc::new(row), bytes });
        // The newest stays, whatever its size.
        while self.events.len() > 1 && (self.events.len() > MOST_EVENTS || self.bytes > MOST_BYTES) {
            self.bytes -= self.events.pop_front().map_or(0, |held| held.bytes);
        }
    }

    /// The number of the oldest that is kept; the next number, where none is.
    fn oldest(&self) -> u64 {
        self.last + 1 - self.events.len() as u64
    }

    /// Those after a number.
    fn after(&self, seq: u64) -> impl DoubleEndedIterator<Item = &Arc<EventRow>> {
        let skipped = (seq + 1).saturating_sub(self.oldest()) as usize;
        self.events.range(skipped.min(self.events.len())..).map(|held| &held.row)
    }
}

/// How many bytes it is, written.
fn size(row: &EventRow) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // What cannot be written is counted as far as it was.
    let _ = serde_json::to_writer(&mut count, row);
    count.0
}

impl Bus {
    /// A bus without an event. `boot` names this life of the daemon.
    pub fn new(boot: String) -> Self {
        Self {
            boot,
            ring: Mutex::default(),
            newest: watch::Sender::new(0),
            readers: AtomicUsize::new(0),
            is_disk_low: AtomicBool::new(false),
        }
    }

    /// This life of the daemon.
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// Numbers them and tells whoever listens. Never waits for a reader.
    pub fn publish(&self, news: impl IntoIterator<Item = News>) {
        let at_ms = turn::wall_ms();
        let last = {
            let mut ring = self.ring();
            let before = ring.last;
            for News { unit, run, happened } in news {
                let seq = ring.last + 1;
                ring.push(EventRow { seq, boot: self.boot.clone(), at_ms, unit, run, happened });
            }
            if ring.last == before {
                return;
            }
            ring.last
        };
        self.newest.send_replace(last);
    }

    /// Whether there is room on the state database's disk: a change is an event.
    pub fn disk(&self, has_room: bool) {
        if self.is_disk_low.swap(!has_room, Ordering::Relaxed) == has_room {
            let disk = Disk::State;
            let happened = if has_room { Happened::DiskFreed { disk } } else { Happened::DiskLow { disk } };
            self.publish([News { unit: None, run: None, happened }]);
        }
    }

    /// The daemon ends: its last event, and the end of every stream.
    pub fn close(&self) {
        self.publish([News { unit: None, run: None, happened: Happened::DaemonStopping }]);
        self.ring().is_closed = true;
        self.newest.send_modify(|_| {});
    }

    /// Begins to read where `params` say.
    pub fn follow(self: &Arc<Self>, params: &WatchParams) -> Follow {
        let taken = self.readers.fetch_add(1, Ordering::Relaxed);
        // Counted down again when it is dropped, also in the next line.
        let reader = Reader { place: self.place(params), news: self.newest.subscribe(), bus: self.clone() };
        if taken >= MOST_READERS {
            let text = format!("{MOST_READERS} readers follow events already, and no more are served");
            let mut failure = Failure::new(ErrorKind::Conflict, text)
                .hint("ask without a stream: event.watch with since and wait_ms gives the same events");
            failure.retryable = true;
            return Err(failure);
        }
        Ok(Box::new(reader))
    }

    /// What is there now, at most `limit`; waits for the first as long as `params` allow.
    pub async fn look(&self, params: &WatchParams) -> WatchReport {
        let limit = params.limit.unwrap_or(LIMIT).clamp(1, MOST_LIMIT) as usize;
        if params.since.is_none() && params.wait_ms == 0 {
            return self.newest(params, limit);
        }
        let mut news = self.newest.subscribe();
        let mut place = self.place(params);
        let mut events = vec![];
        let until = tokio::time::Instant::now() + Duration::from_millis(params.wait_ms.min(MOST_WAIT_MS));
        loop {
            news.borrow_and_update();
            while events.len() < limit {
                let (read, looked) = self.read(&mut place, limit - events.len());
                events.extend(read);
                if !looked {
                    break;
                }
            }
            let is_closed = self.ring().is_closed;
            let left = until.saturating_duration_since(tokio::time::Instant::now());
            if !events.is_empty() || is_closed || left.is_zero() || timeout(left, news.changed()).await.is_err() {
                break;
            }
        }
        let more = self.ring().last > place.seq;
        let events = events.iter().map(|row| EventRow::clone(row)).collect();
        WatchReport { boot: self.boot.clone(), next: place.seq, more, events }
    }

    /// The last of what is kept.
    fn newest(&self, params: &WatchParams, limit: usize) -> WatchReport {
        let ring = self.ring();
        let fits = |row: &&Arc<EventRow>| is_wanted(params, row);
        let mut events: Vec<EventRow> =
            ring.after(0).rev().filter(fits).take(limit).map(|row| EventRow::clone(row)).collect();
        events.reverse();
        WatchReport { boot: self.boot.clone(), next: ring.last, more: false, events }
    }

    /// Where a reader begins, and what it has to be told first.
    fn place(&self, params: &WatchParams) -> Place {
        let ring = self.ring();
        let mut place = Place { seq: ring.last, gap: None, params: params.clone() };
        let Some(since) = params.since else { return place };
        let is_ours = params.boot.as_ref().is_none_or(|boot| *boot == self.boot);
        // A number that was not given out yet can only be another life's.
        if is_ours && since <= ring.last {
            place.seq = since;
        } else {
            place.seq = ring.oldest() - 1;
            place.gap = Some(Happened::GapBoot { named: params.boot.clone(), since });
        }
        place
    }

    /// The next events from a place on, and whether there may be more of them now.
    fn read(&self, place: &mut Place, most: usize) -> (Vec<Arc<EventRow>>, bool) {
        let ring = self.ring();
        let mut found = vec![];
        if let Some(gap) = place.gap.take() {
            found.push(self.aside(place.seq, gap));
        }
        let oldest = ring.oldest();
        if place.seq + 1 < oldest {
            let gap = Happened::Gap { from: place.seq + 1, to: oldest - 1 };
            place.seq = oldest - 1;
            found.push(self.aside(place.seq, gap));
        }
        for row in ring.after(place.seq).take(LOOK) {
            if found.len() >= most {
                break;
            }
            place.seq = row.seq;
            if is_wanted(&place.params, row) {
                found.push(row.clone());
            }
        }
        (found, place.seq < ring.last)
    }

    /// A row for one reader alone.
    fn aside(&self, seq: u64, happened: Happened) -> Arc<EventRow> {
        let (boot, at_ms) = (self.boot.clone(), turn::wall_ms());
        Arc::new(EventRow { seq, boot, at_ms, unit: None, run: None, happened })
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing panics under this lock; were it so, the ring would still be whole.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_wanted(params: &WatchParams, row: &EventRow) -> bool {
    let of_unit = params.units.is_empty() || row.unit.as_ref().is_some_and(|unit| params.units.contains(unit));
    let of_port = params.ports.is_empty() || row.happened.is_of_port(&params.ports);
    of_unit && of_port && (params.kinds.is_empty() || params.kinds.contains(&row.happened.kind()))
}

/// Where a reader is.
struct Place {
    /// The last number that it was given, or that was passed over for it.
    seq: u64,
    /// To be told first.
    gap: Option<Happened>,
    params: WatchParams,
}

struct Reader {
    place: Place,
    news: watch::Receiver<u64>,
    bus: Arc<Bus>,
}

#[async_trait]
impl Following for Reader {
    async fn next(&mut self) -> Vec<Arc<EventRow>> {
        loop {
            // Before the look: what comes after it wakes.
            self.news.borrow_and_update();
            let is_closed = self.bus.ring().is_closed;
            let (events, more) = self.bus.read(&mut self.place, BATCH);
            if !events.is_empty() || (is_closed && !more) {
                return events;
            }
            if !more && self.news.changed().await.is_err() {
                return vec![];
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.bus.readers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;

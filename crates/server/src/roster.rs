//! Every connection and what it is doing, so that room can be made for a newcomer.
//!
//! A request costs its connection a few atomic stores and never a lock; the roster's lock is taken
//! when a connection begins or ends, when room is needed, and at each tick.
//!
//! ```text
//! Fresh ─┐ first byte          body not there yet     body complete        reply gone
//! Quiet ─┴───────────> Head ──────────────────> Body ──────────────> Busy ───────────> Quiet
//!   any but Busy ──> Gone: overdue, or the longest idle when room is needed
//!   Busy ──> Held: complete, not begun; it waits for what becomes of a handover
//!   Fresh, Quiet, Head, Held ──> Gone: carried over to another process as it is
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::task::AtomicWaker;

use crate::Limits;

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    /// Connected, and never said anything.
    Fresh,
    /// Between requests.
    Quiet,
    /// A request's headers have begun.
    Head,
    /// Its headers are complete, its body is not.
    Body,
    /// A call runs, or its reply is being written.
    Busy,
    /// A request is complete and is not begun.
    Held,
    /// Told to leave: nothing starts here any more.
    Gone,
}

impl Phase {
    const ALL: [Self; 7] = [Self::Fresh, Self::Quiet, Self::Head, Self::Body, Self::Busy, Self::Held, Self::Gone];

    /// How long it may last; `None` where another clock or none counts.
    const fn limit(self, limits: &Limits) -> Option<Duration> {
        match self {
            Self::Fresh | Self::Head => Some(limits.header_time),
            Self::Quiet => Some(limits.idle_time),
            // The body's own time limit answers 408.
            Self::Body | Self::Busy | Self::Held | Self::Gone => None,
        }
    }
}

/// What a connection is told to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Go on.
    Stay,
    /// Finish the request in flight, take no other.
    Finish,
    /// Finish the request in flight, then leave the connection to another process.
    CarryOver,
    /// Close now.
    Leave,
}

/// What a body's calls may do, the gravest of them: it decides how a handover treats them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Gravity {
    /// Looks only, and answers soon.
    Brief = 1,
    /// Reads what services write, perhaps for ever.
    Following = 2,
    /// Changes something.
    Changing = 3,
}

/// `Line::orders`.
const FINISH: u8 = 1;
const CARRY_OVER: u8 = 2;

/// One connection, seen from outside of its task.
#[derive(Debug)]
pub(crate) struct Line {
    epoch: Instant,
    listener: u64,
    phase: AtomicU8,
    /// Nanoseconds from `epoch` to the beginning of this idleness; a byte does not renew it.
    since_ns: AtomicU64,
    /// 0, `FINISH` or `CARRY_OVER`.
    orders: AtomicU8,
    /// The `Gravity` of the present body, 0 while it is not known.
    gravity: AtomicU8,
    /// The calls of the present body are to be answered without their results.
    cut: AtomicBool,
    /// The request that is held, as it came. A lock, since it is touched in a handover alone.
    held: Mutex<Option<Bytes>>,
    waker: AtomicWaker,
}

impl Line {
    pub(crate) fn new(epoch: Instant, listener: u64) -> Self {
        Self {
            epoch,
            listener,
            phase: AtomicU8::new(Phase::Fresh as u8),
            since_ns: AtomicU64::new(nanos(epoch.elapsed())),
            orders: AtomicU8::new(0),
            gravity: AtomicU8::new(0),
            cut: AtomicBool::new(false),
            held: Mutex::default(),
            waker: AtomicWaker::new(),
        }
    }

    /// Bytes came in.
    pub(crate) fn heard(&self) {
        match self.phase() {
            Phase::Quiet if self.change(Phase::Quiet, Phase::Head) => self.mark(),
            Phase::Fresh => _ = self.change(Phase::Fresh, Phase::Head),
            Phase::Quiet | Phase::Head | Phase::Body | Phase::Busy | Phase::Held | Phase::Gone => {}
        }
    }

    /// A request's headers are there, its body is not.
    pub(crate) fn waits_for_body(&self) {
        let now = self.phase();
        if matches!(now, Phase::Fresh | Phase::Quiet | Phase::Head) {
            _ = self.change(now, Phase::Body);
        }
    }

    /// A request is complete. `None`: too late, the connection was told to leave, nothing may run.
    pub(crate) fn begin(self: &Arc<Self>) -> Option<Busy> {
        loop {
            let now = self.phase();
            if now == Phase::Gone {
                return None;
            }
            if self.change(now, Phase::Busy) {
                self.gravity.store(0, Ordering::Relaxed);
                // Whoever asks next whether calls are held, asks after this one was seen to be busy.
                fence(Ordering::SeqCst);
                return Some(Busy(self.clone()));
            }
        }
    }

    /// One call of the present body turned out to be this.
    pub(crate) fn weigh(&self, gravity: Gravity) {
        self.gravity.fetch_max(gravity as u8, Ordering::AcqRel);
    }

    /// A request that is complete waits and is not begun. False: the connection was told to leave.
    pub(crate) fn hold(&self, request: Bytes) -> bool {
        *self.held() = Some(request);
        let holds = self.change(Phase::Busy, Phase::Held);
        self.waker.wake();
        holds
    }

    /// The held request begins after all. False: the connection was carried over meanwhile.
    pub(crate) fn begin_held(&self) -> bool {
        let begins = self.change(Phase::Held, Phase::Busy);
        if begins {
            self.held().take();
        }
        begins
    }

    /// Leaves with nothing begun: the request that is held, if any. `None`: something is going on.
    pub(crate) fn leave_whole(&self) -> Option<Bytes> {
        let now = self.phase();
        let may_leave = match now {
            Phase::Fresh | Phase::Quiet | Phase::Head | Phase::Held => true,
            Phase::Body | Phase::Busy | Phase::Gone => false,
        };
        (may_leave && self.change(now, Phase::Gone)).then(|| self.held().take().unwrap_or_default())
    }

    /// The calls in flight are to end now, with an answer that says so.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::Acquire)
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn held(&self) -> MutexGuard<'_, Option<Bytes>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A body in flight whose calls are as grave, or not known yet.
    fn is_as_grave(&self, least: Gravity) -> bool {
        let gravity = self.gravity.load(Ordering::Acquire);
        self.phase() == Phase::Busy && (gravity == 0 || gravity >= least as u8)
    }

    /// What to do now; `waker` is woken when that changes.
    pub(crate) fn order(&self, waker: &Waker) -> Order {
        self.waker.register(waker);
        if self.phase() == Phase::Gone {
            return Order::Leave;
        }
        match self.orders.load(Ordering::Acquire) {
            0 => return Order::Stay,
            CARRY_OVER => return Order::CarryOver,
            _ => {}
        }
        match self.phase() {
            Phase::Fresh | Phase::Quiet | Phase::Held | Phase::Gone => Order::Leave,
            Phase::Head | Phase::Body | Phase::Busy => Order::Finish,
        }
    }

    fn tell(&self, order: u8) {
        self.orders.store(order, Ordering::Release);
        self.waker.wake();
    }

    /// Closes it, unless a call runs.
    fn evict(&self) -> bool {
        let now = self.phase();
        let gone = !matches!(now, Phase::Busy | Phase::Held | Phase::Gone) && self.change(now, Phase::Gone);
        if gone {
            self.waker.wake();
        }
        gone
    }

    fn idle_since_ns(&self) -> Option<u64> {
        match self.phase() {
            Phase::Busy | Phase::Held | Phase::Gone => None,
            Phase::Fresh | Phase::Quiet | Phase::Head | Phase::Body => Some(self.since_ns.load(Ordering::Relaxed)),
        }
    }

    fn is_overdue(&self, now_ns: u64, limits: &Limits) -> bool {
        let since = self.since_ns.load(Ordering::Relaxed);
        self.phase().limit(limits).is_some_and(|limit| now_ns.saturating_sub(since) > nanos(limit))
    }

    fn phase(&self) -> Phase {
        Phase::ALL[usize::from(self.phase.load(Ordering::Acquire))]
    }

    fn change(&self, from: Phase, to: Phase) -> bool {
        self.phase.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn mark(&self) {
        self.since_ns.store(nanos(self.epoch.elapsed()), Ordering::Relaxed);
    }
}

/// A request in flight; dropped when its reply is written or its client is gone.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Line>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.mark();
        _ = self.0.change(Phase::Busy, Phase::Quiet);
    }
}

/// All connections of a server.
#[derive(Debug)]
pub(crate) struct Roster {
    pub(crate) epoch: Instant,
    lines: Mutex<Lines>,
}

#[derive(Debug, Default)]
struct Lines {
    next: u64,
    seated: HashMap<u64, Arc<Line>>,
}

/// A place in the roster; dropped, it is free.
#[derive(Debug)]
pub(crate) struct Seat {
    roster: Arc<Roster>,
    number: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.roster.lines().seated.remove(&self.number);
    }
}

impl Roster {
    pub(crate) fn new() -> Self {
        Self { epoch: Instant::now(), lines: Mutex::default() }
    }

    /// Seats a newcomer, in the place of the longest idle one if need be. `None`: all are busy.
    pub(crate) fn seat(self: &Arc<Self>, line: &Arc<Line>, places: usize) -> Option<Seat> {
        let mut lines = self.lines();
        if lines.seated.len() >= places && !evict_longest_idle(&mut lines, u64::MAX) {
            return None;
        }
        let number = lines.next;
        lines.next += 1;
        lines.seated.insert(number, line.clone());
        Some(Seat { roster: self.clone(), number })
    }

    /// Closes the connection that has been idle longest, and at least for so long. False: there is none.
    pub(crate) fn make_room(&self, idle_for: Duration) -> bool {
        let before_ns = nanos(self.epoch.elapsed().saturating_sub(idle_for));
        evict_longest_idle(&mut self.lines(), before_ns)
    }

    /// Closes what has waited longer than it may.
    pub(crate) fn close_overdue(&self, limits: &Limits) {
        let now_ns = nanos(self.epoch.elapsed());
        self.lines().seated.retain(|_, line| !(line.is_overdue(now_ns, limits) && line.evict()));
    }

    /// Tells the connections of one listener to finish.
    pub(crate) fn finish(&self, listener: u64) {
        self.each_of(listener, |line| line.tell(FINISH));
    }

    /// Tells the connections of one listener to leave as soon as nothing of them is in flight.
    pub(crate) fn carry_over(&self, listener: u64) {
        self.each_of(listener, |line| line.tell(CARRY_OVER));
    }

    /// Ends the calls of one listener that are in flight, or those alone that follow something.
    pub(crate) fn cut(&self, listener: u64, followers_alone: bool) {
        let following = Gravity::Following as u8;
        self.each_of(listener, |line| {
            if !followers_alone || line.gravity.load(Ordering::Acquire) == following {
                line.cut();
            }
        });
    }

    /// Whether any body in flight, on any listener, changes something or may turn out to.
    pub(crate) fn is_changing(&self) -> bool {
        // After it was said that calls are held: see `Line::begin`.
        fence(Ordering::SeqCst);
        self.lines().seated.values().any(|line| line.is_as_grave(Gravity::Changing))
    }

    fn each_of(&self, listener: u64, tell: impl Fn(&Line)) {
        self.lines().seated.values().filter(|line| line.listener == listener).for_each(|line| tell(line));
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        // Nothing panics under this lock; were it so, the map would still be whole.
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn evict_longest_idle(lines: &mut Lines, before_ns: u64) -> bool {
    loop {
        let idle = lines.seated.iter().filter_map(|(number, line)| Some((line.idle_since_ns()?, *number)));
        let Some((_, number)) = idle.min().filter(|(since_ns, _)| *since_ns <= before_ns) else {
            return false;
        };
        // A request may have begun meanwhile: then it is not idle any more, and another one is.
        if lines.seated[&number].evict() {
            lines.seated.remove(&number);
            return true;
        }
    }
}

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_leaves_and_a_busy_one_stays() {
        let roster = Arc::new(Roster::new());
        let lines: Vec<_> = (0..3).map(|_| Arc::new(Line::new(roster.epoch, 0))).collect();
        let _seats: Vec<_> = lines.iter().map(|line| roster.seat(line, 3).unwrap()).collect();
        let _busy = lines[0].begin().unwrap();

        let newcomer = Arc::new(Line::new(roster.epoch, 0));
        let _seat = roster.seat(&newcomer, 3).unwrap();
        assert!(lines[1].begin().is_none());
        assert!(lines[2].begin().is_some());
    }

    #[test]
    fn a_byte_does_not_renew_the_time_of_a_request() {
        let limits = Limits { header_time: Duration::from_nanos(1), ..Limits::default() };
        let line = Line::new(Instant::now(), 0);
        line.heard();
        std::thread::sleep(Duration::from_millis(1));
        line.heard();
        assert!(line.is_overdue(nanos(line.epoch.elapsed()), &limits));
    }
}

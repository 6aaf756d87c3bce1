//! The accept loop: who is let in, where room comes from, and how it ends.
//!
//! One task a connection, so that nobody waits for another's bytes. Files run out before memory does:
//! a reserve is kept, and the longest idle connection makes room, so that an admin still gets in.

use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, Write};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use wharf_api::{Caller, Peer};

use crate::handover::{Carried, Door, Gate, Leave};
use crate::http::{self, Guest, Site};
use crate::offer::Offer;
use crate::roster::{Line, Order, Roster, Seat};
use crate::wire::{Seen, Wire};
use crate::{Limits, Listener};

/// A request's headers may be this long; longer is 431.
const HEAD_BYTES: usize = 64 * 1024;

/// How long accepting pauses after it failed and no reserve was left.
const PAUSE: Duration = Duration::from_millis(50);

/// In a handover, calls in flight that look only have this long; then they are answered without result.
const LAST_LOOKS: Duration = Duration::from_millis(150);

/// For what is left then: answers to be written, bodies to arrive.
const LAST_BYTES: Duration = Duration::from_millis(100);

/// How often it is looked whether nothing changes any more.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A connection that has been idle for less is not closed to get the reserve back: its first request
/// may be on its way.
const SETTLED: Duration = Duration::from_secs(1);

/// What all listeners of one daemon share: the places and the budget for bodies.
pub struct Server {
    limits: Limits,
    roster: Arc<Roster>,
    budget: Arc<Semaphore>,
    gate: Arc<Gate>,
    listeners: AtomicU64,
    uid: u32,
}

/// The tasks of one listener's connections.
type Guests = JoinSet<Option<Carried>>;

/// Serves one listener on its own until `shutdown` is ready, then drains it.
pub async fn serve(listener: Listener, offer: impl Into<Offer>, limits: Limits, shutdown: impl Future<Output = ()>) {
    Server::new(limits).serve(listener, offer, shutdown).await;
}

impl Server {
    /// A server without a listener.
    pub fn new(limits: Limits) -> Self {
        let budget = limits.budget_bytes.min(Semaphore::MAX_PERMITS);
        Self {
            roster: Arc::new(Roster::new()),
            budget: Arc::new(Semaphore::new(budget)),
            gate: Arc::default(),
            listeners: AtomicU64::new(0),
            uid: rustix::process::geteuid().as_raw(),
            limits,
        }
    }

    /// Serves a listener until `shutdown` is ready. Then its socket is removed, requests in flight
    /// get `drain_time` to end, and what is left is dropped. Dropping the future drops all at once.
    pub async fn serve(&self, listener: Listener, offer: impl Into<Offer>, shutdown: impl Future<Output = ()>) {
        let closing = async {
            shutdown.await;
            Leave::Close
        };
        if let Err(e) = self.serve_door(listener.into(), offer, closing).await {
            tracing::error!("the socket could not be served: {e}");
        }
    }

    /// Serves a listener, and who is in already, until it is told how to leave. After a handover
    /// the listener comes back, listening, with every connection that can go on elsewhere.
    pub async fn serve_door(
        &self,
        door: Door,
        offer: impl Into<Offer>,
        leaving: impl Future<Output = Leave>,
    ) -> io::Result<Option<Door>> {
        let Door { listener, guests: carried } = door;
        let accepting = listener.accepting()?;
        let number = self.listeners.fetch_add(1, Ordering::Relaxed);
        let site = Arc::new(Site::new(offer.into(), self.limits.clone(), self.budget.clone(), self.gate.clone()));
        let mut guests = Guests::new();
        for Carried { stream, unread } in carried {
            self.greet(UnixStream::from_std(stream)?, unread, number, &site, &mut guests);
        }
        let how = self.attend_to(&accepting, number, &site, &mut guests, leaving).await;
        drop(accepting);
        match how {
            Leave::Close => {
                drop(listener);
                self.close(number, guests).await;
                Ok(None)
            }
            Leave::HandOver => Ok(Some(Door { listener, guests: self.carry_over(number, guests).await })),
        }
    }

    /// From now on calls that change something are held back; returns when none is in flight.
    /// Dropped, or after that, `go_on` lets them begin.
    pub async fn settle(&self) {
        self.gate.shut();
        while self.roster.is_changing() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// There will be no handover: what was held back begins.
    pub fn go_on(&self) {
        self.gate.open();
    }

    async fn attend_to(
        &self,
        accepting: &UnixListener,
        number: u64,
        site: &Arc<Site>,
        guests: &mut Guests,
        leaving: impl Future<Output = Leave>,
    ) -> Leave {
        let mut reserve = Reserve::default();
        reserve.refill();
        let mut tick = tokio::time::interval(self.tick());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut leaving = pin!(leaving);
        loop {
            tokio::select! {
                biased;
                how = &mut leaving => return how,
                // Somebody left, and so did a file.
                Some(_) = guests.join_next(), if !guests.is_empty() => { reserve.refill(); }
                _ = tick.tick(), if !guests.is_empty() => {
                    self.roster.close_overdue(&self.limits);
                    reserve.refill();
                }
                accepted = accepting.accept() => match accepted {
                    Ok((stream, _)) => {
                        // The newcomer sits in the reserve's place; it has no seat yet, so it is safe here.
                        if !reserve.refill() && self.make_room(Duration::ZERO) {
                            // Its file is free when its task has ended; on another listener, a tick later.
                            _ = tokio::time::timeout(PAUSE, guests.join_next()).await;
                            reserve.refill();
                        }
                        self.greet(stream, Bytes::new(), number, site, guests);
                    }
                    Err(e) => self.recover(&e, &mut reserve).await,
                },
            }
        }
    }

    /// Requests in flight end, or are answered without a result when their time is over.
    async fn close(&self, number: u64, mut guests: Guests) {
        self.roster.finish(number);
        self.roster.cut(number, true);
        if tokio::time::timeout(self.limits.drain_time, ended(&mut guests)).await.is_err() {
            self.roster.cut(number, false);
            if tokio::time::timeout(LAST_BYTES, ended(&mut guests)).await.is_err() {
                tracing::warn!(left = guests.len(), "requests were cut off at shutdown");
            }
        }
        guests.shutdown().await;
    }

    /// Every connection leaves as soon as nothing of it is in flight, and very soon everything does.
    async fn carry_over(&self, number: u64, mut guests: Guests) -> Vec<Carried> {
        self.roster.carry_over(number);
        self.roster.cut(number, true);
        let mut carried = vec![];
        for (time, then) in [(LAST_LOOKS, "answered without a result"), (LAST_BYTES, "closed")] {
            let leaving = async {
                while let Some(left) = guests.join_next().await {
                    carried.extend(left.ok().flatten());
                }
            };
            if tokio::time::timeout(time, leaving).await.is_ok() {
                break;
            }
            tracing::warn!(left = guests.len(), "the handover does not wait: what is in flight is {then}");
            self.roster.cut(number, false);
        }
        guests.shutdown().await;
        carried
    }

    /// How often overdue connections are looked for: limits are kept to a quarter, at most a second.
    fn tick(&self) -> Duration {
        let shortest = self.limits.header_time.min(self.limits.idle_time);
        (shortest / 4).clamp(Duration::from_millis(5), Duration::from_secs(1))
    }

    fn greet(&self, stream: UnixStream, unread: Bytes, listener: u64, site: &Arc<Site>, guests: &mut Guests) {
        // An error here means that it is not known who calls: nobody is let in.
        let Ok(who) = stream.peer_cred() else { return };
        let pid = who.pid().unwrap_or(0);
        let identity = wharf_sys::pidfd::open(pid).and_then(|opened| wharf_sys::pidfd::identity(opened, pid)).ok();
        let peer = Peer { uid: who.uid(), gid: who.gid(), pid, identity };
        if !is_let_in(peer.uid, self.uid) {
            tracing::warn!(uid = peer.uid, pid = peer.pid, "a connection of another user was refused");
            return turn_away(stream, "403 Forbidden", -32600, "this socket is for its owner and root alone");
        }
        let line = Arc::new(Line::new(self.roster.epoch, listener));
        let extra = if peer.uid == 0 { self.limits.root_connections } else { 0 };
        let Some(seat) = self.roster.seat(&line, self.limits.connections + extra) else {
            return turn_away(stream, "503 Service Unavailable", -32603, "every connection is in the middle of a call");
        };
        let caller = Caller { peer, stream: None, client: None };
        let guest = Arc::new(Guest { site: site.clone(), caller, line, seen: Arc::new(Seen::default()) });
        guests.spawn(attend(stream, unread, guest, seat));
    }

    /// After a failed accept. The kernel says EMFILE before it looks whether anybody waits, so nobody
    /// is sent away for it while there is a reserve: the next accept shows whether there is a newcomer.
    async fn recover(&self, error: &io::Error, reserve: &mut Reserve) {
        use rustix::io::Errno;
        let out_of_files = [Errno::MFILE, Errno::NFILE].map(Errno::raw_os_error).map(Some);
        if !out_of_files.contains(&error.raw_os_error()) {
            tracing::warn!("could not accept a connection: {error}");
        } else if reserve.release() {
            return;
        } else {
            _ = self.make_room(SETTLED);
        }
        tokio::time::sleep(PAUSE).await;
    }

    fn make_room(&self, idle_for: Duration) -> bool {
        let made_room = self.roster.make_room(idle_for);
        if made_room {
            tracing::warn!("files have run out; the longest idle connection made room");
        }
        made_room
    }
}

async fn ended(guests: &mut Guests) {
    while guests.join_next().await.is_some() {}
}

/// Serves one connection to its end, or until it goes on elsewhere.
async fn attend(stream: UnixStream, unread: Bytes, guest: Arc<Guest>, _seat: Seat) -> Option<Carried> {
    let (line, seen) = (guest.line.clone(), guest.seen.clone());
    let io = TokioIo::new(Wire::new(stream, unread, line.clone(), seen.clone()));
    let service = service_fn(move |request| http::answer(guest.clone(), request));
    let mut builder = http1::Builder::new();
    // The header time limit is the roster's: hyper's own would close kept connections as well.
    // No `pipeline_flush`: with bytes left unread, hyper then holds a reply back, or closes without it.
    builder.auto_date_header(false).max_buf_size(HEAD_BYTES).half_close(false);
    let mut connection = builder.serve_connection(io, service);
    let mut finishing = false;
    let held = poll_fn(|cx| {
        let order = line.order(cx.waker());
        match order {
            Order::Stay | Order::CarryOver => {}
            Order::Leave => return Poll::Ready(None),
            Order::Finish if finishing => {}
            Order::Finish => {
                finishing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
        }
        if Pin::new(&mut connection).poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        // Only after hyper has done all that it could: what was answered must be on its way.
        match order {
            Order::CarryOver if seen.is_all_said() => {
                line.leave_whole().map_or(Poll::Pending, |held| Poll::Ready(Some(held)))
            }
            Order::Stay | Order::CarryOver | Order::Finish | Order::Leave => Poll::Pending,
        }
    })
    .await?;
    let parts = connection.into_parts();
    let (stream, rest) = parts.io.into_inner().into_parts();
    let mut unread = BytesMut::from(&held[..]);
    unread.extend_from_slice(&parts.read_buf);
    unread.extend_from_slice(&rest);
    Some(Carried { stream: stream.into_std().ok()?, unread: unread.freeze() })
}

/// Root may do all; anybody else has to be who the daemon is.
const fn is_let_in(peer_uid: u32, own_uid: u32) -> bool {
    peer_uid == own_uid || peer_uid == 0
}

/// Says why and closes. The socket is new, so that a short text always fits its buffer.
fn turn_away(stream: UnixStream, status: &str, code: i32, message: &str) {
    let body = format!(r#"{{"jsonrpc":"2.0","id":null,"error":{{"code":{code},"message":"{message}"}}}}"#);
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
    );
    if let Ok(mut stream) = stream.into_std() {
        // Whoever is turned away may be gone already.
        _ = stream.write_all(text.as_bytes());
    }
}

/// One open file, kept to be closed when no other can be opened.
#[derive(Default)]
struct Reserve(Option<File>);

impl Reserve {
    /// Whether there is one now.
    fn refill(&mut self) -> bool {
        if self.0.is_none() {
            self.0 = File::open("/dev/null").ok();
        }
        self.0.is_some()
    }

    /// Whether there was one.
    fn release(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::is_let_in;

    #[test]
    fn only_the_owner_and_root_are_let_in() {
        assert!(is_let_in(1000, 1000));
        assert!(is_let_in(0, 1000));
        assert!(!is_let_in(1001, 1000));
        assert!(!is_let_in(1000, 0));
    }
}

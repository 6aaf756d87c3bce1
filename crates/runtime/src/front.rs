//! A front: it listens on a unit's public port for good, and hands over request by request to the program behind it.
//!
//! ```text
//!  client ── keep-alive ──> front ── one connection per request ──> program, on a port that only we know
//!                             │ gate shut: the request is held, its body unread
//!                             └ gate open: in flight, until the last byte of its answer
//! ```
//!
//! A client's connection survives any number of stops and starts of the program. It refuses to know why a gate is
//! open or shut, and what the requests are about: bodies are passed on as they come, in both directions.

mod exchange;
#[cfg(test)]
mod tests;

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    sync::{Notify, Semaphore, watch},
    task::JoinHandle,
};

/// Connections at once; further ones wait to be accepted.
const CONNECTIONS: usize = 512;
/// What is read ahead of one connection: with [`CONNECTIONS`] it bounds the bytes of all that are held.
const BUFFER_BYTES: usize = 64 * 1024;
/// After a connection that could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Where requests go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate {
    /// On, to this port of 127.0.0.1.
    Open(u16),
    /// Nowhere yet: they are held. The text says why, for those who waited in vain.
    Shut(Option<String>),
    /// Nowhere: they are refused.
    Refuses {
        /// Why, for the client.
        why: String,
        /// When it may be worth another try, in seconds.
        retry_after_s: u64,
    },
}

/// What a front allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// A request is held this long.
    pub hold: Duration,
    /// So many are held at once.
    pub most_held: usize,
}

/// What a front is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Requests that wait for the gate.
    pub held: usize,
    /// Requests whose answers have not ended.
    pub in_flight: usize,
    /// When either changed last.
    pub moved: Instant,
}

impl Counts {
    /// Nothing is held, and nothing in flight.
    pub fn is_idle(&self) -> bool {
        self.held == 0 && self.in_flight == 0
    }
}

struct State {
    gate: Gate,
    terms: Terms,
    counts: Counts,
}

/// Shared by a front and its connections. Letting a request in and shutting the gate exclude each other.
struct Hall {
    state: Mutex<State>,
    /// The gate or the number in flight is another: for those who wait for it.
    moved: watch::Sender<u64>,
    /// Somebody outside is to look at the counts.
    stirred: Arc<Notify>,
}

/// What became of a wish to be let in.
enum Admission {
    In(u16, Pass),
    Wait(Option<String>),
    No { why: String, retry_after_s: u64 },
}

impl Hall {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        let mut state = self.state();
        change(&mut state.counts);
        state.counts.moved = Instant::now();
        drop(state);
        self.stirred.notify_one();
    }

    fn moved(&self) {
        self.moved.send_modify(|n| *n += 1);
    }

    fn try_in(self: &Arc<Self>) -> Admission {
        let mut state = self.state();
        let port = match &state.gate {
            Gate::Open(port) => *port,
            Gate::Shut(why) => return Admission::Wait(why.clone()),
            Gate::Refuses { why, retry_after_s } => {
                return Admission::No { why: why.clone(), retry_after_s: *retry_after_s };
            }
        };
        state.counts.in_flight += 1;
        state.counts.moved = Instant::now();
        drop(state);
        self.stirred.notify_one();
        Admission::In(port, Pass(self.clone()))
    }
}

/// A request in flight, until it is dropped.
struct Pass(Arc<Hall>);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.count(|counts| counts.in_flight -= 1);
        self.0.moved();
    }
}

/// A request that is held, until it is dropped.
struct Place(Arc<Hall>);

impl Place {
    /// None where too many are held.
    fn take(hall: &Arc<Hall>) -> Option<Self> {
        let mut state = hall.state();
        if state.counts.held >= state.terms.most_held {
            return None;
        }
        state.counts.held += 1;
        state.counts.moved = Instant::now();
        drop(state);
        hall.stirred.notify_one();
        Some(Self(hall.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.count(|counts| counts.held -= 1);
    }
}

/// A port that is listened on. Dropped, it listens no more; what is in flight goes on to its end.
pub struct Front {
    hall: Arc<Hall>,
    port: u16,
    accepting: Mutex<Option<JoinHandle<()>>>,
    closing: watch::Sender<bool>,
}

impl Front {
    /// Listens on 127.0.0.1, its gate shut. `stirred` is told whenever the counts change. Call it inside a tokio
    /// runtime; it fails where the port is not free.
    pub fn open(port: u16, terms: Terms, stirred: Arc<Notify>) -> io::Result<Self> {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        socket.set_nonblocking(true)?;
        let port = socket.local_addr()?.port();
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let counts = Counts { held: 0, in_flight: 0, moved: Instant::now() };
        let state = Mutex::new(State { gate: Gate::Shut(None), terms, counts });
        let hall = Arc::new(Hall { state, moved: watch::Sender::new(0), stirred });
        let closing = watch::Sender::new(false);
        let accepting = tokio::spawn(accept(hall.clone(), socket, closing.clone()));
        Ok(Self { hall, port, accepting: Mutex::new(Some(accepting)), closing })
    }

    /// The port that it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What is held and in flight.
    pub fn counts(&self) -> Counts {
        self.hall.state().counts
    }

    /// From now on requests go there.
    pub fn set(&self, gate: Gate) {
        let mut state = self.hall.state();
        if state.gate == gate {
            return;
        }
        state.gate = gate;
        drop(state);
        self.hall.moved();
    }

    /// From now on requests are held, where they went on until now.
    pub fn hold_back(&self) {
        let mut state = self.hall.state();
        if matches!(state.gate, Gate::Open(_)) {
            state.gate = Gate::Shut(None);
        }
        drop(state);
        self.hall.moved();
    }

    /// From now on it allows so much; for requests that are not held yet.
    pub fn allow(&self, terms: Terms) {
        self.hall.state().terms = terms;
    }

    /// Until nothing is in flight.
    pub async fn drained(&self) {
        let mut moved = self.hall.moved.subscribe();
        while self.counts().in_flight > 0 {
            if moved.changed().await.is_err() {
                return;
            }
        }
    }

    /// Listens no more, and lets each connection go after its present request.
    pub fn close(&self) {
        if let Some(accepting) = self.accepting.lock().unwrap_or_else(PoisonError::into_inner).take() {
            accepting.abort();
        }
        self.closing.send_replace(true);
    }

    /// It still listens.
    pub fn is_open(&self) -> bool {
        !*self.closing.borrow()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let why = "it is not on demand any more".to_owned();
        self.set(Gate::Refuses { why, retry_after_s: 1 });
        self.close();
    }
}

async fn accept(hall: Arc<Hall>, socket: tokio::net::TcpListener, closing: watch::Sender<bool>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(seat) = room.clone().acquire_owned().await else { return };
        match socket.accept().await {
            Ok((stream, _)) => {
                let (hall, closing) = (hall.clone(), closing.subscribe());
                tokio::spawn(async move {
                    converse(hall, stream, closing).await;
                    drop(seat);
                });
            }
            Err(e) => {
                tracing::debug!("a connection to a front was not taken: {e}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// One client's connection, to its end.
async fn converse(hall: Arc<Hall>, stream: TcpStream, mut closing: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| exchange::answer(hall.clone(), request));
    let connection = http1::Builder::new()
        .max_buf_size(BUFFER_BYTES)
        .preserve_header_case(true)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = async { drop(closing.wait_for(|is| *is).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = ended {
        tracing::debug!("a connection to a front broke: {e}");
    }
}

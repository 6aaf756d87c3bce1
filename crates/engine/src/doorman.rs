//! The doorman: listens for units that run on demand, and notices when nobody uses them.
//!
//! ```text
//!  wanted on demand, idle ── door open: listening on its ports
//!     first connection ─────> `Used`; who came meanwhile is held
//!     launch ───────────────> door shut, so that the program can bind its ports itself
//!     ready ────────────────> those who were held are connected through; all others reach it directly
//!     no connection for its time ─> `Unused`
//!  with `pass_sockets` the door stays: the program is given the sockets themselves
//! ```
//!
//! It is read off the published state. It refuses to know how a unit is started. A daemon that dies
//! takes with it only those connections that woke a unit; none that came after.
//!
//! Limitation: without `pass_sockets`, a connection that comes between the launch and the program's
//! own bind is refused, as by any program that is starting.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{Ipv4Addr, TcpListener},
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    net::TcpStream,
    task::JoinHandle,
};
use wharf_core::{Fact, Life, Unit};
use wharf_model::{RunId, UnitName, Want};

use crate::{
    engine::Shared,
    fronts::{self, Fronts},
};

/// Changes of the state are looked at together.
const TOGETHER: Duration = Duration::from_millis(20);
/// Connections that are held for one unit while it starts.
const HELD_MOST: usize = 64;
/// After a connection that could not be taken.
const KNOCKS_AGAIN: Duration = Duration::from_millis(100);
/// The shortest time between two looks at the connections of units that may be idle.
const LOOK_MS: u64 = 1_000;

/// A listening socket and what it is called.
type Named = (String, u16, Arc<TcpListener>);

struct Door {
    sockets: Vec<Named>,
    /// They are given to the program, and stay open here.
    passes: bool,
    held: Arc<Mutex<Vec<(u16, TcpStream)>>>,
    /// Present while it waits for the first connection.
    watch: Option<JoinHandle<()>>,
}

impl Door {
    fn is_at(&self, ports: &BTreeMap<String, u16>) -> bool {
        let at = |(name, port, _): &Named| ports.get(name) == Some(port);
        self.sockets.len() == ports.len() && self.sockets.iter().all(at)
    }
}

/// The open doors.
#[derive(Default)]
pub struct Doorman {
    // A lock, since launches are tasks of their own; it is never held across a wait.
    doors: Mutex<BTreeMap<UnitName, Door>>,
    /// Of units whose ports are never given away.
    pub fronts: Fronts,
}

impl Doorman {
    fn doors(&self) -> MutexGuard<'_, BTreeMap<UnitName, Door>> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A launch begins: the ports are free afterwards, or are given as sockets.
    pub async fn make_way(&self, unit: &UnitName) -> Vec<(String, OwnedFd)> {
        let (watch, passed) = {
            let mut doors = self.doors();
            let Some(door) = doors.get_mut(unit) else { return vec![] };
            let passed = if door.passes { copies(&door.sockets) } else { vec![] };
            if !door.passes {
                door.sockets.clear();
            }
            (door.watch.take(), passed)
        };
        if let Some(watch) = watch {
            watch.abort();
            // Its copies of the sockets are closed when it has ended.
            let _ = watch.await;
        }
        passed
    }

    /// Ports that a door holds open for the unit's own program.
    pub fn holds(&self, unit: &UnitName, port: u16) -> bool {
        let passes = |door: &Door| door.passes && door.sockets.iter().any(|(_, n, _)| *n == port);
        self.doors().get(unit).is_some_and(passes) || self.fronts.holds(unit, port)
    }

    /// Opens the sockets that are passed, for a start that nobody knocked for.
    pub fn open_to_pass(&self, unit: &UnitName, ports: &BTreeMap<String, u16>) -> io::Result<Vec<(String, OwnedFd)>> {
        let sockets = listen(ports)?;
        let passed = copies(&sockets);
        self.doors().insert(unit.clone(), Door { sockets, passes: true, held: Arc::default(), watch: None });
        Ok(passed)
    }
}

fn copies(sockets: &[Named]) -> Vec<(String, OwnedFd)> {
    sockets.iter().filter_map(|(name, _, socket)| Some((name.clone(), socket.try_clone().ok()?.into()))).collect()
}

fn listen(ports: &BTreeMap<String, u16>) -> io::Result<Vec<Named>> {
    ports
        .iter()
        .map(|(name, port)| {
            let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, *port))?;
            socket.set_nonblocking(true)?;
            Ok((name.clone(), *port, Arc::new(socket)))
        })
        .collect()
}

/// Keeps the doors for as long as the engine lives.
pub fn keep(shared: &Arc<Shared>) {
    fronts::keep(shared);
    let shared = shared.clone();
    shared.tasks.clone().spawn(async move {
        let mut published = shared.published.subscribe();
        let mut quiet: BTreeMap<(UnitName, RunId), Instant> = BTreeMap::new();
        loop {
            let world = shared.world.load_full();
            // Cheap where nothing runs on demand: most machines, most of the time.
            let on_demand: Vec<Arc<Unit>> =
                world.values().filter(|unit| unit.want == Want::OnDemand && !fronts::has(unit)).cloned().collect();
            let is_tended = tend(&shared, &on_demand);
            let wait = look_for_idle(&shared, &on_demand, &mut quiet).await;
            let again = (!is_tended).then_some(Duration::from_millis(LOOK_MS));
            let wait = wait.into_iter().chain(again).min();
            tokio::select! {
                changed = published.changed() => match changed {
                    Ok(()) => tokio::time::sleep(TOGETHER).await,
                    Err(_) => return,
                },
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
            }
        }
    });
}

/// Opens, shuts, and lets through, as the units are now. False: a door could not be opened yet.
fn tend(shared: &Arc<Shared>, on_demand: &[Arc<Unit>]) -> bool {
    let mut is_tended = true;
    let mut doors = shared.doorman.doors();
    doors.retain(|name, door| {
        let stays = on_demand.iter().any(|unit| unit.name == *name && !unit.held);
        if let (false, Some(watch)) = (stays, &door.watch) {
            watch.abort();
        }
        stays
    });
    for unit in on_demand {
        let rests = unit.life == Life::Idle && unit.busy_with().is_none() && !unit.held;
        let passes = unit.policy.on_demand.as_ref().is_some_and(|o| o.pass_sockets);
        let ports = unit.fixed_ports().map(|(name, port)| (name.to_owned(), port)).collect();
        let is_shut = doors.get(&unit.name).is_none_or(|door| !door.is_at(&ports));
        match (doors.get_mut(&unit.name), &unit.life) {
            (Some(door), Life::Up { .. }) => let_through(&unit.name, std::mem::take(&mut *held(&door.held))),
            // It was given up: whoever woke it is told by the end of the connection.
            (Some(door), Life::Failed { .. }) => held(&door.held).clear(),
            (Some(door), _) if rests && door.watch.is_none() && !is_shut => {
                door.watch = Some(watch(shared, &unit.name, door));
            }
            (_, _) if rests && is_shut => {
                // One that is left was made for other ports.
                if let Some(watch) = doors.remove(&unit.name).and_then(|door| door.watch) {
                    watch.abort();
                }
                match listen(&ports) {
                    Ok(sockets) => {
                        let mut door = Door { sockets, passes, held: Arc::default(), watch: None };
                        door.watch = Some(watch(shared, &unit.name, &door));
                        doors.insert(unit.name.clone(), door);
                    }
                    // A stranger may have the port for a while.
                    Err(e) => {
                        tracing::debug!("{}: its door cannot be opened: {e}", unit.name);
                        is_tended = false;
                    }
                }
            }
            (Some(_) | None, _) => {}
        }
    }
    is_tended
}

fn held(held: &Mutex<Vec<(u16, TcpStream)>>) -> MutexGuard<'_, Vec<(u16, TcpStream)>> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the first connection to any of the sockets.
fn watch(shared: &Arc<Shared>, unit: &UnitName, door: &Door) -> JoinHandle<()> {
    let (shared, unit) = (shared.clone(), unit.clone());
    let (sockets, passes, waiting) = (door.sockets.clone(), door.passes, door.held.clone());
    shared.tasks.clone().spawn(async move {
        let knocks = sockets.into_iter().map(|(_, port, socket)| {
            let (shared, unit, waiting) = (shared.clone(), unit.clone(), waiting.clone());
            Box::pin(async move { knock(&shared, &unit, port, socket, passes, &waiting).await })
        });
        futures_util::future::join_all(knocks).await;
    })
}

async fn knock(
    shared: &Shared,
    unit: &UnitName,
    port: u16,
    socket: Arc<TcpListener>,
    passes: bool,
    waiting: &Mutex<Vec<(u16, TcpStream)>>,
) {
    loop {
        // Whoever has left again, or came while no descriptor was free, must not shut the door for all others.
        match knocks(shared, unit, port, socket.clone(), passes, waiting).await {
            Ok(()) => return,
            Err(e) => tracing::debug!("{unit}: a connection to its door on port {port} was not taken: {e}"),
        }
        tokio::time::sleep(KNOCKS_AGAIN).await;
    }
}

/// Until whoever knocks is the program's own to hear.
async fn knocks(
    shared: &Shared,
    unit: &UnitName,
    port: u16,
    socket: Arc<TcpListener>,
    passes: bool,
    waiting: &Mutex<Vec<(u16, TcpStream)>>,
) -> io::Result<()> {
    #[expect(deprecated, reason = "its successor is unsafe; this Arc keeps the descriptor open and never replaces it")]
    let ready = AsyncFd::with_interest(socket, Interest::READABLE)?;
    loop {
        let mut guard = ready.readable().await?;
        if passes {
            // Whoever knocks is accepted by the program itself.
            shared.tell(Fact::Used { unit: unit.clone() });
            return Ok(());
        }
        match guard.try_io(|ready| ready.get_ref().accept()) {
            Ok(Ok((stream, _))) => {
                stream.set_nonblocking(true)?;
                let stream = TcpStream::from_std(stream)?;
                let mut waiting = held(waiting);
                if waiting.len() < HELD_MOST {
                    waiting.push((port, stream));
                }
                drop(waiting);
                shared.tell(Fact::Used { unit: unit.clone() });
            }
            Ok(Err(e)) => return Err(e),
            Err(_would_block) => {}
        }
    }
}

/// Connects those who woke the unit with it.
fn let_through(unit: &UnitName, waiting: Vec<(u16, TcpStream)>) {
    for (port, mut stream) in waiting {
        let unit = unit.clone();
        tokio::spawn(async move {
            let through = async {
                let mut service = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
                tokio::io::copy_bidirectional(&mut stream, &mut service).await
            };
            if let Err(e) = through.await {
                tracing::debug!("{unit}: a connection that woke it broke: {e}");
            }
        });
    }
}

/// Tells of units that nobody has used for their time; answers when to look again.
async fn look_for_idle(
    shared: &Shared,
    on_demand: &[Arc<Unit>],
    quiet: &mut BTreeMap<(UnitName, RunId), Instant>,
) -> Option<Duration> {
    let up: Vec<(&Arc<Unit>, RunId, u64)> = on_demand
        .iter()
        .filter_map(|unit| {
            let idle_ms = unit.policy.on_demand.as_ref()?.idle_stop_s.saturating_mul(1_000);
            let run = unit.life.run().filter(|_| matches!(unit.life, Life::Up { .. }))?;
            (idle_ms > 0).then_some((unit, run, idle_ms))
        })
        .collect();
    quiet.retain(|(name, run), _| up.iter().any(|(unit, of, _)| unit.name == *name && of == run));
    if up.is_empty() {
        return None;
    }
    let used = tokio::task::spawn_blocking(ports_in_use).await.unwrap_or_default();
    let now = Instant::now();
    for (unit, run, idle_ms) in &up {
        let since = quiet.entry((unit.name.clone(), *run)).or_insert(now);
        if unit.ports.values().any(|port| used.contains(port)) {
            *since = now;
        } else if now.duration_since(*since) >= Duration::from_millis(*idle_ms) {
            shared.tell(Fact::Unused { unit: unit.name.clone(), run: *run });
        }
    }
    let shortest = up.iter().map(|(_, _, idle_ms)| idle_ms / 4).min().unwrap_or(LOOK_MS);
    Some(Duration::from_millis(shortest.max(LOOK_MS)))
}

/// Local ports with an established connection, by the kernel's tables.
fn ports_in_use() -> Vec<u16> {
    let mut ports = vec![];
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        ports.extend(text.lines().filter_map(established));
    }
    ports.sort_unstable();
    ports.dedup();
    ports
}

/// `sl local_address rem_address st …`: the local port, where the state is 01.
fn established(line: &str) -> Option<u16> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, state) = (fields.next()?, fields.nth(1)?);
    let port = local.rsplit(':').next().filter(|_| state == "01")?;
    u16::from_str_radix(port, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_seen_while_it_lives() {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        assert!(!ports_in_use().contains(&port), "nobody has connected");
        let client = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        assert!(ports_in_use().contains(&port));
        drop((client, socket));
        assert!(!ports_in_use().contains(&port));
    }
}

//! The daemon that comes: it asks the one that runs for everything, or finds that none runs.

use std::{
    fs,
    io::{self, Read, Seek},
    os::{fd::OwnedFd, unix::net::UnixStream},
    time::{Duration, Instant},
};

use wharf_model::{ErrorKind, Failure};
use wharf_runtime::Layout;
use wharf_server::{Carried, Door, Keeper, Listener, Lock, holder, lock};

use super::{
    channel::{Channel, Unheard},
    force, giver, successor,
    words::{Offer, PROTOCOL, Socket, Wish, Word},
};
use crate::daemon::{
    DaemonOptions, Replace,
    seat::{self, Seat},
};

/// A daemon that lives answers in far less.
const ANSWERED_WITHIN: Duration = Duration::from_secs(5);
/// From a lock that is held to a daemon that can be asked: it may be just starting.
const ASKABLE_WITHIN: Duration = Duration::from_secs(5);
/// For the end of the other's engine, beside its calls in flight.
const GIVEN_WITHIN: Duration = Duration::from_secs(15);
/// For the other's last word.
const DONE_WITHIN: Duration = Duration::from_secs(2);
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// What came of the wish to take over.
pub(crate) enum Taking {
    /// This process is the daemon.
    Seat(Seat),
    /// The daemon that ran has started a successor in its place.
    Succeeded {
        /// Of the successor.
        pid: u32,
        /// Of the successor.
        version: String,
    },
}

/// The way to the daemon that everything was taken from, until it is told so.
pub(crate) struct Taken(Channel);

/// What the other daemon said at last.
pub(crate) struct Parting {
    /// The service manager counts on this process now.
    pub(crate) is_main: bool,
    /// Somebody asked the other one to end.
    pub(crate) quits: bool,
}

/// Takes over from the daemon that runs, or is the first one where none does.
pub(crate) fn take(layout: &Layout, options: &DaemonOptions, how: &Replace) -> Result<Taking, Failure> {
    let until = Instant::now() + ASKABLE_WITHIN;
    let mut forced = false;
    let hung = loop {
        let why = match Channel::connect(&giver::path(&layout.sockets())) {
            Ok(channel) => match ask(&channel, layout, options, how) {
                Err(Asked::Refused(failure)) => return Err(failure),
                Err(Asked::Silent(Unheard::Gone)) => None,
                Err(Asked::Silent(why)) => Some(why.to_string()),
                Ok(taking) => return Ok(taking),
            },
            Err(e) => Some(format!("{}: {e}", giver::path(&layout.sockets()).display())),
        };
        // Whoever held the locks may have ended, or be only beginning.
        match lock(layout.sockets()).map(drop) {
            Ok(()) => return Seat::fresh(layout, options).map(Taking::Seat),
            Err(failure) if failure.kind != ErrorKind::Conflict => return Err(failure),
            Err(_) => {}
        }
        let is_late = why.as_deref() == Some(Unheard::Late.to_string().as_str());
        if is_late || Instant::now() > until {
            if how.force && !forced {
                force::end_holder(&layout.sockets())?;
                forced = true;
                continue;
            }
            break why;
        }
        std::thread::sleep(TRY_AGAIN);
    };
    Err(not_handed_over(layout, hung))
}

fn not_handed_over(layout: &Layout, why: Option<String>) -> Failure {
    let pid = holder(&layout.sockets()).map(|h| format!(" (pid {})", h.pid)).unwrap_or_default();
    Failure::new(ErrorKind::Timeout, format!("could not take over: the daemon{pid} runs and does not hand over"))
        .causes(why)
        .hint("`wharf daemon --replace --force` ends it and starts this one; services go on")
}

enum Asked {
    Refused(Failure),
    Silent(Unheard),
}

impl From<Failure> for Asked {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

impl From<io::Error> for Asked {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => Self::Silent(Unheard::Gone),
            _ => Self::Refused(e.into()),
        }
    }
}

impl From<Unheard> for Asked {
    fn from(unheard: Unheard) -> Self {
        Self::Silent(unheard)
    }
}

fn ask(channel: &Channel, layout: &Layout, options: &DaemonOptions, how: &Replace) -> Result<Taking, Asked> {
    let patience_ms = u64::try_from(how.patience.as_millis()).unwrap_or(u64::MAX);
    greet(channel, Wish::Look)?;
    let Word::Offer(offer) = heard(channel, ANSWERED_WITHIN)? else {
        return Err(Failure::new(ErrorKind::Internal, "the other daemon offers nothing").into());
    };
    // A greeting is one connection.
    let channel = &Channel::connect(&giver::path(&layout.sockets()))?;
    if how.detach || (offer.is_supervised && std::env::var_os("NOTIFY_SOCKET").is_none()) {
        greet(channel, Wish::Succeed { program: std::env::current_exe()?, patience_ms })?;
        return match heard(channel, how.patience + 2 * GIVEN_WITHIN)? {
            Word::Replaced { pid, version } => Ok(Taking::Succeeded { pid, version }),
            other => Err(misplaced(&other).into()),
        };
    }
    greet(channel, Wish::Take { patience_ms })?;
    let offer = match heard(channel, ANSWERED_WITHIN)? {
        Word::Offer(offer) => offer,
        other => return Err(misplaced(&other).into()),
    };
    let channel = Channel::new(rustix::io::fcntl_dupfd_cloexec(channel, 0).map_err(io::Error::from)?)?;
    receive(channel, &offer, layout, options, how.patience).map(Taking::Seat)
}

/// The same over standard input, with a parent that is the daemon that runs.
pub(crate) fn take_from_parent(layout: &Layout, options: &DaemonOptions) -> Result<Seat, Failure> {
    let patience = Duration::from_secs(3600);
    let take = || -> Result<Seat, Asked> {
        let channel = successor::parents_end()?;
        greet(&channel, Wish::Take { patience_ms: 0 })?;
        match heard(&channel, ANSWERED_WITHIN)? {
            Word::Offer(offer) => receive(channel, &offer, layout, options, patience),
            other => Err(misplaced(&other).into()),
        }
    };
    take().map_err(|asked| match asked {
        Asked::Refused(failure) => failure,
        Asked::Silent(why) => Failure::new(ErrorKind::Conflict, why.to_string()),
    })
}

/// Who runs there, if anybody does who can be asked.
pub(crate) fn look(layout: &Layout) -> Option<Offer> {
    let channel = Channel::connect(&giver::path(&layout.sockets())).ok()?;
    greet(&channel, Wish::Look).ok()?;
    match channel.hear(ANSWERED_WITHIN) {
        Ok((Word::Offer(offer), _)) => Some(offer),
        _ => None,
    }
}

fn greet(channel: &Channel, wish: Wish) -> io::Result<()> {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    channel.say(&Word::Hello { protocol: PROTOCOL, version, pid: std::process::id(), wish }, &[])
}

fn heard(channel: &Channel, patience: Duration) -> Result<Word, Asked> {
    match channel.hear(patience)?.0 {
        Word::Refused { failure } => Err(failure.into()),
        word => Ok(word),
    }
}

fn misplaced(word: &Word) -> Failure {
    Failure::new(ErrorKind::Internal, format!("the other daemon said {word:?} out of turn"))
}

fn receive(
    channel: Channel,
    offer: &Offer,
    layout: &Layout,
    options: &DaemonOptions,
    patience: Duration,
) -> Result<Seat, Asked> {
    if let Err(failure) = fits(offer, layout, options) {
        let _ = channel.say(&Word::Refused { failure: failure.clone() }, &[]);
        return Err(failure.into());
    }
    channel.say(&Word::Ready, &[])?;
    let mut seat = Seat::of_manager(layout, options)?;
    loop {
        let (word, files) = match channel.hear(patience.saturating_add(GIVEN_WITHIN)) {
            // It died on the way. Its sockets are here, and whoever waits at them.
            Err(Unheard::Gone) if !seat.doors.is_empty() => {
                seat.locks.clear();
                seat.locks = inherited_locks(layout)?;
                seat.bind_missing(layout, options)?;
                return Ok(seat);
            }
            heard => heard?,
        };
        match word {
            Word::Go => break,
            Word::Refused { failure } => return Err(failure.into()),
            word => {
                if let Err(failure) = seat.accept(word, files, layout) {
                    let _ = channel.say(&Word::Refused { failure: failure.clone() }, &[]);
                    return Err(failure.into());
                }
            }
        }
    }
    // From here on a failure ends this process, and the other daemon goes on.
    for folder in seat::locked_folders(layout) {
        if !seat.locks.iter().any(|held| held.path().parent() == Some(&folder)) {
            seat.locks.push(lock(folder)?);
        }
    }
    seat.bind_missing(layout, options)?;
    seat.taken = Some(Taken(channel));
    Ok(seat)
}

/// The locks of a daemon that is dying. Those that it gave us are closed first: they would be in our own way.
fn inherited_locks(layout: &Layout) -> Result<Vec<Lock>, Failure> {
    let until = Instant::now() + ASKABLE_WITHIN;
    loop {
        let locks: Result<Vec<_>, _> = seat::locked_folders(layout).iter().map(lock).collect();
        match locks {
            Err(e) if e.kind == ErrorKind::Conflict && Instant::now() < until => std::thread::sleep(TRY_AGAIN),
            done => return done,
        }
    }
}

/// Its sockets are where ours are to be: else a client of one would not find the other.
fn fits(offer: &Offer, layout: &Layout, options: &DaemonOptions) -> Result<(), Failure> {
    for (name, path) in seat::wanted(layout, options)? {
        let theirs = offer.sockets.iter().find(|socket| socket.name == name);
        if let Some(Socket { path: theirs, .. }) = theirs.filter(|theirs| theirs.path != path) {
            let text = format!("the daemon that runs has {name} at {}, not at {}", theirs.display(), path.display());
            return Err(Failure::new(ErrorKind::Conflict, text).hint(format!("add --socket {}", theirs.display())));
        }
    }
    Ok(())
}

impl Seat {
    fn accept(&mut self, word: Word, files: Vec<OwnedFd>, layout: &Layout) -> Result<(), Failure> {
        let mut files = files.into_iter();
        let lacks = || Failure::new(ErrorKind::Internal, "the other daemon has kept an open file for itself");
        let first = files.next().ok_or_else(lacks)?;
        match word {
            Word::Lock { folder } if seat::locked_folders(layout).contains(&folder) => {
                self.locks.push(Lock::received(first, &folder)?);
            }
            // A folder that a newer daemon locks as well is not ours to hold.
            Word::Lock { .. } => {}
            Word::Listener(socket) if seat::is_known(&socket.name) => {
                // A manager that has opened its own there has removed the file of this one.
                let is_passed = self.doors.iter().any(|(name, _)| *name == socket.name);
                let keeper = if is_passed { Keeper::Manager } else { socket.keeper() };
                let listener = Listener::received(first, &socket.path, keeper)?;
                self.doors.push((socket.name, Door::from(listener)));
            }
            // A newer daemon's socket: nobody answers there any more.
            Word::Listener(_) => drop(first),
            Word::Guest { name } => {
                let mut unread = vec![];
                if let Some(text) = files.next() {
                    let mut text = fs::File::from(text);
                    text.rewind()?;
                    text.read_to_end(&mut unread)?;
                }
                let guest = Carried { stream: UnixStream::from(first), unread: unread.into() };
                if let Some((_, door)) = self.doors.iter_mut().rev().find(|(there, _)| *there == name) {
                    door.guests.push(guest);
                }
            }
            other => return Err(misplaced(&other)),
        }
        Ok(())
    }
}

/// Tells the other daemon that this one's engine runs, and hears its last word. An other that is gone
/// has left everything to us all the same.
pub(crate) fn report_taken(taken: Taken, locks: &[Lock]) -> Parting {
    let nothing = Parting { is_main: false, quits: false };
    let Taken(channel) = taken;
    if channel.say(&Word::Taken, &[]).is_err() {
        return nothing;
    }
    for lock in locks {
        if let Err(e) = lock.sign() {
            tracing::warn!("{e}");
        }
    }
    match channel.hear(DONE_WITHIN) {
        Ok((Word::Done { is_main, quits }, _)) => Parting { is_main, quits },
        _ => nothing,
    }
}

impl Socket {
    /// A socket that this daemon serves.
    pub(crate) fn of(name: &str, listener: &Listener) -> Self {
        let is_managers = listener.keeper() == wharf_server::Keeper::Manager;
        Self { name: name.to_owned(), path: listener.path().to_owned(), is_managers }
    }
}

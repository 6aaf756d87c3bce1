//! A service that checks its own world: it sees a second copy of itself, and writes down every line, every
//! signal with its sender, and how it is going to end. For the kill loop. It knows nothing of Wharf.
//!
//! ```text
//! wharf-witness DIR UNIT KIND          KIND is any of these letters, or -
//!     c   ends by itself after a while, in one way or another
//!     s   is stubborn: SIGTERM does not end it
//!     l   leaves a process behind that no signal but SIGKILL ends
//! wharf-witness DIR UNIT left PID      that process
//! wharf-witness DIR UNIT bomb COUNT    COUNT processes in sessions of their own, each replaced when it dies
//! ```
//!
//! `DIR/locks/UNIT` is locked by all that lives of a run. `DIR/lives/UNIT/NS-PID` is the book of one life, and
//! `….n` beside it the number of lines written so far.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::{fs::FileExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio, exit},
    thread,
    time::Duration,
};

use nix::sys::{
    signal::{SigSet, Signal, kill, raise},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, poll},
    time::{ClockId, Timespec, clock_gettime},
};

/// What a second copy ends with.
const DOUBLE: i32 = 99;
/// Between two lines.
const PAUSE_MS: u64 = 20;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [dir, unit, kind, rest @ ..] = &args[..] else { exit(2) };
    let done = match (kind.as_str(), rest) {
        ("left", [_]) => stay(),
        ("bomb", [count]) => bomb(dir, unit, count.parse().unwrap_or(0)),
        _ => Life::begin(Path::new(dir), unit, kind).and_then(Life::live),
    };
    if let Err(e) = done {
        eprintln!("witness: {e}");
        exit(98);
    }
}

fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Until SIGKILL.
fn stay() -> io::Result<()> {
    SigSet::all().thread_block()?;
    let _ = nix::unistd::setsid();
    loop {
        thread::park();
    }
}

fn bomb(dir: &str, unit: &str, count: usize) -> io::Result<()> {
    SigSet::all().thread_block()?;
    let me = std::env::current_exe()?;
    let another = || {
        let mut command = Command::new(&me);
        command.args([dir, unit, "left", "0"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.process_group(0).spawn()
    };
    let mut children = vec![];
    while children.len() < count {
        children.push(another()?);
    }
    println!("all {count} are there");
    loop {
        for child in &mut children {
            if child.try_wait()?.is_some() {
                *child = another()?;
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

struct Life {
    unit: String,
    kind: String,
    name: String,
    book: File,
    count_file: File,
    count: u64,
    dice: u64,
    dir: PathBuf,
    lock: File,
}

impl Life {
    fn begin(dir: &Path, unit: &str, kind: &str) -> io::Result<Self> {
        SigSet::all().thread_block()?;
        let (pid, born) = (std::process::id(), now_ns());
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(dir.join("locks").join(unit))?;
        if lock.try_lock().is_err() {
            let mut doubles = OpenOptions::new().create(true).append(true).open(dir.join("doubles"))?;
            writeln!(doubles, "{unit} pid {pid} at {born}")?;
            exit(DOUBLE);
        }
        let stat = fs::read_to_string("/proc/self/stat")?;
        // Field 22 of the line, the twentieth behind the name.
        let ticks = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(19)).unwrap_or("0").to_owned();
        let lives = dir.join("lives").join(unit);
        fs::create_dir_all(&lives)?;
        let name = format!("{born}-{pid}");
        let mut book = OpenOptions::new().create_new(true).append(true).open(lives.join(&name))?;
        let count_file = OpenOptions::new().create_new(true).write(true).open(lives.join(format!("{name}.n")))?;
        let generation = std::env::var("GEN").unwrap_or_else(|_| "0".into());
        let run = std::env::var("WHARF_RUN").unwrap_or_else(|_| "0".into());
        book.write_all(format!("begin {pid} {ticks} {generation} {run}\n").as_bytes())?;
        let dice = born ^ (u64::from(pid) << 32);
        let (unit, kind, dir) = (unit.to_owned(), kind.to_owned(), dir.to_owned());
        Ok(Self { unit, kind, name, book, count_file, count: 0, dice, dir, lock })
    }

    fn below(&mut self, n: u64) -> u64 {
        self.dice = self.dice.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.dice >> 33) % n
    }

    fn live(mut self) -> io::Result<()> {
        let signals = SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        for _ in 0..3 {
            self.say()?;
        }
        if self.kind.contains('l') {
            self.leave_one_behind()?;
        }
        let lifetime = 20_000_000 + self.below(1_500_000_000);
        let ends_at = if self.kind.contains('c') { now_ns() + lifetime } else { u64::MAX };
        loop {
            let mut fds = [PollFd::new(&signals, PollFlags::IN)];
            let pause = Timespec { tv_sec: 0, tv_nsec: (PAUSE_MS * 1_000_000).cast_signed() };
            let _ = poll(&mut fds, Some(&pause));
            while let Some(signal) = signals.read_signal()? {
                let text = format!("signal {} {} {}\n", signal.ssi_signo, signal.ssi_pid, now_ns());
                self.book.write_all(text.as_bytes())?;
                if signal.ssi_signo == Signal::SIGTERM as u32 && !self.kind.contains('s') {
                    let code = self.below(90) as i32;
                    self.end(code)?;
                }
            }
            self.say()?;
            if now_ns() > ends_at {
                let way = self.below(100) as i32;
                self.end(if way < 90 { way } else { -1 - way % 2 })?;
            }
        }
    }

    /// One line, in one write, and the count of it behind it.
    fn say(&mut self) -> io::Result<()> {
        self.count += 1;
        let line = format!("{} {} {}\n", self.unit, self.name, self.count);
        // Not through std's stdout: one line is one write there too, but this says so.
        rustix::io::write(io::stdout().as_fd(), line.as_bytes())?;
        self.count_file.write_all_at(&self.count.to_le_bytes(), 0)
    }

    fn leave_one_behind(&self) -> io::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([self.dir.as_os_str(), self.unit.as_ref()]).args(["left", &std::process::id().to_string()]);
        // The lock is of the open file: it is held until both have ended.
        command.stdin(self.lock.try_clone()?).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(drop)
    }

    /// 0 and above: this code. Below: a signal that nobody can keep from itself.
    fn end(&mut self, way: i32) -> io::Result<()> {
        let signal = match way {
            0.. => None,
            -1 => Some(Signal::SIGKILL),
            _ => Some(Signal::SIGABRT),
        };
        self.say()?;
        let planned = signal.map_or(format!("exit {way}"), |s| format!("kill {}", s as i32));
        self.book.write_all(format!("{planned} {}\n", now_ns()).as_bytes())?;
        if let Some(signal) = signal {
            SigSet::all().thread_unblock()?;
            raise(signal)?;
            kill(nix::unistd::Pid::this(), Signal::SIGKILL)?;
        }
        exit(way)
    }
}

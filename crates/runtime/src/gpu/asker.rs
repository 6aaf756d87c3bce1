//! The process that asks NVIDIA's driver, as the daemon keeps it: started, asked in time, killed, replaced.
//!
//! Owns that process. It refuses to know what the answers mean.

use std::{
    ffi::OsString,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::Stdio,
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::{Instant, timeout_at},
};
use wharf_sys::pidfd;

use super::reading::{Fault, Limit, Line, Question, Reading, Said};

/// The driver may take this long to be opened: on machines where nothing keeps it loaded it starts its devices then.
const OPENING: Duration = Duration::from_secs(20);
/// From the second failure in a row on, the next try waits: this long, then twice as long.
const PAUSE: Duration = Duration::from_millis(250);
/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(30);
/// So many processes that cannot even be killed are enough.
const STUCK: usize = 3;
/// What is ours among the variables that a daemon is started with.
const OURS: [&str; 5] = ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC"];

/// How the process is started.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program and its arguments.
    pub argv: Vec<OsString>,
    /// Variables besides the daemon's own.
    pub env: Vec<(OsString, OsString)>,
    /// An answer takes at most this long.
    pub deadline: Duration,
}

/// What came of a question.
#[derive(Debug)]
pub enum Asked {
    /// An answer.
    Reading(Box<Reading>),
    /// There is nobody to ask.
    NoLibrary(String),
    /// None in time, or a refusal; what to tell people.
    Failed(String),
}

/// Why there is no answer.
#[derive(Debug)]
enum Silence {
    /// Nobody could be asked.
    Nobody(String),
    /// Whoever was asked is of no more use.
    Broken(String),
    /// The deadline has passed.
    Late,
}

/// The process, or what became of the last one.
#[derive(Debug)]
pub struct Asker {
    program: Program,
    process: Option<Process>,
    /// Killed, and still there: in a call that the kernel does not leave.
    stuck: Vec<OwnedFd>,
    failures: u32,
    not_before: Option<Instant>,
    last_id: u64,
}

#[derive(Debug)]
struct Process {
    child: Child,
    pidfd: OwnedFd,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    born: Instant,
    is_open: bool,
}

impl Asker {
    /// No process yet.
    pub fn new(program: Program) -> Self {
        Self { program, process: None, stuck: vec![], failures: 0, not_before: None, last_id: 0 }
    }

    /// The pid of the process, while there is one.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref()?.child.id()
    }

    /// Asks, and has an answer or the reason for none within the deadline.
    pub async fn ask(&mut self) -> Asked {
        match self.put(None).await {
            Ok(Said::Reading(reading)) => {
                (self.failures, self.not_before) = (0, None);
                Asked::Reading(reading)
            }
            Ok(Said::NoLibrary(why)) => {
                self.process = None;
                Asked::NoLibrary(why)
            }
            // Another process may open another library: the driver was replaced under this one, say.
            Ok(Said::Refused(Fault { text, .. })) => self.replace(&format!("it refuses: {text}")),
            Ok(Said::Opened | Said::Set | Said::Closed) => self.replace("it answers what was not asked"),
            Err(Silence::Nobody(why)) => Asked::Failed(why),
            Err(Silence::Broken(why)) => self.replace(&why),
            Err(Silence::Late) => match &self.process {
                Some(process) if !process.is_open && process.born.elapsed() < OPENING => {
                    Asked::Failed(format!("the driver is being opened since {} s", process.born.elapsed().as_secs()))
                }
                Some(_) | None => {
                    let late = self.program.deadline.as_millis();
                    self.replace(&format!("no answer within {late} ms: a call of the driver hangs"))
                }
            },
        }
    }

    /// Sets what a cgroup may have of a device, or says why not.
    pub async fn limit(&mut self, limit: Limit) -> Result<(), String> {
        let why = match self.put(Some(limit)).await {
            Ok(Said::Set) => return Ok(()),
            // Another process would be told the same.
            Ok(Said::Refused(Fault { text, .. })) => return Err(text),
            Err(Silence::Nobody(why)) => return Err(why),
            Ok(Said::Opened | Said::NoLibrary(_) | Said::Reading(_) | Said::Closed) => {
                "it answers what was not asked".to_owned()
            }
            Err(Silence::Broken(why)) => why,
            Err(Silence::Late) => format!("no answer within {} ms", self.program.deadline.as_millis()),
        };
        self.replace(&why);
        Err(why)
    }

    /// What the process says within the deadline. One that closes itself for want of questions may do so just as one
    /// is put; that question is put to the next process.
    async fn put(&mut self, limit: Option<Limit>) -> Result<Said, Silence> {
        let until = Instant::now() + self.program.deadline;
        for _ in 0..2 {
            self.provide().map_err(Silence::Nobody)?;
            let Some(process) = &mut self.process else { return Err(Silence::Nobody("it has no process".into())) };
            self.last_id += 1;
            let question = Question { id: self.last_id, limit: limit.clone() };
            match timeout_at(until, process.answer(&question)).await {
                Ok(Ok(Said::Closed)) => self.stuck.extend(self.process.take().map(|process| process.pidfd)),
                Ok(said) => return said.map_err(Silence::Broken),
                Err(_) => return Err(Silence::Late),
            }
        }
        Err(Silence::Broken("it closes itself as soon as it is open".into()))
    }

    /// Ends the process; the next question starts another one.
    fn replace(&mut self, why: &str) -> Asked {
        if let Some(process) = self.process.take() {
            // By its descriptor, and without waiting: in the middle of a driver call it may not die.
            let _ = pidfd::signal(&process.pidfd, rustix::process::Signal::KILL.as_raw());
            self.stuck.push(process.pidfd);
        }
        self.failures += 1;
        let pause = match self.failures {
            0 | 1 => Duration::ZERO,
            more => LONGEST.min(PAUSE * 2_u32.saturating_pow(more - 2)),
        };
        self.not_before = Some(Instant::now() + pause);
        tracing::warn!("NVIDIA's driver: {why}; its process is replaced");
        Asked::Failed(why.to_owned())
    }

    fn provide(&mut self) -> Result<(), String> {
        self.stuck.retain(|process| !pidfd::has_exited(process));
        // Nobody asked for a while: it has ended by itself.
        self.process.take_if(|process| pidfd::has_exited(&process.pidfd));
        if self.process.is_some() {
            return Ok(());
        }
        if self.stuck.len() >= STUCK {
            return Err(format!("{STUCK} processes hang in calls of the driver and cannot be killed"));
        }
        let wait = self.not_before.map(|at| at.saturating_duration_since(Instant::now())).unwrap_or_default();
        if !wait.is_zero() {
            let (failures, wait) = (self.failures, wait.as_secs_f64());
            return Err(format!("it failed {failures} times in a row, and is asked again in {wait:.1} s"));
        }
        match Process::start(&self.program) {
            Ok(process) => self.process = Some(process),
            Err(e) => return Err(format!("the process that asks it could not be started: {e}")),
        }
        Ok(())
    }
}

impl Process {
    fn start(program: &Program) -> std::io::Result<Self> {
        let (path, args) = program.argv.split_first().ok_or(std::io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(path);
        // For people who list processes: the path need not say what it is.
        command.arg0("wharf").args(args).envs(program.env.iter().map(|(name, value)| (name, value)));
        for name in OURS {
            command.env_remove(name);
        }
        // A group of its own: what a terminal sends to the daemon is not meant for it.
        command.process_group(0).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let missing = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let pid = child.id().ok_or_else(missing)?.cast_signed();
        let (stdin, stdout) = (child.stdin.take().ok_or_else(missing)?, child.stdout.take().ok_or_else(missing)?);
        let lines = BufReader::new(stdout).lines();
        // Our own child, not reaped: its pid is its own.
        let pidfd = pidfd::open(pid)?;
        Ok(Self { child, pidfd, stdin, lines, born: Instant::now(), is_open: false })
    }

    /// Its answer to this question. Answers to earlier ones are passed over.
    async fn answer(&mut self, question: &Question) -> Result<Said, String> {
        if !self.is_open {
            match self.line().await?.said {
                Said::Opened => self.is_open = true,
                other => return Ok(other),
            }
        }
        let mut text = serde_json::to_vec(question).map_err(|e| e.to_string())?;
        text.push(b'\n');
        // Where nobody reads any more, what it said last tells why.
        let _ = self.stdin.write_all(&text).await;
        loop {
            let line = self.line().await?;
            if line.id == question.id || line.said == Said::Closed {
                return Ok(line.said);
            }
        }
    }

    async fn line(&mut self) -> Result<Line, String> {
        match self.lines.next_line().await {
            Ok(Some(line)) => serde_json::from_str(&line).map_err(|e| format!("its answer makes no sense: {e}")),
            Ok(None) | Err(_) => Err(self.ended()),
        }
    }

    fn ended(&mut self) -> String {
        match self.child.try_wait() {
            Ok(Some(status)) => match status.signal() {
                Some(signal) => format!("the process that asks it was ended by signal {signal}"),
                None => format!("the process that asks it ended with {}", status.code().unwrap_or(-1)),
            },
            Ok(None) | Err(_) => "the process that asks it has ended".to_owned(),
        }
    }
}

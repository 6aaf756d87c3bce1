//! A program that is run to its end, with its output caught.
//!
//! It owns the child, its process group and its pipes. It ends when the program itself ends: what
//! the program left in the background may hold the pipes open, and is ended a moment later.
//! A dropped future ends the whole group.

use std::{collections::BTreeMap, path::PathBuf, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    process::Child,
    sync::watch,
    time::timeout,
};
use wharf_model::{ErrorKind, Failure};
use wharf_services::Output;

use crate::{account::Account, launch::watched::Watched};

/// How much of each stream is kept.
const TAIL_BYTES: usize = 256 * 1024;
/// How long the pipes may stay open after the program's end.
const DRAIN: Duration = Duration::from_millis(200);
/// Without a limit of its own.
const USUAL_LIMIT: Duration = Duration::from_secs(600);

/// A program to be run to its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tool {
    /// Where it lies, or a name to be found in PATH.
    pub program: PathBuf,
    pub args: Vec<String>,
    /// `None`: the daemon's environment.
    pub env: Option<BTreeMap<String, String>>,
    /// Set on top of it.
    pub set: Vec<(String, String)>,
    pub cwd: Option<PathBuf>,
    pub run_as: Option<Account>,
    /// Zero: ten minutes.
    pub limit: Duration,
    /// What it reads from stdin.
    pub stdin: String,
    /// Hears the last line that it said, for whoever waits.
    pub heard: Option<watch::Sender<String>>,
}

impl Tool {
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), ..Self::default() }
    }

    pub fn args<T: Into<String>>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    pub fn cwd(mut self, path: impl Into<PathBuf>) -> Self {
        self.cwd = Some(path.into());
        self
    }

    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.set.push((name.into(), value.into()));
        self
    }

    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    pub fn heard(mut self, heard: watch::Sender<String>) -> Self {
        self.heard = Some(heard);
        self
    }

    /// For people: the program's name.
    pub fn name(&self) -> String {
        self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy().into_owned()
    }

    /// Runs it to its end, whatever its exit code.
    pub async fn output(&self) -> Result<Output, Failure> {
        let mut group = self.spawn()?;
        group.says.clone_from(&self.stdin);
        let limit = if self.limit.is_zero() { USUAL_LIMIT } else { self.limit };
        match timeout(limit, group.ended(self.heard.as_ref())).await {
            Ok(output) => output,
            Err(_) => {
                drop(group);
                let text = format!("{} did not end within {} s", self.name(), limit.as_secs_f32());
                Err(Failure::new(ErrorKind::Timeout, text)
                    .hint("it was ended; try again, or look at what it waits for"))
            }
        }
    }

    fn spawn(&self) -> Result<Group, Failure> {
        let mut command = tokio::process::Command::new(&self.program);
        let stdin = if self.stdin.is_empty() { Stdio::null() } else { Stdio::piped() };
        command.args(&self.args).stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        if let Some(env) = &self.env {
            command.env_clear().envs(env);
        }
        command.envs(self.set.iter().map(|(name, value)| (name, value)));
        if let Some(cwd) = &self.cwd {
            command.current_dir(cwd);
        }
        if let Some(who) = &self.run_as {
            wharf_sys::process::start_as(command.as_std_mut(), who.uid, who.gid, who.groups());
        }
        // A daemon that is killed leaves no installer at work: the next one begins afresh.
        wharf_sys::process::die_with_us(command.as_std_mut());
        let child = command.spawn().map_err(|e| self.unspawned(&e))?;
        Group::of(child)
    }

    fn unspawned(&self, e: &std::io::Error) -> Failure {
        let text = format!("could not run {}: {e}", self.program.display());
        match e.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => {
                Failure::new(ErrorKind::Precondition, text)
                    .hint(format!("see whether it is there and may be run: ls -l {}", self.program.display()))
            }
            _ => Failure::new(ErrorKind::Internal, text),
        }
    }
}

/// A child that leads a process group. Dropped, the group is ended.
struct Group {
    child: Child,
    /// What is written to its stdin.
    says: String,
    leader: Pid,
    /// Its end is told by it and leaves it unreaped: until it is reaped, its number and so its group's
    /// cannot become another's. No thread waits for it: a hundred programs that hang hold up nobody else.
    watched: Watched,
}

impl Group {
    fn of(child: Child) -> Result<Self, Failure> {
        let leader = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let leader = leader.ok_or_else(|| Failure::new(ErrorKind::Internal, "a child without a pid"))?;
        let pid = leader.as_raw_nonzero().get();
        match wharf_sys::pidfd::open(pid).and_then(|fd| Watched::of(pid, fd)) {
            Ok(watched) => Ok(Self { child, says: String::new(), leader, watched }),
            Err(e) => {
                let _ = kill_process_group(leader, Signal::KILL);
                Err(Failure::from(e).while_doing("wait for a program"))
            }
        }
    }

    async fn ended(&mut self, heard: Option<&watch::Sender<String>>) -> Result<Output, Failure> {
        let (mut out, mut err) = (Tail::default(), Tail::default());
        let pipes = (self.child.stdout.take(), self.child.stderr.take());
        let stdin = self.child.stdin.take();
        let pumps = async {
            tokio::join!(
                pump(pipes.0, &mut out, heard),
                pump(pipes.1, &mut err, heard),
                tell(stdin, self.says.as_bytes())
            );
        };
        {
            tokio::pin!(pumps);
            let mut closed = false;
            loop {
                tokio::select! {
                    () = self.watched.exited() => break,
                    () = &mut pumps, if !closed => closed = true,
                }
            }
            if !closed {
                let _ = timeout(DRAIN, pumps).await;
            }
        }
        let _ = kill_process_group(self.leader, Signal::KILL);
        let status = self.child.wait().await?;
        use std::os::unix::process::ExitStatusExt;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        Ok(Output { code, stdout: out.text(), stderr: err.text() })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // After the child was reaped its number may be another's.
        if self.child.id().is_some() {
            let _ = kill_process_group(self.leader, Signal::KILL);
        }
    }
}

/// The end of a stream.
#[derive(Default)]
struct Tail {
    kept: Vec<u8>,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        if self.kept.len() > 2 * TAIL_BYTES {
            self.kept.drain(..self.kept.len() - TAIL_BYTES);
        }
    }

    fn text(&self) -> String {
        let from = self.kept.len().saturating_sub(TAIL_BYTES);
        String::from_utf8_lossy(&self.kept[from..]).into_owned()
    }
}

/// A program need not read what it is told.
async fn tell(pipe: Option<impl AsyncWrite + Unpin>, text: &[u8]) {
    if let Some(mut pipe) = pipe {
        let _ = pipe.write_all(text).await;
    }
}

async fn pump(pipe: Option<impl AsyncRead + Unpin>, tail: &mut Tail, heard: Option<&watch::Sender<String>>) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        tail.push(&buffer[..n]);
        if let (Some(heard), Some(line)) = (heard, last_line(&buffer[..n])) {
            heard.send_replace(line);
        }
    }
}

/// The last line of a piece of output that says something, as far as a person would read it.
fn last_line(piece: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(piece);
    // A bar that is drawn again and again is a line each time.
    let line = text.rsplit(['\n', '\r']).map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).take(120).collect())
}

/// The last lines of what a tool said, stderr before stdout.
pub(crate) fn last_lines(output: &Output, count: usize) -> Vec<String> {
    let said = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
    let lines: Vec<&str> = said.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(|l| (*l).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn sh(script: &str) -> Tool {
        Tool::new("/bin/sh").args(["-c", script])
    }

    /// T16.
    #[tokio::test]
    async fn t16_a_background_process_that_holds_the_pipe_is_not_waited_for() {
        let began = Instant::now();
        let output = sh("echo before; sleep 61 & echo $!; exit 3").output().await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(2), "took {:?}", began.elapsed());
        assert_eq!(output.code, 3);
        let left: i32 = output.stdout.lines().nth(1).unwrap().parse().unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        let state = std::fs::read_to_string(format!("/proc/{left}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "the background process lives: {state}");
    }

    #[tokio::test]
    async fn a_time_limit_ends_the_whole_group() {
        let tool = sh("sleep 62 & echo $! > $0.pid; sleep 62");
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("m");
        let failure =
            tool.args([mark.display().to_string()]).limit(Duration::from_millis(300)).output().await.unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Timeout);
        let pid = std::fs::read_to_string(dir.path().join("m.pid")).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "it lives: {state}");
    }

    #[test]
    fn programs_that_take_their_time_hold_up_no_thread() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(2).build();
        runtime.unwrap().block_on(async {
            let slow: Vec<_> = (0..20).map(|_| tokio::spawn(async { sh("sleep 63").output().await })).collect();
            tokio::time::sleep(Duration::from_millis(300)).await;
            let began = Instant::now();
            assert_eq!(sh("echo quick").output().await.unwrap().stdout, "quick\n");
            tokio::task::spawn_blocking(|| ()).await.unwrap();
            assert!(began.elapsed() < Duration::from_secs(5), "took {:?}", began.elapsed());
            slow.iter().for_each(tokio::task::JoinHandle::abort);
        });
    }

    #[tokio::test]
    async fn another_user_comes_with_all_its_groups() {
        if !nix::unistd::geteuid().is_root() {
            println!("CANNOT BE DONE HERE: to become another user needs root");
            return;
        }
        let users = std::fs::read_to_string("/etc/group").unwrap();
        // Somebody who is in a group beside his own.
        let member = |line: &str| Some(line.rsplit_once(':')?.1.split(',').next()?.trim().to_owned());
        let named = users.lines().filter_map(member).find(|name| !name.is_empty() && name != "root");
        let who = Account::of_policy(named.as_deref().unwrap_or("daemon")).unwrap().unwrap();
        let output = Tool { run_as: Some(who.clone()), ..sh("id -u; id -g; id -G") }.output().await.unwrap();
        let lines: Vec<&str> = output.stdout.lines().collect();
        let mut groups: Vec<u32> = lines[2].split(' ').map(|group| group.parse().unwrap()).collect();
        groups.sort_unstable();
        let mut wanted = who.groups();
        wanted.sort_unstable();
        assert_eq!((lines[0], lines[1]), (who.uid.to_string().as_str(), who.gid.to_string().as_str()));
        assert_eq!(groups, wanted);
        assert!(groups.len() > 1 || named.is_none(), "{named:?} is in {groups:?}");
    }

    #[tokio::test]
    async fn only_the_end_of_a_long_output_is_kept() {
        let output = sh("yes 0123456789 | head -c 3000000; echo; echo last; kill -TERM $$").output().await.unwrap();
        assert_eq!(output.code, 128 + 15);
        assert!(output.stdout.len() <= TAIL_BYTES);
        assert!(output.stdout.ends_with("last\n"));
    }

    #[tokio::test]
    async fn what_it_is_told_it_reads_and_need_not() {
        let text = "x".repeat(300_000);
        let told = Tool { stdin: text.clone(), ..sh("cat | wc -c") }.output().await.unwrap();
        assert_eq!(told.stdout.trim(), "300000");
        let deaf = Tool { stdin: text, ..sh("exec 0<&-; echo done") }.output().await.unwrap();
        assert_eq!((deaf.code, deaf.stdout.as_str()), (0, "done\n"));
    }

    #[tokio::test]
    async fn a_missing_program_is_a_precondition() {
        let failure = Tool::new("/nowhere/prog").output().await.unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Precondition);
        assert!(failure.message.contains("/nowhere/prog"));
    }
}

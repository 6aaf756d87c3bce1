//! One command of compose, run to its end: its words go on to our own output, and the last of them are kept.

use std::{collections::VecDeque, path::PathBuf, process::Stdio, time::Duration};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::Command,
    time::timeout,
};
use wharf_model::{ErrorKind, Failure};

use super::say;

/// So many of its last lines on stderr are kept.
const LAST: usize = 10;
/// From SIGTERM to SIGKILL, where it takes too long.
const PATIENCE: Duration = Duration::from_secs(2);
/// What it left in the background may hold its pipes open for so long.
const DRAIN: Duration = Duration::from_millis(500);

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tool {
    pub(super) argv: Vec<String>,
    pub(super) folder: PathBuf,
    pub(super) limit: Duration,
}

impl Tool {
    /// For people.
    pub(super) fn name(&self) -> String {
        format!("`{}`", self.argv.join(" "))
    }
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) code: i32,
    /// The end of what it wrote to stderr, on one line.
    pub(super) last_words: String,
}

/// Runs it. Dropped, its whole group is ended.
pub(super) async fn run(tool: &Tool) -> Result<Said, Failure> {
    let [program, args @ ..] = &tool.argv[..] else {
        return Err(Failure::new(ErrorKind::Precondition, "no command was named"));
    };
    let mut command = Command::new(program);
    // A group of its own: a signal to ours is ours to hand on.
    command
        .args(args)
        .current_dir(&tool.folder)
        .stdin(Stdio::null())
        .stdout(Stdio::inherit())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut child = command.spawn().map_err(|e| {
        Failure::new(ErrorKind::Precondition, format!("could not run {program}: {e}"))
            .hint(format!("is it installed? `command -v {program}`"))
    })?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let mut last = VecDeque::new();
    let stderr = child.stderr.take();
    let ended = timeout(tool.limit, async {
        let echo = echo(stderr, &mut last);
        tokio::pin!(echo);
        tokio::select! {
            status = child.wait() => {
                let _ = timeout(DRAIN, echo).await;
                status
            }
            () = &mut echo => child.wait().await,
        }
    })
    .await;
    match ended {
        Ok(status) => {
            use std::os::unix::process::ExitStatusExt;
            let status = status?;
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
            Ok(Said { code, last_words: last.into_iter().collect::<Vec<_>>().join("; ") })
        }
        Err(_) => {
            group.signal(Signal::TERM);
            let _ = timeout(PATIENCE, child.wait()).await;
            let text = format!("{} did not end within {} s", tool.name(), tool.limit.as_secs_f32());
            Err(Failure::new(ErrorKind::Timeout, text)
                .hint("fetching images takes long: `docker compose pull` does that before"))
        }
    }
}

/// The child's group. Dropped, it is ended.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(leader) = self.0 {
            let _ = kill_process_group(leader, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Hands on what is said, and keeps the last lines that say something.
async fn echo(pipe: Option<impl AsyncRead + Unpin>, last: &mut VecDeque<String>) {
    let Some(pipe) = pipe else { return };
    let mut lines = BufReader::new(pipe).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end();
        say(line);
        if !line.trim().is_empty() {
            last.push_back(line.trim().to_owned());
            last.drain(..last.len().saturating_sub(LAST));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn sh(script: &str, limit: Duration) -> Tool {
        Tool { argv: ["sh", "-c", script].map(str::to_owned).to_vec(), folder: "/".into(), limit }
    }

    /// SN-88.
    #[tokio::test]
    async fn its_code_and_its_last_words_are_kept() {
        let script = "i=0; while [ $i -lt 30 ]; do echo line $i >&2; i=$((i+1)); done; echo; echo 'ERROR: no space' >&2; exit 17";
        let said = run(&sh(script, Duration::from_secs(20))).await.unwrap();
        assert_eq!(said.code, 17);
        assert!(
            said.last_words.ends_with("line 29; ERROR: no space") && !said.last_words.contains("line 20"),
            "{said:?}"
        );
        let gone =
            run(&Tool { argv: vec!["/nowhere/compose".into()], folder: "/".into(), limit: Duration::from_secs(1) })
                .await
                .unwrap_err();
        assert_eq!(gone.kind, ErrorKind::Precondition);
    }

    /// SN-87. What it began goes with it, and what holds its pipe is not waited for.
    #[tokio::test]
    async fn a_time_limit_ends_it_with_its_children() {
        let dir = tempfile::tempdir().unwrap();
        let mark = dir.path().join("pid");
        let script = format!("sleep 63 & echo $! > {}; wait", mark.display());
        let began = Instant::now();
        let failure = run(&sh(&script, Duration::from_millis(500))).await.unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Timeout);
        assert!(failure.message.contains("did not end within 0.5 s"), "{failure}");
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        let pid = std::fs::read_to_string(&mark).unwrap();
        let lives = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        while lives() {
            assert!(began.elapsed() < Duration::from_secs(20), "its child lives");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let said = run(&sh("sleep 64 & exit 0", Duration::from_secs(20))).await.unwrap();
        assert_eq!(said.code, 0);
    }
}

//! A program to be run: described first, run by the context's hands.

use std::{collections::BTreeMap, path::PathBuf};

use wharf_model::Health;

use crate::{Context, Probe, Result, Run};

/// A program with its arguments and surroundings.
///
/// The environment is built from nothing: a few variables of the machine (PATH, HOME, USER,
/// LANG, TZ, TMPDIR), then the env file, then `env`, then what the service or Wharf forces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Command {
    /// A name among the installed binaries, a path, or a name to be found in PATH.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// A file of `NAME=value` lines, read at each start.
    pub env_file: Option<PathBuf>,
    /// Variables that a user may change.
    pub env: BTreeMap<String, String>,
    /// Variables that nobody may change: they are set last.
    pub forced: BTreeMap<String, String>,
    /// Its working folder; the unit's data folder unless it is named.
    pub cwd: Option<PathBuf>,
    /// Where Wharf is root: run it as the unprivileged service user.
    pub unprivileged: bool,
    /// For `exec`: how long it may take, in milliseconds. 0: ten minutes.
    pub limit_ms: u64,
    /// For `exec`: what it reads from stdin.
    pub stdin: String,
}

/// What a program that ran to its end left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit code, or 128 + the signal that ended it.
    pub code: i32,
    /// The end of what it wrote to stdout, at most 256 KiB.
    pub stdout: String,
    /// The end of what it wrote to stderr, at most 256 KiB.
    pub stderr: String,
}

/// A command bound to the context that will run it.
#[must_use = "nothing runs until spawn() or output()"]
pub struct Bound<'a> {
    cx: &'a Context,
    command: Command,
}

impl<'a> Bound<'a> {
    pub(crate) fn new(cx: &'a Context, program: impl Into<String>) -> Self {
        Self { cx, command: Command { program: program.into(), ..Command::default() } }
    }

    /// One argument.
    pub fn arg(mut self, arg: impl ToString) -> Self {
        self.command.args.push(arg.to_string());
        self
    }

    /// Several arguments.
    pub fn args<T: ToString>(mut self, args: impl IntoIterator<Item = T>) -> Self {
        self.command.args.extend(args.into_iter().map(|a| a.to_string()));
        self
    }

    /// A variable that a user may change.
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.command.env.insert(name.into(), value.to_string());
        self
    }

    /// A variable that nobody may change.
    pub fn force_env(mut self, name: &str, value: impl ToString) -> Self {
        self.command.forced.insert(name.into(), value.to_string());
        self
    }

    /// A file of `NAME=value` lines.
    pub fn env_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.command.env_file = Some(path.into());
        self
    }

    /// Its working folder.
    pub fn cwd(mut self, path: impl Into<PathBuf>) -> Self {
        self.command.cwd = Some(path.into());
        self
    }

    /// Where Wharf is root: run it as the unprivileged service user. The data folder becomes that user's.
    pub fn unprivileged(mut self) -> Self {
        self.command.unprivileged = true;
        self
    }

    /// How long it may take to its end, in milliseconds.
    pub fn limit_ms(mut self, limit_ms: u64) -> Self {
        self.command.limit_ms = limit_ms;
        self
    }

    /// What it reads from stdin, where it is run to its end.
    pub fn stdin(mut self, text: impl Into<String>) -> Self {
        self.command.stdin = text.into();
        self
    }

    /// Makes it the unit's run. Once in a start.
    pub async fn spawn(self) -> Result<Run> {
        self.cx.hands().spawn(self.cx, self.command).await
    }

    /// Asks it how the unit is: healthy where it ends with code 0 within the time limit of a probe.
    pub async fn asked(self) -> Result<Health> {
        self.cx.ask(Probe::Exec(self.command)).await
    }

    /// Runs it to its end, whatever its exit code. What it leaves behind in the background is ended.
    pub async fn output(self) -> Result<Output> {
        self.cx.hands().exec(self.cx, self.command).await
    }

    /// Runs it to its end; another exit code than 0 is a failure that quotes its last lines.
    pub async fn success(self) -> Result<Output> {
        let program = self.command.program.clone();
        let out = self.output().await?;
        if out.code == 0 {
            return Ok(out);
        }
        let said = if out.stderr.trim().is_empty() { &out.stdout } else { &out.stderr };
        let tail: Vec<String> = said.lines().rev().take(20).map(str::to_owned).collect();
        Err(wharf_model::Failure::new(
            wharf_model::ErrorKind::ServiceFailed,
            format!("{program} exited with code {}", out.code),
        )
        .causes(tail.into_iter().rev()))
    }
}

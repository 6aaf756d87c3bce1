//! How a run ended. One closed enum, no free text; what nobody saw is `unknown`, never invented.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a run's main process ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Exit {
    /// It returned this code.
    Exited {
        /// The exit code, 0 to 255.
        code: i32,
    },
    /// A signal ended it.
    Signaled {
        /// The signal's number.
        signal: i32,
    },
    /// It never began: the stage and the error number of the kernel.
    StartFailed {
        /// What was tried: `exec`, `chdir`, `setuid`, `log`, `cgroup`, `fork`.
        stage: String,
        /// The kernel's error number.
        errno: i32,
    },
    /// The kernel ended it, because its memory limit was reached.
    OomKilled,
    /// A SIGKILL that nobody of ours sent, while the kernel ended some process for want of memory.
    OomSuspected,
    /// The machine was started anew while the run was recorded as live.
    HostRebooted,
    /// Nobody was left who could have seen it.
    Unknown,
}

impl Exit {
    /// Whether this is how a program ends that was asked to: code 0, 143, or the signal TERM, INT or QUIT.
    pub fn is_clean_stop(&self) -> bool {
        matches!(self, Self::Exited { code: 0 | 130 | 143 } | Self::Signaled { signal: 2 | 3 | 15 })
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "exited with code {code}"),
            Self::Signaled { signal } => match Signal::name(*signal) {
                Some(name) => write!(f, "was ended by {name}"),
                None => write!(f, "was ended by signal {signal}"),
            },
            Self::StartFailed { stage, errno } => {
                write!(f, "could not begin ({stage}: {})", std::io::Error::from_raw_os_error(*errno))
            }
            Self::OomKilled => f.write_str("was ended by the kernel: it reached its memory limit"),
            Self::OomSuspected => f.write_str("was ended by SIGKILL, probably for want of memory"),
            Self::HostRebooted => f.write_str("ended with the machine's restart"),
            Self::Unknown => f.write_str("ended, nobody saw how"),
        }
    }
}

/// Why a run ended, as Wharf sees it: beside [`Exit`], which is what the kernel saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// By itself: a crash, or a program that was done.
    ByItself,
    /// Somebody asked, and it ended in time.
    Stopped,
    /// Somebody asked, and it took SIGKILL.
    Killed,
    /// It was not ready in time.
    ReadyTimeout,
    /// Its health probes failed.
    Unhealthy,
    /// It did not say that it was alive.
    WatchdogTimeout,
    /// Nobody used it.
    Idle,
    /// A unit that it needs was stopped.
    NeedStopped,
    /// Its lease was lost.
    LeaseLost,
    /// The machine was started anew.
    HostRebooted,
}

/// Why a unit was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GivenUp {
    /// More deaths within the window than its budget allows.
    RestartIntensity,
    /// It kept dying, however healthy it was in between.
    Flapping,
    /// It ended with a code that its policy calls final.
    ExitRule,
    /// Its policy restarts nothing.
    NeverRestarted,
    /// It could not be started for whoever asked.
    StartRefused,
}

/// The signals that stop a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Signal {
    /// 15, the usual way to ask.
    #[default]
    Term,
    /// 2, what Ctrl-C sends; a fast shutdown for PostgreSQL.
    Int,
    /// 3.
    Quit,
    /// 1, for many programs: read the configuration again.
    Hup,
    /// 10.
    Usr1,
    /// 12.
    Usr2,
    /// 9, cannot be refused.
    Kill,
}

impl Signal {
    /// The kernel's number on Linux.
    pub const fn number(self) -> i32 {
        match self {
            Self::Hup => 1,
            Self::Int => 2,
            Self::Quit => 3,
            Self::Kill => 9,
            Self::Usr1 => 10,
            Self::Usr2 => 12,
            Self::Term => 15,
        }
    }

    /// The usual name of a signal's number.
    pub const fn name(number: i32) -> Option<&'static str> {
        Some(match number {
            1 => "SIGHUP",
            2 => "SIGINT",
            3 => "SIGQUIT",
            4 => "SIGILL",
            6 => "SIGABRT",
            7 => "SIGBUS",
            8 => "SIGFPE",
            9 => "SIGKILL",
            10 => "SIGUSR1",
            11 => "SIGSEGV",
            12 => "SIGUSR2",
            13 => "SIGPIPE",
            14 => "SIGALRM",
            15 => "SIGTERM",
            _ => return None,
        })
    }
}

//! `wharf daemon`: the brain, in the foreground; or in place of another one.

use std::time::Duration;

use serde_json::json;

use crate::{
    Exit,
    daemon::{self, DaemonOptions, Ended, Replace, handover},
    detach,
    session::Session,
    trouble::Outcome,
};

/// Run the daemon in the foreground until Ctrl-C or SIGTERM; services outlive it
///
/// With --replace it takes over from a daemon that runs, also one of another version: services go on, no
/// client is refused, calls wait for a moment. Where a service manager watches the running daemon, that
/// one starts the new one in its own place, and this command answers when it has taken over.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf daemon
  wharf daemon --replace            take over, and run here
  wharf daemon --replace --detach   after an upgrade: the new program in the old one's place")]
pub(crate) struct Daemon {
    /// Take over from a daemon that runs; where none does, just start
    #[arg(long)]
    replace: bool,
    /// End a daemon that does not hand over (it hangs, or knows no handover)
    #[arg(long, requires = "replace")]
    force: bool,
    /// Run where the present daemon runs (its environment, its log), and answer when it has taken over
    #[arg(long, requires = "replace")]
    detach: bool,
    /// How long calls in flight that change something are waited for
    #[arg(long, requires = "replace", value_name = "SECONDS", default_value_t = 10)]
    patience: u64,
    /// Serve a raw byte echo there too: the floor of the benchmark
    #[arg(long, hide = true, value_name = "PATH")]
    echo_socket: Option<std::path::PathBuf>,
    /// Started by a daemon that gives everything away over standard input
    #[arg(long, hide = true, conflicts_with = "replace")]
    successor: bool,
}

impl Daemon {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        if self.successor {
            handover::become_orphan()?;
        }
        let patience = Duration::from_secs(self.patience);
        let ended = daemon::run(&DaemonOptions {
            catalogue: session.catalogue.clone(),
            socket: session.named_socket.clone(),
            echo_socket: self.echo_socket,
            replace: self.replace.then_some(Replace { force: self.force, detach: self.detach, patience }),
            is_successor: self.successor,
        })?;
        let (pid, version) = match ended {
            Ended::Quit | Ended::Replaced => return Ok(Exit::Done),
            Ended::Succeeded { pid, version } => (pid, version),
            Ended::Nobody => {
                let health = detach::start(session)?;
                (health.pid, health.version)
            }
        };
        if session.json {
            session.say_json(&json!({ "pid": pid, "version": version }).to_string())?;
        } else {
            session.say(&format!("wharf {version} (pid {pid}) is the daemon now; services went on"))?;
        }
        Ok(Exit::Done)
    }
}

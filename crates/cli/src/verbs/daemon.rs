//! `wharf daemon`: the brain, in the foreground.

use crate::{
    Exit,
    daemon::{self, DaemonOptions},
    session::Session,
    trouble::Outcome,
};

/// Run the daemon in the foreground until Ctrl-C or SIGTERM; services outlive it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf daemon")]
pub(crate) struct Daemon {
    /// Serve a raw byte echo there too: the floor of the benchmark
    #[arg(long, hide = true, value_name = "PATH")]
    echo_socket: Option<std::path::PathBuf>,
}

impl Daemon {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        daemon::run(DaemonOptions {
            catalogue: session.catalogue.clone(),
            socket: session.named_socket.clone(),
            echo_socket: self.echo_socket,
        })?;
        Ok(Exit::Done)
    }
}

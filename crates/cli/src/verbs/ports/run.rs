//! `wharf ports run`: a program that is given its listening sockets open.

use std::{io, os::fd::OwnedFd, os::unix::net::UnixStream, process::Command, time::Duration};

use wharf_api::rpc::port::{PortLeaseParams, PortLeased};
use wharf_model::{ErrorKind, Failure, Handoff};

use super::lease::{self, Wanted};
use crate::{
    session::Session,
    trouble::{Outcome, Trouble},
};

/// The daemon answers at once, or not at all.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// The line that comes with the sockets.
const LINE_BYTES: usize = 8 * 1024;

/// Run a program that is given its port open
///
/// The port listens before the program begins: whoever connects meanwhile waits, and nobody is
/// refused. The program finds the listening socket as descriptor 3, as with systemd's sockets
/// (LISTEN_FDS and LISTEN_PID are set, and PORT). It takes this process's place, and the lease ends
/// with it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf ports run web -- gunicorn shop:app             gunicorn, nginx, Node and Go's listeners know LISTEN_FDS
  wharf ports run web --range ui -- uvicorn --fd 3 shop:app
  wharf ports run api --port 8100 --open -- ./server")]
pub(crate) struct Run {
    #[command(flatten)]
    wanted: Wanted,
    /// The program
    #[arg(last = true, required = true, value_name = "PROGRAM")]
    program: Vec<String>,
}

impl Run {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let name = self.wanted.name.clone();
        // The program takes this process's place.
        let holder_pid = Some(std::process::id().cast_signed());
        let params = PortLeaseParams { holder_pid, handoff: Handoff::Fd, ..self.wanted.params() };
        let (_, leased) = lease::ask(session, &params)?;
        let sockets = fetch(&leased).map_err(|e| Trouble::Failure(not_fetched(&leased, e)))?;
        let Some((program, args)) = self.program.split_first() else { return Err(no_program()) };
        let mut command = Command::new(program);
        command.args(args).envs(&leased.env);
        let failed = wharf_sys::passed::become_with(&mut command, sockets, &name);
        Err(lease::not_run(program, &failed))
    }
}

fn no_program() -> Trouble {
    Trouble::Usage("name a program behind --".into())
}

/// The listening sockets, in the order of the ports.
fn fetch(leased: &PortLeased) -> io::Result<Vec<OwnedFd>> {
    let path = leased.socket.as_deref().ok_or_else(|| io::Error::other("the daemon names no way to it"))?;
    let line = UnixStream::connect(path)?;
    line.set_read_timeout(Some(ANSWERS_WITHIN))?;
    let mut sockets = vec![];
    wharf_sys::socket::receive(&line, &mut [0; LINE_BYTES], &mut sockets)?;
    if sockets.len() == leased.ports.len() {
        Ok(sockets)
    } else {
        Err(io::Error::other(format!("{} sockets came for {} ports", sockets.len(), leased.ports.len())))
    }
}

fn not_fetched(leased: &PortLeased, e: io::Error) -> Failure {
    let text = format!("could not fetch the listening socket of port {:?}", leased.ports);
    Failure::new(ErrorKind::Precondition, text)
        .hint("`wharf ports lease NAME -- PROGRAM` runs a program that listens by itself")
        .cause(e)
}

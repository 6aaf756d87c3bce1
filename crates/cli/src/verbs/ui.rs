//! `wharf ui`: the page of the services, for a browser on this machine.
//!
//! ```text
//!   browser ── 127.0.0.1:PORT ── guard ──> gateway ──> admin.sock     the page: files without anything of the machine
//!                                  │                   service.sock   calls, with the token
//!                                  └ refuses           rpc.sock       calls and events, with the token
//! ```
//!
//! A browser reaches no Unix socket, and the daemon opens no port: this process stands between them, as its user,
//! for as long as it runs. It holds no state; what the page shows and does goes through the same calls as this
//! command line. Why there is no cookie, and no browser is opened: docs/decisions/0010.

mod gateway;
mod guard;

use std::net::Ipv4Addr;

use serde_json::json;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use wharf_model::{ErrorKind, Failure};

use crate::{
    Exit,
    session::Session,
    trouble::{Outcome, Trouble},
};
use gateway::Gateway;
use guard::Rules;

/// Show the services of this machine in a browser
///
/// Listens on 127.0.0.1 until Ctrl-C and prints the address to open. The address holds a token: whoever has it may do
/// what you may.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf ui                       prints the address to open
  wharf ui --read-only           a page that looks and changes nothing
  wharf ui --port 8790           and from another machine: ssh -L 8790:127.0.0.1:8790 HOST")]
pub(crate) struct Ui {
    /// Listen there; 0 is any that is free
    #[arg(short, long, value_name = "PORT", default_value_t = 0)]
    port: u16,
    /// The page can look, and change nothing
    #[arg(long)]
    read_only: bool,
}

/// So many random bytes are in a token.
const TOKEN_BYTES: usize = 32;

impl Ui {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        session.block_on(async {
            // A page without a daemon would be of no use, and this says so where it is read.
            session.client.get("/health").await?;
            let token = wharf_runtime::random_hex(TOKEN_BYTES)?;
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).await.map_err(|e| self.taken(&e))?;
            let port = listener.local_addr()?.port();
            let url = format!("http://127.0.0.1:{port}/services#{token}");
            if session.json {
                session.say_json(&json!({ "url": url, "port": port, "read_only": self.read_only }).to_string())?;
            } else {
                session.say(&url)?;
                let may = if self.read_only { "see what you see" } else { "do what you may" };
                session.note(&format!("whoever has this address may {may}, until Ctrl-C"));
            }
            let gateway = Gateway::new(session.client.socket(), Rules::new(token, self.read_only));
            let (mut ended, mut hung_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
            tokio::select! {
                () = gateway.serve(&listener) => {}
                _ = tokio::signal::ctrl_c() => {}
                _ = ended.recv() => {}
                _ = hung_up.recv() => {}
            }
            Ok(Exit::Done)
        })
    }

    fn taken(&self, e: &std::io::Error) -> Trouble {
        let text = format!("cannot listen on 127.0.0.1:{}: {e}", self.port);
        Trouble::Failure(
            Failure::new(ErrorKind::PortTaken, text).hint("another --port, or none: then one is found that is free"),
        )
    }
}

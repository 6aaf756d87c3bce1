//! `wharf ports watch`: what happens on ports, as it happens.

use wharf_api::WatchParams;

use crate::{session::Session, trouble::Outcome, verbs::events};

/// Follow what happens on ports, until Ctrl-C
///
/// Who begins and who ends to listen on a port that a service or a lease has, or that is written
/// down; strangers, second listeners, ports that can be reached from outside, leases that are over.
/// It goes on when another daemon takes over.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf ports watch
  wharf ports watch 6379 8210
  wharf ports watch --since 0 --json | jq 'select(.kind == \"port.intruder\")'")]
pub(crate) struct Watch {
    /// Only these ports
    #[arg(value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,
    /// Begin with those after this number; 0 is all that are kept
    #[arg(long, value_name = "SEQ")]
    since: Option<u64>,
}

impl Watch {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let params = WatchParams { since: self.since, ports: self.ports, ..WatchParams::default() };
        let client = session.client.rpc();
        session.block_on(events::follow(session, &client, "port.watch", params))
    }
}

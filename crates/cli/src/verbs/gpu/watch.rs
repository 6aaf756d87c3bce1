//! `wharf gpu watch`: what happens to GPUs, as it happens.

use wharf_api::WatchParams;

use crate::{session::Session, trouble::Outcome, verbs::events};

/// Follow what happens to GPUs, until Ctrl-C
///
/// Leases that are granted, asked to leave and over, programs that take more than they declared, strangers, memory that
/// does not come back, devices that are nearly full or out of use. It goes on when another daemon takes over.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf gpu watch
  wharf gpu watch --since 0 --json | jq 'select(.kind == \"gpu.leak\")'")]
pub(crate) struct Watch {
    /// Begin with those after this number; 0 is all that are kept
    #[arg(long, value_name = "SEQ")]
    since: Option<u64>,
}

impl Watch {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let params = WatchParams { since: self.since, ..WatchParams::default() };
        let client = session.client.rpc();
        session.block_on(events::follow(session, &client, "gpu.watch", params))
    }
}

//! `wharf gpu park` and `unpark`: memory put away, and fetched again.

use clap_complete::engine::ArgValueCompleter;
use serde_json::{Value, json};
use wharf_api::rpc::gpu::LeaseAck;
use wharf_model::{LeaseId, LeaseState, UnitName};

use super::ask;
use crate::{Exit, amount, complete, session::Session, trouble::Outcome};

/// A service or a lease.
#[derive(Debug, clap::Args)]
#[group(id = "whose", required = true, multiple = false)]
struct Whose {
    /// A service: command@chat
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::units))]
    name: Option<UnitName>,
    /// A lease
    #[arg(long, value_name = "LEASE", value_parser = amount::lease, add = ArgValueCompleter::new(complete::leases))]
    lease: Option<LeaseId>,
}

impl Whose {
    fn params(&self, wait_ms: Option<u64>) -> Value {
        let mut params = match (&self.name, &self.lease) {
            (Some(unit), _) => json!({ "unit": unit }),
            (None, lease) => json!({ "lease": lease }),
        };
        if let Some(ms) = wait_ms {
            params["wait_ms"] = ms.into();
        }
        params
    }
}

/// Have a holder put its GPU memory away and sleep, so that others can use the device
///
/// It must have said that it can: `policy.gpu.parked_bytes` of a service, `parked_bytes` of a request.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf gpu park command@chat\n  wharf gpu unpark command@chat")]
pub(crate) struct Park {
    #[command(flatten)]
    whose: Whose,
    /// How long to wait until it sleeps: 30s. Usually a minute
    #[arg(long, value_name = "TIME", value_parser = amount::millis)]
    wait: Option<u64>,
}

impl Park {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let raw = ask(session, "gpu.park", self.whose.params(self.wait))?;
        session.show(&raw, |ack: &LeaseAck| match ack.state {
            LeaseState::Parked => format!("{} sleeps: its memory is put away", ack.lease),
            _ => format!("{} was asked to sleep, and does not yet", ack.lease),
        })?;
        Ok(Exit::Done)
    }
}

/// Wake a holder that sleeps: it waits its turn for its memory
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf gpu unpark command@chat")]
pub(crate) struct Unpark {
    #[command(flatten)]
    whose: Whose,
    /// How long to wait for its turn: 10m; 0: not at all. Usually a minute
    #[arg(long, value_name = "TIME", value_parser = amount::millis)]
    wait: Option<u64>,
}

impl Unpark {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let raw = ask(session, "gpu.unpark", self.whose.params(self.wait))?;
        session.show(&raw, |ack: &LeaseAck| match ack.state {
            LeaseState::Active => format!("{} is awake", ack.lease),
            _ => format!("{} has its memory again, and is waking up", ack.lease),
        })?;
        Ok(Exit::Done)
    }
}

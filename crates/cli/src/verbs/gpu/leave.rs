//! Who comes and who leaves, by hand: `warmup`, `drain`, `revoke`.

use clap_complete::engine::ArgValueCompleter;
use serde_json::json;
use wharf_api::rpc::gpu::{Drained, Warmed};
use wharf_model::{LeaseId, UnitName, size};

use super::{ask, change, device};
use crate::{
    Exit, amount, complete, given,
    session::{Session, read},
    trouble::Outcome,
    words,
};

/// How long a drain is waited for unless somebody says.
const WAIT_MS: u64 = 60_000;

/// Start a service that needs a GPU; answers when it is ready
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf gpu warmup command@chat\n  wharf gpu warmup command@chat --force")]
pub(crate) struct Warmup {
    #[command(flatten)]
    name: given::Name,
    /// Stop whoever has what it needs first
    #[arg(long)]
    force: bool,
}

impl Warmup {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let raw = ask(session, "gpu.warmup", json!({ "unit": self.name.name, "force": self.force }))?;
        session.show(&raw, |warmed: &Warmed| {
            let on: Vec<String> = warmed
                .lease
                .devices
                .iter()
                .map(|share| format!("{} of {}", size(share.charge_bytes), share.device))
                .collect();
            let took = match warmed.took_ms {
                0 => "was ready already".to_owned(),
                ms => format!("is ready after {}", words::duration(ms)),
            };
            format!("{} {took}: {}, {}", warmed.unit, warmed.lease.lease, on.join(" and "))
        })?;
        Ok(Exit::Done)
    }
}

/// Have a service, a lease's holder, or all on a device leave, and wait until their memory is back
///
/// A service stays wanted: a start, the next daemon, or, where it starts on demand, its next use brings it back. A
/// device takes nothing new until `wharf gpu untaint`. The exit code is 5 where somebody is left.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf gpu drain command@chat
  wharf gpu drain --lease lease-12
  wharf gpu drain --device 0 --reason 'driver update'")]
#[command(group = clap::ArgGroup::new("whom").required(true).args(["name", "lease", "device"]))]
pub(crate) struct Drain {
    /// A service: redis, python-api@vault
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::units))]
    name: Option<UnitName>,
    /// A lease
    #[arg(long, value_name = "LEASE", value_parser = amount::lease, add = ArgValueCompleter::new(complete::leases))]
    lease: Option<LeaseId>,
    /// A device: its id, the beginning of it, or its place
    #[arg(long, value_name = "DEVICE", add = ArgValueCompleter::new(complete::devices))]
    device: Option<String>,
    /// Also who is pinned, or works
    #[arg(long)]
    force: bool,
    /// Why, for those who are refused
    #[arg(long, value_name = "TEXT", requires = "device")]
    reason: Option<String>,
    /// Wait so long at most: 90s, 10m; a minute unless it is named
    #[arg(long, value_name = "TIME", value_parser = amount::millis, conflicts_with = "no_wait")]
    wait: Option<u64>,
    /// Do not wait for their memory
    #[arg(long)]
    no_wait: bool,
}

impl Drain {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let wait_ms = if self.no_wait { 0 } else { self.wait.unwrap_or(WAIT_MS) };
        let mut params = json!({ "force": self.force, "wait_ms": wait_ms });
        if let Some(name) = &self.name {
            params["unit"] = json!(name);
        }
        if let Some(lease) = self.lease {
            params["lease"] = json!(lease);
        }
        if let Some(typed) = &self.device {
            params["device"] = device(session, typed)?.into();
        }
        if let Some(reason) = self.reason {
            params["reason"] = reason.into();
        }
        let raw = ask(session, "gpu.drain", params)?;
        session.show(&raw, text)?;
        let drained: Drained = read(&raw)?;
        Ok(if drained.left.is_empty() || self.no_wait { Exit::Done } else { Exit::Timeout })
    }
}

fn text(drained: &Drained) -> String {
    let named = |leases: &[LeaseId]| leases.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    match (&drained.asked[..], &drained.left[..]) {
        ([], _) => "nobody was there".into(),
        (asked, []) => format!("asked to leave: {}; their memory is back", named(asked)),
        (asked, left) => format!("asked to leave: {}; not back yet: {}", named(asked), named(left)),
    }
}

/// Ask a holder to leave
///
/// A service is stopped as its policy says; a program gets SIGTERM and, when its time is over, SIGKILL, with what it
/// started. A request that waits is taken back.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf gpu revoke lease-12\n  wharf gpu revoke lease-12 --drain 5s --force")]
pub(crate) struct Revoke {
    #[command(flatten)]
    which: change::OneLease,
    /// Also where it is pinned, or works
    #[arg(long)]
    force: bool,
    /// From being asked to leave to SIGKILL: 10s, 2m
    #[arg(long, value_name = "TIME", value_parser = amount::millis)]
    drain: Option<u64>,
}

impl Revoke {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let mut params = json!({ "lease": self.which.lease, "force": self.force });
        if let Some(ms) = self.drain {
            params["drain_ms"] = ms.into();
        }
        let raw = ask(session, "gpu.revoke", params)?;
        session.show(&raw, change::acked)?;
        Ok(Exit::Done)
    }
}

//! Leases and devices changed by hand: given back, taken back, pinned, kept free, taken out of use.

use clap_complete::engine::ArgValueCompleter;
use serde_json::json;
use wharf_api::rpc::gpu::{DeviceAck, LeaseAck, LeaseList};
use wharf_model::{ErrorKind, Failure, LeaseId, LeaseState, size};

use super::{ask, device};
use crate::{
    Exit, amount, complete,
    session::{Session, read},
    trouble::Outcome,
    words,
};

/// A lease or a request.
#[derive(Debug, clap::Args)]
pub(super) struct OneLease {
    /// Which: lease-12, or 12
    #[arg(value_name = "LEASE", value_parser = amount::lease, add = ArgValueCompleter::new(complete::leases))]
    pub(super) lease: LeaseId,
}

/// Give a lease back, for a holder that has no use for it any more
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf gpu release lease-12")]
pub(crate) struct Release {
    #[command(flatten)]
    which: OneLease,
}

impl Release {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let id = self.which.lease;
        let list: LeaseList = read(&ask(session, "gpu.leases", json!({}))?)?;
        let Some(row) = list.leases.iter().find(|row| row.lease == id) else {
            let failure = Failure::new(ErrorKind::NotFound, format!("there is no {id}"));
            return Err(failure.hint("see what there is: wharf gpu leases").into());
        };
        let raw = ask(session, "gpu.release", json!({ "lease": id, "epoch": row.epoch }))?;
        session.show(&raw, acked)?;
        Ok(Exit::Done)
    }
}

/// Take a request back that waits
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf gpu cancel lease-13")]
pub(crate) struct Cancel {
    #[command(flatten)]
    which: OneLease,
}

impl Cancel {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let raw = ask(session, "gpu.cancel", json!({ "lease": self.which.lease }))?;
        session.show(&raw, |ack: &LeaseAck| format!("{} is taken back", ack.lease))?;
        Ok(Exit::Done)
    }
}

/// Let nobody make a holder leave for a while; 0 takes it back
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf gpu pin lease-12 2h\n  wharf gpu pin lease-12 0")]
pub(crate) struct Pin {
    #[command(flatten)]
    which: OneLease,
    /// For how long: 30m, 2h
    #[arg(value_name = "TIME", value_parser = amount::millis)]
    time: u64,
}

impl Pin {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let (lease, ms) = (self.which.lease, self.time);
        let raw = ask(session, "gpu.pin", json!({ "lease": lease, "for_ms": ms }))?;
        session.show(&raw, |ack: &LeaseAck| match ms {
            0 => format!("{} is pinned no more", ack.lease),
            ms => format!("{} is pinned for {}", ack.lease, words::duration(ms)),
        })?;
        Ok(Exit::Done)
    }
}

/// Keep so much of a device free, for a desktop, say; 0 takes it back
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf gpu reserve 0 2GiB")]
pub(crate) struct Reserve {
    /// Which device: its id, the beginning of it, or its place
    #[arg(value_name = "DEVICE", add = ArgValueCompleter::new(complete::devices))]
    device: String,
    /// How much: 2GiB
    #[arg(value_name = "SIZE", value_parser = amount::bytes)]
    keep: u64,
}

impl Reserve {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let params = json!({ "device": device(session, &self.device)?, "keep_bytes": self.keep });
        let raw = ask(session, "gpu.reserve", params)?;
        session.show(&raw, |ack: &DeviceAck| {
            let (kept, headroom) = (size(ack.kept_bytes), size(ack.headroom_bytes));
            format!("{kept} of {} are kept free; {headroom} can be handed out", ack.device)
        })?;
        Ok(Exit::Done)
    }
}

/// Let nothing new onto a device
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf gpu taint 0 --reason 'the fan is loud'
  wharf gpu drain --device 0                    what runs there has to leave, too
  wharf gpu untaint 0")]
pub(crate) struct Taint {
    /// Which device: its id, the beginning of it, or its place
    #[arg(value_name = "DEVICE", add = ArgValueCompleter::new(complete::devices))]
    device: String,
    /// Why, for those who are refused
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Taint {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let mut params = json!({ "device": device(session, &self.device)?, "effect": "no_new" });
        if let Some(reason) = self.reason {
            params["reason"] = reason.into();
        }
        let raw = ask(session, "gpu.taint", params)?;
        session.show(&raw, |ack: &DeviceAck| format!("nothing new comes onto {}", ack.device))?;
        Ok(Exit::Done)
    }
}

/// Use a device as usual again
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf gpu untaint 0")]
pub(crate) struct Untaint {
    /// Which device: its id, the beginning of it, or its place
    #[arg(value_name = "DEVICE", add = ArgValueCompleter::new(complete::devices))]
    device: String,
}

impl Untaint {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let params = json!({ "device": device(session, &self.device)?, "effect": "usual" });
        let raw = ask(session, "gpu.taint", params)?;
        session.show(&raw, |ack: &DeviceAck| match ack.taints.first() {
            None => format!("{} is used as usual", ack.device),
            Some(taint) => format!("{} is tainted by its driver still: {}", ack.device, taint.reason),
        })?;
        Ok(Exit::Done)
    }
}

/// Where a lease stands after something was done with it.
pub(super) fn acked(ack: &LeaseAck) -> String {
    let lease = ack.lease;
    match ack.state {
        LeaseState::Gone => format!("{lease} is over"),
        LeaseState::Reclaiming => format!("{lease} is given back: it counts until its memory was seen to be back"),
        LeaseState::Draining => format!("{lease}: its holder is asked to leave"),
        LeaseState::Queued
        | LeaseState::Reserved
        | LeaseState::Starting
        | LeaseState::Active
        | LeaseState::Parked
        | LeaseState::Expired
        | LeaseState::Quarantined => format!("{lease} is {}", words::lease_state(ack.state).shown()),
    }
}

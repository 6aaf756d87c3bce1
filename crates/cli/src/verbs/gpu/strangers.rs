//! `wharf gpu adopt`, `ignore`: programs that never asked.

use serde_json::json;
use wharf_api::rpc::gpu::{Adopted, IgnoreAck};
use wharf_model::size;

use super::ask;
use crate::{Exit, amount, session::Session, trouble::Outcome};

/// Give a program that never asked a lease for the memory it has
///
/// It counts as any other holder from then on, with what it started, and its lease ends when it has ended and its
/// memory is back. Nobody but --force and a hand makes it leave, unless it is --evictable.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf gpu ps
  wharf gpu adopt 4121
  wharf gpu adopt 4121 --label notebook --vram 8GiB --evictable")]
pub(crate) struct Adopt {
    /// The process: one of your own; any for root
    #[arg(value_name = "PID")]
    pid: i32,
    /// What it is called; its program's name unless it is named
    #[arg(long, value_name = "NAME")]
    label: Option<String>,
    /// What it is promised on each device; what it has now unless it is named
    #[arg(long, value_name = "SIZE", value_parser = amount::some_bytes)]
    vram: Option<u64>,
    /// It may be asked to leave for others
    #[arg(long)]
    evictable: bool,
}

impl Adopt {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let mut params = json!({ "pid": self.pid, "evictable": self.evictable });
        if let Some(label) = self.label {
            params["label"] = label.into();
        }
        if let Some(bytes) = self.vram {
            params["vram_bytes"] = bytes.into();
        }
        let raw = ask(session, "gpu.adopt", params)?;
        session.show(&raw, |adopted: &Adopted| {
            let row = &adopted.lease;
            let parts = row.devices.iter().map(|share| format!("{} of {}", size(share.charge_bytes), share.device));
            format!("{} has {}: {}", row.holder, row.lease, parts.collect::<Vec<_>>().join(" and "))
        })?;
        Ok(Exit::Done)
    }
}

/// Take a program that never asked for granted: its memory counts as taken, and it is no news
///
/// For a desktop, say. It is forgotten when the process ends.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf gpu ignore 801
  wharf gpu ignore 801 --undo")]
pub(crate) struct Ignore {
    /// The process
    #[arg(value_name = "PID")]
    pid: i32,
    /// It is news again
    #[arg(long)]
    undo: bool,
}

impl Ignore {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let raw = ask(session, "gpu.ignore", json!({ "pid": self.pid, "ignored": !self.undo }))?;
        session.show(&raw, |ack: &IgnoreAck| match ack.ignored {
            true => format!("process {} is no news any more; its {} count as taken", ack.pid, size(ack.used_bytes)),
            false => format!("process {} is news again", ack.pid),
        })?;
        Ok(Exit::Done)
    }
}

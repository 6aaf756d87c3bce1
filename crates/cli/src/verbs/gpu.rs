//! `wharf gpu`: who may use which GPU. A verb below it is a file in `gpu/` and a line here.

mod board;
mod change;
mod ease;
mod explain;
mod leave;
mod lists;
mod need;
mod plan;
mod run;
mod strangers;
mod watch;

use serde_json::{Value, value::RawValue};
use wharf_api::rpc::gpu::GpuList;

use crate::{
    amount, given,
    session::{Session, read},
    trouble::{Outcome, Trouble},
};

/// Show the GPUs, who has them, and who waits; below it, everything about them
///
/// A bar for each device: capital letters are memory that a holder was seen to have, small ones what it was
/// promised beside that, # is taken by programs without a lease, - is kept free, dots can be handed out.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
#[command(after_help = "Examples:
  wharf gpu
  wharf gpu plan --vram 22GiB
  wharf gpu run --vram 8GiB -- python train.py
  wharf gpu queue
  wharf gpu warmup command@chat
  wharf gpu drain --device 0")]
pub(crate) struct Gpu {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    Plan(plan::Plan),
    Run(run::Run),
    Queue(lists::Queue),
    Leases(lists::Leases),
    Ps(lists::Ps),
    Explain(explain::Explain),
    Clients(lists::Clients),
    Calibrate(lists::Calibrate),
    Warmup(leave::Warmup),
    Drain(leave::Drain),
    Release(change::Release),
    Revoke(leave::Revoke),
    Cancel(change::Cancel),
    Park(ease::Park),
    Unpark(ease::Unpark),
    Pin(change::Pin),
    Reserve(change::Reserve),
    Taint(change::Taint),
    Untaint(change::Untaint),
    Adopt(strangers::Adopt),
    Ignore(strangers::Ignore),
    Watch(watch::Watch),
}

impl Gpu {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        match self.verb {
            None => board::show(session),
            Some(Verb::Plan(verb)) => verb.run(session),
            Some(Verb::Run(verb)) => verb.run(session),
            Some(Verb::Queue(verb)) => verb.run(session),
            Some(Verb::Leases(verb)) => verb.run(session),
            Some(Verb::Ps(verb)) => verb.run(session),
            Some(Verb::Explain(verb)) => verb.run(session),
            Some(Verb::Clients(verb)) => verb.run(session),
            Some(Verb::Calibrate(verb)) => verb.run(session),
            Some(Verb::Warmup(verb)) => verb.run(session),
            Some(Verb::Drain(verb)) => verb.run(session),
            Some(Verb::Release(verb)) => verb.run(session),
            Some(Verb::Revoke(verb)) => verb.run(session),
            Some(Verb::Cancel(verb)) => verb.run(session),
            Some(Verb::Park(verb)) => verb.run(session),
            Some(Verb::Unpark(verb)) => verb.run(session),
            Some(Verb::Pin(verb)) => verb.run(session),
            Some(Verb::Reserve(verb)) => verb.run(session),
            Some(Verb::Taint(verb)) => verb.run(session),
            Some(Verb::Untaint(verb)) => verb.run(session),
            Some(Verb::Adopt(verb)) => verb.run(session),
            Some(Verb::Ignore(verb)) => verb.run(session),
            Some(Verb::Watch(verb)) => verb.run(session),
        }
    }
}

/// One call on rpc.sock.
fn ask(session: &Session, method: &str, params: Value) -> Result<Box<RawValue>, Trouble> {
    let client = session.client.rpc();
    session.block_on(async { Ok(client.raw(method, params).await?) })
}

/// The whole ids of devices that somebody typed.
fn devices(session: &Session, typed: &[String]) -> Result<Vec<String>, Trouble> {
    if typed.is_empty() {
        return Ok(vec![]);
    }
    // A daemon that has only begun may not have looked yet.
    let params = given::params(&serde_json::json!({ "fresh_within_ms": 2000 }))?;
    let list: GpuList = read(&ask(session, "gpu.list", params)?)?;
    let known: Vec<(String, u32)> = list.devices.iter().map(|row| (row.id.to_string(), row.index)).collect();
    typed.iter().map(|text| amount::device(text, &known).map_err(Trouble::Usage)).collect()
}

/// The whole id of one.
fn device(session: &Session, typed: &str) -> Result<String, Trouble> {
    Ok(devices(session, &[typed.to_owned()])?.remove(0))
}

//! `wharf info`: what is known of a service before it is installed.

use clap_complete::engine::ArgValueCompleter;
use wharf_api::{Inspection, NameParams};
use wharf_model::{Facts, Limits, Policy, UnitName, Verified};
use wharf_services::described;

use crate::{
    Exit, complete, given,
    session::{self, Session},
    table::{Block, Cell},
    trouble::{Outcome, Trouble},
    words,
};

/// Show what a service is, whence it comes, what it needs and cannot do, and whether it was seen to work
#[derive(Debug, clap::Args)]
#[command(after_help = "`wharf inspect` shows how it is on this machine.

Examples:
  wharf info prometheus
  wharf info vllm --json | jq .verified")]
pub(crate) struct Info {
    /// The service: redis, python-api@vault
    #[arg(value_name = "NAME", add = ArgValueCompleter::new(complete::units))]
    name: UnitName,
}

/// What an inspection tells of it, or this program alone.
struct Known {
    facts: Facts,
    policy: Policy,
    installed: Option<String>,
}

impl Info {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let known = session.block_on(known(session, self.name))?;
        if session.json {
            let text = serde_json::to_string(&known.facts);
            session.say_json(&text.map_err(|e| Trouble::Usage(format!("it cannot be written: {e}")))?)?;
        } else {
            session.say(&text(&known))?;
        }
        Ok(Exit::Done)
    }
}

async fn known(session: &Session, name: UnitName) -> Result<Known, Trouble> {
    let params = given::params(&NameParams { name: name.clone() })?;
    let failure = match session.client.raw("service.inspect", params).await {
        Ok(raw) => {
            let found: Inspection = session::read(&raw)?;
            let installed = found.installed.map(|placed| placed.version);
            return Ok(Known { facts: found.definition, policy: found.policy, installed });
        }
        Err(failure) => failure,
    };
    // A template is no unit, and a daemon is not needed to know what this program knows.
    match session.catalogue.get(name.service()) {
        Some(service) => {
            let policy = service.policy(&serde_json::Value::Null);
            Ok(Known { facts: described(&**service).await, policy, installed: None })
        }
        None => Err(failure.into()),
    }
}

fn text(known: &Known) -> String {
    let Known { facts, policy, installed } = known;
    let some = |list: Vec<String>| (!list.is_empty()).then(|| list.join(", "));
    let mut block = Block::default();
    block.line("is", facts.summary.as_str());
    block.line("source", facts.source.as_str());
    block.maybe("version", facts.version.clone());
    block.line("installed", installed.clone().unwrap_or_else(|| "no".into()));
    block.maybe("programs", some(facts.commands.clone()));
    let ports = facts.ports.iter().map(|port| format!("{} {} ({})", port.name, port.default, port.speaks));
    block.maybe("ports", some(ports.collect()));
    block.maybe("health", facts.health.clone());
    block.maybe("GPU", facts.gpu.clone());
    block.maybe("needs", some(facts.needs.clone()));
    block.maybe("uses", some(facts.uses.clone()));
    block.maybe("instances", some(facts.instances.clone()));
    block.maybe("keeps", facts.data.clone());
    block.line("limits", limits(policy));
    block.line("verified", verified(facts.verified.as_ref()));
    for limitation in &facts.limitations {
        block.line("cannot", limitation.as_str());
    }
    block.text(facts.name.as_str())
}

/// What a run may take of time and of the machine.
pub(super) fn limits(policy: &Policy) -> String {
    let (ready, end) = (words::duration(policy.start_timeout_ms), words::duration(policy.stop_timeout_ms));
    let Limits { memory_bytes, cpu_percent, .. } = policy.limits;
    let memory = memory_bytes.map(|bytes| format!(", {} of memory", wharf_model::size(bytes)));
    let cpu = cpu_percent.map(|percent| format!(", {percent} % of a core"));
    format!("{ready} to be ready, {end} to end{}{}", memory.unwrap_or_default(), cpu.unwrap_or_default())
}

fn verified(seen: Option<&Verified>) -> Cell {
    match seen {
        None => Cell::from("no: nobody has written down that it was seen to work"),
        Some(seen) => {
            let text = format!("{} in version {}: {}", seen.date, seen.version, seen.how);
            if seen.real { Cell::styled(text, words::good()) } else { Cell::from(text) }
        }
    }
}

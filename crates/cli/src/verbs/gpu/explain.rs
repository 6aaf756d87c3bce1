//! `wharf gpu explain`: why a lease or a request stands as it does.

use clap_complete::engine::ArgValueCompleter;
use serde_json::json;
use wharf_api::rpc::gpu::GpuExplanation;
use wharf_model::{UnitName, size};

use super::ask;
use crate::{
    Exit, amount, complete,
    session::Session,
    trouble::{Outcome, Trouble},
    words,
};

/// Say why a lease or a request stands as it does, what is in the way, and what would help
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf gpu explain lease-12\n  wharf gpu explain command@chat")]
pub(crate) struct Explain {
    /// A lease or a request (lease-12), or a service
    #[arg(value_name = "LEASE|NAME", add = ArgValueCompleter::new(complete::leases))]
    which: String,
}

impl Explain {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let params = match amount::lease(&self.which) {
            Ok(lease) => json!({ "lease": lease }),
            Err(_) => match self.which.parse::<UnitName>() {
                Ok(unit) => json!({ "unit": unit }),
                Err(e) => return Err(Trouble::Usage(format!("{:?} is no lease and no service: {e}", self.which))),
            },
        };
        let raw = ask(session, "gpu.explain", params)?;
        session.show(&raw, text)?;
        Ok(Exit::Done)
    }
}

fn text(explained: &GpuExplanation) -> String {
    let mut lines = vec![];
    if let Some(row) = &explained.lease {
        lines.push(format!("{} {}", row.lease, words::lease_state(row.state).shown()));
    }
    lines.extend(explained.explain.iter().map(|sentence| format!("  {sentence}")));
    for blocker in &explained.blockers {
        let why = blocker.bar.clone().unwrap_or_else(|| format!("{} can be handed out", size(blocker.headroom_bytes)));
        lines.push(format!("  {}: {why}", blocker.device));
        for held in &blocker.leases {
            let stays = held.stays.as_ref().map_or_else(|| "it could be asked to leave".into(), Clone::clone);
            lines.push(format!("    {} has {}: {stays}", held.holder, size(held.charge_bytes)));
        }
        lines.extend(blocker.foreign.iter().map(|foreign| format!("    {foreign} has no lease")));
    }
    if !explained.awaited_by.is_empty() {
        let who: Vec<String> = explained.awaited_by.iter().map(ToString::to_string).collect();
        lines.push(format!("  waited for by {}", who.join(", ")));
    }
    if let Some(value) = &explained.value {
        let reload = words::duration(value.reload_ms);
        let seen = if value.reload_is_measured { "as measured" } else { "as taken" };
        let uses = value.uses_an_hour_milli as f64 / 1000.0;
        lines.push(format!(
            "  worth {}: loading again takes {reload} ({seen}), used {uses:.1} times an hour, importance {}",
            value.value, value.importance
        ));
        let expected = value.expected_uses_micro as f64 / 1e6;
        lines.push(format!(
            "    = ({} ms x {expected:.6} uses to be expected an hour + {} ms of credit) x {}/60",
            value.reload_ms, value.credit_ms, value.weight
        ));
    }
    lines.join("\n")
}

//! `wharf why`: the reason for a unit's state, on one screen.

use wharf_api::rpc::deps::{NeedRow, Why as Explanation, WhyParams};

use crate::{Exit, given, session::Session, trouble::Outcome};

/// Say why a service is as it is, and what would change it
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf why redis\n  wharf why command@web --json | jq -r '.remedies[].command'")]
pub(crate) struct Why {
    #[command(flatten)]
    name: given::Name,
}

impl Why {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let params = given::params(&WhyParams { name: self.name.name })?;
        let client = session.client.rpc();
        let raw = session.block_on(async { Ok(client.raw("deps.why", params).await?) })?;
        session.show(&raw, text)?;
        Ok(Exit::Done)
    }
}

fn text(why: &Explanation) -> String {
    let mut lines = vec![why.answer.clone()];
    lines.extend(why.because.iter().map(|reason| format!("  because  {reason}")));
    for (word, rows) in [("needs", &why.needs), ("needed by", &why.needed_by)] {
        lines.extend(rows.iter().map(|row| format!("  {word}  {}", need(row))));
    }
    if !why.remedies.is_empty() {
        lines.push("what would change it:".into());
    }
    for remedy in &why.remedies {
        match &remedy.command {
            Some(command) => lines.push(format!("  {}: {command}", remedy.effect)),
            None => lines.push(format!("  {}", remedy.effect)),
        }
    }
    lines.join("\n")
}

fn need(row: &NeedRow) -> String {
    let state = row.state.map_or_else(|| "not there".to_owned(), |phase| phase.to_string());
    let soft = if row.soft { ", and can do without it" } else { "" };
    format!("{} ({state}{soft})", row.unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_answer_comes_first_and_commands_stand_at_the_end() {
        let why: Explanation = serde_json::from_value(json!({
            "name": "command@api", "state": "blocked", "want": "up",
            "answer": "command@api is wanted, and waits: command@api needs redis, which is stopped",
            "because": ["redis is stopped"],
            "remedies": [
                {"effect": "command@api follows when redis is ready", "command": "wharf start redis"},
                {"effect": "nothing else", "command": null}
            ],
            "needs": [
                {"unit": "redis", "soft": false, "state": "stopped", "met": false},
                {"unit": "nats", "soft": true, "state": null, "met": false}
            ],
            "needed_by": []
        }))
        .unwrap();
        let text = anstream::adapter::strip_str(&text(&why)).to_string();
        insta::assert_snapshot!(text, @r"
        command@api is wanted, and waits: command@api needs redis, which is stopped
          because  redis is stopped
          needs  redis (stopped)
          needs  nats (not there, and can do without it)
        what would change it:
          command@api follows when redis is ready: wharf start redis
          nothing else
        ");
    }
}

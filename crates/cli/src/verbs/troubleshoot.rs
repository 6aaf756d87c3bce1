//! `wharf troubleshoot`: everything that helps to understand it, in one answer.

use wharf_api::{TroubleshootParams, Troubleshooting};

use crate::{Exit, given, session::Session, several, trouble::Outcome, words};

/// Show what is wrong with a service, what to do, and what it last wrote
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf troubleshoot redis\n  wharf troubleshoot redis -n 200")]
pub(crate) struct Troubleshoot {
    #[command(flatten)]
    name: given::Name,
    /// How many lines of its log, 1000 at most
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 50)]
    lines: u32,
}

impl Troubleshoot {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let calls = given::calls(&[self.name.name], |name| {
            given::params(&TroubleshootParams { name: name.clone(), lines: Some(self.lines) })
        })?;
        several::questions::<Troubleshooting>(session, "service.troubleshoot", calls, |found| (text(found), Exit::Done))
    }
}

fn text(found: &Troubleshooting) -> String {
    let mut text = words::status(&found.status);
    text.push_str("\nfindings\n");
    if found.findings.is_empty() {
        text.push_str("  nothing was noticed\n");
    }
    for finding in &found.findings {
        text.push_str(&format!("  {}\n", finding.finding));
        if let Some(hint) = &finding.hint {
            text.push_str(&format!("    hint: {hint}\n"));
        }
    }
    if !found.recent_ops.is_empty() {
        text.push_str(&format!("\nlast operations\n{}", words::operations(&found.recent_ops)));
    }
    if !found.processes.is_empty() {
        let pids: Vec<String> = found.processes.iter().map(i32::to_string).collect();
        text.push_str(&format!("\nprocesses\n  {}\n", pids.join(" ")));
    }
    text.push_str("\nlog\n");
    if found.log_tail.is_empty() {
        text.push_str("  nothing was written\n");
    }
    for line in &found.log_tail {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

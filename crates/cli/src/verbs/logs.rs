//! `wharf logs`: what it wrote, as it wrote it.

use std::io::{self, Write};

use futures_util::{StreamExt, stream};
use serde_json::Value;
use wharf_api::{LogLine, LogsParams, LogsReport};
use wharf_client::Heard;
use wharf_model::UnitName;

use crate::{
    Exit, given,
    session::{self, Session},
    trouble::{Outcome, Trouble},
};

/// Show the last lines that services wrote, and follow them
///
/// Lines come to stdout as they were written. Of several services each line begins with its name.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf logs redis\n  wharf logs -f redis postgres\n  wharf logs -n 1000 redis | grep -i error")]
pub(crate) struct Logs {
    #[command(flatten)]
    names: given::Names,
    /// Go on with what is written later, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many lines, counted from the end, 10000 at most
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 100)]
    lines: u32,
}

impl Logs {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let calls = given::calls(&self.names.names, |name| {
            given::params(&LogsParams { name: name.clone(), lines: Some(self.lines), follow: self.follow })
        })?;
        let width = (calls.len() > 1).then(|| calls.iter().map(|(name, _)| name.as_str().len()).max().unwrap_or(0));
        let paper = Paper { width, json: session.json };
        if self.follow { follow(session, calls, &paper) } else { last(session, calls, &paper) }
    }
}

fn last(session: &Session, calls: Vec<(UnitName, Value)>, paper: &Paper) -> Outcome {
    session.block_on(async {
        let (mut exit, mut results) = (Exit::Done, vec![]);
        let alone = calls.len() == 1;
        for (_, params) in calls {
            let raw = match session.client.raw("service.logs", params).await {
                Ok(raw) => raw,
                Err(failure) if alone => return Err(failure.into()),
                Err(failure) => {
                    let trouble = Trouble::Client(failure);
                    results.push(trouble.to_json().to_string());
                    exit = exit.and(trouble.report(session.json));
                    continue;
                }
            };
            if session.json {
                results.push(raw.get().to_owned());
                continue;
            }
            let report: LogsReport = session::read(&raw)?;
            for line in &report.lines {
                paper.line(&report.name, line)?;
            }
        }
        match (session.json, alone) {
            (true, true) => session.say_json(&results.concat())?,
            (true, false) => session.say_json(&format!("[{}]", results.join(",")))?,
            (false, _) => {}
        }
        Ok(exit)
    })
}

/// Ends with the streams, or with the process: Ctrl-C leaves nothing behind that must be tidied.
fn follow(session: &Session, calls: Vec<(UnitName, Value)>, paper: &Paper) -> Outcome {
    let count = calls.len();
    session.block_on(async {
        let mut ends = stream::iter(calls).map(|(_, params)| follow_one(session, params, paper)).buffer_unordered(count);
        let mut exit = Exit::Done;
        while let Some(end) = ends.next().await {
            exit = match end {
                Ok(()) => exit,
                Err(Trouble::Pipe) => return Err(Trouble::Pipe),
                Err(trouble) if count == 1 => return Err(trouble),
                Err(trouble) => exit.and(trouble.report(session.json)),
            };
        }
        Ok(exit)
    })
}

async fn follow_one(session: &Session, params: Value, paper: &Paper) -> Result<(), Trouble> {
    let mut listening = session.client.listen("service.logs", params).await?;
    // The answer comes when nothing more will be written; its lines were all said before.
    while let Heard::Notification { method, params } = listening.next().await? {
        if method != "service.log" {
            continue;
        }
        if session.json {
            paper.raw(&params.to_string())?;
        } else if let Ok(LogLine { name, line, .. }) = serde_json::from_value(params) {
            paper.line(&name, &line)?;
        }
    }
    Ok(())
}

/// Raw lines on stdout; a service's own colours are left in.
struct Paper {
    /// The width of the names, where there are several.
    width: Option<usize>,
    json: bool,
}

impl Paper {
    fn line(&self, name: &UnitName, line: &str) -> Result<(), Trouble> {
        match self.width {
            Some(width) if !self.json => self.raw(&format!("{name:width$} | {line}")),
            _ => self.raw(line),
        }
    }

    fn raw(&self, text: &str) -> Result<(), Trouble> {
        Ok(writeln!(io::stdout().lock(), "{text}")?)
    }
}

//! `wharf logs`: what it wrote, as it wrote it.

use std::io::{self, Write};

use futures_util::{StreamExt, stream};
use serde_json::Value;
use wharf_api::{LogLine, LogsParams, LogsReport};
use wharf_client::Heard;
use wharf_model::{LogLevel, RunId, UnitName};

use crate::{
    Exit, given,
    session::{self, Session},
    trouble::{Outcome, Trouble},
    words,
};

mod when;

use when::When;

/// As many lines as one answer can have.
const MOST_LINES: u32 = 10_000;
const LINES: u32 = 100;

/// Show the last lines that services wrote, and follow them
///
/// Lines come to stdout as they were written: those of the present or last run, and with --since,
/// --until, --grep or --level those of earlier runs too. Of several services each line begins with
/// its name, and all are in the order in which they were written.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf logs redis
  wharf logs -f redis postgres
  wharf logs --since 5m --level warn redis
  wharf logs --since 08:00 --until 08:10 --times redis
  wharf logs -n 1000 --grep 'timed? out' redis
  wharf logs --json --cursor redis/42/183320 redis")]
pub(crate) struct Logs {
    #[command(flatten)]
    names: given::Names,
    /// Go on with what is written later, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many lines, counted from the end, 10000 at most
    ///
    /// 100 unless it is named; with --since or --cursor as many as there may be.
    #[arg(short = 'n', long, value_name = "COUNT")]
    lines: Option<u32>,
    /// Only what was written after this: 5m ago, or 2026-11-21T08:00:00Z, or 08:00
    #[arg(long, value_name = "TIME")]
    since: Option<When>,
    /// Only what was written before this
    #[arg(long, value_name = "TIME", conflicts_with = "follow")]
    until: Option<When>,
    /// Only lines that match this regular expression
    #[arg(long, value_name = "REGEX")]
    grep: Option<String>,
    /// Only lines that say that they are so serious, or more: trace, debug, info, warn, error, fatal
    #[arg(long, value_name = "LEVEL")]
    level: Option<LogLevel>,
    /// Only what this run wrote
    #[arg(long, value_name = "RUN")]
    run: Option<u64>,
    /// Read on from here, as an earlier --json gave it: each line is given once
    #[arg(long, value_name = "CURSOR")]
    cursor: Option<String>,
    /// Begin each line with the time at which it was written
    #[arg(short, long)]
    times: bool,
}

impl Logs {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let calls = given::calls(&self.names.names, |name| given::params(&self.params(name)))?;
        if calls.len() > 1 && (self.cursor.is_some() || self.run.is_some()) {
            return Err(Trouble::Usage("a cursor and a run are of one service: name that one alone".into()));
        }
        let width = (calls.len() > 1).then(|| calls.iter().map(|(name, _)| name.as_str().len()).max().unwrap_or(0));
        let paper = Paper { width, json: session.json, times: self.times };
        if self.follow { follow(session, calls, &paper) } else { last(session, calls, &paper) }
    }

    fn params(&self, name: &UnitName) -> LogsParams {
        let is_bounded = self.since.is_some() || self.cursor.is_some();
        LogsParams {
            name: name.clone(),
            lines: Some(self.lines.unwrap_or(if is_bounded { MOST_LINES } else { LINES })),
            follow: self.follow,
            since: self.since.map(|when| when.0),
            until: self.until.map(|when| when.0),
            grep: self.grep.clone(),
            level: self.level,
            cursor: self.cursor.clone(),
            run: self.run.map(RunId),
        }
    }
}

fn last(session: &Session, calls: Vec<(UnitName, Value)>, paper: &Paper) -> Outcome {
    session.block_on(async {
        let (mut exit, mut results, mut rows) = (Exit::Done, vec![], vec![]);
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
            paper.gap(&report.name, report.gap_bytes);
            rows.extend(report.entries.into_iter().map(|e| (e.at, report.name.clone(), e.text)));
        }
        if !alone {
            // Lines of one service stay in their order: times of a run never go back.
            rows.sort_by(|(a, ..), (b, ..)| a.unwrap_or(0.0).total_cmp(&b.unwrap_or(0.0)));
        }
        rows.iter().try_for_each(|(at, name, text)| paper.line(name, *at, text))?;
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
        let mut ends =
            stream::iter(calls).map(|(_, params)| follow_one(session, params, paper)).buffer_unordered(count);
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
        } else if let Ok(LogLine { name, line, at, gap_bytes, .. }) = serde_json::from_value(params) {
            paper.gap(&name, gap_bytes);
            paper.line(&name, at, &line)?;
        }
    }
    Ok(())
}

/// Raw lines on stdout; a service's own colours are left in.
struct Paper {
    /// The width of the names, where there are several.
    width: Option<usize>,
    json: bool,
    times: bool,
}

impl Paper {
    fn line(&self, name: &UnitName, at: Option<f64>, line: &str) -> Result<(), Trouble> {
        let time = match (self.times, at) {
            (true, Some(at)) => format!("{} ", words::moment((at * 1000.0) as i64)),
            (true, None) => " ".repeat(20),
            (false, _) => String::new(),
        };
        match self.width {
            Some(width) if !self.json => self.raw(&format!("{time}{name:width$} | {line}")),
            _ => self.raw(&format!("{time}{line}")),
        }
    }

    /// What is missing is no line: it is told beside them.
    fn gap(&self, name: &UnitName, bytes: u64) {
        if bytes > 0 && !self.json {
            anstream::eprintln!("note: {bytes} bytes of {name}'s log are no longer kept");
        }
    }

    fn raw(&self, text: &str) -> Result<(), Trouble> {
        Ok(writeln!(io::stdout().lock(), "{text}")?)
    }
}

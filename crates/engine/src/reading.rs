//! Reading what units wrote: `service.logs`, its stream, and the lines that other answers quote.
//!
//! A page is read on a thread that may block, and given before the next one is read: a slow reader
//! is waited for and holds one page. Nothing is polled: the keeper of the logs tells of growth.

use wharf_api::{Caller, LogEntry, LogLine, LogsParams, LogsReport, Notification};
use wharf_model::{ErrorKind, Failure, RunId, UnitName};
use wharf_runtime::logs::{Bound, Cursor, Entry, Page, Query, UnitLog, expression};

use crate::{engine::Engine, redaction};

const LINES: u32 = 100;
const MOST_LINES: u32 = 10_000;
/// What is held for one who follows: so many lines, and so much text in bytes.
const PAGE_LINES: usize = 500;
const PAGE_BYTES: usize = 128 << 10;

impl Engine {
    /// `service.logs`.
    pub(crate) async fn read_logs(&self, caller: &Caller, p: LogsParams) -> Result<LogsReport, Failure> {
        let name = p.name.clone();
        let cursor = p.cursor.as_deref().map(|text| place(&name, text)).transpose()?;
        let query = query(&p)?;
        if p.follow {
            return self.follow(caller, &name, cursor, query).await;
        }
        let page = match cursor {
            Some(at) => self.page(&name, move |log| log.read_on(at.0, at.1, &query)).await?,
            None => self.page(&name, move |log| log.last(&query)).await?,
        };
        Ok(report(name, page))
    }

    /// Until the caller leaves, or the one run that was asked for is over.
    async fn follow(
        &self,
        caller: &Caller,
        name: &UnitName,
        cursor: Option<(RunId, u64)>,
        mut query: Query,
    ) -> Result<LogsReport, Failure> {
        let Some(stream) = &caller.stream else {
            return Err(Failure::new(ErrorKind::InvalidParams, "follow needs a stream")
                .hint("send Accept: text/event-stream or application/x-ndjson"));
        };
        if query.until.is_some() {
            return Err(Failure::new(ErrorKind::InvalidParams, "what is followed has no end")
                .hint("leave out either follow or until"));
        }
        // Before the first look: what grows after it is told.
        let mut growth = self.shared.logs.growth(name);
        let mut page = match cursor {
            Some(at) => Page { at: Some(at), more: true, ..Page::default() },
            None => {
                let last = query.clone();
                let mut page = self.page(name, move |log| log.last(&last)).await?;
                // A line without its end is given when it has one.
                page.entries.retain(|e| e.is_ended);
                page.more = true;
                page
            }
        };
        (query.lines, query.bytes) = (PAGE_LINES, PAGE_BYTES);
        loop {
            for entry in std::mem::take(&mut page.entries) {
                let params = serde_json::value::to_raw_value(&line(name, entry))
                    .map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))?;
                if stream.send(Notification { method: "service.log", params }).await.is_err() {
                    return Ok(report(name.clone(), page));
                }
            }
            let at = page.at.unwrap_or((query.run.unwrap_or(RunId(0)), 0));
            if !page.more {
                let is_over = query.run.is_some_and(|run| self.live_run(name) != Some(run));
                if is_over || growth.changed().await.is_err() {
                    return Ok(report(name.clone(), page));
                }
            }
            let next = query.clone();
            page = self.page(name, move |log| log.read_on(at.0, at.1, &next)).await?;
        }
    }

    async fn page(
        &self,
        name: &UnitName,
        read: impl FnOnce(&UnitLog) -> std::io::Result<Page> + Send + 'static,
    ) -> Result<Page, Failure> {
        let log = UnitLog::new(self.shared.layout.logs(name), self.live_run(name));
        let page = tokio::task::spawn_blocking(move || read(&log)).await;
        let mut page = page
            .map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))?
            .map_err(|e| Failure::from(e).while_doing(format_args!("read the log of {name}")))?;
        page.entries.iter_mut().for_each(redaction::entry);
        Ok(page)
    }

    fn live_run(&self, name: &UnitName) -> Option<RunId> {
        self.unit(name).and_then(|unit| unit.life.run())
    }

    /// The last lines of the newest run that wrote any.
    pub(crate) async fn log_tail(&self, name: &UnitName, lines: usize) -> Vec<String> {
        let log = UnitLog::new(self.shared.layout.logs(name), self.live_run(name));
        tokio::task::spawn_blocking(move || log.tail(lines).unwrap_or_default()).await.unwrap_or_default()
    }

    /// What its newest run writes to.
    pub(crate) fn log_file(&self, name: &UnitName) -> Option<String> {
        let newest = UnitLog::new(self.shared.layout.logs(name), None).newest();
        newest.map(|(_, path)| path.display().to_string())
    }
}

fn query(p: &LogsParams) -> Result<Query, Failure> {
    let grep = p.grep.as_deref().map(expression).transpose().map_err(|e| {
        Failure::new(ErrorKind::InvalidParams, format!("grep is no regular expression: {e}"))
            .hint("a backslash before . * + ? ( ) [ ] { } | makes them plain")
    })?;
    Ok(Query {
        lines: p.lines.unwrap_or(LINES).min(MOST_LINES) as usize,
        since: p.since.map(bound),
        until: p.until.map(bound),
        grep,
        level: p.level,
        run: p.run,
        // A search goes through all that is kept; the last lines are those of the life that goes on.
        is_newest_only: p.since.is_none() && p.until.is_none() && p.grep.is_none() && p.level.is_none(),
        ..Query::default()
    })
}

/// Seconds since 1970; negative ones are counted back from now, by a clock that nobody steps.
fn bound(seconds: f64) -> Bound {
    let ms = (seconds * 1000.0) as i64;
    if ms < 0 { Bound::ago(-ms) } else { Bound::wall(ms) }
}

fn place(name: &UnitName, text: &str) -> Result<(RunId, u64), Failure> {
    let wrong = |message: String| {
        Failure::new(ErrorKind::InvalidParams, message).hint("take the cursor of an answer of service.logs").about(name)
    };
    let cursor: Cursor = text.parse().map_err(|e: wharf_runtime::logs::BadCursor| wrong(e.to_string()))?;
    if cursor.unit != *name {
        return Err(wrong(format!("the cursor {cursor} is of {}, not of {name}", cursor.unit)));
    }
    Ok((cursor.run, cursor.offset))
}

fn cursor(name: &UnitName, run: RunId, offset: u64) -> String {
    Cursor { unit: name.clone(), run, offset }.to_string()
}

fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

fn report(name: UnitName, page: Page) -> LogsReport {
    let run = page.entries.last().map(|e| e.run).or(page.at.map(|(run, _)| run));
    let lines = page.entries.iter().map(|e| e.text.clone()).collect();
    let cursor = page.at.map(|(run, offset)| cursor(&name, run, offset));
    let entries = page.entries.into_iter().map(entry).collect();
    LogsReport { run, lines, entries, cursor, more: page.more, gap_bytes: page.gap_bytes, name }
}

fn entry(e: Entry) -> LogEntry {
    LogEntry {
        run: e.run,
        offset: e.from,
        at: e.at_ms.map(seconds),
        text: e.text,
        cut: e.is_cut,
        ended: e.is_ended,
        level: e.said.level,
        msg: e.said.message,
        fields: e.said.fields,
    }
}

fn line(name: &UnitName, e: Entry) -> LogLine {
    LogLine {
        name: name.clone(),
        run: e.run,
        cursor: cursor(name, e.run, e.next),
        line: e.text,
        at: e.at_ms.map(seconds),
        level: e.said.level,
        msg: e.said.message,
        fields: e.said.fields,
        gap_bytes: e.gap_bytes,
    }
}

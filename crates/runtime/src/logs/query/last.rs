//! The last lines: backwards in windows, each of which is read forwards. A line belongs to the
//! window in which it begins.

use std::{collections::VecDeque, io, path::PathBuf};

use wharf_model::RunId;

use super::{Entry, Harvest, Next, Page, Query, RunLog, Source, Span, UnitLog, files};

/// The first window of the live file and the largest, in bytes: each is twice as long as the one
/// before. An archive is one window: it can only be read as a whole.
const WINDOW: (u64, u64) = (32 << 10, 1 << 20);

impl UnitLog {
    /// The last lines of all runs, or of the one that is asked for, or of the newest.
    pub fn last(&self, query: &Query) -> io::Result<Page> {
        let mut harvest = Harvest::new(query);
        let (mut at, mut more) = (None, false);
        let runs = files::runs(&self.dir).into_iter().rev();
        for run in runs.filter(|run| query.run.is_none_or(|only| *run == only)) {
            let source = self.source(run, query)?;
            let mut end = None;
            more |= source.read_back(query, &mut harvest, &mut end)?;
            at = at.or(Some((run, end.unwrap_or(0))));
            if more || (query.is_newest_only && !harvest.entries.is_empty()) {
                break;
            }
        }
        let mut page = harvest.page(at, more);
        page.gap_bytes = 0;
        Ok(page)
    }

    /// The last lines of the newest run that wrote any, without their ends.
    pub fn tail(&self, lines: usize) -> io::Result<Vec<String>> {
        let page = self.last(&Query { lines, is_newest_only: true, ..Query::default() })?;
        Ok(page.entries.into_iter().map(|e| e.text).collect())
    }

    /// The newest run that has a log, and what it writes to.
    pub fn newest(&self) -> Option<(RunId, PathBuf)> {
        let run = files::runs(&self.dir).pop()?;
        Some((run, RunLog::new(&self.dir, run).live()))
    }
}

impl Source {
    /// Fills the harvest from behind. True: there are more lines before those that were taken.
    /// `end` becomes where to read on.
    fn read_back(&self, query: &Query, harvest: &mut Harvest, end: &mut Option<u64>) -> io::Result<bool> {
        for window in self.windows()? {
            let room = harvest.lines.saturating_sub(harvest.entries.len());
            // One that is full already still looks for the line that it ends with.
            if (room == 0 && end.is_some()) || harvest.bytes >= harvest.most_bytes || harvest.is_late {
                return Ok(true);
            }
            let mut found = Ring {
                entries: VecDeque::new(),
                room,
                bytes: harvest.bytes,
                most_bytes: harvest.most_bytes,
                has_lost: false,
            };
            self.read_window(window, query, harvest, &mut found, end)?;
            harvest.bytes = found.bytes;
            while let Some(entry) = found.entries.pop_back() {
                harvest.entries.push_front(entry);
            }
            if found.has_lost {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn read_window(
        &self,
        window: Window,
        query: &Query,
        harvest: &mut Harvest,
        found: &mut Ring,
        end: &mut Option<u64>,
    ) -> io::Result<()> {
        let Span { from, to } = window.span;
        let Some(mut lines) = self.lines_from(from, window.is_line_start)? else { return Ok(()) };
        loop {
            let line = match lines.read()? {
                Next::Gap(_) => continue,
                Next::Line(line) => line,
                Next::End => {
                    let start = lines.at();
                    match lines.rest() {
                        Some(line) => {
                            *end = end.or(Some(if self.is_over { line.next } else { start }));
                            if line.from < to && query.matches(lines.text()) {
                                found.push(self.entry(line, lines.text()));
                            }
                        }
                        None => *end = end.or(Some(start)),
                    }
                    return Ok(());
                }
            };
            if line.from >= to {
                *end = end.or(Some(line.from));
                return Ok(());
            }
            if query.matches(lines.text()) {
                found.push(self.entry(line, lines.text()));
            }
            if harvest.is_late() {
                found.has_lost = true;
                return Ok(());
            }
        }
    }

    /// The windows of what was asked for, newest first.
    fn windows(&self) -> io::Result<Vec<Window>> {
        let survey = self.log.survey()?;
        let low = self.low.max(survey.first());
        let high = self.high.unwrap_or(u64::MAX).min(survey.end());
        let mut windows = vec![];
        let mut to = high;
        let (start, mut size) = (survey.head.max(low), WINDOW.0);
        while to > start {
            let from = to.saturating_sub(size).max(start);
            size = (size * 2).min(WINDOW.1);
            windows.push(Window { span: Span { from, to }, is_line_start: from == survey.head });
            to = from;
        }
        for archive in survey.archives.iter().rev() {
            let span = Span { from: archive.from.max(low), to: archive.to.min(high) };
            if span.from < span.to {
                windows.push(Window { span, is_line_start: span.from == archive.from });
            }
        }
        Ok(windows)
    }
}

#[derive(Clone, Copy)]
struct Window {
    span: Span,
    is_line_start: bool,
}

/// The last lines of a window.
struct Ring {
    entries: VecDeque<Entry>,
    room: usize,
    bytes: usize,
    most_bytes: usize,
    has_lost: bool,
}

impl Ring {
    fn push(&mut self, entry: Entry) {
        self.bytes += entry.text.len();
        self.entries.push_back(entry);
        while self.entries.len() > self.room || (self.bytes > self.most_bytes && self.entries.len() > 1) {
            self.has_lost = true;
            self.bytes -= self.entries.pop_front().map_or(0, |lost| lost.text.len());
        }
    }
}

//! Questions to a unit's log: its last lines, or those behind a cursor, as one sequence over
//! archives, live files and runs. Every answer is bounded in lines, bytes and time.
//!
//! Refuses to know who asks, and in which words it is answered.

use std::{
    collections::VecDeque,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use regex::bytes::Regex;
use wharf_model::{LogLevel, RunId};

use super::{
    files::{self, RunLog, Span},
    gone,
    lines::{Line, Lines, Next},
    reader::Reader,
    said::{self, Said},
    time::{Bound, TimeIndex},
};

mod last;
#[cfg(test)]
mod tests;

/// An answer has no more text than this, in bytes.
const MOST_TEXT: usize = 4 << 20;
/// An answer takes no longer than this.
const MOST_TIME: Duration = Duration::from_secs(10);
/// The clock is looked at once in so many lines.
const LINES_A_LOOK: usize = 1024;

/// A regular expression for [`Query::grep`].
pub fn expression(text: &str) -> Result<Regex, regex::Error> {
    regex::bytes::RegexBuilder::new(text).size_limit(1 << 20).build()
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Query {
    /// So many lines at most.
    pub lines: usize,
    /// So much text, in bytes, and one line more at most.
    pub bytes: usize,
    /// Only what was written after this.
    pub since: Option<Bound>,
    /// Only what was written before this.
    pub until: Option<Bound>,
    /// Only lines that match.
    pub grep: Option<Regex>,
    /// Only lines that say that they are so serious, or more.
    pub level: Option<LogLevel>,
    /// Only of this run.
    pub run: Option<RunId>,
    /// Of the last lines: only those of the newest run that has any.
    pub is_newest_only: bool,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            lines: 0,
            bytes: MOST_TEXT,
            since: None,
            until: None,
            grep: None,
            level: None,
            run: None,
            is_newest_only: false,
        }
    }
}

/// A line of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The run that wrote it.
    pub run: RunId,
    /// Its first byte, counted from the run's first one.
    pub from: u64,
    /// The byte after its end.
    pub next: u64,
    /// When it was there at the latest, in milliseconds since 1970; `None`: nobody looked.
    pub at_ms: Option<i64>,
    /// The line, without its end; what is no UTF-8 is replaced.
    pub text: String,
    /// It is longer than what is shown.
    pub is_cut: bool,
    /// Its end was written, or will never be.
    pub is_ended: bool,
    /// What it says.
    pub said: Said,
    /// So many bytes directly before it are no longer there.
    pub gap_bytes: u64,
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// The lines, oldest first.
    pub entries: Vec<Entry>,
    /// Where to read on: the run, and so many bytes of it. `None`: nothing was ever written.
    pub at: Option<(RunId, u64)>,
    /// There are more lines in the direction in which it was read.
    pub more: bool,
    /// So many bytes that were asked for are no longer there.
    pub gap_bytes: u64,
}

/// The logs of one unit.
#[derive(Debug, Clone)]
pub struct UnitLog {
    dir: PathBuf,
    live: Option<RunId>,
}

impl UnitLog {
    /// Of the unit whose logs lie in `dir`, and whose run `live` is alive.
    pub fn new(dir: impl Into<PathBuf>, live: Option<RunId>) -> Self {
        Self { dir: dir.into(), live }
    }

    /// The lines behind a place, oldest first: over archives, live files, and the runs that follow.
    pub fn read_on(&self, run: RunId, offset: u64, query: &Query) -> io::Result<Page> {
        let mut harvest = Harvest::new(query);
        let mut at = (run, offset);
        loop {
            let runs = files::runs(&self.dir);
            let next = runs.iter().copied().find(|r| *r > at.0).filter(|r| query.run.is_none_or(|only| *r == only));
            if runs.contains(&at.0) && query.run.is_none_or(|only| at.0 == only) {
                let source = self.source(at.0, query)?;
                let ends = source.read_on(at.1, query, &mut harvest)?;
                at.1 = ends.at;
                if ends.is_full || !source.is_over {
                    return Ok(harvest.page(Some(at), ends.is_full));
                }
            } else {
                harvest.gap(gone::end_of(&self.dir, at.0).unwrap_or(0).saturating_sub(at.1));
            }
            let Some(next) = next else { return Ok(harvest.page(Some(at), false)) };
            harvest.gap(gone::between(&self.dir, at.0, next));
            at = (next, 0);
        }
    }

    /// No more is written to it: it has ended, or a newer one has begun.
    fn is_over(&self, run: RunId) -> bool {
        self.live != Some(run) || files::runs(&self.dir).iter().any(|newer| *newer > run)
    }

    fn source(&self, run: RunId, query: &Query) -> io::Result<Source> {
        Source::open(&self.dir, run, self.is_over(run), query)
    }
}

/// One run's log, and the part of it that was asked for.
struct Source {
    log: RunLog,
    index: TimeIndex,
    is_over: bool,
    written_ms: Option<i64>,
    /// What was asked for begins here, perhaps within a line.
    low: u64,
    /// And ends here; `None`: at its end.
    high: Option<u64>,
}

struct Ends {
    at: u64,
    is_full: bool,
}

impl Source {
    fn open(dir: &Path, run: RunId, is_over: bool, query: &Query) -> io::Result<Self> {
        let log = RunLog::new(dir, run);
        let index = TimeIndex::load(&log.time());
        let written_ms =
            fs::metadata(log.live()).ok().map(|found| found.mtime() * 1000 + found.mtime_nsec() / 1_000_000);
        // A run that wrote its last line before that has none that was asked for.
        let is_older = query.since.is_some_and(|since| is_over && written_ms.is_some_and(|ms| since.is_after_wall(ms)));
        let end = log.survey()?.end();
        let low = if is_older { end } else { query.since.map_or(0, |since| index.first_since(&since)) };
        let high = query.until.and_then(|until| index.end_before(&until));
        Ok(Self { log, index, is_over, written_ms, low, high })
    }

    /// Lines from an offset on. One that begins before the offset is left out.
    fn lines_from(&self, offset: u64, is_line_start: bool) -> io::Result<Option<Lines>> {
        let from = if is_line_start { offset } else { offset.saturating_sub(1) };
        let mut lines = Lines::new(Reader::new(self.log.clone(), from)?, from);
        while lines.at() < offset {
            match lines.read()? {
                Next::Line(_) | Next::Gap(_) => {}
                Next::End => return Ok(None),
            }
        }
        Ok(Some(lines))
    }

    fn read_on(&self, offset: u64, query: &Query, harvest: &mut Harvest) -> io::Result<Ends> {
        let start = offset.max(self.low);
        let Some(mut lines) = self.lines_from(start, start == offset)? else {
            return Ok(Ends { at: offset, is_full: false });
        };
        loop {
            if harvest.is_full() {
                return Ok(Ends { at: lines.at(), is_full: true });
            }
            let line = match lines.read()? {
                Next::Gap(size) => {
                    harvest.gap(size);
                    continue;
                }
                Next::Line(line) => line,
                // What has no end yet is read again, whole, when it has one.
                Next::End => match if self.is_over { lines.rest() } else { None } {
                    Some(line) => line,
                    None => return Ok(Ends { at: lines.at(), is_full: false }),
                },
            };
            if self.high.is_some_and(|high| line.from >= high) {
                return Ok(Ends { at: line.from, is_full: false });
            }
            if query.matches(lines.text()) {
                harvest.take(self.entry(line, lines.text()));
            }
        }
    }

    fn entry(&self, line: Line, text: &[u8]) -> Entry {
        let shown = String::from_utf8_lossy(text.strip_suffix(b"\r").unwrap_or(text));
        // A hole that the run made itself, by writing behind the end of a truncated file.
        let shown = shown.trim_start_matches('\0');
        let length = line.next - line.from - u64::from(line.whole);
        let seen_ms = self.index.at(line.from).map(|moment| moment.wall_ms);
        Entry {
            run: self.log.run(),
            from: line.from,
            next: line.next,
            at_ms: seen_ms.or(self.written_ms),
            said: said::read(shown),
            text: shown.to_owned(),
            is_cut: length > text.len() as u64,
            is_ended: line.ended || self.is_over,
            gap_bytes: 0,
        }
    }
}

impl Query {
    fn matches(&self, text: &[u8]) -> bool {
        let is_found = self.grep.as_ref().is_none_or(|grep| grep.is_match(text));
        let is_serious =
            |least: LogLevel| said::read(&String::from_utf8_lossy(text)).level.is_some_and(|level| level >= least);
        is_found && self.level.is_none_or(is_serious)
    }
}

/// The lines of an answer while it is made.
struct Harvest {
    entries: VecDeque<Entry>,
    lines: usize,
    bytes: usize,
    most_bytes: usize,
    gap_bytes: u64,
    /// To be told with the next line.
    untold_gap: u64,
    until: Instant,
    taken: usize,
    is_late: bool,
}

impl Harvest {
    fn new(query: &Query) -> Self {
        let until = Instant::now() + MOST_TIME;
        let (entries, lines, most_bytes) = (VecDeque::new(), query.lines, query.bytes);
        Self { entries, lines, bytes: 0, most_bytes, gap_bytes: 0, untold_gap: 0, until, taken: 0, is_late: false }
    }

    fn gap(&mut self, bytes: u64) {
        self.gap_bytes += bytes;
        self.untold_gap += bytes;
    }

    fn take(&mut self, mut entry: Entry) {
        entry.gap_bytes = std::mem::take(&mut self.untold_gap);
        self.bytes += entry.text.len();
        self.entries.push_back(entry);
    }

    /// Counts a line that was looked at, and looks at the clock now and then.
    fn is_late(&mut self) -> bool {
        self.taken += 1;
        if self.taken.is_multiple_of(LINES_A_LOOK) {
            self.is_late = Instant::now() > self.until;
        }
        self.is_late
    }

    fn is_full(&mut self) -> bool {
        self.entries.len() >= self.lines || self.bytes >= self.most_bytes || self.is_late()
    }

    fn page(self, at: Option<(RunId, u64)>, more: bool) -> Page {
        Page { entries: self.entries.into(), at, more, gap_bytes: self.gap_bytes }
    }
}

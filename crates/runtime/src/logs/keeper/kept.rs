//! One live run's log: looked at when it has grown. Notes the time, looks for errors, puts the old
//! part away. Refuses to know when it is looked at.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    sync::Arc,
};

use wharf_model::{Policy, RunId, UnitName};
use wharf_sys::clock;

use super::{super::files::Survey, News, watch::Mark};
use crate::logs::{
    faults::{self, Faults, Verdict},
    files::{RunLog, Span},
    lines::{Lines, Next},
    reader::{Piece, Reader},
    rotate::{self, Deed, Facts},
    time::{self, Bound, Moment, TimeIndex},
};

/// Errors are looked for in so many bytes of one look; a writer that is faster is not read whole.
pub const SCANNED: u64 = 128 << 10;
/// Archives made in one look: others wait for theirs.
const ARCHIVES_A_LOOK: usize = 4;
/// So many bytes before the end are compared with what they were.
const FINGERPRINT: usize = 32;

/// What holds for all runs at a look.
#[derive(Debug, Clone, Copy)]
pub struct Ground {
    /// Which start of the machine this is.
    pub boot: u32,
    /// The file system can make holes.
    pub has_holes: bool,
    /// The disk is nearly full.
    pub is_low: bool,
    /// Errors are looked for in so many bytes.
    pub scan_bytes: u64,
}

/// What came of a look.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// There is something new to read.
    pub has_grown: bool,
    /// There is more to put away.
    pub again: bool,
}

/// A log that is looked after.
pub struct Kept {
    pub run: RunId,
    pub policy: Arc<Policy>,
    /// Armed: the next write will be told.
    pub mark: Option<Mark>,
    unit: UnitName,
    log: RunLog,
    /// So long was it at the last look.
    end: u64,
    /// Its last bytes then.
    last: Vec<u8>,
    /// Errors were looked for up to here.
    scanned: u64,
    skipped: u64,
    faults: Faults,
    /// What lies before it is too old to be kept.
    aged: u64,
    is_new: bool,
}

impl Kept {
    pub fn new(dir: &Path, unit: UnitName, run: RunId, policy: Arc<Policy>) -> io::Result<Self> {
        let log = RunLog::new(dir, run);
        let survey = log.survey()?;
        rotate::mend(&log, &survey)?;
        let known = TimeIndex::load(&log.time()).last().map_or(0, |moment| moment.offset).max(survey.head);
        // What an earlier daemon counted is counted again, from the end of what there is.
        let scanned = survey.end().saturating_sub(SCANNED).max(survey.head);
        Ok(Self {
            run,
            policy,
            mark: None,
            unit,
            log,
            end: known,
            last: vec![],
            scanned,
            skipped: 0,
            faults: Faults::default(),
            aged: 0,
            is_new: true,
        })
    }

    pub fn live(&self) -> std::path::PathBuf {
        self.log.live()
    }

    /// When it must be looked at although it did not grow, by the boot clock.
    pub fn next_ms(&self) -> Option<u64> {
        self.faults.next_ms(&self.policy.logs)
    }

    /// Finds out what is too old to be kept.
    pub fn age(&mut self) {
        let kept_ms = i64::try_from(self.policy.logs.keep_s).unwrap_or(i64::MAX).saturating_mul(1000);
        self.aged =
            TimeIndex::load(&self.log.time()).first_since(&Bound::wall(clock::wall_ms().saturating_sub(kept_ms)));
    }

    pub fn look(&mut self, ground: &Ground, news: &mut Vec<News>) -> io::Result<Looked> {
        let mut survey = self.log.survey()?;
        if survey.live_bytes.is_none() {
            return Ok(Looked::default());
        }
        let file = File::open(self.log.live())?;
        let was_cut = self.was_truncated(&file, &survey)?;
        if was_cut {
            news.push(News::Truncated { unit: self.unit.clone(), run: self.run, bytes: self.end - survey.head });
            self.log.mark(&self.log.cut(self.end))?;
            survey = self.log.survey()?;
            rotate::mend(&self.log, &survey)?;
            self.scanned = self.end;
        }
        let end = survey.end();
        let has_grown = was_cut || end > self.end || self.is_new;
        if end > self.end {
            self.note(end, &file, ground)?;
        }
        self.end = end;
        if end > self.scanned {
            self.scan(ground, end, news)?;
        }
        let again = self.put_away(ground, survey, news)?;
        self.last = self.fingerprint(&file, self.log.survey()?.base, self.end)?;
        self.is_new = false;
        Ok(Looked { has_grown, again })
    }

    /// What the time alone changes.
    pub fn pass_time(&mut self, now_ms: u64, news: &mut Vec<News>) {
        if let Some(Verdict::Over) = self.faults.pass(now_ms, &self.policy.logs) {
            news.push(News::Fault { unit: self.unit.clone(), run: self.run, line: None });
        }
    }

    /// It is shorter than it was, or other bytes stand where the last ones stood.
    fn was_truncated(&self, file: &File, survey: &Survey) -> io::Result<bool> {
        let is_shorter = survey.base + survey.live_bytes.unwrap_or(0) < self.end;
        Ok(is_shorter || self.fingerprint(file, survey.base, self.end)?.get(..self.last.len()) != Some(&self.last[..]))
    }

    fn fingerprint(&self, file: &File, base: u64, end: u64) -> io::Result<Vec<u8>> {
        let size = if self.last.is_empty() { FINGERPRINT } else { FINGERPRINT.max(self.last.len()) };
        let from = (end - base).saturating_sub(size as u64);
        let mut bytes = vec![0; usize::try_from(end - base - from).unwrap_or(0)];
        match file.read_exact_at(&mut bytes, from) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(vec![]),
            other => other.map(|()| bytes),
        }
    }

    /// The time goes beside it.
    fn note(&self, end: u64, file: &File, ground: &Ground) -> io::Result<()> {
        let mut moment = Moment::now(end, ground.boot);
        if self.is_new {
            // It may have been written long before this daemon came.
            let found = file.metadata()?;
            let ago = (moment.wall_ms - (found.mtime() * 1000 + found.mtime_nsec() / 1_000_000)).max(0);
            moment.wall_ms -= ago;
            moment.boot_ms = moment.boot_ms.saturating_sub(ago.unsigned_abs());
        }
        self.log.make_folder()?;
        time::append(&self.log.time(), moment)
    }

    /// Looks for errors in what is new.
    fn scan(&mut self, ground: &Ground, end: u64, news: &mut Vec<News>) -> io::Result<()> {
        if self.policy.logs.error_repeats == 0 {
            self.scanned = end;
            return Ok(());
        }
        let newest = end.saturating_sub(ground.scan_bytes);
        let mut from = self.scanned;
        let skips = from < newest;
        if skips {
            self.skip(newest - from);
            from = newest;
        }
        if self.is_free_of_errors(from, end)? {
            return Ok(());
        }
        // What an earlier daemon has seen happened then, not now.
        let index = self.is_new.then(|| TimeIndex::load(&self.log.time()));
        let now_ms = u64::try_from(clock::boottime_ms()).unwrap_or(0);
        let mut lines = Lines::new(Reader::new(self.log.clone(), from)?, from);
        // Its first line may be half a line.
        let mut is_half = skips || (self.is_new && from > 0);
        // What is written meanwhile is the next look's.
        while lines.at() < end {
            let line = match lines.read()? {
                Next::Line(line) => line,
                Next::Gap(_) => continue,
                Next::End => break,
            };
            if !std::mem::take(&mut is_half) && faults::may_be_error(lines.text()) {
                let at = index.as_ref().and_then(|i| i.at(line.from)).filter(|m| m.boot == ground.boot);
                let text = String::from_utf8_lossy(lines.text());
                let verdict = self.faults.take(&text, at.map_or(now_ms, |m| m.boot_ms), &self.policy.logs);
                if let Some(Verdict::Repeats(line)) = verdict {
                    news.push(News::Fault { unit: self.unit.clone(), run: self.run, line: Some(line) });
                }
            }
        }
        self.scanned = lines.at();
        Ok(())
    }

    /// Says it as it doubles: a fast writer is no news each time.
    fn skip(&mut self, bytes: u64) {
        let before = self.skipped;
        self.skipped += bytes;
        if before == 0 || before.ilog2() < self.skipped.ilog2() {
            let (unit, skipped) = (&self.unit, self.skipped);
            tracing::debug!("{unit} writes faster than errors are looked for: {skipped} bytes were not looked at");
        }
    }

    /// Looks at all of what is new at once: nothing in it can be an error, and no line is read.
    fn is_free_of_errors(&mut self, from: u64, end: u64) -> io::Result<bool> {
        let mut bytes = vec![0; usize::try_from(end - from).unwrap_or(0)];
        let (mut reader, mut filled) = (Reader::new(self.log.clone(), from)?, 0);
        while filled < bytes.len() {
            match reader.read(&mut bytes[filled..])? {
                Piece::Bytes(size) => filled += size,
                Piece::Gap(_) => return Ok(false),
                Piece::End => break,
            }
        }
        if faults::may_be_error(&bytes[..filled]) {
            return Ok(false);
        }
        if let Some(last) = memchr::memrchr(b'\n', &bytes[..filled]) {
            self.scanned = from + last as u64 + 1;
        }
        Ok(true)
    }

    /// True: there is more to do.
    fn put_away(&mut self, ground: &Ground, mut survey: Survey, news: &mut Vec<News>) -> io::Result<bool> {
        for _ in 0..ARCHIVES_A_LOOK {
            let facts = Facts {
                head: survey.head,
                end: survey.end(),
                aged: self.aged,
                has_holes: ground.has_holes,
                is_low: ground.is_low,
            };
            match rotate::decide(&facts, &self.policy.logs) {
                Deed::Nothing => return Ok(false),
                Deed::Discard(span) => self.discard(&survey, span, facts.is_low, news)?,
                Deed::Archive(span) => match rotate::archive(&self.log, &survey, span, &mut |_| Ok(())) {
                    Ok(Some(_)) => {}
                    // The run truncated it: the next look finds that.
                    Ok(None) => return Ok(true),
                    Err(e) if matches!(e.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                        self.discard(&survey, span, true, news)?;
                    }
                    Err(e) => return Err(e),
                },
            }
            survey = self.log.survey()?;
        }
        Ok(true)
    }

    fn discard(&self, survey: &Survey, span: Span, for_room: bool, news: &mut Vec<News>) -> io::Result<()> {
        let gone = rotate::discard(&self.log, survey, span)?;
        if for_room {
            news.push(News::Lost { unit: self.unit.clone(), run: self.run, bytes: gone.len() });
        }
        rotate::mend(&self.log, &self.log.survey()?)
    }
}

/// Whether a run has a file to be looked after.
pub fn has_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

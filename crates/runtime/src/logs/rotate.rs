//! Rotation: the old part of a live file goes into an archive, and a hole takes its place.
//!
//! ```text
//! write x.part -> fsync -> rename to its range -> fsync the folder -> punch exactly that range
//! ```
//!
//! Byte offsets stay as they were, so a crash after any step costs nothing: a half made archive is
//! thrown away, a finished one whose hole is missing gets its hole. The writer is never touched.
//! What is to be done is decided in [`decide`]; the rest does it.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
};

use rustix::fs::{FallocateFlags, fallocate};
use wharf_model::LogPolicy;

use super::{
    archive,
    files::{RunLog, Span, Survey, sync_dir},
};

/// The largest archive, in bytes before compression: what a reader must unpack to get at a line.
const LARGEST: u64 = 16 << 20;
/// The smallest: a block of most file systems.
const SMALLEST: u64 = 4 << 10;
/// What is too old goes once there is so much of it: a quiet service keeps its few lines.
const AGED: u64 = 64 << 10;
const BLOCK: usize = 64 << 10;

/// What there is to decide by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// The first byte that was not put away.
    pub head: u64,
    /// The byte after the last.
    pub end: u64,
    /// What lies before it is older than what is kept.
    pub aged: u64,
    /// The file system can make holes.
    pub has_holes: bool,
    /// The disk is nearly full.
    pub is_low: bool,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// All is as it should be.
    Nothing,
    /// Put this part away, or less of it: up to its last line's end.
    Archive(Span),
    /// Throw this part away, up to its last line's end.
    Discard(Span),
}

/// Decides. The live part is between `rotate_bytes` and that and one archive long.
pub fn decide(facts: &Facts, policy: &LogPolicy) -> Deed {
    let Facts { head, end, aged, has_holes, is_low } = *facts;
    if !has_holes {
        return Deed::Nothing;
    }
    if aged.min(end) >= head + AGED {
        return Deed::Discard(Span { from: head, to: aged.min(end) });
    }
    let size = policy.rotate_bytes.clamp(SMALLEST, LARGEST);
    let kept = policy.rotate_bytes.max(SMALLEST);
    if end.saturating_sub(head) < kept + size {
        return Deed::Nothing;
    }
    let span = Span { from: head, to: head + size };
    // An archive needs room before it gives any.
    if is_low { Deed::Discard(span) } else { Deed::Archive(span) }
}

/// The steps of a rotation, for tests that break it off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The archive is written.
    Written,
    /// And durable.
    Synced,
    /// And has its name.
    Named,
    /// And its name is durable.
    NameSynced,
    /// The hole is there.
    Punched,
}

/// Called after each step; an error breaks the rotation off there.
pub type Steps<'a> = &'a mut dyn FnMut(Step) -> io::Result<()>;

/// Puts the lines of a part away. Returns what was put away; nothing where the run has truncated
/// its file meanwhile.
pub fn archive(log: &RunLog, survey: &Survey, part: Span, steps: Steps<'_>) -> io::Result<Option<Span>> {
    let live = fs::OpenOptions::new().read(true).write(true).open(log.live())?;
    let base = survey.base;
    let span = Span { from: part.from, to: base + line_end(&live, part.from - base, part.to - base)? };
    log.make_folder()?;
    let made = log.archive(span);
    let half_made = made.with_extension("part");
    let file = match archive::write(&live, span.from - base, span.to - base, &half_made) {
        Ok(file) => file,
        Err(e) => {
            // On a full disk nothing may be left of it; and a file that got shorter is no failure.
            let _ = fs::remove_file(&half_made);
            return if e.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(e) };
        }
    };
    steps(Step::Written)?;
    file.sync_all()?;
    steps(Step::Synced)?;
    if live.metadata()?.len() < span.to - base {
        fs::remove_file(&half_made)?;
        return Ok(None);
    }
    fs::rename(&half_made, &made)?;
    steps(Step::Named)?;
    sync_dir(&log.folder())?;
    steps(Step::NameSynced)?;
    punch(&live, Span { from: span.from - base, to: span.to - base })?;
    steps(Step::Punched)?;
    Ok(Some(span))
}

/// Throws the lines of a part away. Returns what was thrown away.
pub fn discard(log: &RunLog, survey: &Survey, part: Span) -> io::Result<Span> {
    let live = fs::OpenOptions::new().read(true).write(true).open(log.live())?;
    let base = survey.base;
    let span = Span { from: part.from, to: base + line_end(&live, part.from - base, part.to - base)? };
    // Said first: a gap that readers are told of, never NULs that they take for lines.
    let said = log.mark(&log.gone(span.to));
    punch(&live, Span { from: span.from - base, to: span.to - base })?;
    said.map(|()| span)
}

/// Finishes what a crash has left: half made archives go, missing holes are made.
pub fn mend(log: &RunLog, survey: &Survey) -> io::Result<()> {
    for path in &survey.left_over {
        match fs::remove_file(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            Ok(()) | Err(_) => {}
        }
    }
    let hole = survey.hole();
    if hole.len() == 0 || survey.live_bytes.unwrap_or(0) < hole.to {
        return Ok(());
    }
    punch(&fs::OpenOptions::new().write(true).open(log.live())?, hole)
}

/// Whether holes can be made in the files of a folder. Tried on a file of our own.
pub fn has_holes(dir: &Path) -> bool {
    let path = dir.join("hole.part");
    let tried = (|| {
        fs::write(&path, [1; 16])?;
        punch(&fs::OpenOptions::new().write(true).open(&path)?, Span { from: 0, to: 8 })
    })();
    let _ = fs::remove_file(&path);
    // A disk without room for 16 bytes says nothing of its holes.
    !tried.is_err_and(|e: io::Error| matches!(e.kind(), io::ErrorKind::Unsupported | io::ErrorKind::InvalidInput))
}

fn punch(live: &File, hole: Span) -> io::Result<()> {
    if hole.len() == 0 {
        return Ok(());
    }
    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(live, how, hole.from, hole.len())?)
}

/// The byte after the last line's end within `[from, to)`; `to` where there is none.
fn line_end(live: &File, from: u64, to: u64) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut end = to;
    while end > from {
        let size = usize::try_from(end - from).unwrap_or(BLOCK).min(BLOCK);
        let start = end - size as u64;
        let read = live.read_at(&mut block[..size], start)?;
        if let Some(found) = memchr::memrchr(b'\n', &block[..read]) {
            return Ok(start + found as u64 + 1);
        }
        end = start;
    }
    Ok(to)
}

#[cfg(test)]
mod tests;

//! The files of one run's log, and what their names say. Everything that must survive is a name.
//!
//! ```text
//! logs/<unit>/<run>.log            what the run writes; what was put away from it is a hole
//! logs/<unit>/<run>/
//!     <a>-<b>.log.zst              the bytes [a, b), whole lines
//!     <x>.gone                     what lies before x and in no archive was thrown away
//!     <e>.cut                      the run truncated its own file: byte 0 of it is byte e of the log
//!     time                         when which byte was written
//!     *.part                       half made: of no meaning
//! ```
//!
//! Refuses to know why anything is put away or thrown away.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use wharf_model::RunId;

use super::gone;

/// A part of a log, `[from, to)`, in bytes from the run's first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Its first byte.
    pub from: u64,
    /// The byte after its last.
    pub to: u64,
}

impl Span {
    /// How many bytes.
    pub fn len(self) -> u64 {
        self.to.saturating_sub(self.from)
    }
}

/// Where the files of one run's log lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunLog {
    dir: PathBuf,
    run: RunId,
}

/// What is there of one run's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// What was put away, oldest first.
    pub archives: Vec<Span>,
    /// What lies before it is in an archive or gone; from here on it is in the live file.
    pub head: u64,
    /// Byte 0 of the live file is this byte of the log.
    pub base: u64,
    /// The length of the live file; `None`: there is none.
    pub live_bytes: Option<u64>,
    /// Half made files, and names that newer ones have overtaken.
    pub left_over: Vec<PathBuf>,
}

impl Survey {
    /// The byte after the last one.
    pub fn end(&self) -> u64 {
        self.head.max(self.base + self.live_bytes.unwrap_or(0))
    }

    /// The first byte that is still there.
    pub fn first(&self) -> u64 {
        self.archives.first().map_or(self.head, |a| a.from)
    }

    /// The part of the live file, counted in the file's own bytes, that was put away or thrown away.
    pub fn hole(&self) -> Span {
        Span { from: 0, to: self.head.saturating_sub(self.base) }
    }
}

impl RunLog {
    /// The log of a run; `dir` is the unit's.
    pub fn new(dir: &Path, run: RunId) -> Self {
        Self { dir: dir.to_owned(), run }
    }

    /// The run.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// What the run writes to.
    pub fn live(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.run))
    }

    /// Where the rest lies.
    pub fn folder(&self) -> PathBuf {
        self.dir.join(self.run.to_string())
    }

    /// The time index.
    pub fn time(&self) -> PathBuf {
        self.folder().join("time")
    }

    /// An archive.
    pub fn archive(&self, span: Span) -> PathBuf {
        self.folder().join(format!("{:015}-{:015}.log.zst", span.from, span.to))
    }

    /// Says that what lies before `offset` and in no archive was thrown away.
    pub fn gone(&self, offset: u64) -> PathBuf {
        self.folder().join(format!("{offset:015}.gone"))
    }

    /// Says that byte 0 of the live file is byte `offset` of the log.
    pub fn cut(&self, offset: u64) -> PathBuf {
        self.folder().join(format!("{offset:015}.cut"))
    }

    /// Looks at the names and at the live file's length.
    pub fn survey(&self) -> io::Result<Survey> {
        // The length first: a head that is found later is never beyond it by our own doing.
        let live_bytes = match fs::metadata(self.live()) {
            Ok(found) => Some(found.size()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        let mut names = Names::default();
        match fs::read_dir(self.folder()) {
            Ok(entries) => entries.flatten().for_each(|entry| names.take(&entry.path())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        Ok(names.survey(live_bytes))
    }

    /// Makes the folder, durably.
    pub fn make_folder(&self) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(self.folder()) {
            Ok(()) => sync_dir(&self.dir),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Writes an empty file whose name is what is to be known, durably.
    pub fn mark(&self, name: &Path) -> io::Result<()> {
        self.make_folder()?;
        fs::OpenOptions::new().write(true).create(true).truncate(false).open(name)?;
        sync_dir(&self.folder())
    }

    /// Removes all of it.
    pub fn remove(&self) -> io::Result<()> {
        // The live file last: while it is there, the run is found and its folder with it.
        for gone in [fs::remove_dir_all(self.folder()), fs::remove_file(self.live())] {
            match gone {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }
}

/// Makes the names in a folder durable.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The runs of a unit that have a log, oldest first.
pub fn runs(dir: &Path) -> Vec<RunId> {
    let Ok(entries) = fs::read_dir(dir) else { return vec![] };
    let run = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_suffix(".log")?.parse().ok().map(RunId);
    let mut runs: Vec<_> = entries.flatten().filter_map(run).collect();
    runs.sort();
    runs
}

/// The highest run that ever had a log here, as far as is known: its number is not given again.
pub fn highest_run(dir: &Path) -> Option<RunId> {
    runs(dir).last().copied().max(gone::highest(dir))
}

#[derive(Default)]
struct Names {
    archives: Vec<Span>,
    gone: Vec<(u64, PathBuf)>,
    cuts: Vec<(u64, PathBuf)>,
    left_over: Vec<PathBuf>,
}

impl Names {
    fn take(&mut self, path: &Path) {
        let Some(name) = path.file_name().and_then(|n| n.to_str()) else { return };
        if let Some(span) = name.strip_suffix(".log.zst").and_then(span) {
            self.archives.push(span);
        } else if let Some(offset) = name.strip_suffix(".gone").and_then(|n| n.parse().ok()) {
            self.gone.push((offset, path.to_owned()));
        } else if let Some(offset) = name.strip_suffix(".cut").and_then(|n| n.parse().ok()) {
            self.cuts.push((offset, path.to_owned()));
        } else if name.ends_with(".part") {
            self.left_over.push(path.to_owned());
        }
    }

    fn survey(mut self, live_bytes: Option<u64>) -> Survey {
        self.archives.sort();
        let last = |list: &[(u64, PathBuf)]| list.iter().map(|(offset, _)| *offset).max().unwrap_or(0);
        let (gone, base) = (last(&self.gone), last(&self.cuts));
        let head = self.archives.iter().map(|a| a.to).max().unwrap_or(0).max(gone).max(base);
        let overtaken = |list: Vec<(u64, PathBuf)>, by: u64| list.into_iter().filter(move |(o, _)| *o < by);
        self.left_over.extend(overtaken(self.gone, gone).chain(overtaken(self.cuts, base)).map(|(_, path)| path));
        Survey { archives: self.archives, head, base, live_bytes, left_over: self.left_over }
    }
}

fn span(name: &str) -> Option<Span> {
    let (from, to) = name.split_once('-')?;
    let span = Span { from: from.parse().ok()?, to: to.parse().ok()? };
    (span.from < span.to).then_some(span)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let log = RunLog::new(dir.path(), RunId(7));
        assert_eq!(log.survey().unwrap(), Survey::default());
        fs::write(log.live(), [0; 500]).unwrap();
        for name in [log.gone(10), log.gone(30), log.folder().join("x.part"), log.folder().join("notes")] {
            log.mark(&name).unwrap();
        }
        for span in [Span { from: 100, to: 200 }, Span { from: 30, to: 100 }] {
            log.mark(&log.archive(span)).unwrap();
        }
        let survey = log.survey().unwrap();
        assert_eq!(survey.archives, [Span { from: 30, to: 100 }, Span { from: 100, to: 200 }]);
        assert_eq!((survey.first(), survey.head, survey.base, survey.end()), (30, 200, 0, 500));
        assert_eq!(survey.left_over.len(), 2, "{survey:?}");
        log.mark(&log.cut(500)).unwrap();
        fs::write(log.live(), [0; 20]).unwrap();
        let survey = log.survey().unwrap();
        assert_eq!((survey.head, survey.base, survey.end(), survey.hole().len()), (500, 500, 520, 0));
        assert_eq!(runs(dir.path()), [RunId(7)]);
        log.remove().unwrap();
        log.remove().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

//! The time index of a run's log: how long the log was when. Bytes themselves carry no time.
//!
//! Records of one size, each with a checksum: a torn or spoiled one is left out, the others stand.
//! Who looks, and how often, is no concern of this file.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use wharf_shim::crc32;
use wharf_sys::clock;

const RECORD: usize = 32;
/// An index that has grown to so many records is thinned: two mebibytes.
const MOST_RECORDS: usize = 65_536;

/// The log was so long at this time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The bytes that had been written.
    pub offset: u64,
    /// Milliseconds since 1970.
    pub wall_ms: i64,
    /// Milliseconds since the machine was started.
    pub boot_ms: u64,
    /// Which start of the machine that was.
    pub boot: u32,
}

/// Which start of the machine this is, as a number that hardly ever comes twice.
pub fn this_boot() -> u32 {
    crc32(clock::boot_id().unwrap_or_default().as_bytes())
}

impl Moment {
    /// Now, for a log of this length.
    pub fn now(offset: u64, boot: u32) -> Self {
        let boot_ms = u64::try_from(clock::boottime_ms()).unwrap_or(0);
        Self { offset, wall_ms: clock::wall_ms(), boot_ms, boot }
    }

    fn encode(self) -> [u8; RECORD] {
        let mut record = [0; RECORD];
        record[..8].copy_from_slice(&self.offset.to_le_bytes());
        record[8..16].copy_from_slice(&self.wall_ms.to_le_bytes());
        record[16..24].copy_from_slice(&self.boot_ms.to_le_bytes());
        record[24..28].copy_from_slice(&self.boot.to_le_bytes());
        let sum = crc32(&record[..28]);
        record[28..].copy_from_slice(&sum.to_le_bytes());
        record
    }

    fn decode(record: &[u8; RECORD]) -> Option<Self> {
        let word = |at: usize| <[u8; 8]>::try_from(&record[at..at + 8]).unwrap_or_default();
        let half = |at: usize| u32::from_le_bytes(<[u8; 4]>::try_from(&record[at..at + 4]).unwrap_or_default());
        let (offset, wall_ms) = (u64::from_le_bytes(word(0)), i64::from_le_bytes(word(8)));
        let moment = Self { offset, wall_ms, boot_ms: u64::from_le_bytes(word(16)), boot: half(24) };
        (half(28) == crc32(&record[..28])).then_some(moment)
    }
}

/// A time that lines are held against. Within one start of the machine it is compared by the boot
/// clock, which nobody steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    wall_ms: i64,
    boot: Option<(u32, i64)>,
}

impl Bound {
    /// Milliseconds since 1970.
    pub fn wall(wall_ms: i64) -> Self {
        Self { wall_ms, boot: None }
    }

    /// So many milliseconds ago.
    pub fn ago(ms: i64) -> Self {
        Self { wall_ms: clock::wall_ms() - ms, boot: Some((this_boot(), clock::boottime_ms() - ms)) }
    }

    /// Whether that, in milliseconds since 1970, was before this time.
    pub fn is_after_wall(&self, wall_ms: i64) -> bool {
        wall_ms < self.wall_ms
    }

    /// Whether that was before this time.
    pub fn is_after(&self, moment: &Moment) -> bool {
        match self.boot {
            Some((boot, boot_ms)) if boot == moment.boot => {
                i64::try_from(moment.boot_ms).is_ok_and(|then| then < boot_ms)
            }
            Some(_) | None => moment.wall_ms < self.wall_ms,
        }
    }
}

/// The index of a run, as it was read.
#[derive(Debug, Clone, Default)]
pub struct TimeIndex {
    moments: Vec<Moment>,
}

impl TimeIndex {
    /// Reads it. What is not there or spoiled is left out.
    pub fn load(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_default();
        let mut moments: Vec<Moment> = vec![];
        for moment in bytes.as_chunks().0.iter().filter_map(Moment::decode) {
            if moments.last().is_none_or(|last| last.offset < moment.offset) {
                moments.push(moment);
            }
        }
        Self { moments }
    }

    /// When the byte at `offset` was there at the latest; `None`: nobody has looked since.
    pub fn at(&self, offset: u64) -> Option<&Moment> {
        self.moments.get(self.moments.partition_point(|m| m.offset <= offset))
    }

    /// What lies before this offset was written before that time.
    pub fn first_since(&self, time: &Bound) -> u64 {
        self.moments.iter().rev().find(|m| time.is_after(m)).map_or(0, |m| m.offset)
    }

    /// What lies from this offset on was written after that time; `None`: nothing was.
    pub fn end_before(&self, time: &Bound) -> Option<u64> {
        let first_after = self.moments.iter().position(|m| !time.is_after(m))?;
        Some(first_after.checked_sub(1).map_or(0, |n| self.moments[n].offset))
    }

    /// The last entry.
    pub fn last(&self) -> Option<&Moment> {
        self.moments.last()
    }
}

/// Adds an entry. Not durable at once: a power cut costs times, never lines.
pub fn append(path: &Path, moment: Moment) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let length = file.metadata()?.len();
    // What a crash has torn would put every later record out of its place.
    let torn = length % RECORD as u64;
    if torn != 0 {
        file.set_len(length - torn)?;
    }
    file.write_all(&moment.encode())?;
    if length / RECORD as u64 >= MOST_RECORDS as u64 { thin(path) } else { Ok(()) }
}

/// Leaves out every second entry of the older half: the older, the coarser.
fn thin(path: &Path) -> io::Result<()> {
    let all = TimeIndex::load(path).moments;
    let half = all.len() / 2;
    let kept = all.iter().enumerate().filter(|(n, _)| *n >= half || n % 2 == 1).map(|(_, m)| m.encode());
    let bytes: Vec<u8> = kept.flatten().collect();
    let part = path.with_extension("part");
    let mut file = File::create(&part)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(offset: u64, boot_ms: u64) -> Moment {
        Moment { offset, wall_ms: 1_000_000 + boot_ms.cast_signed(), boot_ms, boot: 9 }
    }

    #[test]
    fn a_line_has_the_time_at_which_it_was_first_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("time");
        for n in 1..=100 {
            append(&path, moment(n * 10, n * 1000)).unwrap();
        }
        let index = TimeIndex::load(&path);
        assert_eq!(index.at(0), Some(&moment(10, 1000)));
        assert_eq!(index.at(9), Some(&moment(10, 1000)));
        assert_eq!(index.at(10), Some(&moment(20, 2000)));
        assert_eq!(index.at(1000), None);
        let time = Bound::wall(1_000_000 + 50_000);
        assert_eq!(index.first_since(&time), 490);
        assert_eq!(index.end_before(&time), Some(490));
        assert_eq!(index.end_before(&Bound::wall(9_000_000)), None);
        // The wall clock was stepped by a year; within one boot that changes nothing.
        let stepped = Bound { wall_ms: 0, boot: Some((9, 50_000)) };
        assert_eq!(index.first_since(&stepped), 490);
        assert_eq!(TimeIndex::load(&dir.path().join("none")).first_since(&time), 0);
    }

    #[test]
    fn a_torn_end_and_a_spoiled_record_cost_only_themselves() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("time");
        (1..=3).for_each(|n| append(&path, moment(n * 10, n)).unwrap());
        let mut bytes = fs::read(&path).unwrap();
        bytes.extend_from_slice(&[7; 13]);
        bytes[RECORD + 3] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(TimeIndex::load(&path).moments, [moment(10, 1), moment(30, 3)]);
        append(&path, moment(40, 4)).unwrap();
        assert_eq!(TimeIndex::load(&path).last(), Some(&moment(40, 4)));
    }

    #[test]
    fn an_index_does_not_grow_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("time");
        let bytes: Vec<u8> = (1..=MOST_RECORDS as u64).flat_map(|n| moment(n, n).encode()).collect();
        fs::write(&path, bytes).unwrap();
        append(&path, moment(1_000_000, 1_000_000)).unwrap();
        let index = TimeIndex::load(&path);
        assert!(index.moments.len() < MOST_RECORDS * 4 / 5, "{}", index.moments.len());
        assert_eq!(index.last().map(|m| m.offset), Some(1_000_000));
        assert_eq!(index.at(10).map(|m| m.offset), Some(12));
    }
}

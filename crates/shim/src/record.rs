//! What the shim leaves in files: who began, and how it ended.

use std::path::{Path, PathBuf};

use crate::{
    codec::{BadBytes, Reader, Writer},
    spec::path,
};

const VERSION: u8 = 1;

/// Who the processes of a run are. Written before the program begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartRecord {
    /// The boot that the numbers below belong to.
    pub boot_id: String,
    /// The shim's pid.
    pub shim_pid: i32,
    /// The shim's identity, see `wharf_sys::pidfd::identity`.
    pub shim_id: u64,
    /// The main process's pid.
    pub pid: i32,
    /// The main process's identity.
    pub pid_id: u64,
    /// When it began, in milliseconds since 1970.
    pub wall_ms: i64,
    /// When it began, in milliseconds since boot.
    pub boottime_ms: i64,
    /// The cgroup's folder, where there is one.
    pub cgroup: Option<PathBuf>,
    /// Groups of the old kind that hold its limits: their folders.
    pub limit_groups: Vec<PathBuf>,
    /// The shim's descriptor of the socket that the run sends its notices to.
    pub notify_fd: Option<i32>,
}

impl StartRecord {
    /// As the file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.bytes(self.boot_id.as_bytes());
        w.int32(self.shim_pid);
        w.uint64(self.shim_id);
        w.int32(self.pid);
        w.uint64(self.pid_id);
        w.int64(self.wall_ms);
        w.int64(self.boottime_ms);
        w.option(self.cgroup.as_ref(), |w, dir| w.path(dir));
        w.list(&self.limit_groups, |w, dir| w.path(dir));
        w.option(self.notify_fd.as_ref(), |w, fd| w.int32(*fd));
        w.framed(VERSION)
    }

    /// From the file's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut r = Reader::open(bytes, VERSION)?;
        Ok(Self {
            boot_id: String::from_utf8(r.bytes()?.to_vec()).map_err(|_| BadBytes)?,
            shim_pid: r.int32()?,
            shim_id: r.uint64()?,
            pid: r.int32()?,
            pid_id: r.uint64()?,
            wall_ms: r.int64()?,
            boottime_ms: r.int64()?,
            cgroup: r.option(|r| path(r).map(Path::to_path_buf))?,
            // Added later: an older shim's record ends here, and an older daemon reads no further.
            limit_groups: if r.is_at_end() { vec![] } else { r.list(|r| path(r).map(Path::to_path_buf))? },
            notify_fd: if r.is_at_end() { None } else { r.option(Reader::int32)? },
        })
    }
}

/// What was tried when a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    /// Turning into the program.
    Exec = 1,
    /// Entering its folder.
    Chdir = 2,
    /// Becoming its user.
    Setuid = 3,
    /// Opening its log.
    Log = 4,
    /// Joining its cgroup.
    Cgroup = 5,
    /// Making its process.
    Fork = 6,
}

impl Stage {
    const ALL: [Self; 6] = [Self::Exec, Self::Chdir, Self::Setuid, Self::Log, Self::Cgroup, Self::Fork];

    /// The word that exits and messages use.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Exec => "exec",
            Self::Chdir => "chdir",
            Self::Setuid => "setuid",
            Self::Log => "log",
            Self::Cgroup => "cgroup",
            Self::Fork => "fork",
        }
    }

    /// From its byte.
    pub fn from_byte(byte: u8) -> Result<Self, BadBytes> {
        Self::ALL.into_iter().find(|s| *s as u8 == byte).ok_or(BadBytes)
    }
}

/// How the main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It returned this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
    /// It never began.
    StartFailed(Stage, i32),
}

impl Outcome {
    pub(crate) fn write(self, w: &mut Writer) {
        let (kind, stage, value) = match self {
            Self::Exited(code) => (1, 0, code),
            Self::Signaled(signal) => (2, 0, signal),
            Self::StartFailed(stage, errno) => (3, stage as u8, errno),
        };
        w.byte(kind);
        w.byte(stage);
        w.int32(value);
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, BadBytes> {
        let (kind, stage, value) = (r.byte()?, r.byte()?, r.int32()?);
        Ok(match kind {
            1 => Self::Exited(value),
            2 => Self::Signaled(value),
            3 => Self::StartFailed(Stage::from_byte(stage)?, value),
            _ => return Err(BadBytes),
        })
    }
}

/// How a run ended, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitRecord {
    /// How.
    pub outcome: Outcome,
    /// When, in milliseconds since 1970.
    pub wall_ms: i64,
    /// When, in milliseconds since boot.
    pub boottime_ms: i64,
}

impl ExitRecord {
    /// The file's size, always: its place on the disk is taken before it is needed.
    pub const LEN: usize = 31;

    /// As the file's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        self.outcome.write(&mut w);
        w.int64(self.wall_ms);
        w.int64(self.boottime_ms);
        w.framed(VERSION)
    }

    /// From the file's bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut r = Reader::open(bytes, VERSION)?;
        Ok(Self { outcome: Outcome::read(&mut r)?, wall_ms: r.int64()?, boottime_ms: r.int64()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_the_file() {
        let start = StartRecord {
            boot_id: "b".repeat(36),
            shim_pid: 3,
            shim_id: 4,
            pid: 5,
            pid_id: u64::MAX,
            wall_ms: -1,
            boottime_ms: i64::MAX,
            cgroup: Some("/sys/fs/cgroup/a".into()),
            limit_groups: vec!["/sys/fs/cgroup/memory/a".into()],
            notify_fd: Some(9),
        };
        assert_eq!(StartRecord::decode(&start.encode()), Ok(start));
        // As the first version wrote it.
        let mut old = Writer::default();
        old.bytes(b"boot");
        old.int32(3);
        old.uint64(4);
        old.int32(5);
        old.uint64(6);
        old.int64(7);
        old.int64(8);
        old.byte(0);
        let old = StartRecord::decode(&old.framed(1)).unwrap();
        assert_eq!((old.pid, old.limit_groups, old.notify_fd), (5, vec![], None));
        assert_eq!(StartRecord::decode(b""), Err(BadBytes));
        let stages = Stage::ALL.map(|s| Outcome::StartFailed(s, 13));
        for outcome in [Outcome::Exited(255), Outcome::Signaled(9)].into_iter().chain(stages) {
            let exit = ExitRecord { outcome, wall_ms: 1, boottime_ms: 2 };
            let bytes = exit.encode();
            assert_eq!((ExitRecord::decode(&bytes), bytes.len()), (Ok(exit), ExitRecord::LEN));
        }
        assert_eq!(ExitRecord::decode(&[0; ExitRecord::LEN]), Err(BadBytes));
    }
}

//! What the daemon wants run.

use std::{
    ffi::{CString, OsStr},
    os::unix::ffi::OsStrExt,
    path::PathBuf,
};

use crate::codec::{BadBytes, Reader, Writer};

const VERSION: u8 = 1;

/// The user that the service runs as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunAs {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// All further groups.
    pub groups: Vec<u32>,
}

/// All that a shim is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The run's folder. It is there, and is ours.
    pub run_dir: PathBuf,
    /// The program and its arguments.
    pub argv: Vec<CString>,
    /// The whole environment, each `NAME=value`.
    pub env: Vec<CString>,
    /// The folder that it starts in.
    pub cwd: CString,
    /// The file that its output is added to.
    pub log: PathBuf,
    /// The user to become, if another.
    pub run_as: Option<RunAs>,
    /// The bits that new files do not get.
    pub umask: u32,
    /// The cgroup's folder, where there is one.
    pub cgroup: Option<PathBuf>,
    /// The soft limit of open files.
    pub open_files: u64,
}

impl Spec {
    /// As bytes on the pipe.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.bytes(self.run_dir.as_os_str().as_bytes());
        w.list(&self.argv, |w, s| w.bytes(s.as_bytes()));
        w.list(&self.env, |w, s| w.bytes(s.as_bytes()));
        w.bytes(self.cwd.as_bytes());
        w.bytes(self.log.as_os_str().as_bytes());
        w.option(self.run_as.as_ref(), |w, user| {
            w.uint32(user.uid);
            w.uint32(user.gid);
            w.list(&user.groups, |w, group| w.uint32(*group));
        });
        w.uint32(self.umask);
        w.option(self.cgroup.as_ref(), |w, dir| w.bytes(dir.as_os_str().as_bytes()));
        w.uint64(self.open_files);
        w.framed(VERSION)
    }

    /// From all the bytes of the pipe. A spec cut short is no spec.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadBytes> {
        let mut r = Reader::open(bytes, VERSION)?;
        Ok(Self {
            run_dir: path(&mut r)?,
            argv: r.list(text)?,
            env: r.list(text)?,
            cwd: text(&mut r)?,
            log: path(&mut r)?,
            run_as: r.option(|r| Ok(RunAs { uid: r.uint32()?, gid: r.uint32()?, groups: r.list(Reader::uint32)? }))?,
            umask: r.uint32()?,
            cgroup: r.option(path)?,
            open_files: r.uint64()?,
        })
    }
}

pub(crate) fn path(r: &mut Reader<'_>) -> Result<PathBuf, BadBytes> {
    r.bytes().map(|bytes| PathBuf::from(OsStr::from_bytes(bytes)))
}

fn text(r: &mut Reader<'_>) -> Result<CString, BadBytes> {
    CString::new(r.bytes()?).map_err(|_| BadBytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_survives_the_pipe_and_no_part_of_it_does() {
        let spec = Spec {
            run_dir: "/run/redis/7".into(),
            argv: vec![c"redis-server".into(), c"".into(), c"--port=1".into()],
            env: vec![c"PATH=/bin".into()],
            cwd: c"/".into(),
            log: "/var/log/x".into(),
            run_as: Some(RunAs { uid: 1, gid: 2, groups: vec![3, 4] }),
            umask: 0o22,
            cgroup: Some("/sys/fs/cgroup/x".into()),
            open_files: 1024,
        };
        let bytes = spec.encode();
        assert_eq!(Spec::decode(&bytes), Ok(spec.clone()));
        for end in 0..bytes.len() {
            assert_eq!(Spec::decode(&bytes[..end]), Err(BadBytes));
        }
        let plain = Spec { run_as: None, cgroup: None, ..spec };
        assert_eq!(Spec::decode(&plain.encode()), Ok(plain));
    }
}

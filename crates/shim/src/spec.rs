//! What the daemon wants run.

use std::{
    ffi::{CStr, CString, OsStr},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::codec::{BadBytes, Reader, Writer};

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
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spec {
    /// The words that `ps` shows of the shim: the unit and the run.
    pub title: Vec<CString>,
    /// The run's folder. It is there, and is ours.
    pub run_dir: CString,
    /// The program and its arguments.
    pub argv: Vec<CString>,
    /// The whole environment, each `NAME=value`.
    pub env: Vec<CString>,
    /// The folder that it starts in.
    pub cwd: CString,
    /// The file that its output is added to.
    pub log: PathBuf,
    /// Its output goes through a pipe that another process empties into the log.
    pub pipe: bool,
    /// The user to become, if another.
    pub run_as: Option<RunAs>,
    /// The bits that new files do not get, if not 022.
    pub umask: Option<u32>,
    /// The cgroup's folder, where there is one.
    pub cgroup: Option<PathBuf>,
    /// Groups of the old kind that the service joins: their folders.
    pub limit_groups: Vec<PathBuf>,
    /// The soft limit of open files, if not 1,024.
    pub open_files: Option<u64>,
    /// The soft limit of a core dump's bytes, if not 0.
    pub core_bytes: Option<u64>,
    /// How much memory each process may have for its data, in bytes.
    pub data_bytes: Option<u64>,
    /// Niceness.
    pub nice: Option<i32>,
    /// Whom the out-of-memory killer takes first; usually 0.
    pub oom_score_adj: i32,
    /// The first descriptor of the message is a socket that the shim keeps open.
    pub has_notify: bool,
    /// The names of the message's other descriptors, which the service gets from 3 on.
    pub listen_names: Vec<CString>,
}

impl Spec {
    /// As the payload of a [`Request`].
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.list(&self.title, |w, s| w.text(s));
        w.text(&self.run_dir);
        w.list(&self.argv, |w, s| w.text(s));
        w.list(&self.env, |w, s| w.text(s));
        w.text(&self.cwd);
        w.path(&self.log);
        w.byte(self.pipe.into());
        w.option(self.run_as.as_ref(), |w, user| {
            w.uint32(user.uid);
            w.uint32(user.gid);
            w.list(&user.groups, |w, group| w.uint32(*group));
        });
        w.option(self.umask.as_ref(), |w, mask| w.uint32(*mask));
        w.option(self.cgroup.as_ref(), |w, dir| w.path(dir));
        w.list(&self.limit_groups, |w, dir| w.path(dir));
        for limit in [self.open_files, self.core_bytes, self.data_bytes] {
            w.option(limit.as_ref(), |w, n| w.uint64(*n));
        }
        w.option(self.nice.as_ref(), |w, n| w.int32(*n));
        w.int32(self.oom_score_adj);
        w.byte(self.has_notify.into());
        w.list(&self.listen_names, |w, s| w.text(s));
        w.plain()
    }
}

/// A [`Spec`] where it arrived: a shim has no memory to copy it into.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "each field is the one of Spec")]
pub struct SpecView<'a> {
    pub title: Vec<&'a CStr>,
    pub run_dir: &'a CStr,
    pub argv: Vec<&'a CStr>,
    pub env: Vec<&'a CStr>,
    pub cwd: &'a CStr,
    pub log: &'a Path,
    pub pipe: bool,
    pub run_as: Option<RunAs>,
    pub umask: Option<u32>,
    pub cgroup: Option<&'a Path>,
    pub limit_groups: Vec<&'a Path>,
    pub open_files: Option<u64>,
    pub core_bytes: Option<u64>,
    pub data_bytes: Option<u64>,
    pub nice: Option<i32>,
    pub oom_score_adj: i32,
    pub has_notify: bool,
    pub listen_names: Vec<&'a CStr>,
}

impl<'a> SpecView<'a> {
    /// From all the bytes of the payload. A spec cut short is no spec.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, BadBytes> {
        let mut r = Reader::plain(bytes);
        let spec = Self {
            title: r.list(Reader::text)?,
            run_dir: r.text()?,
            argv: r.list(Reader::text)?,
            env: r.list(Reader::text)?,
            cwd: r.text()?,
            log: path(&mut r)?,
            pipe: r.byte()? != 0,
            run_as: r.option(|r| Ok(RunAs { uid: r.uint32()?, gid: r.uint32()?, groups: r.list(Reader::uint32)? }))?,
            umask: r.option(Reader::uint32)?,
            cgroup: r.option(path)?,
            limit_groups: r.list(path)?,
            open_files: r.option(Reader::uint64)?,
            core_bytes: r.option(Reader::uint64)?,
            data_bytes: r.option(Reader::uint64)?,
            nice: r.option(Reader::int32)?,
            oom_score_adj: r.int32()?,
            has_notify: r.byte()? != 0,
            listen_names: r.list(Reader::text)?,
        };
        if r.is_at_end() { Ok(spec) } else { Err(BadBytes) }
    }
}

/// One message to the launcher: a number, and a spec that is in the message or in its first descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Its number, which the reports carry.
    pub token: u64,
    /// The spec's bytes; none: they are in a file, the first descriptor of the message.
    pub spec: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// The longest message. A longer spec goes into a file.
    pub const ROOM: usize = 64 * 1024;
    const HEAD: usize = 9;

    /// Whether a spec of this length can be in the message.
    pub const fn holds(length: usize) -> bool {
        length <= Self::ROOM - Self::HEAD
    }

    /// As one message.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.token.to_le_bytes().to_vec();
        bytes.push(self.spec.is_some().into());
        bytes.extend_from_slice(self.spec.unwrap_or_default());
        bytes
    }

    /// From one message.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, BadBytes> {
        let mut r = Reader::plain(bytes);
        let (token, is_inside) = (r.uint64()?, r.byte()? != 0);
        Ok(Self { token, spec: is_inside.then(|| r.rest()) })
    }
}

pub(crate) fn path<'a>(r: &mut Reader<'a>) -> Result<&'a Path, BadBytes> {
    r.bytes().map(|bytes| Path::new(OsStr::from_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec {
            title: vec![c"redis".into(), c"7".into()],
            run_dir: c"/run/redis/7".into(),
            argv: vec![c"redis-server".into(), c"".into(), c"--port=1".into()],
            env: vec![c"PATH=/bin".into()],
            cwd: c"/".into(),
            log: "/var/log/x".into(),
            pipe: true,
            run_as: Some(RunAs { uid: 1, gid: 2, groups: vec![3, 4] }),
            umask: Some(0o22),
            cgroup: Some("/sys/fs/cgroup/x".into()),
            limit_groups: vec!["/sys/fs/cgroup/memory/x".into()],
            open_files: Some(1024),
            core_bytes: Some(1),
            data_bytes: Some(2),
            nice: Some(-3),
            oom_score_adj: -4,
            has_notify: true,
            listen_names: vec![c"main".into()],
        }
    }

    #[test]
    fn a_spec_survives_the_socket_and_no_part_of_it_does() {
        let spec = spec();
        let bytes = spec.encode();
        let view = SpecView::decode(&bytes).unwrap();
        assert_eq!((view.argv, view.run_dir), (vec![c"redis-server", c"", c"--port=1"], c"/run/redis/7"));
        assert_eq!((view.run_as, view.nice, view.oom_score_adj), (spec.run_as.clone(), Some(-3), -4));
        assert_eq!((view.limit_groups.len(), view.listen_names), (1, vec![c"main"]));
        for end in 0..bytes.len() {
            assert_eq!(SpecView::decode(&bytes[..end]), Err(BadBytes));
        }
        let plain = Spec { run_as: None, cgroup: None, umask: None, ..spec }.encode();
        assert_eq!(SpecView::decode(&plain).unwrap().cgroup, None);
    }

    #[test]
    fn a_request_holds_its_spec_or_says_that_it_does_not() {
        let inside = Request { token: 9, spec: Some(b"abc") };
        assert_eq!(Request::decode(&inside.encode()), Ok(inside));
        let outside = Request { token: 9, spec: None };
        assert_eq!(Request::decode(&outside.encode()), Ok(outside));
        assert_eq!(Request::decode(b"123"), Err(BadBytes));
        assert!(Request::holds(1000) && !Request::holds(Request::ROOM));
    }
}

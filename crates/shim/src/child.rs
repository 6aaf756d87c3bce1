//! The child's steps between its birth and exec, in memory that it borrows from the shim.

use std::{
    ffi::{CStr, CString},
    fs::OpenOptions,
    io::{self, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use wharf_shim::{Began, SpecView, Stage, StartRecord};
use wharf_sys::{
    files, pidfd,
    process::{self, Strings},
};

use crate::{
    folder::Folder,
    launcher::{Settled, began},
};

/// The first descriptor that a service is passed, by systemd's convention.
const FIRST_PASSED: i32 = 3;

/// Why no program runs.
#[derive(Debug, Clone, Copy)]
pub enum Failure {
    /// A step failed, with the kernel's error number. It is the run's outcome.
    At(Stage, i32),
    /// The start record cannot be written, or the name is taken.
    Refused(u8),
}

/// All that the child needs, made before its birth, and what it has come to.
pub struct Steps<'a> {
    settled: &'a Settled,
    spec: &'a SpecView<'a>,
    folder: &'a Folder,
    output: &'a OwnedFd,
    listen: &'a [OwnedFd],
    shim: (i32, u64),
    notify_fd: Option<i32>,
    argv: Strings<'a>,
    env: Strings<'a>,
    /// The kernel could not give birth in the cgroup.
    pub joins_by_itself: bool,
    /// Set where a step failed.
    pub failure: Option<Failure>,
    /// Set once the start record is there.
    pub began: Option<Began>,
}

impl<'a> Steps<'a> {
    pub fn new(
        settled: &'a Settled,
        spec: &'a SpecView<'a>,
        folder: &'a Folder,
        output: &'a OwnedFd,
        listen: &'a [OwnedFd],
        shim: (i32, u64),
        notify_fd: Option<i32>,
    ) -> Self {
        let (argv, env) = (Strings::of(spec.argv.iter().copied()), Strings::of(spec.env.iter().copied()));
        let (joins_by_itself, failure, began) = (false, None, None);
        Self { settled, spec, folder, output, listen, shim, notify_fd, argv, env, joins_by_itself, failure, began }
    }

    /// Ends in the program, or in an exit code with `failure` set.
    pub fn take(&mut self) -> i32 {
        let failure = match self.before_exec() {
            Ok(()) => at(Stage::Exec)(self.exec()),
            Err(failure) => failure,
        };
        self.failure = Some(failure);
        127
    }

    fn before_exec(&mut self) -> Result<(), Failure> {
        let own = self.joins_by_itself.then_some(self.spec.cgroup).flatten();
        for dir in self.spec.limit_groups.iter().copied().chain(own) {
            // 0 means: the process that writes.
            write(&dir.join("cgroup.procs"), b"0").map_err(at(Stage::Cgroup))?;
        }
        process::new_session().map_err(at(Stage::Fork))?;
        self.streams().map_err(at(Stage::Fork))?;
        self.limits().map_err(at(Stage::Fork))?;
        process::admit_signals();
        self.record()?;
        if let Some(user) = &self.spec.run_as {
            process::become_user(user.uid, user.gid, &user.groups).map_err(at(Stage::Setuid))?;
        }
        files::enter(self.spec.cwd).map_err(at(Stage::Chdir))
    }

    fn streams(&self) -> io::Result<()> {
        // First the mark on everything, then what the service gets. Standard input is /dev/null already.
        // A kernel before 5.11 cannot mark: all that we opened is marked already.
        let _ = files::close_all_on_exec();
        files::become_standard(self.output.as_fd(), 1)?;
        files::become_standard(self.output.as_fd(), 2)?;
        if self.listen.is_empty() {
            return files::keep_across_exec(self.folder.lock_fd());
        }
        // Out of the way first: any of them may have a number that another is to get.
        let count = i32::try_from(self.listen.len()).unwrap_or(i32::MAX);
        let above = |fd| files::above(fd, FIRST_PASSED + count);
        let lock = above(self.folder.lock_fd())?;
        let passed = self.listen.iter().map(|fd| above(fd.as_fd())).collect::<io::Result<Vec<_>>>()?;
        for (fd, number) in passed.iter().zip(FIRST_PASSED..) {
            files::become_numbered(fd.as_fd(), number)?;
        }
        files::keep_across_exec(&lock)?;
        // Not closed: it is the service's. The child's memory is the shim's, and this number is not.
        let _ = std::os::fd::IntoRawFd::into_raw_fd(lock);
        Ok(())
    }

    /// What differs from what the launcher has made of itself.
    fn limits(&self) -> io::Result<()> {
        let spec = self.spec;
        if let Some(mask) = spec.umask {
            process::set_umask(mask);
        }
        spec.open_files.map_or(Ok(()), process::limit_open_files)?;
        spec.core_bytes.map_or(Ok(()), process::limit_core)?;
        spec.data_bytes.map_or(Ok(()), process::limit_data)?;
        spec.nice.map_or(Ok(()), process::set_nice)?;
        if spec.oom_score_adj != self.settled.oom_score_adj {
            // The daemon may be protected from the out-of-memory killer; a service is not. A kernel
            // without the file has no such killer, and more protection than ours is not ours to give.
            let _ = write(Path::new("/proc/self/oom_score_adj"), spec.oom_score_adj.to_string().as_bytes());
        }
        Ok(())
    }

    /// Nobody may run before it is on record.
    fn record(&mut self) -> Result<(), Failure> {
        let pid = std::process::id().cast_signed();
        let id = pidfd::open(pid).and_then(|fd| pidfd::identity(fd, pid)).map_err(at(Stage::Fork))?;
        let began = began(self.shim, (pid, id));
        let record = StartRecord {
            boot_id: self.settled.boot_id.clone(),
            shim_pid: began.shim_pid,
            shim_id: began.shim_id,
            pid,
            pid_id: id,
            wall_ms: began.wall_ms,
            boottime_ms: began.boottime_ms,
            cgroup: self.spec.cgroup.map(Path::to_path_buf),
            limit_groups: self.spec.limit_groups.iter().map(|dir| dir.to_path_buf()).collect(),
            notify_fd: self.notify_fd,
        };
        self.folder.publish_start(&record).map_err(Failure::Refused)?;
        self.began = Some(began);
        Ok(())
    }

    fn exec(&self) -> io::Error {
        if self.listen.is_empty() {
            return process::exec(&self.argv, &self.env);
        }
        let names: Vec<&[u8]> = self.spec.listen_names.iter().map(|name| name.to_bytes()).collect();
        let variable = |name: &str, value: &[u8]| CString::new([name.as_bytes(), b"=", value].concat());
        let added = [
            variable("LISTEN_FDS", self.listen.len().to_string().as_bytes()),
            variable("LISTEN_PID", std::process::id().to_string().as_bytes()),
            variable("LISTEN_FDNAMES", &names.join(&b':')),
        ];
        let added: Vec<&CStr> = added.iter().filter_map(|text| text.as_deref().ok()).collect();
        process::exec(&self.argv, &Strings::of(self.spec.env.iter().copied().chain(added)))
    }
}

fn at(stage: Stage) -> impl Fn(io::Error) -> Failure {
    move |e| Failure::At(stage, e.raw_os_error().unwrap_or(0))
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(bytes)
}

//! The child's steps between fork and exec. Each that fails goes to the parent as (stage, error number).

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
};

use wharf_shim::{RunAs, Spec, Stage};
use wharf_sys::{
    files,
    process::{self, Strings},
};

use crate::folder::Folder;

/// All that the child needs, made before the fork.
pub struct Prepared<'a> {
    folder: &'a Folder,
    argv: Strings,
    env: Strings,
    cwd: CString,
    cgroup: Option<PathBuf>,
    run_as: Option<RunAs>,
    umask: u32,
    open_files: u64,
    null: File,
    log: File,
    gate: OwnedFd,
    errors: File,
}

impl<'a> Prepared<'a> {
    /// Opens the log while we may still write where the service may not.
    pub fn new(spec: Spec, folder: &'a Folder, gate: OwnedFd, errors: OwnedFd) -> io::Result<Self> {
        let log = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(files::NOT_ELSEWHERE)
            .open(&spec.log)?;
        if let Some(user) = &spec.run_as {
            // So that the service can open its own standard output again. Without the right to
            // give it away the step to the other user fails next, and says so.
            let _ = files::give_to(&log, user.uid, user.gid);
        }
        Ok(Self {
            folder,
            argv: Strings::new(spec.argv),
            env: Strings::new(spec.env),
            cwd: spec.cwd,
            cgroup: spec.cgroup,
            run_as: spec.run_as,
            umask: spec.umask,
            open_files: spec.open_files,
            null: File::open("/dev/null")?,
            log,
            gate,
            errors: errors.into(),
        })
    }

    /// Never returns: the program, or an error in the pipe.
    pub fn become_the_service(mut self) -> ! {
        let (stage, error) = self.steps();
        let errno = error.raw_os_error().unwrap_or(0).to_le_bytes();
        let _ = self.errors.write_all(&[stage as u8, errno[0], errno[1], errno[2], errno[3]]);
        process::exit_now(127)
    }

    fn steps(&mut self) -> (Stage, io::Error) {
        match self.before_exec() {
            Ok(()) => (Stage::Exec, process::exec(&self.argv, &self.env)),
            Err(failed) => failed,
        }
    }

    fn before_exec(&mut self) -> Result<(), (Stage, io::Error)> {
        let at = |stage| move |e| (stage, e);
        if let Some(dir) = &self.cgroup {
            // 0 means: the process that writes.
            let procs = OpenOptions::new().write(true).open(dir.join("cgroup.procs"));
            procs.and_then(|mut file| file.write_all(b"0")).map_err(at(Stage::Cgroup))?;
        }
        process::new_session().map_err(at(Stage::Fork))?;
        self.streams().map_err(at(Stage::Fork))?;
        process::reset_signals();
        process::set_umask(self.umask);
        process::limit_open_files(self.open_files).map_err(at(Stage::Fork))?;
        // The daemon may be protected from the out-of-memory killer; a service is not. To lower
        // one's own protection is always allowed, and a kernel without the file has no such killer.
        if let Ok(mut score) = OpenOptions::new().write(true).open("/proc/self/oom_score_adj") {
            let _ = score.write_all(b"0");
        }
        if let Some(user) = &self.run_as {
            process::become_user(user.uid, user.gid, &user.groups).map_err(at(Stage::Setuid))?;
        }
        files::enter(&self.cwd).map_err(at(Stage::Chdir))?;
        self.wait_at_gate();
        Ok(())
    }

    fn streams(&self) -> io::Result<()> {
        // First the mark on everything, then the four that the service gets.
        // A kernel before 5.11 cannot mark: all that we opened is marked already.
        let _ = files::close_all_on_exec();
        files::keep_across_exec(self.folder.lock_fd())?;
        files::become_standard(self.null.as_fd(), 0)?;
        files::become_standard(self.log.as_fd(), 1)?;
        files::become_standard(self.log.as_fd(), 2)
    }

    /// Nobody may run before it is on record. A gate that closes unopened: the shim died, nobody knows us.
    fn wait_at_gate(&mut self) {
        let mut byte = [0];
        let gate = self.gate.try_clone().map(File::from);
        if !gate.is_ok_and(|mut gate| gate.read_exact(&mut byte).is_ok()) {
            process::exit_now(127);
        }
    }
}

/// What the child could not do; none once exec has closed the pipe.
pub fn read_error(errors: OwnedFd) -> Option<(Stage, i32)> {
    let mut report = [0; 5];
    File::from(errors).read_exact(&mut report).ok()?;
    let [stage, errno @ ..] = report;
    Some((Stage::from_byte(stage).ok()?, i32::from_le_bytes(errno)))
}

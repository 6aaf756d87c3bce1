//! The small process that holds one run: it starts the program, takes its orphans and writes down its end.
//!
//! Interface, frozen: one spec on standard input, files in the run's folder (see the library's
//! page), signals. It has no socket, answers nobody and is not in the way of the service's output.
//! It ignores TERM, INT and HUP: it goes when the last process of the run has gone. Its end, also
//! by SIGKILL, changes nothing for the service; only the exit code may then be unknown.
//!
//! ```text
//! read spec ─ lock ─ setsid, subreaper ─ fork ─┬─ child: cgroup, user, folder … wait at the gate ─ exec
//!                                              └─ write `start` ─ open the gate ─ write `running`
//!                                                 ─ reap ─ write `exit` ─ reap the rest ─ end
//! ```
//!
//! The order is the point: whoever finds a running program also finds its `start` record.
//! A daemon that finds no record claims the name `start` for itself, and this run never starts.

mod child;
mod folder;

use std::{
    io::{self, Read, Write},
    os::fd::OwnedFd,
    process::ExitCode,
};

use child::Prepared;
use folder::Folder;
use wharf_shim::{ExitRecord, Outcome, Spec, Stage, StartRecord, ends};
use wharf_sys::{
    clock, pidfd,
    process::{self, Fork},
};

const SIGHUP: i32 = 1;
const SIGINT: i32 = 2;
const SIGPIPE: i32 = 13;
const SIGTERM: i32 = 15;

fn main() -> ExitCode {
    let code = match read_spec() {
        Some(spec) => hold(spec).err().unwrap_or(ends::HELD),
        None => ends::NO_SPEC,
    };
    ExitCode::from(code)
}

/// A spec that is not whole means that the daemon died while writing it: then nothing is started.
fn read_spec() -> Option<Spec> {
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes).ok()?;
    Spec::decode(&bytes).ok()
}

/// Holds the run from its start to the end of its last process.
fn hold(spec: Spec) -> Result<(), u8> {
    let folder = Folder::lock(&spec.run_dir)?;
    // All of them first: an ignored SIGCHLD would hide every exit from us.
    process::reset_signals();
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGPIPE] {
        process::ignore_signal(signal);
    }
    // Fails only for a process that leads a group already, which is as good.
    let _ = process::new_session();
    // Without it orphans go to init: the lock and the cgroup still tell of them.
    let _ = process::adopt_orphans();

    match start(spec, &folder) {
        Ok(main) => reap(&folder, main),
        Err(NotStarted::Failed(stage, errno)) => {
            write_exit(&folder, Outcome::StartFailed(stage, errno));
            reap(&folder, 0)
        }
        // Nobody must think that it runs: the gate stays shut and the child goes.
        Err(NotStarted::Refused(code)) => return Err(code),
    }
    Ok(())
}

/// Why no program runs.
enum NotStarted {
    /// A step failed, with the kernel's error number. It is the run's outcome.
    Failed(Stage, i32),
    /// The start record cannot be written, or the name is taken. The shim ends with this code.
    Refused(u8),
}

fn failed(stage: Stage) -> impl Fn(io::Error) -> NotStarted {
    move |e| NotStarted::Failed(stage, e.raw_os_error().unwrap_or(0))
}

/// Starts the program: its pid once exec has happened.
fn start(spec: Spec, folder: &Folder) -> Result<i32, NotStarted> {
    let (gate_read, gate_write) = wharf_sys::files::pipe().map_err(failed(Stage::Fork))?;
    let (error_read, error_write) = wharf_sys::files::pipe().map_err(failed(Stage::Fork))?;
    let cgroup = spec.cgroup.clone();
    let prepared = Prepared::new(spec, folder, gate_read, error_write).map_err(failed(Stage::Log))?;

    match process::fork().map_err(failed(Stage::Fork))? {
        Fork::Child => {
            // Else the child would keep its own gate from ever closing.
            drop((gate_write, error_read));
            prepared.become_the_service()
        }
        Fork::Parent(pid) => {
            drop(prepared);
            let record = identify(pid, cgroup).map_err(failed(Stage::Fork))?;
            folder.publish_start(&record).map_err(NotStarted::Refused)?;
            open_gate(gate_write);
            match child::read_error(error_read) {
                None => {
                    folder.mark_running();
                    Ok(pid)
                }
                Some((stage, errno)) => Err(NotStarted::Failed(stage, errno)),
            }
        }
    }
}

/// A child that has died already does not read: its error pipe says why.
fn open_gate(gate: OwnedFd) {
    let _ = std::fs::File::from(gate).write_all(&[1]);
}

fn identify(pid: i32, cgroup: Option<std::path::PathBuf>) -> io::Result<StartRecord> {
    let shim_pid = std::process::id().cast_signed();
    let id = |pid| pidfd::open(pid).and_then(|fd| pidfd::identity(fd, pid));
    Ok(StartRecord {
        boot_id: clock::boot_id()?,
        shim_pid,
        shim_id: id(shim_pid)?,
        pid,
        pid_id: id(pid)?,
        wall_ms: clock::wall_ms(),
        boottime_ms: clock::boottime_ms(),
        cgroup,
    })
}

/// Reaps until no process of the run is left; writes down the end of the main one. 0: there is none.
fn reap(folder: &Folder, main: i32) {
    let mut main = main;
    // From here it waits, for days: what it took to get here need not stay in memory.
    process::shed_code();
    while let Ok(Some((pid, how))) = process::wait_any() {
        if pid == main {
            write_exit(
                folder,
                match how {
                    pidfd::Ended::Exited(code) => Outcome::Exited(code),
                    pidfd::Ended::Signaled(signal) => Outcome::Signaled(signal),
                },
            );
            // From here the pid may come again, as an orphan of this same run.
            main = 0;
        }
    }
}

fn write_exit(folder: &Folder, outcome: Outcome) {
    folder.publish_exit(&ExitRecord { outcome, wall_ms: clock::wall_ms(), boottime_ms: clock::boottime_ms() });
}

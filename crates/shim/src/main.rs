//! The small process that holds one run, and the launcher that it is forked from.
//!
//! Interface, frozen: files in the run's folder (see the library's page) and signals. A shim answers
//! nobody and is not in the way of the service's output. It lets no signal in but KILL and STOP: it
//! goes when the last process of the run has gone. Its end, also by SIGKILL, changes nothing for the
//! service; only the exit code may then be unknown. What it tells the daemon that launched it is only
//! news: the same stands in the files.
//!
//! ```text
//! launcher: receive a request ─ fork ─┐                            (ends when the daemon has)
//!   shim:   lock ─ subreaper ─ log ─ spawn in the cgroup ─┬─ stands still
//!   child:                                                └─ session, limits, write `start`, user, folder ─ exec
//!   shim:   write `running`, tell ─ reap ─ write `exit`, tell ─ reap the rest ─ end
//! ```
//!
//! The order is the point: whoever finds a running program also finds its `start` record, since the
//! child writes it itself, last before it stops being ours. A daemon that finds no record claims the
//! name `start` for itself, and this run never starts.

mod child;
mod folder;
mod hold;
mod launcher;
mod pump;

use std::process::ExitCode;

use wharf_sys::memory::Arena;

/// There is one shim a run: what none of them writes, all of them share.
#[global_allocator]
static HEAP: Arena = Arena::new();

fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == wharf_shim::LAUNCHER) {
        return ExitCode::from(launcher::serve());
    }
    // A process for whoever needs one to try something out with: it ends with its input.
    let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    ExitCode::from(wharf_shim::ends::HELD)
}

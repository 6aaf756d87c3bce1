//! Forks a shim for each request. It has one thread, little memory and no state: killing it harms no run.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
};

use wharf_shim::{Began, News, Report, Request, Stage, ends};
use wharf_sys::{
    clock, files,
    memory::Mapped,
    process::{self, Fork, Title},
    socket,
};

use crate::hold;

/// New files are readable by all and writable by their owner.
const UMASK: u32 = 0o022;
/// Reports that may lie unread while the daemon is busy or stopped: thousands. Beyond that they are lost.
const UNREAD_BYTES: usize = 4 << 20;

/// What all shims find as it was when the launcher began.
pub struct Settled {
    socket: OwnedFd,
    /// This boot.
    pub boot_id: String,
    /// The score that the out-of-memory killer has for us and for what we fork.
    pub oom_score_adj: i32,
}

impl Settled {
    /// Tells the daemon, if it lives and reads. It must never be waited for.
    pub fn tell(&self, token: u64, news: News) {
        let _ = socket::send(&self.socket, &Report { token, news }.encode(), &[]);
    }
}

/// Until nobody is left who could ask.
pub fn serve() -> u8 {
    let Ok(settled) = settle() else { return ends::NO_SPEC };
    let Ok(mut buffer) = Mapped::new(Request::ROOM) else { return ends::NO_SPEC };
    let mut title = Title::take();
    if let Some(title) = &mut title {
        title.set(&[wharf_shim::LAUNCHER.as_bytes()]);
    }
    loop {
        let mut fds = vec![];
        let length = match socket::receive(&settled.socket, &mut buffer, &mut fds) {
            Ok(0) | Err(_) => return ends::HELD,
            Ok(length) => length,
        };
        match process::fork_alone() {
            Ok(Fork::Child) => {
                hold::hold(&settled, title.as_mut(), buffer, length, fds);
                process::exit_now(ends::HELD.into())
            }
            Ok(Fork::Parent(_)) => {}
            Err(e) => {
                if let Ok(request) = Request::decode(&buffer[..length]) {
                    settled.tell(request.token, News::Failed(Stage::Fork, e.raw_os_error().unwrap_or(0)));
                }
            }
        }
    }
}

/// Everything that a run inherits is made plain here, once for all of them.
fn settle() -> io::Result<Settled> {
    let socket = files::only_kept(0, 3)?;
    files::become_standard(File::open("/dev/null")?.as_fd(), 0)?;
    process::reset_signals();
    process::block_signals();
    // So that no shim is left a zombie; each takes its own children back.
    process::leave_children_unreaped(true);
    // Fails only for a process that leads a group already, which is as good.
    let _ = process::new_session();
    process::set_umask(UMASK);
    process::usual_limits();
    let _ = process::set_nice(0);
    socket::let_wait(&socket, UNREAD_BYTES);
    let score = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap_or_default();
    // The clock's code is looked for once, here, and not by every shim and child again.
    let _ = (clock::boottime_ms(), clock::wall_ms());
    Ok(Settled { socket, boot_id: clock::boot_id()?, oom_score_adj: score.trim().parse().unwrap_or(0) })
}

/// Kept apart from the fork so that both sides of it read alike.
pub fn began(shim: (i32, u64), main: (i32, u64)) -> Began {
    Began {
        shim_pid: shim.0,
        shim_id: shim.1,
        pid: main.0,
        pid_id: main.1,
        wall_ms: clock::wall_ms(),
        boottime_ms: clock::boottime_ms(),
    }
}

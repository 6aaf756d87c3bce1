//! Reuses pids by force, so many times, and signals the process that had the pid before by Wharf's own means
//! (`wharf_sys::pidfd`). Alone in a pid namespace, where it decides which pid comes next:
//! `unshare --fork --pid --kill-child wharf-pid-reuse COUNT`.
//!
//! Prints how often a pid came again, and how many signals reached a process that they were not for.

use std::{
    fs, io,
    process::{Child, Command, Stdio},
};

use wharf_sys::pidfd;

fn main() -> io::Result<()> {
    let count: u32 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let (mut reused, mut wrong, mut reached_by_number) = (0, 0, 0);
    let mut child = sleeper()?;
    for _ in 0..count {
        let pid = child.id().cast_signed();
        let before = pidfd::open(pid)?;
        let identity = pidfd::identity(&before, pid)?;
        child.kill()?;
        child.wait()?;
        fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())?;
        child = sleeper()?;
        if child.id().cast_signed() != pid {
            continue;
        }
        reused += 1;
        // As a daemon that lives through it, and as one that comes anew and knows pid and identity.
        let by_descriptor = pidfd::signal(&before, 9).is_ok() || pidfd::signal_group(&before, 9).is_ok();
        let by_record = pidfd::open_exact(pid, identity).is_ok();
        // The proof that the pid alone would have reached it.
        reached_by_number += u32::from(pidfd::open(pid).is_ok_and(|fd| !pidfd::has_exited(fd)));
        wrong += u32::from(by_descriptor || by_record || child.try_wait()?.is_some());
    }
    child.kill()?;
    child.wait()?;
    println!("{reused} {wrong} {reached_by_number}");
    Ok(())
}

fn sleeper() -> io::Result<Child> {
    Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).spawn()
}

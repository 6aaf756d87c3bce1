//! P14: a pid that comes again is another process, and gets no signal.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::json;
use wharf_tests::{Daemon, alive, beside, cannot, eventually, figure};

use super::{pid_of, status};

#[test]
fn p14_ten_thousand_forced_reuses_of_a_pid_send_no_signal_to_a_wrong_process() {
    let mut command = Command::new("unshare");
    let said = command.args(["--fork", "--pid", "--kill-child"]).arg(beside("wharf-pid-reuse")).arg("10000").output();
    let said = said.ok().filter(|s| s.status.success()).map(|s| String::from_utf8_lossy(&s.stdout).into_owned());
    let Some(said) = said else {
        return cannot("P14", "pids by force (no right to a pid namespace and its ns_last_pid)");
    };
    let numbers: Vec<u32> = said.split_whitespace().filter_map(|n| n.parse().ok()).collect();
    let [reused, wrong, by_number] = numbers[..] else { panic!("{said}") };
    figure(
        "P14",
        &format!("{reused} pids reused by force, {wrong} signals to a wrong process (by number: {by_number})"),
    );
    assert!(reused > 9_900, "{said}");
    assert_eq!((wrong, by_number), (0, reused), "{said}");
}

/// A process with exactly this pid, if nobody else is faster.
fn process_with(pid: i32) -> Option<Child> {
    fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).ok()?;
    let mut child = Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).stdout(Stdio::null()).spawn().ok()?;
    if child.id().cast_signed() == pid {
        return Some(child);
    }
    child.kill().ok()?;
    child.wait().ok()?;
    None
}

fn kill_9(pid: i32) {
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
}

#[test]
fn p14_a_new_daemon_leaves_the_process_alone_that_has_the_pid_of_a_dead_service() {
    if fs::write("/proc/sys/kernel/ns_last_pid", "5000").is_err() {
        return cannot("P14", "pids by force (no right to write ns_last_pid)");
    }
    let mut daemon = Daemon::start();
    let name = "command@reused";
    daemon.run("reused", json!({ "argv": ["/bin/sleep", "1000"] }));
    let mut reused = 0;
    for round in 0..20 {
        let pid = pid_of(&daemon, name);
        let shim = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let shim: i32 = shim.rsplit(')').next().unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
        daemon.kill_9();
        // In every other round nobody is left who could write down the end.
        if round % 2 == 0 && shim > 1 {
            kill_9(shim);
        }
        kill_9(pid);
        eventually("it is gone", Duration::from_secs(5), || !fs::exists(format!("/proc/{pid}")).unwrap());
        let other = process_with(pid);
        daemon.launch();
        daemon.ok("service.stop", json!({ "name": name }));
        assert!(status(&daemon, name)["pid"].is_null());
        if let Some(mut other) = other {
            reused += 1;
            assert!(alive(pid) && other.try_wait().unwrap().is_none(), "round {round}: a stranger was signalled");
            other.kill().unwrap();
            other.wait().unwrap();
        }
        daemon.ok("service.start", json!({ "name": name }));
    }
    figure("P14", &format!("{reused} of 20 dead services' pids reused before a new daemon: 0 strangers signalled"));
    assert!(reused > 0, "no pid could be had again: too busy a machine");
}

//! Output through a pipe: nothing is wiped, nothing is lost, and nobody's death is the service's.

use super::*;

fn piped(plan: RunPlan) -> RunPlan {
    RunPlan { pipe: true, ..plan }
}

pub fn pump_of(shim: i32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{shim}/task/{shim}/children")).ok()?;
    let name = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    children.split_whitespace().filter_map(|pid| pid.parse().ok()).find(|pid| name(pid).trim() == "wharf-pump")
}

#[tokio::test]
async fn through_a_pipe_standard_output_can_be_opened_again() {
    let place = Place::new();
    let script = "echo one; echo two > /dev/stdout; echo three >> /dev/stdout; echo four > /dev/stderr; echo five";
    let mut plan = piped(place.shell(script));
    if rustix::process::geteuid().is_root() {
        // Another user can open what was made for it.
        plan.run_as = Some(RunAs { uid: 65_534, gid: 65_534, groups: vec![] });
        fs::set_permissions(place.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let live = place.launcher.launch(plan).await.unwrap();
    assert_eq!(ends(&live).await, Exit::Exited { code: 0 });
    assert_eq!(fs::read_to_string(place.path("log")).unwrap(), "one\ntwo\nthree\nfour\nfive\n");
}

#[tokio::test]
async fn an_empty_run_has_all_its_lines_in_the_log() {
    let place = Place::new();
    // The last word comes from a process that outlives the main one.
    let script = "(sleep 0.2; echo last) & seq 1 200000; exit 4";
    let live = place.launcher.launch(piped(place.shell(script))).await.unwrap();
    assert_eq!(ends(&live).await, Exit::Exited { code: 4 });
    let log = fs::read_to_string(place.path("log")).unwrap();
    let wanted: String = (1..=200_000).map(|n| format!("{n}\n")).chain(["last\n".into()]).collect();
    assert!(log == wanted, "{} of {} bytes", log.len(), wanted.len());
}

#[tokio::test]
async fn no_death_but_its_own_ends_a_piped_service() {
    let place = Place::new();
    let script = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.005; done";
    let live = place.launcher.launch(piped(place.shell(script))).await.unwrap();
    let log = place.path("log");
    let lines = || fs::read_to_string(&log).unwrap_or_default().lines().count();
    let more = async || {
        let before = lines();
        soon("more lines", || (lines() > before + 20).then_some(())).await;
    };
    more().await;
    let shim = shim_of(&live);
    let pump = soon("pump", || pump_of(shim)).await;
    assert!(!live.pids().contains(&pump), "the pump counts as a process of the service");
    kill(pump).await;
    more().await;
    let next = soon("another pump", || pump_of(shim)).await;
    assert_ne!(next, pump);
    kill(shim).await;
    more().await;
    assert!(!live.is_empty());
    live.kill_all();
    in_time(live.emptied()).await;
    let pump = wharf_sys::pidfd::open(next);
    if let Ok(pump) = pump {
        soon("end of the pump", || wharf_sys::pidfd::has_exited(&pump).then_some(())).await;
    }
    // A killed pump may have had one read in its hands; nothing is there twice or out of order.
    let log = fs::read_to_string(&log).unwrap();
    let numbers: Vec<u64> = log.lines().filter_map(|line| line.parse().ok()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "lines twice or out of order");
    let lost = numbers.last().unwrap() - numbers.len() as u64;
    println!("{} lines, {lost} lost with the killed pump", numbers.len());
}

/// Somebody outside of the run has opened its output: the run ends all the same.
#[tokio::test]
async fn a_stranger_with_the_pipe_does_not_hold_the_run() {
    for place in [Place::new(), Place::session()] {
        let live = place.launcher.launch(piped(place.shell("echo up; exec sleep 60"))).await.unwrap();
        place.line().await;
        let stranger = fs::OpenOptions::new().write(true).open(format!("/proc/{}/fd/1", live.pid())).unwrap();
        live.kill_all();
        assert_eq!(ends(&live).await, Exit::Signaled { signal: 9 });
        drop(stranger);
    }
}

//! The launcher may be killed, stopped or orphaned: each run begins once or not at all.

use super::*;

fn launcher_of(live: &LiveRun) -> i32 {
    parent_of(shim_of(live))
}

#[tokio::test]
async fn a_killed_launcher_harms_no_run_and_the_next_start_has_another() {
    let place = Place::new();
    let plan = place.shell("trap 'exit 42' TERM; echo up; while :; do sleep 0.01; done");
    let live = place.launcher.launch(plan).await.unwrap();
    place.line().await;
    let first = launcher_of(&live);
    kill(first).await;
    let next = place.launcher.launch(RunPlan { run: RunId(8), ..place.shell("exec sleep 60") }).await.unwrap();
    assert_ne!(launcher_of(&next), first);
    assert!(!live.is_empty());
    live.signal(Signal::Term).unwrap();
    assert_eq!(ends(&live).await, Exit::Exited { code: 42 });
    next.kill_all();
    assert_eq!(ends(&next).await, Exit::Signaled { signal: 9 });
}

/// The launcher is killed again and again while runs are started: none is lost, none begins twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_launcher_killed_in_a_burst_starts_each_run_once() {
    let place = Place::new();
    let ran = place.path("ran");
    let starts: Vec<_> = (1..=60)
        .map(|run| {
            let script = format!("echo {run} >> {}; exec sleep 60", ran.display());
            let (launcher, plan) = (place.launcher.clone(), RunPlan { run: RunId(run), ..place.shell(&script) });
            tokio::spawn(async move { launcher.launch(plan).await })
        })
        .collect();
    let mut kills = 0;
    while starts.iter().any(|start| !start.is_finished()) {
        for pid in launchers_from(&place.path("shim")) {
            if kills < 6 {
                kill(pid).await;
                kills += 1;
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let (mut begun, mut failed) = (vec![], 0);
    for (run, start) in (1..).zip(starts) {
        match start.await.unwrap() {
            Ok(live) => begun.push((run, live)),
            // Killed three times in the middle of one start: said, and nothing is left of it.
            Err(_) => {
                assert!(matches!(place.launcher.find(&unit(), RunId(run)).await, Found::NeverStarted));
                failed += 1;
            }
        }
    }
    let lines = || fs::read_to_string(&ran).unwrap_or_default().lines().count();
    soon("all programs", || (lines() >= begun.len()).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let text = fs::read_to_string(&ran).unwrap();
    let mut seen: Vec<u64> = text.lines().map(|line| line.parse().unwrap()).collect();
    seen.sort_unstable();
    assert_eq!(seen, begun.iter().map(|(run, _)| *run).collect::<Vec<_>>());
    println!("{kills} launchers killed, {} runs begun, {failed} failed", begun.len());
    assert!(kills > 0 && begun.len() > 50);
    for (_, live) in &begun {
        live.kill_all();
    }
    for (_, live) in &begun {
        assert_eq!(ends(live).await, Exit::Signaled { signal: 9 });
    }
}

fn launchers_from(dir: &Path) -> Vec<i32> {
    let words = |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let ours = |pid: &i32| {
        let words = words(pid);
        words.starts_with(dir.as_os_str().as_encoded_bytes()) && words.windows(9).any(|w| w == b"\0launcher")
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(ours).collect()
}

#[tokio::test]
async fn a_stopped_launcher_is_told_to_go_on() {
    let place = Place::new();
    let live = place.launcher.launch(place.shell("exec sleep 60")).await.unwrap();
    let launcher = wharf_sys::pidfd::open(launcher_of(&live)).unwrap();
    const SIGSTOP: i32 = 19;
    wharf_sys::pidfd::signal(&launcher, SIGSTOP).unwrap();
    let began = Instant::now();
    let next = place.launcher.launch(RunPlan { run: RunId(8), ..place.shell("exec sleep 60") }).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    for live in [live, next] {
        live.kill_all();
        assert_eq!(ends(&live).await, Exit::Signaled { signal: 9 });
    }
}

#[tokio::test]
async fn a_launcher_ends_with_its_daemon_and_its_runs_do_not() {
    let place = Place::new();
    let daemon = place.reborn();
    let live = daemon.launch(place.shell("exec sleep 60")).await.unwrap();
    let launcher = wharf_sys::pidfd::open(launcher_of(&live)).unwrap();
    drop(daemon);
    soon("end of the launcher", || wharf_sys::pidfd::has_exited(&launcher).then_some(())).await;
    assert!(!live.is_empty());
    live.kill_all();
    assert_eq!(ends(&live).await, Exit::Signaled { signal: 9 });
}

#[tokio::test]
async fn an_environment_that_no_message_holds_arrives_whole() {
    let place = Place::new();
    let mut plan = place.shell("echo ${#A} ${#Z}");
    for name in ["A", "B", "C", "Z"] {
        plan.env.push((name.into(), "x".repeat(100_000)));
    }
    let live = place.launcher.launch(plan).await.unwrap();
    assert_eq!(ends(&live).await, Exit::Exited { code: 0 });
    assert_eq!(fs::read_to_string(place.path("log")).unwrap(), "100000 100000\n");
}

#[tokio::test]
async fn a_shim_holds_no_descriptor_but_its_own() {
    let place = Place::new();
    let live = place.launcher.launch(place.shell("exec sleep 60")).await.unwrap();
    let shim = shim_of(&live);
    let links = fs::read_dir(format!("/proc/{shim}/fd")).unwrap().flatten();
    let mut open: Vec<_> = links.map(|fd| fs::read_link(fd.path()).unwrap().to_string_lossy().into_owned()).collect();
    open.sort();
    let own = |name: &str| fs::canonicalize(place.run_dir()).unwrap().join(name).display().to_string();
    let mut wanted = vec!["/dev/null".to_owned(), "/dev/null".into(), "/dev/null".into(), own("exit.tmp"), own("lock")];
    wanted.sort();
    let sockets = open.iter().filter(|link| link.starts_with("socket:")).count();
    open.retain(|link| !link.starts_with("socket:"));
    assert_eq!((open, sockets), (wanted, 1));
    // And people see whose shim it is.
    let words = fs::read_to_string(format!("/proc/{shim}/cmdline")).unwrap();
    assert!(words.contains("\0python-api@vault\x007\0"), "{words:?}");
    live.kill_all();
    ends(&live).await;
}

/// What waits costs nothing: no timer, no look at anything.
#[tokio::test]
async fn nobody_wakes_while_nothing_happens() {
    let place = Place::new();
    let live = place.launcher.launch(RunPlan { pipe: true, ..place.shell("exec sleep 60") }).await.unwrap();
    let (shim, launcher) = (shim_of(&live), launcher_of(&live));
    let pump = soon("pump", || output::pump_of(shim)).await;
    let wakes = |pid: i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let count = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        count.unwrap().trim().parse::<u64>().unwrap()
    };
    let all = || [shim, launcher, pump].map(wakes);
    // Until the start itself has settled.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = all();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(all(), before, "shim, launcher or pump woke up");
    live.kill_all();
    ends(&live).await;
}

/// After a power cut: records that are torn, empty or missing are of another boot, and nothing is signalled.
#[tokio::test]
async fn torn_and_missing_records_are_of_another_boot() {
    let place = Place::new();
    let live = place.launcher.launch(place.shell("exit 7")).await.unwrap();
    assert_eq!(ends(&live).await, Exit::Exited { code: 7 });
    let (start, exit) = (place.run_dir().join("start"), place.run_dir().join("exit"));
    let (whole_start, whole_exit) = (fs::read(&start).unwrap(), fs::read(&exit).unwrap());
    let find = async || match place.reborn().find(&unit(), RUN).await {
        Found::Ended(exit) => exit,
        other => panic!("{other:?}"),
    };
    fs::remove_file(&exit).unwrap();
    for length in [0, 1, whole_start.len() / 2, whole_start.len() - 1] {
        fs::write(&start, &whole_start[..length]).unwrap();
        assert_eq!(find().await, Exit::HostRebooted, "{length} bytes of the start record");
    }
    // The exit record reached the disk: it is exact.
    fs::write(&exit, &whole_exit).unwrap();
    assert_eq!(find().await, Exit::Exited { code: 7 });
    // It did not, and the start record is of this boot: nobody knows.
    fs::write(&start, &whole_start).unwrap();
    for length in [0, 1, whole_exit.len() - 1] {
        fs::write(&exit, &whole_exit[..length]).unwrap();
        assert_eq!(find().await, Exit::Unknown, "{length} bytes of the exit record");
    }
    // Nothing but the folder: it never began, and never will.
    for path in [&start, &exit, &place.run_dir().join("running")] {
        fs::remove_file(path).unwrap();
    }
    assert!(matches!(place.reborn().find(&unit(), RUN).await, Found::NeverStarted));
}

/// A start that nobody waits for any more: when it is settled, nothing of it lives, and nothing of it can begin.
#[tokio::test]
async fn a_start_that_is_given_up_before_it_began_never_begins() {
    let place = Place::new();
    let live = place.launcher.launch(place.shell("exec sleep 60")).await.unwrap();
    let launcher = wharf_sys::pidfd::open(launcher_of(&live)).unwrap();
    const SIGSTOP: i32 = 19;
    const SIGCONT: i32 = 18;
    wharf_sys::pidfd::signal(&launcher, SIGSTOP).unwrap();
    let ran = place.path("ran");
    let script = format!("echo ran >> {}; exec sleep 60", ran.display());
    let start = place.launcher.launch(RunPlan { run: RunId(8), ..place.shell(&script) });
    assert!(tokio::time::timeout(Duration::from_millis(100), start).await.is_err());
    let began = Instant::now();
    in_time(place.launcher.settled(RunId(8))).await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    wharf_sys::pidfd::signal(&launcher, SIGCONT).unwrap();
    // The launcher is at work again, and has come to what was asked of it before.
    let next = place.launcher.launch(RunPlan { run: RunId(9), ..place.shell("exec sleep 60") }).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!ran.exists(), "it began after all");
    assert!(!place.run_dir().with_file_name("8").exists());
    for live in [live, next] {
        live.kill_all();
        ends(&live).await;
    }
}

/// Whoever waits leaves at any moment, also in the one in which the run arrives: nobody's run lives on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_arrives_as_its_caller_leaves_is_ended() {
    let place = Place::new();
    let (mut taken, mut left) = (0, 0);
    for run in 1..=300 {
        let plan = RunPlan { run: RunId(run), ..place.shell("exec sleep 60") };
        let patience = Duration::from_micros(run * 17 % 5_000);
        match tokio::time::timeout(patience, place.launcher.launch(plan)).await {
            Ok(live) => {
                taken += 1;
                let live = live.unwrap();
                live.kill_all();
                ends(&live).await;
            }
            Err(_) => left += 1,
        }
        in_time(place.launcher.settled(RunId(run))).await;
        match place.reborn().find(&unit(), RunId(run)).await {
            Found::Ended(_) | Found::NeverStarted => {}
            alive @ (Found::Alive(_) | Found::Draining(..)) => panic!("run {run} lives: {alive:?}"),
        }
        place.launcher.forget(&unit(), RunId(run)).await;
    }
    println!("{taken} were taken, {left} were left");
    assert!(left > 0);
}

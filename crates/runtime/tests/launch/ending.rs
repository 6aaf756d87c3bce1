//! That a run has ended is told at once, how it ended as soon as anybody knows, and a kill is complete.

use super::*;

/// Kills runs from outside and takes the time until each is told. The p99 of 100, in the best of five rounds:
/// other work on the machine is not ours.
async fn told_within(how: &str, prepare: impl AsyncFn(&Place, LiveRun) -> LiveRun) {
    const RUNS: u64 = 100;
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let place = Place::new();
        let mut lives = vec![];
        for run in 1..=RUNS {
            let plan = RunPlan { run: RunId(run), ..place.plan(&["sleep", "60"]) };
            let live = place.launcher.launch(plan).await.unwrap();
            lives.push(prepare(&place, live).await);
        }
        let mut times = vec![];
        for live in lives {
            let watcher = live.clone();
            let told = tokio::spawn(async move {
                watcher.gone().await;
                Instant::now()
            });
            tokio::task::yield_now().await;
            let fd = wharf_sys::pidfd::open(live.pid()).unwrap();
            let killed = Instant::now();
            wharf_sys::pidfd::signal(&fd, Signal::Kill.number()).unwrap();
            times.push(in_time(told).await.unwrap().saturating_duration_since(killed));
        }
        times.sort();
        best = best.min(times[times.len() * 99 / 100 - 1]);
        println!("{how}: told after {:?} (median), {best:?} (p99 of {RUNS})", times[times.len() / 2]);
        if best <= Duration::from_millis(10) {
            return;
        }
    }
    panic!("{how}: an end was told after {best:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_is_told_within_ten_milliseconds() {
    told_within("launched", async |_, live| live).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_is_told_within_ten_milliseconds_after_adoption_and_without_a_shim() {
    let adopt = async |place: &Place, live: LiveRun| {
        let run = live.run();
        drop(live);
        let Found::Alive(live) = place.launcher.find(&unit(), run).await else { panic!("not found alive") };
        live
    };
    told_within("adopted", adopt).await;
    told_within("without a shim", async |_, live| {
        kill_shim(&live).await;
        live
    })
    .await;
}

/// A main process that only init can reap has ended long before anybody can say how.
#[tokio::test]
async fn the_end_is_told_before_the_code() {
    let place = Place::new();
    let live = place.launcher.launch(place.shell("trap 'exit 42' TERM; echo up; while :; do sleep 0.01; done")).await;
    let live = live.unwrap();
    place.line().await;
    kill_shim(&live).await;
    let began = Instant::now();
    live.signal(Signal::Term).unwrap();
    let at_once = in_time(live.gone()).await;
    let gone = began.elapsed();
    let exit = in_time(live.exit_known()).await;
    println!("told after {gone:?}, as {exit:?} after {:?}", began.elapsed());
    assert!(matches!(exit, Exit::Exited { code: 42 } | Exit::Unknown), "{exit:?} was invented");
    assert!(at_once.is_none() || at_once == Some(exit), "it was said and then taken back");
    assert!(gone < Duration::from_secs(1), "the end was told with the code");
}

/// With a living shim the code is there with the news.
#[tokio::test]
async fn the_code_comes_at_once_from_a_living_shim() {
    let place = Place::new();
    let mut times = vec![];
    for run in 1..=50 {
        let live = place.launcher.launch(RunPlan { run: RunId(run), ..place.shell("read x; exit 3") }).await;
        let live = live.unwrap();
        let _ = live.gone().await;
        let gone = Instant::now();
        assert_eq!(live.exit_known().await, Exit::Exited { code: 3 });
        times.push(gone.elapsed());
    }
    times.sort();
    println!("from the end to its code: {:?} (median), {:?} (worst of 50)", times[25], times[49]);
    assert!(times[25] < Duration::from_millis(5), "{:?}", times[25]);
}

/// A shim that was stopped for long has nothing to say, and is told to go on.
#[tokio::test]
async fn a_stopped_shim_hides_neither_the_end_nor_the_code() {
    const SIGSTOP: i32 = 19;
    let place = Place::new();
    let live = place.launcher.launch(place.shell("trap 'exit 42' TERM; echo up; while :; do sleep 0.01; done")).await;
    let live = live.unwrap();
    place.line().await;
    wharf_sys::pidfd::signal(wharf_sys::pidfd::open(shim_of(&live)).unwrap(), SIGSTOP).unwrap();
    let began = Instant::now();
    live.signal(Signal::Term).unwrap();
    assert_eq!(in_time(live.gone()).await, None);
    println!("with a stopped shim: told after {:?}", began.elapsed());
    assert_eq!(ends(&live).await, Exit::Exited { code: 42 });
    assert!(began.elapsed() < Duration::from_secs(3));
}

/// 1,023 processes that go on forking.
async fn bomb(place: &Place) -> LiveRun {
    let script = "b() { [ $1 -gt 0 ] && { b $(($1-1)) & b $(($1-1)) & }; while :; do sleep 2; done; }; b 9";
    let live = place.launcher.launch(place.shell(script)).await.unwrap();
    let cgroup = live.cgroup().unwrap().to_path_buf();
    let count = || fs::read_to_string(cgroup.join("cgroup.procs")).unwrap().lines().count();
    soon("1,000 processes", || (count() >= 1_000).then_some(())).await;
    live
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fork_bomb_of_1000_is_gone_in_200_ms_also_frozen() {
    if matches!(Place::new().launcher.tier(), Tier::Session) {
        return cannot("a fork bomb's end in time: no writable cgroup2");
    }
    for frozen in [false, true] {
        let mut best = Duration::MAX;
        // Best of three: other work on the machine is not ours.
        for _ in 0..3 {
            let place = Place::new();
            let live = bomb(&place).await;
            let cgroup = live.cgroup().unwrap().to_path_buf();
            if frozen {
                fs::write(cgroup.join("cgroup.freeze"), "1").unwrap();
                let is_frozen = || fs::read_to_string(cgroup.join("cgroup.events")).unwrap().contains("frozen 1");
                soon("freeze", || is_frozen().then_some(())).await;
            }
            let began = Instant::now();
            live.kill_all();
            in_time(live.emptied()).await;
            best = best.min(began.elapsed());
            assert_eq!(ends(&live).await, Exit::Signaled { signal: 9 });
            if best < Duration::from_millis(200) {
                break;
            }
        }
        println!("a fork bomb of 1,000 (frozen: {frozen}) was gone after {best:?}");
        assert!(best < Duration::from_millis(200), "{best:?}");
    }
}

#[tokio::test]
async fn another_process_of_the_run_becomes_the_main_one() {
    for place in [Place::new(), Place::session()] {
        let script =
            "sh -c \"trap 'exit 9' TERM; echo \\$\\$; while :; do sleep 0.01; done\" & read x; sleep 1; exit 3";
        let live = place.launcher.launch(place.shell(script)).await.unwrap();
        let worker: i32 = place.line().await.parse().unwrap();
        let stranger = std::process::id().cast_signed();
        assert_eq!(live.set_main(stranger).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let gone = tokio::spawn({
            let live = live.clone();
            async move { live.gone().await }
        });
        let first = wharf_sys::pidfd::open(live.pid()).unwrap();
        live.set_main(worker).unwrap();
        assert_eq!(live.pid(), worker);
        soon("end of the first main process", || wharf_sys::pidfd::has_exited(&first).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!gone.is_finished(), "the end of the first main process was taken for the run's");
        let Found::Alive(found) = place.reborn().find(&unit(), RUN).await else { panic!("not found alive") };
        assert_eq!(found.pid(), worker);
        live.signal(Signal::Term).unwrap();
        in_time(gone).await.unwrap();
        for run in [live, found] {
            let exit = in_time(run.exit_known()).await;
            assert!(matches!(exit, Exit::Exited { code: 9 } | Exit::Unknown), "{exit:?} was invented");
        }
    }
}

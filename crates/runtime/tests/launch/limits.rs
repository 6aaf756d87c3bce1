//! What a run may use, on this machine's own controllers.

use wharf_model::Limits;
use wharf_runtime::launch::By;

use super::*;

fn by_group(by: By) -> bool {
    matches!(by, By::Cgroup1 | By::Cgroup2)
}

fn limited(plan: RunPlan, limits: Limits) -> RunPlan {
    RunPlan { limits, ..plan }
}

/// Reads without end into memory.
const GREEDY: &str = "exec tail /dev/zero";

fn small() -> Limits {
    Limits { memory_bytes: Some(48 << 20), ..Limits::default() }
}

#[tokio::test]
async fn memory_beyond_the_limit_is_told_from_other_kills() {
    let place = Place::new();
    let abilities = place.launcher.abilities();
    println!("limits by: memory {}, cpu {}, pids {}", abilities.memory, abilities.cpu, abilities.pids);
    if !by_group(abilities.memory) {
        return cannot("a memory limit of a whole run: no memory controller that we may use");
    }
    let live = place.launcher.launch(limited(place.shell(GREEDY), small())).await.unwrap();
    assert_eq!(ends(&live).await, Exit::OomKilled);
    // Somebody's SIGKILL is not the kernel's, even in a limited run.
    let calm = RunPlan { run: RunId(8), ..limited(place.shell("exec sleep 60"), small()) };
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let live = place.launcher.launch(calm).await.unwrap();
    kill(live.pid()).await;
    assert_eq!(ends(&live).await, Exit::Signaled { signal: 9 });
    // An adopted run knows it too.
    let next = RunPlan { run: RunId(9), ..limited(place.shell(&format!("read x; sleep 0.3; {GREEDY}")), small()) };
    drop(place.launcher.launch(next).await.unwrap());
    let Found::Alive(live) = place.reborn().find(&unit(), RunId(9)).await else { panic!("not found alive") };
    assert_eq!(ends(&live).await, Exit::OomKilled);
}

#[tokio::test]
async fn a_kill_while_the_machine_killed_for_memory_is_suspect() {
    let place = Place::new();
    if !by_group(place.launcher.abilities().memory) {
        return cannot("a real out-of-memory kill: no memory controller that we may use");
    }
    let bystander = RunPlan { run: RunId(8), ..place.shell("exec sleep 60") };
    let bystander = place.launcher.launch(bystander).await.unwrap();
    let live = place.launcher.launch(limited(place.shell(GREEDY), small())).await.unwrap();
    assert_eq!(ends(&live).await, Exit::OomKilled);
    kill(bystander.pid()).await;
    assert_eq!(ends(&bystander).await, Exit::OomSuspected);
    // Ours is never suspect.
    let ours = place.launcher.launch(RunPlan { run: RunId(9), ..place.shell("exec sleep 60") }).await.unwrap();
    ours.kill_all();
    assert_eq!(ends(&ours).await, Exit::Signaled { signal: 9 });
}

#[tokio::test]
async fn processes_beyond_the_limit_are_not_made_and_its_groups_go_with_the_run() {
    let place = Place::new();
    if !by_group(place.launcher.abilities().pids) {
        return cannot("a limit of processes: no pids controller that we may use");
    }
    let script = "i=0; while [ $i -lt 20 ]; do i=$((i+1)); sleep 60 & done; wait";
    let limits = Limits { pids: Some(6), ..Limits::default() };
    let live = place.launcher.launch(limited(place.shell(script), limits)).await.unwrap();
    // dash gives up at the first fork that fails; what it had started lives on.
    soon("5 processes", || (live.pids().len() >= 5).then_some(())).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(live.pids().len() <= 6, "{:?}", live.pids());
    let record = wharf_shim::StartRecord::decode(&fs::read(place.run_dir().join("start")).unwrap()).unwrap();
    live.kill_all();
    in_time(live.emptied()).await;
    place.launcher.forget(&unit(), RUN).await;
    for group in record.limit_groups.iter().chain(&record.cgroup) {
        assert!(!group.exists(), "{} is left", group.display());
    }
}

#[tokio::test]
async fn processor_time_is_dealt_out() {
    let place = Place::new();
    if !by_group(place.launcher.abilities().cpu) {
        return cannot("a limit of processor time: no cpu controller that we may use");
    }
    let limits = Limits { cpu_percent: Some(10), ..Limits::default() };
    let live = place.launcher.launch(limited(place.shell("while :; do :; done"), limits)).await.unwrap();
    let used = || {
        let text = fs::read_to_string(format!("/proc/{}/schedstat", live.pid())).unwrap();
        Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
    };
    let (before, began) = (used(), Instant::now());
    tokio::time::sleep(Duration::from_secs(2)).await;
    let share = (used() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    println!("10 % of a processor was {:.1} %", share * 100.0);
    assert!(share < 0.2, "{share}");
    live.kill_all();
    ends(&live).await;
}

#[tokio::test]
async fn each_process_has_its_own_limits() {
    let place = Place::new();
    let script = "ulimit -Sn; ulimit -Sc; umask; nice; cat /proc/self/oom_score_adj";
    let limits = Limits {
        open_files: Some(77),
        core_bytes: Some(1 << 20),
        umask: Some("027".into()),
        nice: Some(7),
        oom_score_adj: Some(300),
        ..Limits::default()
    };
    let live = place.launcher.launch(limited(place.shell(script), limits)).await.unwrap();
    assert_eq!(ends(&live).await, Exit::Exited { code: 0 });
    let log = fs::read_to_string(place.path("log")).unwrap();
    // dash counts cores in blocks of 512 bytes.
    assert_eq!(log, "77\n2048\n0027\n7\n300\n");

    let wrong = Limits { umask: Some("rwx".into()), ..Limits::default() };
    let failure = place.launcher.launch(limited(place.shell("exit 0"), wrong)).await.unwrap_err();
    assert_eq!((failure.kind, failure.hint.is_some()), (ErrorKind::InvalidParams, true));
}

/// Without a controller a memory limit is one of each process's data.
#[tokio::test]
async fn without_groups_memory_is_limited_by_process() {
    let place = Place::session();
    if place.launcher.abilities().memory != By::Rlimit {
        // A hybrid machine limits by groups of the old kind also where runs have no cgroup of the new.
        let live = place.launcher.launch(limited(place.shell(GREEDY), small())).await.unwrap();
        assert_eq!(ends(&live).await, Exit::OomKilled);
        return cannot("a memory limit by rlimit: there is a controller");
    }
    let live = place.launcher.launch(limited(place.shell(GREEDY), small())).await.unwrap();
    assert!(matches!(ends(&live).await, Exit::Exited { code } if code != 0));
}

//! A driver that never answers, or takes its caller with it (T54 at the level of devices).

use std::{io::Read, process::Stdio, time::Instant};

use super::*;

/// Long enough for an honest answer on a busy machine.
const DEADLINE: Duration = Duration::from_secs(2);

fn hasty(stage: &Stage) -> Eye {
    let ground = stage.ground();
    Eye::new(Ground { program: Program { deadline: DEADLINE, ..ground.program.clone() }, ..ground })
}

fn lives(pid: u32) -> bool {
    driver::start_ticks(pid.cast_signed()).is_some()
}

fn signal(pid: u32, which: &str) {
    assert!(Command::new("kill").args([which, &pid.to_string()]).status().unwrap().success());
}

async fn soon(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(10), "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn t54_a_call_that_never_returns_costs_its_process_and_nobody_waits() {
    let mut stage = Stage::new();
    let pid = stage.program();
    stage.holds(pid, FIRST, GIB);
    for call in ["nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetCount_v2"] {
        let eye = hasty(&stage);
        clean(&eye).await;
        let before = eye.asker_pid().await.unwrap();
        stage.edit(|state| state.hang.insert(call.into()));

        let began = Instant::now();
        let looking = tokio::spawn({
            let eye = eye.clone();
            async move { eye.refresh().await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(used(&eye.inventory(), FIRST), GIB, "the last look is there meanwhile");
        assert!(began.elapsed() < Duration::from_secs(1), "and nobody waited for it");
        let found = looking.await.unwrap();
        let took = began.elapsed();
        assert!(took < DEADLINE + Duration::from_secs(1), "{call}: {took:?}");
        assert!(found.devices.is_empty(), "what was not measured is not told as if it was");
        assert!(found.problems[0].contains("a call of the driver hangs"), "{:?}", found.problems);
        soon("the hung process is killed", || !lives(before)).await;

        stage.edit(|state| state.hang.clear());
        let found = clean(&eye).await;
        assert_eq!(process(device(&found, FIRST), pid).used_bytes, Some(GIB), "the next answer is right");
        let after = eye.asker_pid().await.unwrap();
        assert!(after != before && lives(after));
    }
}

#[tokio::test]
async fn a_driver_that_hangs_again_and_again_is_asked_ever_more_seldom() {
    let stage = Stage::new();
    let eye = hasty(&stage);
    stage.edit(|state| state.hang.insert("nvmlDeviceGetMemoryInfo_v2".into()));
    // The first is replaced at once, the second with a pause.
    for _ in 0..2 {
        assert!(eye.refresh().await.problems[0].contains("hangs"));
    }
    let began = Instant::now();
    let found = eye.refresh().await;
    assert!(found.problems[0].contains("failed 2 times in a row"), "{:?}", found.problems);
    assert!(began.elapsed() < Duration::from_millis(200) && eye.asker_pid().await.is_none());
    stage.edit(|state| state.hang.clear());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(clean(&eye).await.devices.len(), 2);
}

#[tokio::test]
async fn a_driver_that_opens_slowly_is_given_time_and_nobody_waits_for_it() {
    let stage = Stage::new();
    stage.edit(|state| state.hang.insert("nvmlInit_v2".into()));
    let eye = hasty(&stage);
    let began = Instant::now();
    let found = eye.refresh().await;
    assert!(found.problems[0].contains("is being opened"), "{:?}", found.problems);
    assert!(began.elapsed() < DEADLINE + Duration::from_secs(1));
    let asker = eye.asker_pid().await.unwrap();
    eye.refresh().await;
    assert_eq!(eye.asker_pid().await, Some(asker), "it is not killed while it opens its devices");
}

#[tokio::test]
async fn a_driver_that_takes_its_caller_with_it_takes_nobody_else() {
    let stage = Stage::new();
    let eye = stage.eye();
    clean(&eye).await;
    stage.edit(|state| state.crash.insert("nvmlDeviceGetName".into()));
    let found = eye.refresh().await;
    assert!(found.problems[0].contains("the process that asks it"), "{:?}", found.problems);
    stage.edit(|state| state.crash.clear());
    assert_eq!(clean(&eye).await.devices.len(), 2);
}

#[tokio::test]
async fn callers_at_the_same_time_share_a_look() {
    let stage = Stage::new();
    let eye = hasty(&stage);
    clean(&eye).await;
    stage.edit(|state| state.hang.insert("nvmlDeviceGetCount_v2".into()));
    let began = Instant::now();
    let looks = (0..20).map(|_| {
        tokio::spawn({
            let eye = eye.clone();
            async move { eye.refresh().await.problems.clone() }
        })
    });
    for look in looks.collect::<Vec<_>>() {
        assert_eq!(look.await.unwrap().len(), 1);
    }
    assert!(began.elapsed() < 2 * DEADLINE, "twenty callers waited for one deadline, {:?}", began.elapsed());
}

#[tokio::test]
async fn a_caller_that_stops_waiting_leaves_no_question_half_asked() {
    let stage = Stage::new();
    let eye = stage.eye();
    clean(&eye).await;
    let asker = eye.asker_pid().await;
    for _ in 0..20 {
        let _ = tokio::time::timeout(Duration::from_micros(200), eye.refresh()).await;
    }
    assert_eq!(clean(&eye).await.devices.len(), 2);
    assert_eq!(eye.asker_pid().await, asker);
}

#[tokio::test]
async fn a_driver_that_nobody_asks_is_closed_and_opened_again() {
    let stage = Stage::new();
    let mut ground = stage.ground();
    ground.program.env.push(("WHARF_GPU_PROBE_IDLE_MS".into(), "100".into()));
    let eye = Eye::new(ground);
    stage.edit(|state| state.devices[0].xid = Some(79));
    clean(&eye).await;
    let first = eye.asker_pid().await.unwrap();
    soon("it ends without a question", || !lives(first)).await;
    assert_eq!(clean(&eye).await.devices.len(), 2, "and nobody notices");
    assert_ne!(eye.asker_pid().await, Some(first));
    // What it was told is not forgotten with it.
    let nvml = library_without("nvmlDeviceGetFieldValues", &stage.path("older.so"));
    let mut ground = Ground { nvml: Some(nvml), ..stage.ground() };
    ground.program.env.push(("WHARF_GPU_PROBE_IDLE_MS".into(), "100".into()));
    let eye = Eye::new(ground);
    stage.edit(|state| state.devices[0].xid = Some(79));
    assert_eq!(device(&clean(&eye).await, FIRST).taints.len(), 1);
    let first = eye.asker_pid().await.unwrap();
    soon("it ends without a question", || !lives(first)).await;
    assert_eq!(device(&clean(&eye).await, FIRST).taints.len(), 1);
}

#[tokio::test]
async fn a_question_that_comes_as_the_driver_is_closed_is_answered_by_the_next_process() {
    let stage = Stage::new();
    let mut ground = stage.ground();
    ground.program.env.push(("WHARF_GPU_PROBE_IDLE_MS".into(), "100".into()));
    let eye = Eye::new(ground);
    let mut others = 0;
    for _ in 0..20 {
        clean(&eye).await;
        let first = eye.asker_pid().await.unwrap();
        // It wakes up with a question to answer and the time to end at once, and does either.
        signal(first, "-STOP");
        let looking = tokio::spawn({
            let eye = eye.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(120)).await;
                eye.refresh().await
            }
        });
        tokio::time::sleep(Duration::from_millis(150)).await;
        signal(first, "-CONT");
        let found = looking.await.unwrap();
        assert_eq!((found.devices.len(), &found.problems), (2, &vec![]), "and nobody notices");
        others += u32::from(eye.asker_pid().await != Some(first));
    }
    assert!(others > 0, "none ended while it was asked: this test tried nothing");
}

#[tokio::test]
async fn the_process_ends_with_whoever_started_it() {
    let stage = Stage::new();
    let eye = stage.eye();
    clean(&eye).await;
    let asker = eye.asker_pid().await.unwrap();
    drop(eye);
    soon("it ends with its eye", || !lives(asker)).await;

    // A daemon that is killed closes the pipe and does nothing else; the process hangs in a call meanwhile.
    stage.edit(|state| state.hang.insert("nvmlInit_v2".into()));
    let mut alone = Command::new(env!("CARGO_BIN_EXE_wharf-gpu-probe"));
    alone.env("WHARF_NVML_LIB", driver::library()).env(driver::VARIABLE, stage.path("driver.json"));
    let mut alone = alone.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(alone.try_wait().unwrap().is_none());
    drop(alone.stdin.take());
    let pid = alone.id();
    soon("it ends though it hangs", || !lives(pid)).await;
    assert!(alone.wait().unwrap().success());
    let mut said = String::new();
    alone.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

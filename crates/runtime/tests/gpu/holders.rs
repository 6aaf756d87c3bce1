//! How full devices are, and by whom.

use wharf_model::{ProcessKind, RunId};
use wharf_runtime::launch::{Launcher, RunPlan, Tier, subtree};

use super::*;

#[tokio::test]
async fn memory_and_its_holders_are_told_with_their_identity() {
    let mut stage = Stage::new();
    let (both, hidden) = (stage.program(), stage.program());
    stage.edit(|state| {
        state.devices[0].reserved = GIB / 4;
        state.devices[0].unattributed = GIB / 8;
        let mut list = |process| state.processes.push(process);
        list(driver::Process { kind: driver::Kind::Both, ..holding(both, FIRST, 2 * GIB) });
        list(driver::Process { not_available: true, kind: driver::Kind::Mps, ..holding(hidden, FIRST, GIB) });
    });
    let eye = stage.eye();
    assert!(eye.has_sources());
    assert!(eye.inventory().devices.is_empty(), "nobody has looked yet");
    let found = clean(&eye).await;
    assert_eq!(found.sources, ["nvml 580.65.06"]);
    let first = device(&found, FIRST);
    assert_eq!((first.total_bytes, first.reserved_bytes), (8 * GIB, GIB / 4));
    assert_eq!(first.used_bytes, Some(3 * GIB + GIB / 4 + GIB / 8), "total less free, whatever is called used");
    assert_eq!((first.index, first.pci.as_deref()), (0, Some("0000:01:00.0")));
    assert_eq!(first.processes.as_ref().map(Vec::len), Some(2), "who is in two lists is one");
    let one = process(first, both);
    let identity = wharf_sys::pidfd::identity(wharf_sys::pidfd::open(both).unwrap(), both).unwrap();
    assert_eq!((one.identity, one.used_bytes, one.kind), (Some(identity), Some(2 * GIB), ProcessKind::Compute));
    assert_eq!((one.program.as_deref(), one.unit, one.uid), (Some("sleep"), None, Some(own_uid())));
    assert_eq!(one.parents[0].0, std::process::id().cast_signed());
    assert_eq!((process(first, hidden).used_bytes, process(first, hidden).kind), (None, ProcessKind::Mps));
    assert_eq!(used(&found, SECOND), 0);
    assert!(eye.age_ms() < 60_000);
}

fn own_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata("/proc/self").unwrap().uid()
}

#[tokio::test]
async fn a_holder_that_grows_is_news_and_time_alone_is_none() {
    let mut stage = Stage::new();
    let pid = stage.program();
    stage.holds(pid, FIRST, GIB);
    let eye = stage.eye();
    clean(&eye).await;
    let mut news = eye.changes();
    let before = eye.inventory().taken_boot_ms;
    tokio::time::sleep(Duration::from_millis(5)).await;
    clean(&eye).await;
    assert!(!news.has_changed().unwrap());
    assert!(eye.inventory().taken_boot_ms > before);
    stage.edit(|state| state.processes[0].bytes = 5 * GIB);
    clean(&eye).await;
    assert!(news.has_changed().unwrap());
    assert_eq!(used(&news.borrow_and_update(), FIRST), 5 * GIB);
}

#[tokio::test]
async fn memory_comes_back_late_and_a_dead_holder_is_listed_without_identity() {
    let mut stage = Stage::new();
    let pid = stage.program();
    stage.holds(pid, FIRST, 3 * GIB);
    stage.edit(|state| (state.listed_lag_ms, state.release_lag_ms) = (1500, 3000));
    let eye = stage.eye();
    clean(&eye).await;
    stage.end(pid);
    let found = clean(&eye).await;
    assert_eq!(used(&found, FIRST), 3 * GIB, "its death is not the return of its memory");
    assert_eq!(process(device(&found, FIRST), pid).identity, None, "listed, and nobody");
    let mut was_a_ghost = false;
    loop {
        let found = clean(&eye).await;
        let first = device(&found, FIRST);
        if first.used_bytes == Some(0) {
            break;
        }
        was_a_ghost |= first.processes.as_ref().is_some_and(Vec::is_empty);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(was_a_ghost, "it left the list before its memory came back");
}

#[tokio::test]
async fn memory_that_leaks_stays_taken_by_nobody() {
    let mut stage = Stage::new();
    let pid = stage.program();
    stage.edit(|state| state.processes.push(driver::Process { leaks: true, ..holding(pid, FIRST, GIB) }));
    let eye = stage.eye();
    clean(&eye).await;
    stage.end(pid);
    clean(&eye).await;
    let found = clean(&eye).await;
    let first = device(&found, FIRST);
    assert_eq!((first.used_bytes, first.processes.as_ref().map(Vec::len)), (Some(GIB), Some(0)));
    assert!(!first.keeps_memory);
}

#[tokio::test]
async fn the_run_of_a_holder_is_known_with_a_cgroup_and_without_one() {
    for with_cgroup in [true, false] {
        let stage = Stage::new();
        let id = stage.dir.path().file_name().unwrap().to_string_lossy().replace('.', "");
        let (runs, shim, installation) = (stage.path("runs"), stage.path("shim"), format!("gpu-{id}"));
        let launcher = if with_cgroup {
            Launcher::new(runs.clone(), shim, &installation).unwrap()
        } else {
            Launcher::with_tier(runs.clone(), shim, Tier::Session).unwrap()
        };
        if with_cgroup && launcher.tier() == Tier::Session {
            println!("CANNOT BE DONE HERE: a run in a cgroup of its own, since no cgroup2 can be written to");
            continue;
        }
        let argv = ["/bin/sh", "-c", "sleep 600 & wait"].map(str::to_owned).to_vec();
        let plan = RunPlan::new("llama@a".parse().unwrap(), RunId(12), argv, stage.path("log"));
        let live = launcher.launch(plan).await.unwrap();
        let main = live.pid();
        // What takes the memory is a child of the main process.
        let child = loop {
            let text = fs::read_to_string(format!("/proc/{main}/task/{main}/children")).unwrap();
            if let Some(child) = text.split_ascii_whitespace().next() {
                break child.parse().unwrap();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        stage.holds(child, FIRST, GIB);
        let subtree = with_cgroup.then(|| subtree(&installation));
        let eye = Eye::new(Ground { runs: Runs { subtree, folder: runs, ..Runs::default() }, ..stage.ground() });
        let found = eye.refresh().await;
        live.kill_all();
        live.emptied().await;
        launcher.forget(&"llama@a".parse().unwrap(), RunId(12)).await;
        let holder = process(device(&found, FIRST), child);
        assert_eq!(holder.unit, Some(("llama@a".parse().unwrap(), RunId(12))), "with a cgroup: {with_cgroup}");
        assert!(holder.parents.iter().any(|(pid, _)| *pid == main));
    }
}

#[tokio::test]
async fn numbers_of_processes_of_another_namespace_are_not_believed() {
    let mut stage = Stage::new();
    let pid = stage.program();
    stage.holds(pid, FIRST, GIB);
    let eye = Eye::new(Ground { pids: Pids::OfAnotherNamespace, ..stage.ground() });
    let found = eye.refresh().await;
    assert_eq!((device(&found, FIRST).processes.clone(), used(&found, FIRST)), (None, GIB));
    assert!(found.problems.iter().any(|why| why.contains("PID namespace")), "{:?}", found.problems);
}

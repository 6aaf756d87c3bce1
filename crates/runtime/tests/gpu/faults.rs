//! What a driver refuses, loses or does not know.

use wharf_model::{DeviceKind, LimitsBackend, TaintEffect};

use super::*;

#[tokio::test]
async fn a_lost_device_stays_known_and_is_tainted_and_the_other_goes_on() {
    let stage = Stage::new();
    let eye = stage.eye();
    clean(&eye).await;
    stage.edit(|state| state.devices[0].lost = true);
    let found = eye.refresh().await;
    let lost = device(&found, FIRST);
    assert_eq!((lost.used_bytes, lost.processes.clone(), lost.total_bytes), (None, None, 8 * GIB));
    assert_eq!(lost.taints[0].effect, TaintEffect::Drain);
    assert!(
        found.problems[0].contains(FIRST) && found.problems[0].contains("fell off the bus"),
        "{:?}",
        found.problems
    );
    assert_eq!(used(&found, SECOND), 0);
    // It comes back as it was.
    stage.edit(|state| state.devices[0].lost = false);
    assert!(device(&clean(&eye).await, FIRST).taints.is_empty());
}

#[tokio::test]
async fn a_device_that_does_not_say_how_full_it_is_is_left_out_and_named() {
    let stage = Stage::new();
    let eye = stage.eye();
    clean(&eye).await;
    stage.edit(|state| state.errors.insert("nvmlDeviceGetMemoryInfo_v2".into(), 999));
    let found = eye.refresh().await;
    assert!(found.devices.is_empty(), "an old figure must not look like a new one");
    assert!(found.problems[0].starts_with(&format!("{FIRST} does not tell how full it is")), "{:?}", found.problems);
    stage.edit(|state| state.errors.clear());
    assert_eq!(clean(&eye).await.devices.len(), 2);
}

#[tokio::test]
async fn who_may_not_ask_for_processes_has_none_rather_than_nobody() {
    let mut stage = Stage::new();
    let pid = stage.program();
    stage.holds(pid, FIRST, GIB);
    stage.edit(|state| state.errors.insert("nvmlDeviceGetComputeRunningProcesses_v3".into(), 4));
    let found = stage.eye().refresh().await;
    assert_eq!((device(&found, FIRST).processes.clone(), used(&found, FIRST)), (None, GIB));
    assert!(found.problems[0].contains("permission"), "{:?}", found.problems);
}

#[tokio::test]
async fn a_list_that_grows_while_it_is_fetched_is_fetched_again() {
    let mut stage = Stage::new();
    let pid = stage.program();
    stage.holds(pid, FIRST, GIB);
    stage.edit(|state| state.growing_lists = 3);
    let found = clean(&stage.eye()).await;
    assert_eq!(process(device(&found, FIRST), pid).used_bytes, Some(GIB));
    assert_eq!(stage.edit(|state| state.growing_lists), 0, "it was short three times");
}

#[tokio::test]
async fn functions_that_a_driver_does_not_have_cost_only_what_they_tell() {
    let mut stage = Stage::new();
    let pid = stage.program();
    stage.holds(pid, FIRST, GIB);
    let with_all = clean(&stage.eye()).await;
    let by = device(&with_all, FIRST).limits;
    assert!(matches!(by, LimitsBackend::NvmlDmem | LimitsBackend::NvmlMisc), "{by:?}");
    for symbol in [
        "nvmlDeviceGetMemoryLimits_v1",
        "nvmlDeviceGetMPSComputeRunningProcesses_v3",
        "nvmlDeviceGetFieldValues",
        "nvmlDeviceGetMigMode",
        "nvmlEventSetCreate",
        "nvmlDeviceGetNumaNodeId",
    ] {
        let nvml = library_without(symbol, &stage.path(&format!("{symbol}.so")));
        let found = clean(&Eye::new(Ground { nvml: Some(nvml), ..stage.ground() })).await;
        let first = device(&found, FIRST);
        assert_eq!(process(first, pid).used_bytes, Some(GIB), "without {symbol}");
        assert_eq!(first.limits == LimitsBackend::None, symbol == "nvmlDeviceGetMemoryLimits_v1");
    }
    let nvml = library_without("nvmlDeviceGetComputeRunningProcesses_v3", &stage.path("older.so"));
    let found = Eye::new(Ground { nvml: Some(nvml), ..stage.ground() }).refresh().await;
    assert_eq!(device(&found, FIRST).processes, None, "without the list that matters nobody is known");
}

#[tokio::test]
async fn advice_and_errors_of_the_driver_are_taints() {
    let stage = Stage::new();
    let eye = stage.eye();
    clean(&eye).await;
    stage.edit(|state| (state.devices[0].recovery, state.devices[0].xid) = (1, Some(95)));
    let found = clean(&eye).await;
    let taint = &device(&found, FIRST).taints[0];
    assert_eq!(taint.effect, TaintEffect::Drain);
    assert_eq!(taint.reason, "the driver asks for a reset of the device (Xid 95)");
    assert!(device(&found, SECOND).taints.is_empty());
    // An older driver gives no advice: the error itself counts.
    let nvml = library_without("nvmlDeviceGetFieldValues", &stage.path("older.so"));
    let eye = Eye::new(Ground { nvml: Some(nvml), ..stage.ground() });
    stage.edit(|state| state.devices[1].xid = Some(79));
    clean(&eye).await;
    let taint = device(&clean(&eye).await, SECOND).taints[0].clone();
    assert_eq!((taint.effect, taint.reason.contains("Xid 79")), (TaintEffect::NoNew, true), "{taint:?}");
}

#[tokio::test]
async fn instances_are_devices_and_the_whole_is_not_handed_out() {
    let mut stage = Stage::new();
    let pid = stage.program();
    stage.edit(|state| {
        let part = |uuid: &str| driver::Part { uuid: uuid.into(), total: 4 * GIB };
        state.devices[0].parts = vec![part("MIG-1"), part("MIG-2")];
    });
    stage.holds(pid, "MIG-2", GIB);
    let found = clean(&stage.eye()).await;
    let part = device(&found, "MIG-2");
    assert_eq!((part.kind, part.parent.clone()), (DeviceKind::Mig, Some(FIRST.into())));
    assert_eq!((part.total_bytes, part.used_bytes, process(part, pid).used_bytes), (4 * GIB, Some(GIB), Some(GIB)));
    assert_eq!(used(&found, "MIG-1"), 0);
    let whole = device(&found, FIRST);
    assert_eq!((whole.taints[0].effect, whole.used_bytes), (TaintEffect::NoNew, Some(GIB)));
}

#[tokio::test]
async fn memory_that_stays_taken_or_is_the_machines_is_said() {
    let mut stage = Stage::new();
    let pid = stage.program();
    stage.edit(|state| {
        state.keeps_memory = true;
        (state.devices[0].node, state.devices[1].unified) = (Some(4), true);
    });
    stage.holds(pid, FIRST, GIB);
    let eye = stage.eye();
    clean(&eye).await;
    stage.end(pid);
    clean(&eye).await;
    let found = clean(&eye).await;
    let node = device(&found, FIRST);
    assert!(node.keeps_memory);
    assert_eq!((node.used_bytes, node.processes.as_ref().map(Vec::len)), (Some(GIB), Some(0)));
    let shared = device(&found, SECOND);
    assert!(shared.unified && shared.total_bytes > GIB / 4 && shared.used_bytes.is_some());
}

#[tokio::test]
async fn devices_with_links_to_each_other_are_an_island() {
    let stage = Stage::new();
    stage.edit(|state| {
        state.devices.push(driver::Device::new("GPU-c", GIB));
        (state.devices[0].links, state.devices[1].links) = (vec![1, 1], vec![0]);
    });
    let found = clean(&stage.eye()).await;
    let island = |uuid| device(&found, uuid).island;
    assert_eq!((island(FIRST), island(SECOND), island("GPU-c")), (Some(0), Some(0), None));
}

#[tokio::test]
async fn a_library_that_does_not_fit_its_driver_is_tried_again() {
    let stage = Stage::new();
    stage.edit(|state| state.errors.insert("nvmlInit_v2".into(), 18));
    let eye = stage.eye();
    let found = eye.refresh().await;
    assert!(found.devices.is_empty() && found.problems[0].contains("version mismatch"), "{:?}", found.problems);
    stage.edit(|state| state.errors.clear());
    assert_eq!(clean(&eye).await.devices.len(), 2);
}

//! Where devices come from, and that nothing is started where there are none.

use std::process::Stdio;

use super::*;

#[tokio::test]
async fn a_machine_without_a_gpu_starts_no_process_and_has_no_problem() {
    let stage = Stage::new();
    fs::create_dir(stage.path("root")).unwrap();
    let eye = Eye::new(Ground { nvml: None, root: stage.path("root"), ..stage.ground() });
    assert!(!eye.has_sources());
    let found = clean(&eye).await;
    assert!(found.devices.is_empty() && found.sources.is_empty());
    assert_eq!(eye.asker_pid().await, None);
}

#[tokio::test]
async fn a_library_that_is_not_there_is_told_and_looked_for_when_somebody_asks() {
    let stage = Stage::new();
    let place = stage.path("libnvidia-ml.so.1");
    let eye = Eye::new(Ground { nvml: Some(place.clone()), ..stage.ground() });
    let found = eye.refresh().await;
    assert!(found.problems[0].contains("libnvidia-ml.so.1"), "{:?}", found.problems);
    assert_eq!(eye.asker_pid().await, None, "its process has ended");
    fs::copy(driver::library(), &place).unwrap();
    assert_eq!(eye.refresh().await.problems.len(), 1, "and none is started for each look");
    eye.reconsider().await;
    assert_eq!(clean(&eye).await.devices.len(), 2);
}

#[tokio::test]
async fn devices_of_a_file_are_full_by_what_living_programs_wrote() {
    let stage = Stage::new();
    fs::create_dir(stage.path("root")).unwrap();
    let text = "[[device]]\nid = \"sim-0\"\nname = \"Simulated 8\"\ntotal = \"8GiB\"\nreserved = \"512MiB\"\nisland = 3\n\
        [[device]]\nid = \"sim-1\"\ntotal = \"4GiB\"\n";
    fs::write(stage.path("gpus.toml"), text).unwrap();
    let eye = Eye::new(Ground { nvml: None, root: stage.path("root"), ..stage.ground() });
    assert!(eye.has_sources());
    let found = clean(&eye).await;
    assert_eq!((found.sources.as_slice(), found.devices.len()), (["gpus.toml".to_owned()].as_slice(), 2));
    assert_eq!((used(&found, "sim-0"), used(&found, "sim-1")), (GIB / 2, 0));
    assert_eq!((device(&found, "sim-0").island, &*device(&found, "sim-0").name), (Some(3), "Simulated 8"));

    // As a program in any language would: one line of its own stat, one file.
    let script = "printf '{\"start_ticks\": %s, \"devices\": {\"sim-0\": 1073741824}}' \
        \"$(cut -d' ' -f22 /proc/$$/stat)\" > \"$1/.$$\" && mv \"$1/.$$\" \"$1/$$\" && echo ready && exec sleep 600";
    let mut engine = Command::new("/bin/sh");
    engine.args(["-c", script, "engine"]).arg(eye.simulated_folder()).stdout(Stdio::piped());
    let mut engine = engine.spawn().unwrap();
    let mut ready = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(engine.stdout.take().unwrap()), &mut ready).unwrap();
    assert_eq!(ready, "ready\n");
    let found = clean(&eye).await;
    let pid = engine.id().cast_signed();
    assert_eq!(used(&found, "sim-0"), GIB + GIB / 2);
    assert_eq!(process(device(&found, "sim-0"), pid).used_bytes, Some(GIB));
    assert!(process(device(&found, "sim-0"), pid).identity.is_some());
    engine.kill().unwrap();
    engine.wait().unwrap();
    assert_eq!(used(&clean(&eye).await, "sim-0"), GIB / 2, "death gives it back, though the file is still there");

    fs::write(stage.path("gpus.toml"), "[[device]]\nid = \"sim-0\"\ntotal = \"8GB\"\n").unwrap();
    let found = eye.refresh().await;
    assert!(found.devices.is_empty() && found.problems[0].contains("8GB"), "{:?}", found.problems);
}

#[tokio::test]
async fn devices_of_a_driver_and_of_a_file_stand_side_by_side() {
    let stage = Stage::new();
    fs::write(stage.path("gpus.toml"), "[[device]]\nid = \"sim-0\"\ntotal = \"8GiB\"\n").unwrap();
    let eye = stage.eye();
    let found = clean(&eye).await;
    let ids: Vec<&str> = found.devices.iter().map(|device| &*device.id.0).collect();
    assert_eq!(ids, [FIRST, SECOND, "sim-0"]);
    assert_eq!(found.sources, ["nvml 580.65.06", "gpus.toml"]);
}

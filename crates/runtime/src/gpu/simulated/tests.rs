//! What people write in the file, and programs in the folder.

use super::*;

#[test]
fn sizes_are_written_as_people_do() {
    for (text, bytes) in [("8GiB", 8 << 30), ("1.5 GiB", 3 << 29), ("800MiB", 800 << 20), ("4096", 4096)] {
        assert_eq!(size(text), Some(bytes), "{text}");
    }
    for wrong in ["8GB", "", "GiB", "-1", "1.GiB", "99999999999TiB"] {
        assert_eq!(size(wrong), None, "{wrong}");
    }
}

#[test]
fn a_file_that_makes_no_sense_is_told_with_its_reason() {
    let good = "[[device]]\nid = \"sim-0\"\ntotal = \"8GiB\"\nisland = 1\n[[device]]\nid = \"sim-1\"\ntotal = 4096\n";
    assert_eq!(parse(good).unwrap().device[1].total, Size(4096));
    for (text, why) in [
        ("[[device]]\nid = \"a\"\ntotal = \"8GB\"\n", "8GB"),
        ("[[device]]\nid = \"a\"\ntotal = 1\n[[device]]\nid = \"a\"\ntotal = 1\n", "two devices are called a"),
        ("[[device]]\nid = \"a,b\"\ntotal = 1\n", "a,b"),
        ("[[device]]\nid = \"a\"\ntotal = 1\nreserved = 1\n", "no memory"),
        ("[[device]]\nid = \"a\"\ntotal = 1\ncolour = 1\n", "colour"),
    ] {
        assert!(parse(text).unwrap_err().contains(why), "{text}: {:?}", parse(text));
    }
}

#[test]
fn what_a_process_wrote_counts_while_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pid = child.id().cast_signed();
    let (start_ticks, _) = alive(pid).unwrap();
    let own = std::process::id().cast_signed();
    let write = |pid: i32, held: &Held| {
        fs::write(dir.path().join(pid.to_string()), serde_json::to_vec(held).unwrap()).unwrap();
    };
    let devices_held = BTreeMap::from([("sim-0".to_owned(), 1 << 30)]);
    write(pid, &Held { start_ticks, devices: devices_held.clone() });
    // Of an earlier process with our number.
    write(own, &Held { start_ticks: 1, devices: devices_held });
    fs::write(dir.path().join("README"), "no pid").unwrap();
    let (found, problems) = held(dir.path());
    assert_eq!((found.keys().copied().collect::<Vec<_>>(), problems), (vec![pid], vec![]));

    let declared = parse("[[device]]\nid = \"sim-0\"\ntotal = \"8GiB\"\nreserved = \"1GiB\"\n").unwrap();
    let runs = super::super::whose::Runs::default();
    let whose = super::super::whose::Whose::new(&runs);
    let device = &devices(&declared, &found, |pid, used, kind| whose.process(pid, used, kind))[0];
    assert_eq!(device.used_bytes, Some(2 << 30));
    assert_eq!(device.processes.as_ref().unwrap()[0].used_bytes, Some(1 << 30));
    assert!(device.processes.as_ref().unwrap()[0].identity.is_some());

    child.kill().unwrap();
    child.wait().unwrap();
    assert!(held(dir.path()).0.is_empty(), "death gives it back");
}

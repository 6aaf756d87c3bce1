//! P9: whatever a power cut leaves of the state database can be opened, and holds all that was acknowledged.
//!
//! What it leaves is made from the files of a daemon that was killed: the write-ahead log up to every sector, with
//! sectors of what was not yet synced missing or torn. A commit is acknowledged after its sync, so the length of the
//! log by then says what every image that is as long must hold.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};
use wharf_tests::{Daemon, figure};

const UNITS: usize = 8;

/// Opens each image with SQLite. Reads `[[length, [names]], …]`, says how many images, or what is wrong.
const IMAGES: &str = r#"
import json, os, random, sqlite3, sys
source, folder, acked = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
db, wal = open(source, "rb").read(), open(source + "-wal", "rb").read()
dice, count = random.Random(7), 0
path = os.path.join(folder, "image.db")
def check(log, synced, what):
    global count
    for end in ("", "-wal", "-shm"):
        if os.path.exists(path + end): os.remove(path + end)
    open(path, "wb").write(db)
    open(path + "-wal", "wb").write(log)
    must = set()
    for length, names in acked:
        if length <= synced: must = set(names)
    image = sqlite3.connect(path)
    whole = image.execute("pragma integrity_check").fetchone()[0]
    tables = {row[0] for row in image.execute("select name from sqlite_master")}
    held = {row[0] for row in image.execute("select name from units")} if "units" in tables else set()
    image.close()
    count += 1
    if whole != "ok" or not must <= held:
        sys.exit(f"{what}: {whole}, lost {sorted(must - held)}")
first = acked[0][0]
for length in range(0, len(wal) + 1, 512):
    check(wal[:length], length, f"cut at {length}")
for _ in range(400):
    # Synced up to an acknowledged commit; behind that, sectors reached the disk in any order, or half.
    synced = dice.choice([length for length, _ in acked if length < len(wal)] or [first])
    torn = bytearray(wal)
    for sector in range(synced - synced % 512 + 512, len(torn), 512):
        fate = dice.random()
        if fate < 0.4: torn[sector:sector + 512] = bytes(len(torn[sector:sector + 512]))
        elif fate < 0.5: torn[sector + 200:sector + 512] = os.urandom(len(torn[sector + 200:sector + 512]))
    check(bytes(torn), synced, f"torn behind {synced}")
print(count)
"#;

fn state(home: &Path) -> (Vec<u8>, Vec<u8>) {
    let path = home.join("state/wharf.db");
    (fs::read(&path).unwrap(), fs::read(path.with_extension("db-wal")).unwrap())
}

#[test]
fn p9_every_image_of_a_power_cut_opens_and_holds_what_was_acknowledged() {
    let mut daemon = Daemon::start();
    let wal = daemon.home.join("state/wharf.db-wal");
    let mut names: Vec<String> = vec![];
    let mut acked: Vec<(u64, Vec<String>)> = vec![(fs::metadata(&wal).unwrap().len(), vec![])];
    for n in 0..UNITS {
        let name = format!("command@p{n}");
        daemon.ok("service.start", json!({ "name": name, "with": { "argv": ["sleep", "1000"] } }));
        names.push(name);
        acked.push((fs::metadata(&wal).unwrap().len(), names.clone()));
    }
    assert!(acked.windows(2).all(|w| w[0].0 < w[1].0), "the log was begun anew: its length says nothing: {acked:?}");
    daemon.kill_9();
    let (db, log) = state(&daemon.home);
    let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let told = serde_json::to_string(&acked).unwrap();
    let said = Command::new("python3")
        .args(["-c", IMAGES])
        .arg(daemon.home.join("state/wharf.db"))
        .arg(folder.path())
        .arg(told)
        .output()
        .unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    let count: u32 = String::from_utf8_lossy(&said.stdout).trim().parse().unwrap();

    // And some of them with the daemon itself.
    for (length, names) in acked.iter().step_by(3) {
        let mut other = Daemon::prepare();
        let path = other.home.join("state/wharf.db");
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &db).unwrap();
        // Cut in the middle of the write after the last acknowledged one.
        let cut = log.len().min(usize::try_from(*length).unwrap() + 700);
        fs::write(path.with_extension("db-wal"), &log[..cut]).unwrap();
        other.launch();
        let list = other.ok("service.list", json!({}));
        for name in names {
            let is_there = |row: &Value| row["name"] == name.as_str();
            assert!(list.as_array().unwrap().iter().any(is_there), "cut at {cut}: {name} is lost: {list}");
        }
    }
    figure(
        "P9",
        &format!(
            "{count} images of a power cut over {} KiB of log: all open, 0 acknowledged units lost",
            log.len() / 1024
        ),
    );
    daemon.launch();
}

//! A daemon without a free descriptor cannot see: what it cannot see it must not take for dead. A process of
//! its own, since a limit is one of the whole process.

use std::{fs::File, io, path::PathBuf, time::Duration};

use wharf_model::{RunId, UnitName};
use wharf_runtime::launch::{Found, Launcher, RunPlan, Tier};

const RUN: RunId = RunId(7);

fn unit() -> UnitName {
    "python-api@vault".parse().unwrap()
}

/// Takes all descriptors that there are.
fn take_all() -> Vec<File> {
    let mut taken = vec![];
    loop {
        match File::open("/dev/null") {
            Ok(file) => taken.push(file),
            Err(e) => {
                assert_eq!(e.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()), "{e}");
                return taken;
            }
        }
    }
}

fn limit(soft: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(soft), maximum })?)
}

#[tokio::test]
async fn what_cannot_be_looked_at_is_not_taken_for_dead() {
    limit(200).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { dir.path().join(name) };
    let daemon = Launcher::with_tier(at("runs"), at("shim"), Tier::Session).unwrap();
    let argv = vec!["/bin/sleep".into(), "60".into()];
    let plan = RunPlan::new(unit(), RUN, argv, at("log"));
    let pid = daemon.launch(plan).await.unwrap().pid();
    drop(daemon);
    // Its line to the launcher is closed a moment later, and frees some.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let next = Launcher::with_tier(at("runs"), at("shim"), Tier::Session).unwrap();
    let taken = take_all();
    let unit = unit();
    let mut found = Box::pin(next.find(&unit, RUN));
    let early = tokio::time::timeout(Duration::from_millis(500), &mut found).await;
    drop(taken);
    assert!(early.is_err(), "found without a look: {early:?}");
    match tokio::time::timeout(Duration::from_secs(10), found).await.unwrap() {
        Found::Alive(live) => {
            assert_eq!(live.pid(), pid);
            live.kill_all();
            live.emptied().await;
        }
        other => panic!("{other:?}"),
    }
}

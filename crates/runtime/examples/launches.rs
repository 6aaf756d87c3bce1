//! What a start costs: so many runs of `sleep` through the launcher, beside as many plain spawns.
//!
//! `cargo run --release -p wharf-runtime --example launches [RUNS]`. Owns nothing: all runs are ended.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use wharf_model::{Failure, RunId, UnitName};
use wharf_runtime::launch::{Found, Launcher, LiveRun, RunPlan};

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let runs: u64 = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(500);
    let dir = std::env::temp_dir().join(format!("wharf-launches-{}", std::process::id()));
    let began = Instant::now();
    let launcher = Launcher::new(dir.join("runs"), dir.join("shim"), "launches")?;
    println!("ready to launch after {:?}", began.elapsed());
    println!("tier {}, limits by {:?}", launcher.tier(), launcher.abilities());

    plain(runs);
    let lives = through_launcher(&launcher, runs, &dir).await?;
    shims(&lives);

    adoption(&launcher, &dir).await?;
    replacement(&launcher, &dir).await?;
    let began = Instant::now();
    for live in &lives {
        live.kill_all();
    }
    for live in &lives {
        live.emptied().await;
    }
    println!("ended: {:.0} µs each", each(began.elapsed(), runs));
    let began = Instant::now();
    for (unit, run) in launcher.runs()? {
        launcher.forget(&unit, run).await;
    }
    println!("forgotten: {:.0} µs each", each(began.elapsed(), runs));
    let _ = fs::remove_dir_all(dir);
    Ok(())
}

/// The floor: spawns without a shim, a record or a cgroup.
fn plain(runs: u64) {
    let (own, began) = (cpu_ns("self"), Instant::now());
    let spawn = |_| Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn().ok();
    let mut children: Vec<_> = (0..runs).filter_map(spawn).collect();
    let (took, own) = (began.elapsed(), cpu_ns("self") - own);
    std::thread::sleep(Duration::from_millis(300));
    let theirs: u64 = children.iter().map(|c| cpu_ns(&c.id().to_string())).sum();
    println!(
        "plain spawn: {:.0} µs each; CPU {:.0} µs own, {:.0} µs the program",
        each(took, runs),
        us(own, runs),
        us(theirs, runs)
    );
    for child in &mut children {
        let _ = child.kill();
        let _ = child.wait();
    }
}

async fn through_launcher(launcher: &Launcher, runs: u64, dir: &Path) -> Result<Vec<LiveRun>, Failure> {
    let (own, began) = (cpu_ns("self"), Instant::now());
    let tasks: Vec<_> = (1..=runs).map(|run| tokio::spawn(launch(launcher.clone(), plan(run, run, dir)))).collect();
    let mut lives = vec![];
    for task in tasks {
        lives.push(task.await.map_err(|e| Failure::new(wharf_model::ErrorKind::Internal, e.to_string()))??);
    }
    let (took, own) = (began.elapsed(), cpu_ns("self") - own);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let theirs: u64 = lives.iter().map(|live| cpu_ns(&live.pid().to_string())).sum();
    let shims: u64 = lives.iter().map(|live| cpu_ns(&parent(live.pid()).to_string())).sum();
    let forks = lives.first().map_or(0, |live| cpu_ns(&parent(parent(live.pid())).to_string()));
    println!(
        "launch: {:.0} µs each; CPU {:.0} µs own, {:.0} µs launcher, {:.0} µs shim, {:.0} µs the program",
        each(took, runs),
        us(own, runs),
        us(forks, runs),
        us(shims, runs),
        us(theirs, runs)
    );
    Ok(lives)
}

/// What a new daemon does with the runs of the last one.
async fn adoption(launcher: &Launcher, dir: &Path) -> Result<(), Failure> {
    let next = Launcher::with_tier(dir.join("runs"), dir.join("shim"), launcher.tier())?;
    let began = Instant::now();
    let runs = next.runs()?;
    let mut alive = 0;
    for (unit, run) in &runs {
        alive += u64::from(matches!(next.find(unit, *run).await, Found::Alive(_)));
    }
    println!("adopted: {alive} of {}, {:.0} µs each", runs.len(), each(began.elapsed(), runs.len() as u64));
    Ok(())
}

/// From `kill -9` of a program to its replacement, one at a time.
async fn replacement(launcher: &Launcher, dir: &Path) -> Result<(), Failure> {
    let mut times = vec![];
    let mut live = launcher.launch(plan(1, 100_000, dir)).await?;
    for run in 100_001..100_051 {
        let began = Instant::now();
        let fd = wharf_sys::pidfd::open(live.pid())?;
        wharf_sys::pidfd::signal(fd, 9)?;
        live.exit_known().await;
        let known = began.elapsed();
        live.emptied().await;
        let emptied = began.elapsed();
        live = launcher.launch(plan(1, run, dir)).await?;
        times.push((known, emptied, began.elapsed()));
    }
    live.kill_all();
    live.emptied().await;
    times.sort();
    let (known, emptied, replaced) = times[times.len() / 2];
    println!("killed: exit known after {known:?}, empty after {emptied:?}, replaced after {replaced:?} (median)");
    Ok(())
}

fn shims(lives: &[LiveRun]) {
    let of = |field: &str| {
        let kib = |live: &LiveRun| {
            let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", parent(live.pid()))).unwrap_or_default();
            let lines = text.lines().filter_map(|line| line.strip_prefix(field));
            lines.filter_map(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).sum::<u64>()
        };
        lives.iter().map(kib).sum::<u64>() / lives.len().max(1) as u64
    };
    println!(
        "shim: PSS {} KiB, private dirty {} KiB, private clean {} KiB, RSS {} KiB",
        of("Pss:"),
        of("Private_Dirty:"),
        of("Private_Clean:"),
        of("Rss:")
    );
}

fn plan(unit: u64, run: u64, dir: &Path) -> RunPlan {
    let unit: UnitName = format!("unit-{unit}").parse().unwrap_or_else(|e| panic!("{e}"));
    RunPlan {
        env: vec![("PATH".into(), "/usr/bin:/bin".into())],
        ..RunPlan::new(unit, RunId(run), vec!["/bin/sleep".into(), "1000".into()], dir.join(format!("log-{run}")))
    }
}

async fn launch(launcher: Launcher, plan: RunPlan) -> Result<LiveRun, Failure> {
    launcher.launch(plan).await
}

fn parent(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
    parent.unwrap_or(0)
}

/// All threads' time on a processor.
fn cpu_ns(pid: &str) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let one = |path: &Path| fs::read_to_string(path.join("schedstat")).ok()?.split(' ').next()?.parse::<u64>().ok();
    threads.flatten().filter_map(|thread| one(&thread.path())).sum()
}

fn each(time: Duration, runs: u64) -> f64 {
    time.as_secs_f64() * 1e6 / runs as f64
}

fn us(ns: u64, runs: u64) -> f64 {
    ns as f64 / 1e3 / runs as f64
}

//! The daemon is killed at random moments while units are started, stopped and restarted.
//! Each child takes a lock of its own: a second copy would be seen.

use std::{
    fs,
    time::{Duration, Instant, SystemTime},
};

use serde_json::json;
use wharf_tests::{Daemon, alive, eventually, post, processes_with};

const UNITS: usize = 8;
const ROUNDS: usize = 40;

/// Numbers that look random, from a seed that is printed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

#[test]
fn forty_kills_under_churn_lose_and_double_nothing() {
    let seed = std::env::var("WHARF_SEED")
        .ok()
        .and_then(|s| s.parse().ok())
        .unwrap_or_else(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64);
    println!("seed {seed}: WHARF_SEED={seed} cargo xtask test forty_kills");
    let mut dice = Dice(seed);
    let mut daemon = Daemon::start();
    let doubles = daemon.home.join("doubles");
    let mark = daemon.home.join("lock").display().to_string();
    let names: Vec<String> = (0..UNITS).map(|n| format!("command@u{n}")).collect();
    for (n, name) in names.iter().enumerate() {
        let script = format!(
            "exec 9>{mark}{n}; flock -n 9 || {{ echo {n} >> {}; exit 1; }}; n=0; while :; do n=$((n+1)); echo line $n; sleep 0.2; done",
            doubles.display()
        );
        daemon.ok("service.start", json!({ "name": name, "with": { "argv": ["bash", "-c", script] } }));
    }
    let pid = |daemon: &Daemon, name: &str| {
        daemon.ok("service.status", json!({ "name": name }))["pid"].as_i64().unwrap_or(0) as i32
    };
    for round in 0..ROUNDS {
        let churned = dice.below(UNITS as u64) as usize;
        let untouched: Vec<i32> =
            names.iter().enumerate().filter(|(n, _)| *n != churned).map(|(_, name)| pid(&daemon, name)).collect();
        let method = ["service.restart", "service.stop", "service.start"][dice.below(3) as usize];
        let call = json!({ "jsonrpc": "2.0", "method": method, "params": { "name": names[churned], "wait": false } });
        post(&daemon.socket(), &call.to_string()).unwrap();
        std::thread::sleep(Duration::from_micros(dice.below(30_000)));
        daemon.kill_9();
        assert!(untouched.iter().all(|p| alive(*p)), "round {round}: a service died with the daemon");
        let began = Instant::now();
        daemon.launch();
        assert!(began.elapsed() < Duration::from_secs(5), "round {round}: {:?} to answer", began.elapsed());
        daemon.ok("service.start", json!({ "name": names[churned] }));
        eventually("all run again", Duration::from_secs(20), || {
            names.iter().all(|name| daemon.state(name) == "running")
        });
        let now: Vec<i32> =
            names.iter().enumerate().filter(|(n, _)| *n != churned).map(|(_, name)| pid(&daemon, name)).collect();
        assert_eq!(untouched, now, "round {round}: a service was started again");
        assert!(!doubles.exists(), "round {round}: {} ran twice at once", fs::read_to_string(&doubles).unwrap());
    }
    for name in &names {
        daemon.ok("service.stop", json!({ "name": name }));
    }
    assert_eq!(processes_with(&mark), Vec::<i32>::new(), "orphans");
    println!("{ROUNDS} kills: 0 died, 0 doubles, 0 orphans");
}

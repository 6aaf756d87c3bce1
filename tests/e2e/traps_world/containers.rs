//! Containers that Wharf runs by `docker run`, and that somebody else removes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, Docker, cannot, eventually};

const SOON: Duration = Duration::from_secs(20);

fn status(daemon: &Daemon, name: &str) -> Value {
    daemon.ok("service.status", json!({ "name": format!("command@{name}") }))
}

/// Containers of one test. Dropped, they are gone.
struct Containers {
    docker: Arc<Docker>,
    image: &'static str,
    mark: String,
}

impl Containers {
    fn begin() -> Result<Self, String> {
        let docker = Docker::find()?;
        let image = docker.programs()?;
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("wharf-t9-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        docker.run(&["run", "--rm", "--network", "none", "--name", &mark, image, "sleep", "0"])?;
        Ok(Self { docker, image, mark })
    }

    fn name(&self, unit: &str) -> String {
        format!("{}-{unit}", self.mark)
    }

    /// The command that a person would type, in the foreground.
    fn argv(&self, unit: &str) -> Value {
        let name = self.name(unit);
        let argv = ["docker", "run", "--rm", "--network", "none", "--name", &name, self.image, "sleep", "1000"];
        let env = self.docker.host().map_or_else(|| json!({}), |host| json!({ "DOCKER_HOST": host }));
        json!({ "argv": argv, "env": env, "stop_timeout_s": 1 })
    }

    /// Ids of the unit's container, as Docker says.
    fn ids(&self, unit: &str) -> String {
        let filter = format!("name=^{}$", self.name(unit));
        self.docker.run(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]).unwrap().trim().to_owned()
    }

    /// By hand: `docker rm -f`.
    fn remove(&self, unit: &str) {
        self.docker.run(&["rm", "--force", &self.name(unit)]).unwrap();
    }

    /// Removed by hand: how long reads went on to say that it runs.
    fn removed_until_told(&self, daemon: &Daemon, unit: &str) -> (Duration, Value) {
        self.remove(unit);
        let removed = Instant::now();
        loop {
            let told = status(daemon, unit);
            if told["state"] != "running" {
                return (removed.elapsed(), told);
            }
            assert!(removed.elapsed() < SOON, "{unit} is said to run, and its container is gone: {told}");
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for unit in ["supervised", "bounded", "observed", "away", "stopped"] {
            let _ = self.docker.run(&["rm", "--force", &self.name(unit)]);
        }
    }
}

#[test]
fn t9_a_container_that_is_removed_by_hand_is_told_by_the_next_read_and_the_policy_decides() {
    let containers = match Containers::begin() {
        Ok(containers) => containers,
        Err(why) => return cannot("T9", &format!("a container removed by hand ({why})")),
    };
    let mut daemon = Daemon::start();
    // One death is what `bounded` forgives here.
    let bounded = json!({ "preset": "bounded", "restart": { "budget": 1, "delay_ms": 50 } });
    let policies = [
        ("supervised", json!({})),
        ("bounded", bounded),
        ("observed", json!({ "preset": "observe" })),
        ("away", json!({ "preset": "observe" })),
    ];
    for (unit, policy) in &policies {
        let params = json!({ "name": format!("command@{unit}"), "with": containers.argv(unit), "policy": policy });
        daemon.ok("service.start", params);
        eventually(&format!("the container of {unit} is there"), SOON, || !containers.ids(unit).is_empty());
    }
    let killed = json!({ "kind": "exited", "code": 137 });
    let mut slowest = Duration::ZERO;

    // Supervised: told, and begun again as a new container.
    let first = containers.ids("supervised");
    let (took, told) = containers.removed_until_told(&daemon, "supervised");
    slowest = slowest.max(took);
    assert!(["backoff", "starting"].contains(&told["state"].as_str().unwrap()), "{told}");
    assert_eq!((&told["last_exit"], &told["want"]), (&killed, &json!("up")), "{told}");
    assert!(told["error_message"].as_str().unwrap().contains("137"), "{told}");
    eventually("it runs again, in another container", SOON, || {
        let again = containers.ids("supervised");
        status(&daemon, "supervised")["state"] == "running" && !again.is_empty() && again != first
    });
    assert_eq!(status(&daemon, "supervised")["restart_count"], 1);

    // Bounded: the second time is too often.
    let (took, told) = containers.removed_until_told(&daemon, "bounded");
    slowest = slowest.max(took);
    assert_ne!(told["state"], "failed", "{told}");
    eventually("it runs again", SOON, || {
        status(&daemon, "bounded")["state"] == "running" && !containers.ids("bounded").is_empty()
    });
    containers.remove("bounded");
    eventually("it is given up", SOON, || status(&daemon, "bounded")["state"] == "failed");
    assert_eq!(status(&daemon, "bounded")["given_up"], "restart_intensity");

    // Observed: told, and nothing is done about it.
    let (took, told) = containers.removed_until_told(&daemon, "observed");
    slowest = slowest.max(took);
    assert_eq!((&told["state"], &told["last_exit"]), (&json!("failed"), &killed), "{told}");
    assert_eq!(told["given_up"], "never_restarted", "{told}");

    // The same while no daemon lives: the next one's first word is the truth.
    daemon.kill_9();
    containers.remove("away");
    daemon.launch();
    eventually("the new daemon knows", Duration::from_secs(2), || status(&daemon, "away")["state"] == "failed");
    assert_eq!(status(&daemon, "away")["last_exit"], killed);

    thread::sleep(Duration::from_secs(2));
    for unit in ["bounded", "observed", "away"] {
        assert_eq!((containers.ids(unit).as_str(), &status(&daemon, unit)["state"]), ("", &json!("failed")), "{unit}");
    }
    println!("T9: after `docker rm -f` had returned, reads said so within {} ms", slowest.as_millis());
    assert!(slowest < Duration::from_secs(1), "a read said that it runs {slowest:?} after it was removed");
    containers.remove("supervised");
    daemon.ok("service.stop", json!({ "name": "command@supervised" }));
}

#[test]
fn t9_a_stop_ends_the_container_where_its_first_process_hears_signals() {
    let containers = match Containers::begin() {
        Ok(containers) => containers,
        Err(why) => return cannot("T9", &format!("a stop of a container ({why})")),
    };
    let daemon = Daemon::start();
    // That is what --init is for.
    let mut with = containers.argv("stopped");
    with["argv"].as_array_mut().unwrap().insert(2, json!("--init"));
    with["stop_timeout_s"] = json!(10);
    daemon.run("stopped", with);
    eventually("its container is there", SOON, || !containers.ids("stopped").is_empty());
    daemon.ok("service.stop", json!({ "name": "command@stopped" }));
    assert_eq!(containers.ids("stopped"), "", "a stop left the container running");
}

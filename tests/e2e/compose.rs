//! Folders with a service.yaml and a compose file, on a real Docker with the real compose.

use std::{
    fs,
    net::TcpStream,
    os::unix::fs::{PermissionsExt, symlink},
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, Docker, alive, cannot, eventually, figure, free_port, said};

const SOON: Duration = Duration::from_secs(30);

/// A services folder with a machine around it. Dropped, no container of it is left.
struct World {
    daemon: Daemon,
    docker: Arc<Docker>,
    image: &'static str,
    mark: String,
    names: Vec<String>,
}

/// A service of it.
struct Kept {
    unit: String,
    name: String,
    folder: PathBuf,
    port: u16,
}

impl World {
    /// A daemon with one simulated device of 8 GiB, and no service yet.
    fn begin(test: &str) -> Result<Self, String> {
        let docker = Docker::find()?;
        let image = docker.served()?;
        let compose =
            Command::new("docker-compose").arg("version").output().map_err(|e| format!("docker-compose: {e}"))?;
        if !compose.status.success() {
            return Err(format!("docker-compose: {}", said(&compose)));
        }
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let mark = format!("wharf-{test}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let probe = format!("{mark}-probe");
        docker.run(&["run", "--rm", "--network", "host", "--name", &probe, image, "true"])?;
        let mut daemon = Daemon::prepare();
        if let Some(host) = docker.host() {
            daemon = daemon.with_env("DOCKER_HOST", host);
        }
        let config = daemon.home.join("config");
        fs::create_dir_all(config.join("services")).unwrap();
        fs::create_dir_all(daemon.home.join("ai")).unwrap();
        symlink(daemon.home.join("ai"), config.join("services/ai")).unwrap();
        fs::write(config.join("gpus.toml"), "[[device]]\nid = \"sim-0\"\ntotal = \"8GiB\"\n").unwrap();
        Ok(Self { daemon, docker, image, mark, names: vec![] })
    }

    /// A folder with a manifest and a compose file: one container that serves `www`.
    fn keep(&mut self, name: &str, fields: &str) -> Kept {
        let (name, port) = (format!("{}-{name}", self.mark), free_port());
        let folder = self.daemon.home.join("ai").join(&name);
        fs::create_dir_all(folder.join("www")).unwrap();
        fs::set_permissions(folder.join("www"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(folder.join("www/health"), format!("{name} is well\n")).unwrap();
        let manifest = format!("name: {name}\nport: {port}\nhealth_endpoint: /health\nhealth_timeout: 60\n{fields}");
        fs::write(folder.join("service.yaml"), manifest).unwrap();
        let script = format!("trap exit TERM; echo {name} begins; httpd -f -p 127.0.0.1:{port} -h /www & wait");
        let file = format!(
            "version: '3.8'\nservices:\n  web:\n    image: {}\n    network_mode: host\n    stop_grace_period: 2s\n    \
             command: [\"sh\", \"-c\", \"{script}\"]\n    volumes: [\"./www:/www:ro\"]\n",
            self.image
        );
        fs::write(folder.join("docker-compose.yml"), file).unwrap();
        self.names.push(name.clone());
        Kept { unit: format!("compose@{name}"), name, folder, port }
    }

    /// Ids of the containers of a project, as Docker says; those that have ended too.
    fn ids(&self, kept: &Kept) -> Vec<String> {
        let filter = format!("label=com.docker.compose.project={}", kept.name);
        let said = self.docker.run(&["ps", "--all", "--quiet", "--no-trunc", "--filter", &filter]).unwrap();
        said.lines().map(str::to_owned).collect()
    }

    fn status(&self, kept: &Kept) -> Value {
        self.daemon.ok("service.status", json!({ "name": kept.unit }))
    }

    fn start(&self, kept: &Kept) -> Value {
        self.daemon.ok("service.start", json!({ "name": kept.unit }))
    }

    fn holders(&self) -> Vec<String> {
        let leases = self.daemon.ok("gpu.leases", json!({}));
        let active = leases["leases"].as_array().unwrap().iter().filter(|lease| lease["state"] == "active");
        active.map(|lease| lease["holder"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in &self.names {
            let filter = format!("label=com.docker.compose.project={name}");
            let left = self.docker.run(&["ps", "--all", "--quiet", "--filter", &filter]).unwrap_or_default();
            for id in left.lines() {
                let _ = self.docker.run(&["rm", "--force", id]);
            }
        }
    }
}

impl Kept {
    /// What it answers at its health endpoint.
    fn answer(&self) -> Option<String> {
        use std::io::{Read, Write};
        let mut line = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        line.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        line.write_all(b"GET /health HTTP/1.0\r\nHost: x\r\n\r\n").ok()?;
        let mut text = String::new();
        line.read_to_string(&mut text).ok()?;
        Some(text)
    }

    fn answers(&self) -> bool {
        self.answer()
            .is_some_and(|text| text.starts_with("HTTP/1.") && text.contains(&format!("{} is well", self.name)))
    }
}

/// The world, or a word about what this machine cannot do.
macro_rules! world {
    ($test:literal) => {
        match World::begin($test) {
            Ok(world) => world,
            Err(why) => return cannot("compose", &format!("a real compose project ({why})")),
        }
    };
}

/// SN-98 to SN-101, on the way SN-5, SN-25 to SN-29, SN-32 to SN-38, SN-45 to SN-47, SN-89 and SN-90.
#[test]
fn two_gpu_services_are_refused_forced_and_stopped_and_a_killed_daemon_changes_nothing() {
    let mut world = world!("gpu");
    let gpu = "gpu_required: true\nvram_gb: 6\n";
    let (one, two) = (world.keep("one", gpu), world.keep("two", gpu));
    world.daemon.launch();
    eventually("SN-25 to SN-29: what its folder keeps is known by name", SOON, || {
        let rows = world.daemon.ok("service.list", json!({}));
        rows.as_array().unwrap().iter().filter(|row| row["name"] == *one.unit || row["name"] == *two.unit).count() == 2
    });
    let before = world.status(&one);
    assert_eq!((&before["state"], &before["port"]), (&json!("stopped"), &json!(one.port)), "{before}");
    let bare = world.daemon.cli(&["start", &one.name]);
    assert!(bare.code == 3 && bare.err.contains(&format!("did you mean {}?", one.unit)), "{bare:?}");

    // SN-98.
    let begun = Instant::now();
    let said = world.daemon.cli_ok(&["start", &one.unit]);
    figure("compose: from `wharf start` to healthy", &format!("{:?}", begun.elapsed()));
    assert!(said.out.contains("is running"), "{said:?}");
    assert!(one.answers(), "SN-35, SN-98: `up -d` brought it up and it answers: {:?}", one.answer());
    let containers = world.ids(&one);
    assert_eq!(containers.len(), 1, "SN-55: in a container of its own");
    let running = world.status(&one);
    assert_eq!((&running["state"], &running["healthy"]), (&json!("running"), &json!(true)), "SN-36: {running}");
    let url = format!("http://127.0.0.1:{}/health", one.port);
    assert_eq!(running["health_check_url"], json!(url), "SN-38");
    assert_eq!(world.holders(), [one.unit.as_str()], "SN-37: who has the GPU is known");

    // SN-99.
    let refused = world.daemon.err("service.start", json!({ "name": two.unit }));
    assert_eq!(refused["code"], -32002, "SN-32, SN-33, SN-89: a conflict, 409 in REST: {refused}");
    assert!(refused["message"].as_str().unwrap().contains(&one.unit), "the holder is named: {refused}");
    assert_eq!(refused["data"]["detail"]["blockers"][0]["leases"][0]["holder"], *one.unit, "{refused}");
    assert_eq!(
        (world.ids(&two).len(), world.ids(&one)),
        (0, containers.clone()),
        "SN-5: nothing begun, nothing stopped"
    );

    // The daemon is no part of it.
    let pid = i32::try_from(running["pid"].as_i64().unwrap()).unwrap();
    world.daemon.kill_9();
    assert!(one.answers() && alive(pid), "decision C15: a daemon's death stops no container");
    world.daemon.launch();
    eventually("the new daemon knows", SOON, || world.status(&one)["state"] == "running");
    let known = world.status(&one);
    assert_eq!((&known["pid"], &known["run"]), (&running["pid"], &running["run"]), "{known}");
    assert_eq!((world.ids(&one), world.holders()), (containers, vec![one.unit.clone()]), "and who has the GPU");
    let refused = world.daemon.err("service.start", json!({ "name": two.unit }));
    assert!(refused["message"].as_str().unwrap().contains(&one.unit), "{refused}");

    // SN-100.
    let begun = Instant::now();
    world.daemon.ok("service.start", json!({ "name": two.unit, "force": true }));
    figure("compose: a forced start, the other taken down first", &format!("{:?}", begun.elapsed()));
    assert!(two.answers(), "SN-34, SN-90: {:?}", two.answer());
    assert_eq!(world.ids(&one), [] as [String; 0], "SN-34, SN-45: the holder was taken down first");
    assert_eq!(world.holders(), [two.unit.as_str()], "SN-46, SN-47");
    assert_ne!(world.status(&one)["state"], "running");

    // SN-101.
    for kept in [&one, &two] {
        world.daemon.ok("service.stop", json!({ "name": kept.unit }));
        assert_eq!(world.ids(kept), [] as [String; 0], "SN-45, SN-101: nothing is left of {}", kept.name);
        assert_eq!(world.status(kept)["state"], "stopped", "SN-46");
    }
    eventually("SN-47, SN-101: nobody has a GPU", SOON, || {
        world.daemon.ok("gpu.leases", json!({}))["leases"].as_array().unwrap().is_empty()
    });
    let exit = &world.status(&two)["last_exit"];
    assert_eq!(*exit, json!({ "kind": "exited", "code": 0 }), "a stop that left nothing");
}

/// T9; SN-13, SN-18, SN-51, SN-91.
#[test]
fn what_happens_to_its_containers_is_told_and_nothing_is_begun_again() {
    let mut world = world!("told");
    let kept = world.keep("web", "");
    world.daemon.launch();
    world.start(&kept);
    let who = world.daemon.cli_ok(&["ports", "who", &kept.port.to_string()]).out;
    assert!(who.contains(&kept.unit), "what its container listens on is its own: {who}");
    let text = world.daemon.cli_ok(&["logs", &kept.unit]).out;
    assert!(text.contains(&format!("{} begins", kept.name)), "SN-18: {text}");

    // SN-91: sickness is told, and that is all. SN-51: what runs is what the manifest said then.
    let containers = world.ids(&kept);
    fs::remove_file(kept.folder.join("www/health")).unwrap();
    let manifest = fs::read_to_string(kept.folder.join("service.yaml")).unwrap();
    fs::write(kept.folder.join("service.yaml"), format!("{manifest}owner: somebody else\n")).unwrap();
    let sick = world.daemon.ok("service.health", json!({ "name": kept.unit }));
    assert!(sick["healthy"] == false && sick["detail"].as_str().unwrap().contains("404"), "SN-41: {sick}");
    eventually("SN-91: it is told as unhealthy", SOON, || world.status(&kept)["healthy"] == false);
    assert_eq!(world.ids(&kept), containers, "SN-91: it goes on");
    let other = world.daemon.err("service.start", json!({ "name": kept.unit }));
    assert!(other["message"].as_str().unwrap().contains("runs with other parameters"), "SN-51: {other}");
    fs::write(kept.folder.join("www/health"), format!("{} is well\n", kept.name)).unwrap();
    fs::write(kept.folder.join("service.yaml"), &manifest).unwrap();
    eventually("SN-40: it is well again", SOON, || world.status(&kept)["healthy"] == true);

    let log = world.daemon.log();
    assert!(!log.contains(&format!("{}, the port main", kept.port)), "its container was taken for a stranger: {log}");

    // T9.
    world.docker.run(&["rm", "--force", &containers[0]]).unwrap();
    let removed = Instant::now();
    eventually("T9: that it was removed by hand is told", SOON, || world.status(&kept)["state"] != "running");
    figure("compose: a container removed by hand, until a read says so", &format!("{:?}", removed.elapsed()));
    eventually("it is left alone", SOON, || world.status(&kept)["state"] == "failed");
    let told = world.status(&kept);
    assert_eq!(
        (&told["last_exit"], &told["given_up"]),
        (&json!({ "kind": "exited", "code": 137 }), &json!("never_restarted"))
    );

    // The follower is killed: its containers do not stay behind it.
    world.start(&kept);
    assert!(kept.answers());
    let pid = world.status(&kept)["pid"].as_i64().unwrap();
    let killed = Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
    eventually("what it left is taken down", SOON, || world.ids(&kept).is_empty());
    eventually("then it is told", SOON, || world.status(&kept)["state"] == "failed");

    // The same while no daemon lives.
    world.start(&kept);
    let pid = i32::try_from(world.status(&kept)["pid"].as_i64().unwrap()).unwrap();
    world.daemon.kill_9();
    assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
    eventually("the follower is gone", SOON, || !alive(pid));
    assert!(kept.answers(), "its container goes on alone");
    world.daemon.launch();
    eventually("the next daemon takes it down", SOON, || world.ids(&kept).is_empty());
    eventually("and tells", SOON, || world.status(&kept)["state"] == "failed");
}

/// SN-87, SN-88; what a file says by now does not keep a stop from being whole.
#[test]
fn a_start_that_fails_says_why_and_leaves_nothing_and_a_broken_file_stops_no_stop() {
    let mut world = world!("fails");
    let kept = world.keep("web", "");
    world.daemon.launch();
    let file = kept.folder.join("docker-compose.yml");
    let sound = fs::read_to_string(&file).unwrap();
    fs::write(&file, sound.replace(world.image, "wharf-no-such-image:0")).unwrap();
    let error = world.daemon.err("service.start", json!({ "name": kept.unit }));
    assert!(error.to_string().contains("Docker error: "), "SN-88: its words are told: {error}");
    assert!(error.to_string().contains("wharf-no-such-image"), "SN-88: {error}");
    assert_eq!(world.ids(&kept), [] as [String; 0]);

    // An `up` that takes too long.
    let slow = world.daemon.home.join("slow-compose");
    let script = "#!/bin/sh\ncase \"$*\" in *' up '*) sleep 60 ;; esac\nexec docker-compose \"$@\"\n";
    fs::write(&slow, script).unwrap();
    fs::set_permissions(&slow, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(&file, &sound).unwrap();
    let with = json!({ "compose": [slow], "up_timeout_s": 1 });
    let begun = Instant::now();
    let error = world.daemon.err("service.start", json!({ "name": kept.unit, "with": with }));
    assert!(error.to_string().contains("Service start timed out"), "SN-87: {error}");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());

    // A stop comes while it is brought up.
    let with = json!({ "up_timeout_s": 120 });
    world.daemon.ok("service.start", json!({ "name": kept.unit, "with": with, "wait": false }));
    eventually("it is on its way", SOON, || world.status(&kept)["pid"].is_i64());
    world.daemon.ok("service.stop", json!({ "name": kept.unit }));
    assert_eq!(world.ids(&kept), [] as [String; 0], "nothing is left of a start that was given up");

    // The file is broken while it runs.
    let with = json!({ "compose": null, "up_timeout_s": null });
    world.daemon.ok("service.start", json!({ "name": kept.unit, "with": with }));
    assert!(kept.answers());
    fs::write(&file, "services: [").unwrap();
    let checks = world.daemon.ok("service.verify", json!({ "name": kept.unit }));
    assert_eq!(checks["ok"], false, "{checks}");
    world.daemon.ok("service.stop", json!({ "name": kept.unit }));
    assert_eq!(world.ids(&kept), [] as [String; 0], "a stop leaves nothing, whatever the file says");
    fs::write(&file, &sound).unwrap();
    world.start(&kept);
    fs::remove_dir_all(&kept.folder).unwrap();
    world.daemon.ok("service.stop", json!({ "name": kept.unit }));
    assert_eq!(world.ids(&kept), [] as [String; 0], "nor where its folder is gone");
}

/// SN-31, SN-44, SN-58, SN-59, SN-103.
#[test]
fn what_runs_already_is_taken_over_and_verify_compares_devices() {
    let mut world = world!("over");
    world.daemon.launch();
    let kept = world.keep("web", "gpu_required: true\nvram_gb: \"?\"\n");
    let said = world.daemon.cli_ok(&["discover", "--own"]);
    assert!(said.out.contains(&kept.name), "SN-103: {said:?}");

    let mut by_hand = Command::new("docker-compose");
    by_hand.args(["up", "-d"]).current_dir(&kept.folder);
    if let Some(host) = world.docker.host() {
        by_hand.env("DOCKER_HOST", host);
    }
    let output = by_hand.output().unwrap();
    assert!(output.status.success(), "{}", wharf_tests::said(&output));
    eventually("it answers", SOON, || kept.answers());
    let containers = world.ids(&kept);
    world.start(&kept);
    assert_eq!(world.ids(&kept), containers, "SN-31: it is not begun twice, and its port is its own");

    let checks = world.daemon.ok("service.verify", json!({ "name": kept.unit }));
    let of = |name: &str| {
        let all = checks["checks"].as_array().unwrap();
        all.iter().find(|check| check["check"] == name).cloned().unwrap_or_else(|| panic!("{name}: {checks}"))
    };
    let gpu = of("GPU");
    assert!(gpu["ok"] == false && gpu["detail"].as_str().unwrap().contains("gpu_required"), "SN-58, SN-59: {gpu}");
    assert!(of("compose file")["ok"] == true && of("compose")["detail"].as_str().unwrap().contains("compose"));
    assert_eq!(world.daemon.cli(&["verify", &kept.unit]).code, 8);
    world.daemon.ok("service.stop", json!({ "name": kept.unit }));
    assert_eq!(world.ids(&kept), [] as [String; 0]);

    // Without the services folder, by its own.
    fs::remove_file(world.daemon.home.join("config/services/ai")).unwrap();
    let other = world.daemon.home.join("elsewhere");
    fs::rename(&kept.folder, &other).unwrap();
    let wrong = world.daemon.err("service.start", json!({ "name": "compose@other", "with": { "folder": other } }));
    assert!(wrong["message"].as_str().unwrap().contains(&format!("is called {}", kept.name)), "{wrong}");
    let unknown = world.daemon.err("service.start", json!({ "name": "compose@other" }));
    assert!(unknown["message"].as_str().unwrap().contains("no manifest is called other"), "SN-30: {unknown}");
    world.daemon.ok("service.start", json!({ "name": kept.unit, "with": { "folder": other, "project": kept.name } }));
    assert!(kept.answers());
    world.daemon.ok("service.stop", json!({ "name": kept.unit }));
    assert_eq!(world.ids(&kept), [] as [String; 0]);
}

/// SN-74.
#[test]
fn what_a_manifest_depends_on_is_brought_up_first() {
    let mut world = world!("needs");
    let cache = world.keep("cache", "");
    let web = world
        .keep("web", &format!("dependencies: [{{service: {}, required: true}}, {{service: nosuch}}]\n", cache.name));
    world.daemon.launch();
    world.start(&web);
    assert!(cache.answers() && web.answers());
    let begun = |kept: &Kept| world.status(kept)["started_at"].as_f64().unwrap();
    assert!(begun(&cache) < begun(&web), "the cache first");
    world.daemon.ok("service.stop", json!({ "name": cache.unit }));
    assert_eq!((world.ids(&web), world.ids(&cache)), (vec![], vec![]), "what needs it goes before it");
    world.daemon.ok("service.stop", json!({ "name": web.unit }));
}

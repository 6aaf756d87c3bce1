//! Other hosts: some answer, some hang, some refuse, some are not there.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    process::Stdio,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use wharf_tests::{Daemon, eventually, processes_with, wharf_binary};

/// Hosts of every kind: two that answer, one of them by ssh too, and four that do not.
struct World {
    near: Daemon,
    far: Daemon,
    mark: String,
    _held: Arc<Mutex<Vec<UnixStream>>>,
}

impl World {
    fn make() -> Self {
        let (near, far) = (Daemon::prepare(), Daemon::start());
        let mark = format!("10000{}", std::process::id());
        let bin = near.home.join("bin");
        fs::create_dir(&bin).unwrap();
        // The far end of ssh: a shell that runs what it is given, nothing, or a refusal.
        let script = format!(
            "#!/bin/sh\nfor last; do :; done\ncase \"$*\" in\n*sleepy*) exec sleep {mark};;\n\
             *denied*) echo 'denied: Permission denied (publickey).' >&2; exit 255;;\n\
             *) WHARF_HOME={} exec sh -c \"$last\";;\nesac\n",
            far.home.display()
        );
        fs::write(bin.join("ssh"), script).unwrap();
        fs::set_permissions(bin.join("ssh"), PermissionsExt::from_mode(0o755)).unwrap();
        let listener = UnixListener::bind(near.home.join("hangs.sock")).unwrap();
        let held = Arc::new(Mutex::new(vec![]));
        let keeps = held.clone();
        thread::spawn(move || listener.incoming().for_each(|taken| keeps.lock().unwrap().extend(taken)));
        let hosts = format!(
            "[hosts.near]\nlocal = true\n[hosts.far]\nsocket = \"{far}\"\n\
             [hosts.by-ssh]\nssh = \"user@plum\"\nwharf = \"{wharf}\"\n\
             [hosts.hangs]\nsocket = \"{near}/hangs.sock\"\n[hosts.gone]\nsocket = \"{near}/gone.sock\"\n\
             [hosts.sleepy]\nssh = \"user@sleepy\"\n[hosts.denied]\nssh = \"denied\"\n",
            far = far.socket().display(),
            wharf = wharf_binary().display(),
            near = near.home.display(),
        );
        fs::create_dir(near.home.join("config")).unwrap();
        fs::write(near.home.join("config/hosts.toml"), hosts).unwrap();
        let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let mut near = near.with_env("PATH", &path);
        near.launch();
        far.run("there", json!({ "argv": ["sleep", "1000"] }));
        Self { near, far, mark, _held: held }
    }
}

const ANSWER: [&str; 3] = ["near", "by-ssh", "far"];
const DO_NOT: [&str; 4] = ["denied", "gone", "hangs", "sleepy"];

#[test]
fn t13_hosts_that_hang_are_unreachable_and_the_rows_of_the_others_arrive_on_time() {
    let world = World::make();
    let began = Instant::now();
    let mut list = world.near.command().args(["list", "--hosts", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(list.stdout.take().unwrap()).lines().map_while(Result::ok);
    let rows: Vec<(Duration, Value)> = lines
        .map(|line| (began.elapsed(), serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"))))
        .collect();
    let took = began.elapsed();
    assert_eq!(list.wait().unwrap().code(), Some(6), "no daemon answers: some of them");
    let of = |host: &str| rows.iter().filter(|(_, row)| row["host"] == host).collect::<Vec<_>>();
    for (host, daemon) in [("near", &world.near), ("far", &world.far), ("by-ssh", &world.far)] {
        let there = daemon.ok("service.list", json!({}));
        let told: Vec<Value> = of(host).iter().map(|(_, row)| without_host(row)).collect();
        assert_eq!(json!(told), there, "{host}");
        let last = of(host).iter().map(|(at, _)| *at).max().unwrap();
        assert!(last < Duration::from_secs(2), "the rows of {host} came after {last:?}");
    }
    for host in DO_NOT {
        let [(at, row)] = of(host)[..] else { panic!("{host} has more than one row, or none: {rows:?}") };
        assert_eq!(row["status"], "unreachable", "{row}");
        assert!(row["error"]["message"].as_str().is_some_and(|m| !m.is_empty()), "{row}");
        assert!(row["error"]["hint"].as_str().is_some_and(|h| !h.is_empty()), "{row}");
        let hangs = ["hangs", "sleepy"].contains(&host);
        assert_eq!(*at > Duration::from_millis(2900), hangs, "{host} was told after {at:?}");
    }
    let others = ANSWER.iter().flat_map(|host| of(host)).map(|(at, _)| *at).max().unwrap();
    println!(
        "T13: rows of 3 hosts within {} ms; two that hang were told after {} ms",
        others.as_millis(),
        took.as_millis()
    );
    assert!(took < Duration::from_secs(5), "{took:?}");
    eventually("no ssh is left", Duration::from_secs(2), || processes_with(&world.mark).is_empty());
}

#[test]
fn t13_one_table_of_all_hosts_at_the_deadline_and_single_hosts_by_name() {
    let world = World::make();
    let began = Instant::now();
    let said = world.near.cli(&["list", "--hosts", "--timeout", "1s"]);
    let took = began.elapsed();
    assert!(took > Duration::from_millis(950) && took < Duration::from_secs(3), "{took:?}");
    assert_eq!((said.code, said.err.as_str()), (6, ""), "{said:?}");
    let rows = |host: &str| said.out.lines().filter(|l| l.split_whitespace().next() == Some(host)).collect::<Vec<_>>();
    for host in ANSWER {
        assert!(
            rows(host).len() > 5 && !rows(host).iter().any(|row| row.contains("unreachable")),
            "{host}: {}",
            said.out
        );
    }
    assert!(rows("far").iter().any(|row| row.contains("command@there") && row.contains("running")), "{}", said.out);
    for (host, reason, hint) in [
        ("denied", "Permission denied (publickey)", "without a question"),
        ("gone", "No such file", "the way to it"),
        ("hangs", "no answer within 1.0 s", "takes calls and does not answer"),
        ("sleepy", "no answer within 1.0 s", "ssh user@sleepy"),
    ] {
        let [row] = rows(host)[..] else { panic!("{host}: {}", said.out) };
        assert!(row.contains("unreachable") && row.contains(reason) && row.contains(hint), "{row}");
    }
    let one = world.near.cli_ok(&["list", "--host", "far", "--json"]);
    assert!(
        one.out.lines().count() > 5 && one.out.lines().all(|line| line.starts_with("{\"host\":\"far\",")),
        "{one:?}"
    );
    let unknown = world.near.cli(&["list", "--host", "nowhere"]);
    assert!(unknown.code == 3 && unknown.err.contains("hosts.toml has near, by-ssh, denied"), "{unknown:?}");
    let lost = world.far.cli(&["list", "--hosts"]);
    assert!(lost.code == 4 && lost.err.contains("config/hosts.toml") && lost.err.contains("hint:"), "{lost:?}");
    fs::write(world.near.home.join("config/hosts.toml"), "\n[hosts.a]\nshh = \"a\"\n").unwrap();
    let wrong = world.near.cli(&["list", "--hosts"]);
    assert!(wrong.code == 2 && wrong.err.contains("line 3: unknown field `shh`"), "{wrong:?}");
}

fn without_host(row: &Value) -> Value {
    let mut row = row.clone();
    row.as_object_mut().unwrap().remove("host");
    row
}

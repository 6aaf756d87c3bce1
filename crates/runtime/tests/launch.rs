//! Runs of real processes: exact exits, containment, and daemons that die in between.
//!
//! A daemon's death is a dropped `Launcher`: it holds nothing that a run needs. Every test ends
//! all that it started, also when it fails. What is particular to one part stands in `launch/`.

#[path = "launch/ending.rs"]
mod ending;
#[path = "launch/launcher.rs"]
mod launcher;
#[path = "launch/limits.rs"]
mod limits;
#[path = "launch/output.rs"]
mod output;
#[path = "launch/sockets.rs"]
mod sockets;

use std::{
    fs,
    future::Future,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use wharf_model::{ErrorKind, Exit, RunId, Signal, UnitName};
use wharf_runtime::launch::{Found, Launcher, LiveRun, RunAs, RunPlan, Tier};
use wharf_shim::{News, ends};

/// A machine of its own for one test: folders, a launcher, and the end of all runs.
struct Place {
    dir: tempfile::TempDir,
    launcher: Launcher,
}

impl Place {
    fn new() -> Self {
        Self::at(|runs, shim, id| Launcher::new(runs, shim, id).unwrap())
    }

    fn session() -> Self {
        Self::at(|runs, shim, _| Launcher::with_tier(runs, shim, Tier::Session).unwrap())
    }

    fn at(launcher: impl Fn(PathBuf, PathBuf, &str) -> Launcher) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let id = dir.path().file_name().unwrap().to_string_lossy().replace('.', "");
        Self { launcher: launcher(dir.path().join("runs"), dir.path().join("shim"), &format!("test-{id}")), dir }
    }

    /// A new daemon on the same folders.
    fn reborn(&self) -> Launcher {
        Launcher::with_tier(self.path("runs"), self.path("shim"), self.launcher.tier()).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn plan(&self, argv: &[&str]) -> RunPlan {
        RunPlan {
            argv: argv.iter().map(|s| (*s).into()).collect(),
            env: vec![("PATH".into(), "/usr/bin:/bin".into())],
            cwd: "/".into(),
            ..RunPlan::new(unit(), RUN, vec![], self.path("log"))
        }
    }

    fn shell(&self, script: &str) -> RunPlan {
        self.plan(&["sh", "-c", script])
    }

    fn run_dir(&self) -> PathBuf {
        self.path("runs").join(unit().as_str()).join(RUN.to_string())
    }

    /// The first line of the log, once there is one.
    async fn line(&self) -> String {
        let log = self.path("log");
        let line = || fs::read_to_string(&log).ok()?.split_once('\n').map(|(line, _)| line.to_owned());
        soon("a line in the log", line).await
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let launcher = self.reborn();
        let end = async move {
            for (unit, run) in launcher.runs().unwrap() {
                if let Found::Alive(live) | Found::Draining(live, _) = launcher.find(&unit, run).await {
                    live.kill_all();
                    in_time(live.emptied()).await;
                }
                launcher.forget(&unit, run).await;
            }
        };
        // A test's own runtime cannot be entered from a drop.
        let ended = std::thread::spawn(|| {
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(end);
        });
        assert!(ended.join().is_ok() || std::thread::panicking(), "a run could not be ended");
    }
}

const RUN: RunId = RunId(7);

fn unit() -> UnitName {
    "python-api@vault".parse().unwrap()
}

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("it took over 20 s")
}

async fn soon<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "no {what} after 20 s");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn ends(live: &LiveRun) -> Exit {
    let exit = in_time(live.exited()).await;
    in_time(live.emptied()).await;
    assert!(live.is_empty(), "a process of it lives: {:?}", live.pids());
    assert_eq!(live.pids(), Vec::<i32>::new());
    exit
}

/// The shim of a run, from the only place that tells: it is the parent.
fn shim_of(live: &LiveRun) -> i32 {
    parent_of(live.pid())
}

fn parent_of(pid: i32) -> i32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// SIGKILL from nobody of ours, and its effect.
async fn kill(pid: i32) {
    let fd = wharf_sys::pidfd::open(pid).unwrap();
    wharf_sys::pidfd::signal(&fd, Signal::Kill.number()).unwrap();
    soon("end of a killed process", || wharf_sys::pidfd::has_exited(&fd).then_some(())).await;
}

/// What this machine cannot do is said aloud.
fn cannot(what: &str) {
    println!("CANNOT BE DONE HERE: {what}");
}

async fn kill_shim(live: &LiveRun) {
    kill(shim_of(live)).await;
}

#[tokio::test]
async fn exits_are_exact() {
    for (script, wanted) in [
        ("exit 0", Exit::Exited { code: 0 }),
        ("exit 37", Exit::Exited { code: 37 }),
        ("exit 255", Exit::Exited { code: 255 }),
        ("kill -KILL $$", Exit::Signaled { signal: 9 }),
        ("kill -PIPE $$", Exit::Signaled { signal: 13 }),
        ("kill -TERM $$", Exit::Signaled { signal: 15 }),
    ] {
        let place = Place::new();
        let live = place.launcher.launch(place.shell(script)).await.unwrap();
        assert_eq!(ends(&live).await, wanted, "{script}");
        assert!(matches!(place.launcher.find(&unit(), RUN).await, Found::Ended(exit) if exit == wanted));
        place.launcher.forget(&unit(), RUN).await;
        assert!(place.launcher.runs().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_polite_signal_reaches_the_whole_group_and_a_custom_one_only_the_main_process() {
    let place = Place::new();
    let script = "trap 'kill $!; exit 12' USR1; sleep 60 & echo up; wait; exit 1";
    let live = place.launcher.launch(place.shell(script)).await.unwrap();
    place.line().await;
    live.signal(Signal::Usr1).unwrap();
    assert_eq!(ends(&live).await, Exit::Exited { code: 12 });
    // A signal that comes too late is no error.
    live.signal(Signal::Term).unwrap();

    let place = Place::new();
    let live = place.launcher.launch(place.shell("sleep 60 & echo up; wait")).await.unwrap();
    place.line().await;
    live.signal(Signal::Term).unwrap();
    assert_eq!(ends(&live).await, Exit::Signaled { signal: 15 });
}

#[tokio::test]
async fn what_cannot_begin_says_why_and_leaves_nothing() {
    let place = Place::new();
    let fails = async |change: &dyn Fn(&mut RunPlan)| {
        let mut plan = place.shell("exit 0");
        change(&mut plan);
        let failure = place.launcher.launch(plan).await.unwrap_err();
        assert!(place.launcher.runs().unwrap().is_empty(), "a folder is left: {failure}");
        assert!(matches!(place.launcher.find(&unit(), RUN).await, Found::NeverStarted));
        assert_eq!(failure.service, Some(unit()));
        assert!(failure.hint.is_some(), "no hint: {failure}");
        (failure.kind, failure.message)
    };
    let (kind, message) = fails(&|plan| plan.argv[0] = "no-such-program".into()).await;
    assert_eq!(kind, ErrorKind::Precondition);
    assert_eq!(message, "the program no-such-program was not found in PATH (/usr/bin:/bin)");
    let (kind, message) = fails(&|plan| plan.argv[0] = "/etc/passwd".into()).await;
    assert_eq!((kind, message.contains("may not execute /etc/passwd")), (ErrorKind::Precondition, true));
    let (kind, message) = fails(&|plan| plan.cwd = "/no/such/folder".into()).await;
    assert_eq!((kind, message.as_str()), (ErrorKind::Precondition, "its folder /no/such/folder is missing"));
    let (kind, _) = fails(&|plan| plan.log = "/no/such/folder/log".into()).await;
    assert_eq!(kind, ErrorKind::Storage);

    let script = place.path("script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (_, message) = fails(&|plan| plan.argv[0] = script.to_string_lossy().into()).await;
    assert!(message.ends_with("is there, its interpreter is not"), "{message}");
    if rustix::process::geteuid().is_root() {
        let closed = place.path("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let (kind, message) = fails(&|plan| {
            plan.cwd = closed.clone();
            plan.run_as = Some(RunAs { uid: 65_534, gid: 65_534, groups: vec![] });
        })
        .await;
        assert_eq!(kind, ErrorKind::Precondition);
        assert!(message.contains("user 65534 may not enter"), "{message}");
    }
}

#[tokio::test]
async fn a_run_is_launched_once() {
    let place = Place::new();
    let live = place.launcher.launch(place.shell("sleep 60")).await.unwrap();
    let again = place.launcher.launch(place.shell("sleep 60")).await.unwrap_err();
    assert_eq!(again.kind, ErrorKind::Conflict);
    assert!(!live.is_empty(), "the second launch harmed the first");
    place.launcher.forget(&unit(), RUN).await;
    assert_eq!(place.launcher.runs().unwrap(), [(unit(), RUN)], "a living run was forgotten");
}

#[tokio::test]
async fn the_program_gets_what_was_planned_and_nothing_else() {
    let place = Place::new();
    let mut plan = place.shell(
        "env -u PWD -u SHLVL -u _ | sort; pwd; umask; ulimit -Sn; readlink /proc/self/fd/0; echo err >&2; \
         cat /proc/self/oom_score_adj; grep -E '^Sig(Blk|Ign)' /proc/self/status; \
         for fd in /proc/$$/fd/*; do readlink $fd; done; true",
    );
    let cwd = fs::canonicalize(place.dir.path()).unwrap();
    plan.cwd = cwd.clone();
    plan.env.push(("GREETING".into(), "hello there = you".into()));
    let live = place.launcher.launch(plan).await.unwrap();
    assert_eq!(ends(&live).await, Exit::Exited { code: 0 });
    let log = fs::read_to_string(place.path("log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let wanted = format!(
        "GREETING=hello there = you\nPATH=/usr/bin:/bin\n{}\n0022\n1024\n/dev/null\nerr\n0\n\
         SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000",
        cwd.display()
    );
    assert_eq!(lines[..10].join("\n"), wanted);
    // The lock is inherited on purpose, beside the three streams; nothing else is.
    let log_file = cwd.join("log").display().to_string();
    let lock = fs::canonicalize(place.run_dir()).unwrap().join("lock").display().to_string();
    assert_eq!(lines[10..], ["/dev/null", &log_file, &log_file, &lock]);
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(place.path("log")).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn another_user_owns_the_processes_and_the_log() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let place = Place::new();
    let mut plan = place.shell("id -u; id -g; id -G; echo more >> /dev/fd/1");
    plan.run_as = Some(RunAs { uid: 65_534, gid: 65_533, groups: vec![4] });
    fs::set_permissions(place.dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let live = place.launcher.launch(plan).await.unwrap();
    assert_eq!(ends(&live).await, Exit::Exited { code: 0 });
    assert_eq!(fs::read_to_string(place.path("log")).unwrap(), "65534\n65533\n65533 4\nmore\n");
}

#[tokio::test]
async fn a_run_outlives_its_daemon_and_keeps_its_exit() {
    let place = Place::new();
    let plan = place.shell("trap 'exit 42' TERM; echo up; while :; do sleep 0.01; done");
    let live = place.launcher.launch(plan).await.unwrap();
    place.line().await;
    let (pid, started) = (live.pid(), live.started_at_ms());
    drop(live);
    let launcher = place.reborn();
    assert_eq!(launcher.runs().unwrap(), [(unit(), RUN)]);
    let Found::Alive(live) = launcher.find(&unit(), RUN).await else { panic!("not found alive") };
    assert_eq!((live.pid(), live.started_at_ms()), (pid, started));
    live.signal(Signal::Term).unwrap();
    assert_eq!(ends(&live).await, Exit::Exited { code: 42 });
    // And for a daemon that was away when it ended.
    assert!(matches!(place.reborn().find(&unit(), RUN).await, Found::Ended(Exit::Exited { code: 42 })));
}

#[tokio::test]
async fn a_service_outlives_its_shim() {
    for place in [Place::new(), Place::session()] {
        let plan = place.shell("trap 'exit 42' TERM; echo up; while :; do sleep 0.01; done");
        let live = place.launcher.launch(plan).await.unwrap();
        place.line().await;
        kill_shim(&live).await;
        assert!(!live.is_empty() && live.pids().contains(&live.pid()));
        let Found::Alive(found) = place.reborn().find(&unit(), RUN).await else { panic!("not found alive") };
        found.signal(Signal::Term).unwrap();
        // Exact where the kernel keeps it, else nobody saw it: never anything else.
        let exit = ends(&found).await;
        assert!(matches!(exit, Exit::Exited { code: 42 } | Exit::Unknown), "{exit:?} was invented");
        assert!(matches!(place.reborn().find(&unit(), RUN).await, Found::Ended(Exit::Unknown)));
    }
}

#[tokio::test]
async fn what_ignores_term_and_leaves_the_session_is_killed_in_both_tiers() {
    for (place, shim_dies) in [(Place::new(), false), (Place::session(), false), (Place::session(), true)] {
        let script = "trap '' TERM; setsid sh -c \"trap '' TERM; echo up; while :; do sleep 0.05; done\" & \
                      while :; do sleep 0.05; done";
        let live = place.launcher.launch(place.shell(script)).await.unwrap();
        place.line().await;
        live.signal(Signal::Term).unwrap();
        assert!(live.pids().len() >= 2, "{:?}", live.pids());
        if shim_dies {
            kill_shim(&live).await;
        }
        live.kill_all();
        let exit = ends(&live).await;
        assert!(exit == Exit::Signaled { signal: 9 } || shim_dies && exit == Exit::Unknown, "{exit:?}");
    }
}

#[tokio::test]
async fn what_is_left_of_a_run_is_found_draining() {
    for place in [Place::new(), Place::session()] {
        let plan = place.shell("setsid sleep 60 & echo up; exit 5");
        let live = place.launcher.launch(plan).await.unwrap();
        assert_eq!(in_time(live.exited()).await, Exit::Exited { code: 5 });
        assert!(!live.is_empty());
        let Found::Draining(left, exit) = place.reborn().find(&unit(), RUN).await else { panic!("not draining") };
        assert_eq!(exit, Exit::Exited { code: 5 });
        assert_eq!(left.pids().len(), 1);
        left.kill_all();
        in_time(live.emptied()).await;
        assert!(matches!(place.launcher.find(&unit(), RUN).await, Found::Ended(Exit::Exited { code: 5 })));
    }
}

#[tokio::test]
async fn a_bomb_of_200_is_defused() {
    for place in [Place::new(), Place::session()] {
        let script = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); setsid sleep 60 & done; echo up; wait";
        let live = place.launcher.launch(place.shell(script)).await.unwrap();
        place.line().await;
        soon("200 processes", || (live.pids().len() >= 201).then_some(())).await;
        live.kill_all();
        assert_eq!(ends(&live).await, Exit::Signaled { signal: 9 });
    }
}

#[tokio::test]
async fn a_run_that_was_given_up_never_starts() {
    let place = Place::new();
    // The daemon died after it had made the folder: a new one looks, and the old one's shim comes late.
    fs::create_dir_all(place.run_dir()).unwrap();
    assert!(matches!(place.launcher.find(&unit(), RUN).await, Found::NeverStarted));
    assert_eq!(run_shim(&place, |spec| spec), News::Refused(ends::NOT_OURS));
    // A spec that was cut, and a folder that is gone.
    assert_eq!(run_shim(&place, |spec| spec[..spec.len() - 1].to_vec()), News::Refused(ends::NO_SPEC));
    place.launcher.forget(&unit(), RUN).await;
    assert_eq!(run_shim(&place, |spec| spec), News::Refused(ends::NO_RECORD));
    assert!(!place.path("ran").exists(), "the program ran");
}

/// The daemon dies 0 to 2 ms into a launch: the run is there and found, or it never starts.
#[tokio::test]
async fn a_daemon_that_dies_in_a_launch_leaves_a_run_or_none() {
    let place = Place::new();
    let (mut alive, mut never) = (0, 0);
    for run in 1..=40 {
        let ran = place.path(&format!("ran-{run}"));
        let plan = RunPlan { run: RunId(run), ..place.shell(&format!("touch {}; exec sleep 60", ran.display())) };
        let launcher = place.launcher.clone();
        let dead = std::thread::spawn(move || {
            let daemon = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            drop(daemon.spawn(async move { launcher.launch(plan).await.map(drop) }));
            std::thread::sleep(Duration::from_micros(50 * run.saturating_sub(10)));
            // A dead daemon does nothing more: whoever is in the middle of a step ends it first.
            daemon.shutdown_timeout(Duration::from_secs(20));
        });
        dead.join().unwrap();
        match place.reborn().find(&unit(), RunId(run)).await {
            Found::Alive(live) => {
                alive += 1;
                live.kill_all();
                assert_eq!(ends(&live).await, Exit::Signaled { signal: 9 });
            }
            Found::NeverStarted => {
                never += 1;
                let shims = place.path("shim").into_os_string().into_encoded_bytes();
                soon("end of the late shim", || (!any_shim_runs_from(&shims)).then_some(())).await;
                assert!(!ran.exists(), "a run that never starts has started");
            }
            other => panic!("run {run}: {other:?}"),
        }
        place.launcher.forget(&unit(), RunId(run)).await;
    }
    println!("{alive} found alive, {never} never started");
}

/// A shim's words are its unit and its run; a launcher's are not.
fn any_shim_runs_from(dir: &[u8]) -> bool {
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .any(|line| line.starts_with(dir) && !line.windows(9).any(|w| w == b"\0launcher"))
}

#[tokio::test]
async fn two_shims_cannot_hold_one_run() {
    let place = Place::new();
    let live = place.launcher.launch(place.shell("sleep 60")).await.unwrap();
    assert_eq!(run_shim(&place, |spec| spec), News::Refused(ends::NOT_OURS));
    assert!(!live.is_empty() && !place.path("ran").exists());
}

/// Asks a launcher of its own as a daemon would, with a spec whose program makes the file `ran`: the first news.
fn run_shim(place: &Place, change: impl Fn(Vec<u8>) -> Vec<u8>) -> News {
    let text = |path: PathBuf| std::ffi::CString::new(path.into_os_string().into_encoded_bytes()).unwrap();
    let spec = wharf_shim::Spec {
        run_dir: text(place.run_dir()),
        argv: vec![c"touch".into(), text(place.path("ran"))],
        cwd: c"/".into(),
        log: place.path("log"),
        ..wharf_shim::Spec::default()
    };
    let (ours, theirs) = wharf_sys::socket::pair().unwrap();
    let mut command = std::process::Command::new(shim_below(&place.path("shim")));
    let mut launcher = command.arg(wharf_shim::LAUNCHER).stdin(theirs).spawn().unwrap();
    drop(command);
    let spec = change(spec.encode());
    let request = wharf_shim::Request { token: 5, spec: Some(&spec) };
    wharf_sys::socket::send(&ours, &request.encode(), &[]).unwrap();
    let mut bytes = [0; wharf_shim::Report::ROOM];
    let length = loop {
        match wharf_sys::socket::receive(&ours, &mut bytes, &mut vec![]) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
            other => break other.unwrap(),
        }
    };
    drop(ours);
    launcher.wait().unwrap();
    let report = wharf_shim::Report::decode(&bytes[..length]).unwrap();
    assert_eq!(report.token, 5);
    report.news
}

fn shim_below(dir: &Path) -> PathBuf {
    fs::read_dir(dir).unwrap().next().unwrap().unwrap().path().join("wharf-shim")
}

#[tokio::test]
async fn a_run_of_another_boot_ended_with_it() {
    let place = Place::new();
    let live = place.launcher.launch(place.shell("echo up; exec sleep 60")).await.unwrap();
    place.line().await;
    let start = place.run_dir().join("start");
    let real = fs::read(&start).unwrap();
    let mut record = wharf_shim::StartRecord::decode(&real).unwrap();
    record.boot_id = "0".repeat(36);
    fs::write(&start, record.encode()).unwrap();
    assert!(matches!(place.launcher.find(&unit(), RUN).await, Found::Ended(Exit::HostRebooted)));
    // The same pid with another identity is a stranger: it is not ours to signal.
    record = wharf_shim::StartRecord::decode(&real).unwrap();
    record.pid_id += 1;
    record.shim_id += 1;
    fs::write(&start, record.encode()).unwrap();
    assert!(!matches!(in_time(place.launcher.find(&unit(), RUN)).await, Found::Alive(_)));
    fs::write(&start, real).unwrap();
    live.kill_all();
    assert_eq!(ends(&live).await, Exit::Signaled { signal: 9 });
}

#[tokio::test]
async fn a_caller_that_stops_waiting_leaves_no_run() {
    let place = Place::new();
    let launch = place.launcher.launch(place.shell("sleep 60"));
    assert!(tokio::time::timeout(Duration::ZERO, launch).await.is_err());
    soon("end of the unwanted run", || place.launcher.runs().unwrap().is_empty().then_some(())).await;
}

/// A daemon that is killed while it finds out what the machine can do leaves a trial behind.
#[tokio::test]
async fn trials_of_dead_daemons_are_swept_away() {
    let place = Place::new();
    let Tier::Cgroup { root } = place.launcher.tier() else { return cannot("a cgroup's trial: no writable cgroup2") };
    let mut gone = std::process::Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let (dead, living) = (root.join(format!("trial-{}", gone.id())), root.join("trial-1"));
    for trial in [&dead, &living] {
        fs::create_dir_all(trial).unwrap();
    }
    let installation = root.file_name().unwrap().to_str().unwrap().trim_start_matches("wharf-").to_owned();
    drop(Launcher::new(place.path("runs"), place.path("shim"), &installation).unwrap());
    assert!(!dead.exists() && living.exists());
    fs::remove_dir(living).unwrap();
    let _ = fs::remove_dir(root);
}

/// What a shim costs among others: its own pages, and its part of the code that all of them share.
/// The number is printed for the record.
#[tokio::test]
async fn a_shim_is_small() {
    let place = Place::new();
    let began = Instant::now();
    let mut lives = vec![];
    for run in 1..=8 {
        let plan = RunPlan { run: RunId(run), ..place.shell("exec sleep 60") };
        lives.push(place.launcher.launch(plan).await.unwrap());
    }
    let took = began.elapsed() / 8;
    let shim = shim_of(&lives[0]);
    let kib = |field: &str| -> u64 {
        let rollup = fs::read_to_string(format!("/proc/{shim}/smaps_rollup")).unwrap();
        let values = rollup.lines().filter_map(|line| line.strip_prefix(field));
        values.map(|value| value.trim().trim_end_matches(" kB").parse::<u64>().unwrap()).sum()
    };
    // The last of them may not have settled yet.
    soon("shim within 150 KiB, 40 of them its own", || {
        (kib("Pss:") <= 150 && kib("Private_Dirty:") <= 40).then_some(())
    })
    .await;
    let own = kib("Private_Dirty:");
    println!("a launch took {took:?}; PSS {} KiB, private {own} KiB, tier {}", kib("Pss:"), place.launcher.tier());
}

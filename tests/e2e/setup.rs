//! The daemon under a real systemd: a machine of Debian's own packages in a container, with systemd as its
//! first process. What a person does there, and what becomes of services meanwhile.

mod machine;

use std::time::Duration;

use wharf_tests::{Daemon, eventually};

use machine::Machine;

/// Who has the daemon: the system, or a user.
struct Seat<'a> {
    machine: &'a Machine,
    /// Before every command.
    before: &'static str,
    systemctl: &'static str,
}

impl Seat<'_> {
    fn says(&self, command: &str) -> String {
        self.machine.says(&format!("{} {command}", self.before))
    }

    fn property(&self, name: &str) -> String {
        self.says(&format!("{} show wharf.service -p {name} --value", self.systemctl)).trim().to_owned()
    }

    fn main_pid(&self) -> u32 {
        self.property("MainPID").parse().unwrap_or(0)
    }

    /// The processes of the services, as the machine has them and not as anybody says.
    fn services(&self) -> String {
        self.machine.says("pgrep -x sleep | sort | tr '\\n' ' '")
    }

    fn is_well(&self, since: &str, services: &str) {
        eventually(&format!("{since}: it runs, and systemd was told what"), Duration::from_secs(20), || {
            self.property("SubState") == "running" && self.property("StatusText") == "3 of 3 units run"
        });
        assert_eq!(self.services(), services, "{since}: a service was touched");
        let status = self.says("wharf status");
        let running = status.lines().filter(|line| line.starts_with("command@") && line.contains("running")).count();
        assert_eq!(running, 3, "{since}: {status}");
        assert_eq!(self.machine.failures(), "", "{since}: clients were refused");
    }

    /// Set up, restarted, killed, replaced, reloaded, hung, stopped: everything that comes over a daemon.
    fn lives_through_everything(&self, extra: &str) {
        let written = self.says(&format!("wharf setup {extra} --json"));
        assert_eq!(written.matches("\"written\"").count(), 2, "{written}");
        let again = self.says(&format!("wharf setup {extra} --json"));
        assert_eq!(again.matches("\"unchanged\"").count(), 2, "{again}");
        // One was started by hand before; systemd's takes over from it.
        self.says("sh -c 'wharf daemon >/dev/null 2>&1 &'");
        eventually("the one by hand answers", Duration::from_secs(10), || {
            self.machine.tries(&format!("{} wharf list", self.before)).contains("hello")
        });
        self.says("wharf run --name one -- sleep 12345");
        let by_hand = self.services();
        let started = self.says(&format!("wharf setup {extra} --start"));
        assert!(started.contains("enable --quiet --now wharf.socket wharf.service"), "{started}");
        assert_eq!((self.property("SubState"), self.property("NRestarts")), ("running".into(), "0".into()));
        assert_eq!(self.services(), by_hand);
        for name in ["two", "three"] {
            self.says(&format!("wharf run --name {name} -- sleep 12345"));
        }
        let services = self.services();
        assert_eq!(services.split_whitespace().count(), 3, "{services}");
        let load = self.machine.load(&format!("{} wharf rpc call rpc.health", self.before));

        let first = self.main_pid();
        self.says(&format!("{} restart wharf.service", self.systemctl));
        self.is_well("after a restart of the unit", &services);
        let restarted = self.main_pid();
        assert_ne!(first, restarted);

        let said = self.says("wharf daemon --replace");
        self.is_well("after a replace from a shell", &services);
        let replaced = self.main_pid();
        assert!(said.contains(&format!("(pid {replaced})")) && replaced != restarted, "{said}");

        self.says(&format!("{} reload wharf.service", self.systemctl));
        self.is_well("after a reload", &services);
        let reloaded = self.main_pid();
        assert_ne!(reloaded, replaced);
        assert_eq!(self.property("NRestarts"), "0");

        // systemd waits for the process that was made the main one on the way.
        self.says(&format!("{} restart wharf.service", self.systemctl));
        self.is_well("after a restart of a replaced daemon", &services);

        let killed = self.main_pid();
        self.machine.says(&format!("kill -9 {killed}"));
        eventually("systemd starts another one", Duration::from_secs(10), || {
            ![0, killed].contains(&self.main_pid()) && self.property("NRestarts") == "1"
        });
        self.is_well("after kill -9", &services);

        self.hangs(&services);
        drop(load);
        self.ends(extra, &services);
    }

    /// A daemon that is stopped says nothing; the watchdog ends it, and another one goes on.
    fn hangs(&self, services: &str) {
        let quick = "printf '[Service]\\nWatchdogSec=2\\n' > $D/quick.conf";
        let folder =
            if self.systemctl.contains("--user") { "/home/a/.config/systemd/user" } else { "/etc/systemd/system" };
        self.machine.says(&format!("D={folder}/wharf.service.d; mkdir -p $D && {quick}"));
        self.says(&format!("{} daemon-reload", self.systemctl));
        self.says(&format!("{} restart wharf.service", self.systemctl));
        self.is_well("with a short watchdog", services);
        let hung = self.main_pid();
        // It lives as long as it answers, for more than one span.
        std::thread::sleep(Duration::from_secs(3));
        assert_eq!(self.main_pid(), hung, "the watchdog ended a daemon that was well");
        self.machine.says(&format!("kill -STOP {hung}"));
        eventually("the watchdog ends it", Duration::from_secs(20), || {
            ![0, hung].contains(&self.main_pid()) && self.property("SubState") == "running"
        });
        self.is_well("after the watchdog", services);
        self.machine.says(&format!("rm -r {folder}/wharf.service.d"));
    }

    /// A stop of the unit is not the end of the services, and neither is the removal of everything.
    fn ends(&self, extra: &str, services: &str) {
        let said = self.machine.tries(&format!("{} wharf down", self.before));
        assert!(said.contains("a service manager keeps this daemon running"), "{said}");
        self.says(&format!("{} stop wharf.service", self.systemctl));
        assert_eq!((self.main_pid(), self.services().as_str()), (0, services));
        // The socket is still there: whoever asks starts the daemon.
        self.says("wharf status");
        self.is_well("after a stop, by its socket", services);
        let removed = self.says(&format!("wharf setup {extra} --remove"));
        assert_eq!(removed.matches("removed ").count(), 2, "{removed}");
        assert!(self.services() == services && self.property("LoadState") == "not-found", "{removed}");
        // Without systemd the services are still there to be ended.
        self.says("wharf down");
        assert_eq!(self.services(), "");
    }
}

#[test]
fn under_a_real_systemd_services_outlive_whatever_comes_over_the_daemon() {
    let machine = match Machine::boot() {
        Ok(machine) => machine,
        Err(why) => {
            println!("CANNOT BE DONE HERE: the daemon under a real systemd ({why})");
            return;
        }
    };
    Seat { machine: &machine, before: "", systemctl: "systemctl" }.lives_through_everything("--system");
    println!("system: restart, replace, reload, kill -9, watchdog, stop: 3 services untouched, {}", machine.counted());

    machine.says("useradd -m -s /bin/sh a && loginctl enable-linger a");
    eventually("the user's systemd runs", Duration::from_secs(20), || {
        machine.tries("systemctl is-active user@1000.service").trim() == "active"
    });
    let before = "runuser -u a -- env XDG_RUNTIME_DIR=/run/user/1000 USER=a HOME=/home/a";
    let user = Seat { machine: &machine, before, systemctl: "systemctl --user" };
    user.lives_through_everything("--user");
    println!("user: the same, {}", machine.counted());
}

#[test]
fn setup_shows_what_it_would_write_and_refuses_what_it_cannot() {
    let home = Daemon::prepare().with_env("XDG_CONFIG_HOME", "/nonexistent");
    let shown = home.cli_ok(&["setup", "--user", "--print"]).out;
    for line in ["Type=notify", "KillMode=process", "Delegate=yes", "WatchdogSec=30", "Restart=always", "ListenStream="]
    {
        assert!(shown.contains(line), "{line} is missing: {shown}");
    }
    assert!(shown.contains(&format!("WHARF_HOME={}", home.home.display())), "{shown}");
    assert!(!std::path::Path::new("/nonexistent").exists());
    let cron = home.cli_ok(&["setup", "--no-systemd", "--print"]).out;
    assert!(cron.contains("@reboot ") && cron.contains(" daemon "), "{cron}");
    if !std::path::Path::new("/run/systemd/system").exists() {
        let said = home.cli(&["setup", "--user"]);
        assert!(said.code == 4 && said.err.contains("--no-systemd"), "{said:?}");
    }
}

#[test]
fn setup_without_systemd_puts_two_lines_into_the_crontab_and_takes_them_back() {
    // A crontab of its own: a file and five lines of shell.
    let ground = Daemon::prepare();
    let (bin, tab) = (ground.home.join("bin"), ground.home.join("tab"));
    std::fs::create_dir(&bin).unwrap();
    let script =
        format!("#!/bin/sh\nif [ \"$1\" = -l ]; then cat {0} 2>/dev/null; else cat > {0}; fi\n", tab.display());
    std::fs::write(bin.join("crontab"), script).unwrap();
    std::fs::set_permissions(bin.join("crontab"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::write(&tab, "0 4 * * * backup\n").unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let ground = ground.with_env("PATH", &path);
    for _ in 0..2 {
        ground.cli_ok(&["setup", "--no-systemd"]);
    }
    let text = std::fs::read_to_string(&tab).unwrap();
    assert!(text.starts_with("0 4 * * * backup\n# wharf setup: begin\n@reboot "), "{text}");
    assert_eq!(text.lines().filter(|line| line.contains(" daemon ")).count(), 2, "{text}");
    // Cron runs exactly this; it must start a daemon of this installation.
    let line = text.lines().find_map(|line| line.strip_prefix("* * * * * ")).unwrap();
    let mut cron = std::process::Command::new("sh").args(["-c", line]).spawn().unwrap();
    eventually("it answers", Duration::from_secs(10), || ground.cli(&["rpc", "call", "rpc.health"]).code == 0);
    ground.cli_ok(&["down"]);
    assert_eq!(cron.wait().unwrap().code(), Some(0));
    ground.cli_ok(&["setup", "--no-systemd", "--remove"]);
    assert_eq!(std::fs::read_to_string(&tab).unwrap(), "0 4 * * * backup\n");
}

//! A container with systemd as pid 1, from an image of Debian's packages that is made once and kept by name.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use wharf_tests::{Docker, said as text, wharf_binary};

/// Changed with the list of packages.
const IMAGE: &str = "wharf-test-systemd-bookworm:1";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,procps";
const MIRROR: &str = "http://deb.debian.org/debian";

/// Makes the image, unless it is there.
fn image(docker: &Docker) -> Result<(), String> {
    if docker.has(IMAGE) {
        return Ok(());
    }
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (tree, began) = (folder.path().join("root"), Instant::now());
    let include = format!("--include={PACKAGES}");
    let mut made = Command::new("debootstrap");
    made.args(["--variant=minbase", &include, "bookworm"]).arg(&tree).arg(MIRROR);
    let output = made.output().map_err(|e| format!("debootstrap: {e}"))?;
    if !output.status.success() {
        let words = text(&output);
        return Err(format!("debootstrap: {}", words.lines().last().unwrap_or_default()));
    }
    docker.import(&tree, &["CMD [\"/sbin/init\"]", "ENV container=docker"], IMAGE)?;
    println!("made the image {IMAGE} in {} s", began.elapsed().as_secs());
    Ok(())
}

/// A machine that has booted. Dropped, it is gone.
pub struct Machine {
    name: String,
    docker: Arc<Docker>,
}

impl Machine {
    /// Boots it, with the binary under test in its PATH. An error says what this machine lacks.
    pub fn boot() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("containers with systemd need root".into());
        }
        let docker = Docker::find()?;
        image(&docker)?;
        let machine = Self { name: format!("wharf-test-{}", std::process::id()), docker };
        let cgroup = "/sys/fs/cgroup:/sys/fs/cgroup:rw";
        machine.docker.run(&[
            "run",
            "--detach",
            "--name",
            &machine.name,
            "--network",
            "none",
            "--cap-add",
            "SYS_ADMIN",
            "--security-opt",
            "seccomp=unconfined",
            "--security-opt",
            "apparmor=unconfined",
            "--cgroupns",
            "host",
            "--volume",
            cgroup,
            "--tmpfs",
            "/run",
            "--tmpfs",
            "/run/lock",
            "--tmpfs",
            "/tmp",
            IMAGE,
        ])?;
        let until = Instant::now() + Duration::from_secs(60);
        while !["running", "degraded"].contains(&machine.tries("systemctl is-system-running").trim()) {
            if Instant::now() > until {
                return Err(format!(
                    "systemd does not boot in a container: {}",
                    machine.tries("systemctl is-system-running")
                ));
            }
            thread::sleep(Duration::from_millis(100));
        }
        machine.bring(&wharf_binary(), "/usr/local/bin/wharf")?;
        let said = machine.tries("wharf --version");
        if !said.starts_with("wharf ") {
            return Err(format!("this machine's binary does not run in Debian 12: {}", said.trim()));
        }
        Ok(machine)
    }

    fn bring(&self, from: &Path, to: &str) -> Result<(), String> {
        let from: PathBuf = from.canonicalize().map_err(|e| e.to_string())?;
        self.docker.run(&["cp", &from.display().to_string(), &format!("{}:{to}", self.name)]).map(drop)
    }

    /// A command line in it, also one that fails.
    pub fn tries(&self, command: &str) -> String {
        let output = self.docker.command(&["exec", &self.name, "sh", "-c", command]).output().unwrap();
        text(&output)
    }

    /// A command line in it that must succeed.
    #[track_caller]
    pub fn says(&self, command: &str) -> String {
        let output = self.docker.command(&["exec", &self.name, "sh", "-c", command]).output().unwrap();
        let said = text(&output);
        if !output.status.success() && !command.contains("pgrep") {
            let journal = self.tries("journalctl --no-pager -n 60");
            panic!("{command}: {said}\n{journal}");
        }
        said
    }

    /// Clients that ask again and again, each over a connection of its own.
    pub fn load(&self, command: &str) -> Load<'_> {
        let script = format!(
            "rm -f /tmp/over; while [ ! -e /tmp/over ]; do {command} >/dev/null 2>/tmp/said && echo >> /tmp/calls \
             || cat /tmp/said >> /tmp/failed; done"
        );
        for _ in 0..2 {
            let each = script.replace("/tmp/said", "/tmp/said.$$");
            self.docker.run(&["exec", "--detach", &self.name, "sh", "-c", &each]).unwrap();
        }
        Load(self)
    }

    /// What clients were told in place of an answer.
    pub fn failures(&self) -> String {
        self.tries("cat /tmp/failed 2>/dev/null")
    }

    /// How many calls were answered.
    pub fn counted(&self) -> String {
        format!("{} calls answered, 0 failed", self.tries("wc -l < /tmp/calls").trim())
    }
}

/// Goes on until dropped.
pub struct Load<'a>(&'a Machine);

impl Drop for Load<'_> {
    fn drop(&mut self) {
        self.0.tries("touch /tmp/over");
        thread::sleep(Duration::from_millis(300));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.docker.run(&["rm", "--force", "--volumes", &self.name]);
    }
}

//! A container with systemd as pid 1, from an image of Debian's packages that is made once and kept by name.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use wharf_tests::{root, wharf_binary};

/// Changed with the list of packages.
const IMAGE: &str = "wharf-test-systemd-bookworm:1";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,procps";
const MIRROR: &str = "http://deb.debian.org/debian";

/// A Docker daemon: the machine's own, or one for this test, on a socket of its own.
struct Docker {
    host: Option<String>,
    own: Option<(Child, tempfile::TempDir)>,
}

impl Docker {
    fn find() -> Result<Self, String> {
        let theirs = Self { host: None, own: None };
        if theirs.answers() {
            return Ok(theirs);
        }
        // The path of a socket is short; the images lie where the next run finds them.
        let folder = tempfile::Builder::new().prefix("wharf-docker-").tempdir().map_err(|e| e.to_string())?;
        let images = root().join("target/test-docker");
        let at = |name: &str| folder.path().join(name).display().to_string();
        let host = format!("unix://{}", at("socket"));
        let log = fs::File::create(folder.path().join("log")).map_err(|e| e.to_string())?;
        let mut command = Command::new("dockerd");
        command.args(["--bridge=none", "--iptables=false", "--host", &host, "--exec-root", &at("exec")]);
        command.args(["--pidfile", &at("pid"), "--data-root"]).arg(&images);
        let child = command.stdout(log.try_clone().map_err(|e| e.to_string())?).stderr(log).spawn();
        let child = child.map_err(|e| format!("no Docker answers, and dockerd does not start: {e}"))?;
        let mut docker = Self { host: Some(host), own: Some((child, folder)) };
        let until = Instant::now() + Duration::from_secs(30);
        while !docker.answers() {
            let ended = docker.own.as_mut().is_some_and(|(child, _)| child.try_wait().is_ok_and(|s| s.is_some()));
            if ended || Instant::now() > until {
                return Err(format!("dockerd does not answer: {}", docker.last_words()));
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(docker)
    }

    fn last_words(&self) -> String {
        let log = self.own.as_ref().and_then(|(_, folder)| fs::read_to_string(folder.path().join("log")).ok());
        log.and_then(|text| text.lines().last().map(str::to_owned)).unwrap_or_default()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(args).stdin(Stdio::null());
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    fn run(&self, args: &[&str]) -> Result<String, String> {
        let output = self.command(args).output().map_err(|e| format!("docker: {e}"))?;
        if output.status.success() { Ok(text(&output)) } else { Err(format!("docker {}: {}", args[0], text(&output))) }
    }

    fn answers(&self) -> bool {
        self.run(&["version", "--format", "{{.Server.Version}}"]).is_ok()
    }

    /// Makes the image, unless it is there.
    fn image(&self) -> Result<(), String> {
        if self.run(&["image", "inspect", IMAGE]).is_ok() {
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
        let mut tar = Command::new("tar").arg("-C").arg(&tree).args(["-c", "."]).stdout(Stdio::piped()).spawn();
        let tree = tar.as_mut().map_err(|e| e.to_string())?.stdout.take().ok_or("no tar")?;
        let mut import =
            self.command(&["import", "-c", "CMD [\"/sbin/init\"]", "-c", "ENV container=docker", "-", IMAGE]);
        let output = import.stdin(tree).output().map_err(|e| e.to_string())?;
        tar.and_then(|mut tar| tar.wait()).map_err(|e| e.to_string())?;
        println!("made the image {IMAGE} in {} s", began.elapsed().as_secs());
        if output.status.success() { Ok(()) } else { Err(text(&output)) }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let Some((child, _folder)) = &mut self.own else { return };
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = child.wait();
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A machine that has booted. Dropped, it is gone.
pub struct Machine {
    name: String,
    docker: Docker,
}

impl Machine {
    /// Boots it, with the binary under test in its PATH. An error says what this machine lacks.
    pub fn boot() -> Result<Self, String> {
        if !nix::unistd::geteuid().is_root() {
            return Err("containers with systemd need root".into());
        }
        let docker = Docker::find()?;
        docker.image()?;
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

//! A Docker daemon for tests: the machine's own, or one on a socket of its own, shared by all tests of a process.
//!
//! Images lie in `target/test-docker`, where the next run finds them; a lock beside it keeps two processes apart.

use std::{
    fs,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use rustix::fs::{FlockOperation, flock};

use crate::root;

/// A small image of programs of this machine.
const PROGRAMS: &str = "wharf-test-programs:1";

/// A small image with busybox, which serves files.
const SERVED: &str = "wharf-test-served:1";

/// How long another process may have the images.
const TURN: Duration = Duration::from_secs(300);

/// A Docker daemon.
pub struct Docker {
    host: Option<String>,
    own: Option<Own>,
}

struct Own {
    child: Child,
    folder: tempfile::TempDir,
    _turn: fs::File,
}

impl Docker {
    /// One that answers; an error says what this machine lacks.
    pub fn find() -> Result<Arc<Self>, String> {
        static SHARED: Mutex<Weak<Docker>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(docker) = shared.upgrade() {
            return Ok(docker);
        }
        let docker = Arc::new(Self::begin()?);
        *shared = Arc::downgrade(&docker);
        Ok(docker)
    }

    fn begin() -> Result<Self, String> {
        let theirs = Self { host: None, own: None };
        if theirs.answers() {
            return Ok(theirs);
        }
        let images = root().join("target/test-docker");
        let turn = turn(&images.with_extension("lock"))?;
        // The path of a socket is short.
        let folder = tempfile::Builder::new().prefix("wharf-docker-").tempdir().map_err(|e| e.to_string())?;
        let at = |name: &str| folder.path().join(name).display().to_string();
        let host = format!("unix://{}", at("socket"));
        let log_path = folder.path().join("log");
        let log = fs::File::create(&log_path).map_err(|e| e.to_string())?;
        let mut command = Command::new("dockerd");
        command.args(["--bridge=none", "--iptables=false", "--host", &host, "--exec-root", &at("exec")]);
        command.args(["--pidfile", &at("pid"), "--data-root"]).arg(&images);
        let child = command.stdout(log.try_clone().map_err(|e| e.to_string())?).stderr(log).spawn();
        let child = child.map_err(|e| format!("no Docker answers, and dockerd does not start: {e}"))?;
        let mut docker = Self { host: Some(host), own: Some(Own { child, folder, _turn: turn }) };
        let until = Instant::now() + Duration::from_secs(30);
        while !docker.answers() {
            let ended = docker.own.as_mut().is_some_and(|own| own.child.try_wait().is_ok_and(|s| s.is_some()));
            if ended || Instant::now() > until {
                let log = fs::read_to_string(&log_path).unwrap_or_default();
                return Err(format!("dockerd does not answer: {}", log.lines().last().unwrap_or_default()));
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(docker)
    }

    /// Its address, where it is not the machine's own.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// A command line of the client.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.args(args).stdin(Stdio::null());
        if let Some(host) = &self.host {
            command.env("DOCKER_HOST", host);
        }
        command
    }

    /// What it says; an error where it fails.
    pub fn run(&self, args: &[&str]) -> Result<String, String> {
        let output = self.command(args).output().map_err(|e| format!("docker: {e}"))?;
        if output.status.success() { Ok(said(&output)) } else { Err(format!("docker {}: {}", args[0], said(&output))) }
    }

    fn answers(&self) -> bool {
        self.run(&["version", "--format", "{{.Server.Version}}"]).is_ok()
    }

    /// Whether there is an image of this name.
    pub fn has(&self, image: &str) -> bool {
        self.run(&["image", "inspect", image]).is_ok()
    }

    /// Makes an image of a folder.
    pub fn import(&self, tree: &Path, changes: &[&str], image: &str) -> Result<(), String> {
        let mut tar = Command::new("tar").arg("-C").arg(tree).args(["-c", "."]).stdout(Stdio::piped()).spawn();
        let packed = tar.as_mut().map_err(|e| e.to_string())?.stdout.take().ok_or("no tar")?;
        let mut args = vec!["import"];
        changes.iter().for_each(|change| args.extend(["-c", change]));
        args.extend(["-", image]);
        let output = self.command(&args).stdin(packed).output().map_err(|e| e.to_string())?;
        tar.and_then(|mut tar| tar.wait()).map_err(|e| e.to_string())?;
        if output.status.success() { Ok(()) } else { Err(said(&output)) }
    }

    /// An image with `sh` and `sleep` of this machine, and what they are linked with.
    pub fn programs(&self) -> Result<&'static str, String> {
        if self.has(PROGRAMS) {
            return Ok(PROGRAMS);
        }
        let tree = tempfile::tempdir().map_err(|e| e.to_string())?;
        for program in ["/bin/sh", "/bin/sleep"] {
            let linked = Command::new("ldd").arg(program).output().map_err(|e| format!("ldd: {e}"))?;
            let libraries = said(&linked);
            let libraries = libraries.split_whitespace().filter(|word| word.starts_with('/'));
            for path in std::iter::once(program).chain(libraries) {
                let to = tree.path().join(&path[1..]);
                fs::create_dir_all(to.parent().unwrap_or(&to)).map_err(|e| e.to_string())?;
                fs::copy(path, &to).map_err(|e| format!("{path}: {e}"))?;
            }
        }
        self.import(tree.path(), &["ENV PATH=/bin"], PROGRAMS)?;
        Ok(PROGRAMS)
    }
}

/// Of busybox, by these names.
const APPLETS: [&str; 5] = ["sh", "httpd", "sleep", "echo", "true"];

impl Docker {
    /// An image with busybox: `sh`, and `httpd` that serves files.
    pub fn served(&self) -> Result<&'static str, String> {
        if self.has(SERVED) {
            return Ok(SERVED);
        }
        let tree = tempfile::tempdir().map_err(|e| e.to_string())?;
        let bin = tree.path().join("bin");
        fs::create_dir(&bin).map_err(|e| e.to_string())?;
        let found = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        let busybox = found.ok_or("there is no busybox (Debian: busybox-static)")?;
        fs::copy(busybox, bin.join("busybox")).map_err(|e| format!("{busybox}: {e}"))?;
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", bin.join(applet)).map_err(|e| e.to_string())?;
        }
        self.import(tree.path(), &["ENV PATH=/bin"], SERVED)?;
        Ok(SERVED)
    }
}

/// The images are one process's at a time.
fn turn(path: &PathBuf) -> Result<fs::File, String> {
    fs::create_dir_all(path.parent().unwrap_or(path)).map_err(|e| e.to_string())?;
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o644).open(path);
    let file = file.map_err(|e| format!("{}: {e}", path.display()))?;
    let until = Instant::now() + TURN;
    while flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if Instant::now() > until {
            return Err(format!("another process has had {} for {} s", path.display(), TURN.as_secs()));
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(file)
}

impl Drop for Docker {
    fn drop(&mut self) {
        let Some(own) = &mut self.own else { return };
        let pid = nix::unistd::Pid::from_raw(own.child.id().cast_signed());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = own.child.wait();
        // What containers on the machine's own network leave mounted would keep the folder.
        let left = own.folder.path().join("exec/netns/default");
        let _ = Command::new("umount").arg(left).stderr(Stdio::null()).status();
    }
}

/// stdout and stderr of a program.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

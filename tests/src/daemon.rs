//! A real daemon in a folder of its own. It and all that it started end with the value.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};

use crate::{Document, http};

static SERVICE: LazyLock<Document> = LazyLock::new(Document::load);
static RPC: LazyLock<Document> = LazyLock::new(Document::load_rpc);

/// The document that a method is of, and whether it is rpc.sock's.
fn document_of(method: &str) -> (&'static Document, bool) {
    let is_rpc = !matches!(method.split('.').next(), Some("service" | "rpc"));
    (if is_rpc { &*RPC } else { &*SERVICE }, is_rpc)
}

/// The binary under test: `WHARF_BIN`, else the one that was built beside the tests.
pub fn wharf_binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WHARF_BIN") {
        return path.into();
    }
    beside("wharf")
}

/// A binary that was built beside the tests.
pub fn beside(name: &str) -> PathBuf {
    let me = std::env::current_exe().unwrap();
    // Tests lie in `deps`, binaries one folder above.
    let folder = me.parent().unwrap();
    let folder = if folder.ends_with("deps") { folder.parent().unwrap() } else { folder };
    let path = folder.join(name);
    assert!(path.exists(), "{} is missing: cargo build --workspace --bins", path.display());
    path
}

/// A daemon.
pub struct Daemon {
    /// Its WHARF_HOME.
    pub home: PathBuf,
    binary: PathBuf,
    child: Option<Child>,
    env: Vec<(String, String)>,
    _dir: Option<tempfile::TempDir>,
}

/// What a command line said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// stdout.
    pub out: String,
    /// stderr.
    pub err: String,
}

impl Said {
    /// stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl Daemon {
    /// A new installation, a running daemon.
    pub fn start() -> Self {
        let mut daemon = Self::prepare();
        daemon.launch();
        daemon
    }

    /// A new installation; no daemon yet.
    pub fn prepare() -> Self {
        // Below /tmp and open to all: services may run as another user.
        let dir = tempfile::Builder::new().prefix("wharf-e2e-").tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut daemon = Self::at(dir.path());
        daemon._dir = Some(dir);
        daemon
    }

    /// An installation in a folder that somebody else cares for.
    pub fn at(home: &Path) -> Self {
        Self { home: home.to_owned(), binary: wharf_binary(), child: None, env: vec![], _dir: None }
    }

    /// With another binary: a user's own.
    pub fn with_binary(mut self, binary: impl Into<PathBuf>) -> Self {
        self.binary = binary.into();
        self
    }

    /// With a variable in the daemon's environment.
    pub fn with_env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// A command of this installation.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("WHARF_HOME", &self.home).env_remove("WHARF_SOCKET").env("NO_COLOR", "1").stdin(Stdio::null());
        if !nix::unistd::geteuid().is_root() {
            // The tests find daemons by their environment, which a closed one shows to root alone.
            command.env("WHARF_DUMPABLE", "1");
        }
        command.envs(self.env.iter().map(|(n, v)| (n, v)));
        command
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.home.join("run/service.sock")
    }

    /// Its other socket.
    pub fn rpc_socket(&self) -> PathBuf {
        self.home.join("run/rpc.sock")
    }

    /// The one for people.
    pub fn admin_socket(&self) -> PathBuf {
        self.home.join("run/admin.sock")
    }

    /// Runs `wharf daemon` and waits until it answers.
    #[track_caller]
    pub fn launch(&mut self) {
        self.begin();
        self.wait_until_it_answers();
    }

    /// Runs `wharf daemon` and waits for nothing.
    #[track_caller]
    pub fn begin(&mut self) {
        let log = fs::OpenOptions::new().append(true).create(true).open(self.home.join("daemon.log")).unwrap();
        let child = self
            .command()
            .arg("daemon")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .env("WHARF_LOG", "debug")
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Waits for the first answer of a daemon that was begun.
    #[track_caller]
    pub fn wait_until_it_answers(&mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        while http::get(&self.socket(), "/health").is_err() {
            if let Some(ended) = self.child.as_mut().and_then(|c| c.try_wait().unwrap()) {
                panic!("the daemon ended ({ended}): {}", self.log());
            }
            assert!(Instant::now() < until, "the daemon does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What the daemon wrote.
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.join("daemon.log")).unwrap_or_default()
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |c| c.id().cast_signed())
    }

    /// `kill -9`, and reaped.
    pub fn kill_9(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// SIGTERM, and reaped.
    pub fn terminate(&mut self) {
        self.end(Signal::SIGTERM);
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut child) = self.child.take() {
            let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
            child.wait().unwrap();
        }
    }

    /// One call; request and reply are held against the document.
    pub fn call(&self, method: &str, params: Value) -> Result<Value, Value> {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let (document, is_rpc) = document_of(method);
        let socket = if is_rpc { self.rpc_socket() } else { self.socket() };
        let reply = http::post(&socket, &call.to_string()).unwrap_or_else(|e| panic!("{method}: {e}"));
        assert_eq!(reply.status, 200, "{method}: {reply:?}");
        let answer: Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(answer["id"], 1);
        match answer.get("error") {
            Some(error) => {
                document.check_error(method, error).unwrap_or_else(|e| panic!("{method}: {error}: {e}"));
                Err(error.clone())
            }
            None => {
                document.check_call(method, &params).unwrap_or_else(|e| panic!("{method} {params}: {e}"));
                let result = &answer["result"];
                document.check_result(method, result).unwrap_or_else(|e| panic!("{method}: {result}: {e}"));
                Ok(result.clone())
            }
        }
    }

    /// Holds a result that came another way (the CLI, curl) against the document.
    #[track_caller]
    pub fn conforms(&self, method: &str, params: &Value, result: &Value) {
        let (document, _) = document_of(method);
        document.check_call(method, params).unwrap_or_else(|e| panic!("{method} {params}: {e}"));
        document.check_result(method, result).unwrap_or_else(|e| panic!("{method}: {result}: {e}"));
    }

    /// One call that must succeed.
    #[track_caller]
    pub fn ok(&self, method: &str, params: Value) -> Value {
        match self.call(method, params.clone()) {
            Ok(result) => result,
            Err(error) => panic!("{method} {params}: {error:#}\ndaemon: {}", self.log()),
        }
    }

    /// One call that must fail.
    #[track_caller]
    pub fn err(&self, method: &str, params: Value) -> Value {
        match self.call(method, params.clone()) {
            Ok(result) => panic!("{method} {params} should have failed: {result:#}"),
            Err(error) => error,
        }
    }

    /// `service.status`, its `state`.
    #[track_caller]
    pub fn state(&self, name: &str) -> String {
        self.ok("service.status", json!({ "name": name }))["state"].as_str().unwrap().to_owned()
    }

    /// The CLI, as a person uses it.
    pub fn cli(&self, args: &[&str]) -> Said {
        let output = self.command().args(args).output().unwrap();
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The CLI, where it must succeed.
    #[track_caller]
    pub fn cli_ok(&self, args: &[&str]) -> Said {
        let said = self.cli(args);
        assert_eq!(said.code, 0, "wharf {}: {said:?}\ndaemon: {}", args.join(" "), self.log());
        said
    }

    /// Starts `command@NAME` over RPC and returns the result.
    #[track_caller]
    pub fn run(&self, name: &str, with: Value) -> Value {
        self.ok("service.start", json!({ "name": format!("command@{name}"), "with": with }))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.is_none() && !self.home.join("run").exists() {
            return;
        }
        // As a user would; then whatever a fault has left, by the folder that is its own.
        let down = self.command().arg("down").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if let Some(mut child) = self.child.take() {
            if down.is_err() {
                let _ = child.kill();
            }
            let _ = child.wait();
        }
        let mark = self.home.display().to_string();
        for pid in crate::processes_with(&mark) {
            eprintln!("left over after wharf down: pid {pid}");
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

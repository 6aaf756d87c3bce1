//! The catalogue, tried for real: each service is installed, started, asked, stopped and deleted by a real daemon in an
//! empty folder, timed, and written down with the date.
//!
//! It owns the order of the steps, the table, and the file that the services' facts read. It refuses to know any
//! service: which there are, what they need and where they lie it asks of the program.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    docs,
    ground::{cargo, root, step},
};

/// What each service goes through.
const STEPS: [&str; 5] = ["install", "start", "health", "stop", "delete"];

/// They are no services by themselves: what runs is their parameters' business.
const TEMPLATES: [&str; 2] = ["command", "compose"];

/// Gigabytes, or minutes of a compiler, or a GPU, or what a registry does not have: only where they are named.
const ONLY_NAMED: [&str; 6] = ["bluesky-pds", "chatterbox", "dufs", "open-webui", "piper", "vllm"];

/// `cargo xtask catalogue [NAME…] [--with JSON] [--note TEXT] [--stand-in TEXT]`: without names all that can run here.
/// `--stand-in` only writes down that tests do the same with a stand-in, and what that is.
pub fn run(args: &[String]) -> Result<(), String> {
    let asked = Asked::read(args)?;
    step("build", &mut cargo(&["build", "--locked", "--package", "wharf"]))?;
    let program = program();
    let all = facts(&program)?;
    let mut seen = seen()?;
    let known = |name: &String| all.contains_key(service_of(name));
    if let Some(unknown) = asked.names.iter().find(|name| !known(name)) {
        return Err(format!("there is no service {unknown:?}: wharf search shows them"));
    }
    if let Some(how) = &asked.stand_in {
        for name in &asked.names {
            let version = all[name]["version"].as_str().unwrap_or("-");
            let row = json!({ "date": today()?, "version": version, "how": how, "real": false, "took_ms": {} });
            seen.insert(name.clone(), row);
        }
        write(&seen)?;
        return docs::run(&[]);
    }
    let names = if asked.names.is_empty() { usual(&all) } else { asked.names.clone() };
    let mut failed = vec![];
    println!("{:<18} {:>8} {:>8} {:>8} {:>8} {:>8}", "service", "install", "start", "health", "stop", "delete");
    for name in names {
        match walk(&program, &name, asked.with.as_deref(), &all) {
            Ok(mut row) => {
                if let (Some(note), Some(how)) = (&asked.note, row["how"].as_str()) {
                    row["how"] = format!("{how}; {note}").into();
                }
                println!("{name:<18} {}", STEPS.map(|step| took(&row, step)).join(" "));
                seen.insert(service_of(&name).to_owned(), row);
            }
            Err(why) => {
                println!("{name:<18} {}", why.lines().next().unwrap_or_default());
                failed.push(format!("{name}: {why}"));
            }
        }
    }
    write(&seen)?;
    // The facts that the page is made from are inside of the program.
    docs::run(&[])?;
    if failed.is_empty() { Ok(()) } else { Err(format!("{} did not work:\n{}", failed.len(), failed.join("\n"))) }
}

fn service_of(unit: &str) -> &str {
    unit.split('@').next().unwrap_or(unit)
}

/// What was asked for.
#[derive(Default)]
struct Asked {
    names: Vec<String>,
    stand_in: Option<String>,
    with: Option<String>,
    note: Option<String>,
}

impl Asked {
    fn read(args: &[String]) -> Result<Self, String> {
        let mut asked = Self::default();
        let mut rest = args.iter();
        while let Some(word) = rest.next() {
            let mut value = || rest.next().cloned().ok_or_else(|| format!("{word} what?"));
            match word.as_str() {
                "--stand-in" => asked.stand_in = Some(value()?),
                "--with" => asked.with = Some(value()?),
                "--note" => asked.note = Some(value()?),
                name => asked.names.push(name.to_owned()),
            }
        }
        Ok(asked)
    }
}

fn program() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), Into::into);
    target.join("debug/wharf")
}

/// Every service's facts, by its name.
fn facts(program: &Path) -> Result<BTreeMap<String, Value>, String> {
    let said = Command::new(program).args(["search", "--json"]).env("WHARF_SOCKET", "/nowhere").output();
    let said = said.map_err(|e| format!("{}: {e}", program.display()))?;
    let all: Vec<Value> = serde_json::from_slice(&said.stdout).map_err(|e| format!("wharf search: {e}"))?;
    Ok(all.into_iter().map(|facts| (facts["name"].as_str().unwrap_or_default().to_owned(), facts)).collect())
}

/// All that can run here without more than a few hundred megabytes. Of several instances each is tried.
fn usual(all: &BTreeMap<String, Value>) -> Vec<String> {
    let mut names = vec![];
    for (name, facts) in all {
        // A forge may be out of reach: what comes from there is tried where somebody says so.
        let is_release = facts["source"].as_str().is_some_and(|source| source.contains("release"));
        if is_release || TEMPLATES.contains(&name.as_str()) || ONLY_NAMED.contains(&name.as_str()) {
            continue;
        }
        match facts["instances"].as_array().filter(|instances| !instances.is_empty()) {
            Some(instances) => names.extend(instances.iter().filter_map(Value::as_str).map(|i| format!("{name}@{i}"))),
            None => names.push(name.clone()),
        }
    }
    names
}

fn file() -> PathBuf {
    root().join("crates/services/src/catalogue/verified.json")
}

fn seen() -> Result<BTreeMap<String, Value>, String> {
    let text = fs::read_to_string(file()).map_err(|e| format!("{}: {e}", file().display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file().display()))
}

fn write(seen: &BTreeMap<String, Value>) -> Result<(), String> {
    let text = serde_json::to_string_pretty(seen).map_err(|e| e.to_string())?;
    fs::write(file(), text + "\n").map_err(|e| format!("{}: {e}", file().display()))
}

/// A daemon in an empty folder. It ends with the value, and the folder goes.
struct Daemon {
    program: PathBuf,
    home: PathBuf,
    child: Child,
}

impl Daemon {
    fn start(program: &Path, name: &str) -> Result<Self, String> {
        let home = std::env::temp_dir().join(format!("wharf-catalogue-{}-{name}", std::process::id()));
        let made = fs::create_dir_all(&home)
            // Services may run as another user.
            .and_then(|()| fs::set_permissions(&home, fs::Permissions::from_mode(0o755)));
        made.map_err(|e| format!("{}: {e}", home.display()))?;
        let mut command = Command::new(program);
        command.arg("daemon").env("WHARF_HOME", &home).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(|e| format!("wharf daemon: {e}"))?;
        let daemon = Self { program: program.to_owned(), home, child };
        let until = Instant::now() + Duration::from_secs(30);
        while !daemon.wharf(&["list"]).is_ok_and(|said| said.status.success()) {
            if Instant::now() > until {
                return Err("the daemon does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    fn wharf(&self, args: &[&str]) -> Result<Output, String> {
        let mut command = Command::new(&self.program);
        command.args(args).env("WHARF_HOME", &self.home).env("NO_COLOR", "1").env_remove("WHARF_SOCKET");
        command.stdin(Stdio::null()).output().map_err(|e| format!("wharf {}: {e}", args.join(" ")))
    }

    /// One step, and how long it took.
    fn must(&self, args: &[&str]) -> Result<u64, String> {
        let began = Instant::now();
        let said = self.wharf(args)?;
        let took_ms = began.elapsed().as_millis() as u64;
        match said.status.success() {
            true => Ok(took_ms),
            false => Err(format!("wharf {}: {}", args.join(" "), String::from_utf8_lossy(&said.stderr).trim())),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let down = self.wharf(&["down"]);
        if !down.is_ok_and(|said| said.status.success()) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.home);
    }
}

/// All steps of one service; what it took, as it is written down.
fn walk(program: &Path, name: &str, with: Option<&str>, all: &BTreeMap<String, Value>) -> Result<Value, String> {
    let daemon = Daemon::start(program, name)?;
    // A tool has nothing to start: it is placed and looked at.
    let is_tool = all.get(service_of(name)).is_some_and(|facts| facts["health"].is_null());
    let (mut took_ms, mut version) = (BTreeMap::new(), None);
    for step in STEPS {
        let mut args = vec![step, name];
        match step {
            "install" => args.extend(with.iter().flat_map(|with| ["--with-json", *with])),
            "start" | "health" | "stop" if is_tool => continue,
            "delete" => {
                daemon.must(&["verify", name])?;
                args.push("--purge-binaries");
            }
            _ => {}
        }
        took_ms.insert(step, daemon.must(&args)?);
        version = version.or_else(|| installed(&daemon, name));
    }
    let how = format!("for real on {}", machine());
    Ok(
        json!({ "date": today()?, "version": version.unwrap_or_else(|| "-".into()), "how": how, "real": true, "took_ms": took_ms }),
    )
}

/// What lies there.
fn installed(daemon: &Daemon, name: &str) -> Option<String> {
    let said = daemon.wharf(&["inspect", name, "--json"]).ok()?;
    let inspection: Value = serde_json::from_slice(&said.stdout).ok()?;
    let version = inspection["installed"]["version"].as_str().or_else(|| inspection["definition"]["version"].as_str());
    version.map(str::to_owned)
}

/// `Debian GNU/Linux 12 (bookworm), x86_64, without a GPU`.
fn machine() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let gpu = ["/dev/nvidiactl", "/dev/kfd"].iter().any(|device| Path::new(device).exists());
    let gpu = if gpu { "with a GPU" } else { "without a GPU" };
    format!("{}, {}, {gpu}", name.unwrap_or("Linux").trim_matches('"'), std::env::consts::ARCH)
}

/// The date in UTC: `2026-11-21`.
fn today() -> Result<String, String> {
    let said = Command::new("date").args(["-u", "+%F"]).output().map_err(|e| format!("date: {e}"))?;
    Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
}

fn took(row: &Value, step: &str) -> String {
    match row["took_ms"][step].as_u64() {
        Some(ms) => format!("{:>6.2} s", ms as f64 / 1000.0),
        None => format!("{:>8}", "-"),
    }
}

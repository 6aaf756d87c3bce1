//! The environment of a program: built from nothing, layer upon layer.
//!
//! A few variables of the machine, the user's env file, what the service sets, what is forced,
//! and Wharf's own two. A later layer wins, so nothing overrides what is forced.

use std::{collections::BTreeMap, fs, path::Path};

use wharf_model::{ErrorKind, Failure, gpu_environment};
use wharf_services::{Command, Context};

use crate::{account::Account, redact::redactor};

/// Where programs are looked for when the daemon itself was given no PATH.
const USUAL_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Which variables a program begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Base {
    /// Only those that every program needs.
    Clean,
    /// The daemon's too: install tools need the user's proxies, mirrors and certificates. Not what is meant
    /// for the daemon alone, and none whose value is a secret of a unit.
    Daemon,
}

/// Variables that are meant for the daemon alone: how it was started, its agents, its own secrets.
const OF_DAEMON: [&str; 17] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "MAINPID",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "SYSTEMD_EXEC_PID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "CREDENTIALS_DIRECTORY",
    "SSH_AUTH_SOCK",
    "SSH_AGENT_PID",
    "GPG_AGENT_INFO",
    "GNOME_KEYRING_CONTROL",
    "WHARF_UNIT",
    "WHARF_RUN",
    "WHARF_SOCKET",
];

fn is_the_daemons(name: &str) -> bool {
    OF_DAEMON.contains(&name) || name.starts_with("LD_") || name.starts_with("LISTEN_")
}

/// All variables of a command, each name once.
pub(crate) fn build(
    cx: &Context,
    command: &Command,
    account: Option<&Account>,
    base: Base,
) -> Result<BTreeMap<String, String>, Failure> {
    let mut vars = match base {
        Base::Clean => BTreeMap::new(),
        Base::Daemon => {
            let all = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
            all.filter(|(name, value)| !is_the_daemons(name) && !redactor().is_told_by(value)).collect()
        }
    };
    vars.extend(of_machine());
    if cx.gpus.as_ref().is_some_and(Vec::is_empty) && base == Base::Clean {
        // It asked for no GPU, so it is shown none. Who wants it otherwise says so in its own environment.
        vars.extend(gpu_environment(&[]).into_iter().filter(|(name, _)| name == "CUDA_VISIBLE_DEVICES"));
    }
    if let Some(who) = account.cloned().or_else(Account::own) {
        vars.extend(who.variables(&cx.dirs.data));
    }
    let libraries = libraries(cx);
    if !libraries.is_empty() {
        vars.insert("LD_LIBRARY_PATH".into(), libraries.join(":"));
    }
    if let Some(file) = &command.env_file {
        vars.extend(read_file(file)?);
    }
    vars.extend(command.env.clone());
    vars.extend(command.forced.clone());
    if let Some(devices) = cx.gpus.as_ref().filter(|devices| !devices.is_empty()) {
        // What was granted is what it sees, whatever else was said.
        vars.extend(gpu_environment(devices));
    }
    vars.insert("WHARF_UNIT".into(), cx.unit.to_string());
    if let Some(run) = cx.run {
        vars.insert("WHARF_RUN".into(), run.to_string());
    }
    match vars.iter().find(|(name, value)| !is_name(name) && base == Base::Clean || value.contains('\0')) {
        None => Ok(vars),
        Some((name, _)) => Err(Failure::new(
            ErrorKind::InvalidParams,
            format!("{name:?} is no name of a variable, or its value holds a NUL"),
        )
        .hint("names are letters, digits and '_', and begin with no digit")),
    }
}

/// For a program that belongs to no unit yet: the machine's variables and Wharf's own user.
pub(crate) fn of_nobody(home: &Path) -> BTreeMap<String, String> {
    let mut vars = of_machine();
    vars.extend(Account::own().map(|who| who.variables(home)).unwrap_or_default());
    vars
}

/// What is the same for every program on this machine.
fn of_machine() -> BTreeMap<String, String> {
    let own = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let mut vars = BTreeMap::from([
        ("PATH".to_owned(), own("PATH").unwrap_or_else(|| USUAL_PATH.into())),
        ("LANG".to_owned(), own("LANG").unwrap_or_else(|| "C.UTF-8".into())),
        ("TMPDIR".to_owned(), own("TMPDIR").unwrap_or_else(|| "/tmp".into())),
    ]);
    vars.extend(own("TZ").map(|tz| ("TZ".to_owned(), tz)));
    vars
}

/// The folders with shared libraries among what Debian packages brought.
fn libraries(cx: &Context) -> Vec<String> {
    let Some(placed) = cx.installed.as_ref().filter(|i| i.source == "debian") else { return vec![] };
    let mut found = vec![];
    for base in ["usr/lib", "lib"].map(|d| placed.path.join(d)) {
        let Ok(entries) = fs::read_dir(&base) else { continue };
        let triplets = entries.flatten().map(|e| e.path());
        let triplets = triplets.filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().contains("-linux-")));
        found.extend(triplets.chain([base.clone()]).filter(|dir| has_libraries(dir)));
    }
    found.into_iter().map(|p| p.display().to_string()).collect()
}

fn has_libraries(dir: &Path) -> bool {
    fs::read_dir(dir)
        .is_ok_and(|mut entries| entries.any(|e| e.is_ok_and(|e| e.file_name().to_string_lossy().contains(".so"))))
}

/// More than that is no environment: the kernel takes 2 MiB for it, arguments included.
const MOST_ENV_BYTES: u64 = 1 << 20;

fn read_file(path: &Path) -> Result<BTreeMap<String, String>, Failure> {
    // A pipe would hold the daemon up, a device would fill its memory.
    let is_sound = |found: fs::Metadata| found.is_file() && found.len() <= MOST_ENV_BYTES;
    if fs::metadata(path).is_ok_and(|found| !is_sound(found)) {
        let text = format!("the env file {} is no plain file of at most 1 MiB", path.display());
        return Err(Failure::new(ErrorKind::Precondition, text).hint("name a file of NAME=value lines"));
    }
    let text = fs::read_to_string(path).map_err(|e| {
        Failure::new(ErrorKind::Precondition, format!("the env file {} cannot be read: {e}", path.display()))
            .hint("it must be there and readable; or take `env_file` out of the parameters")
    })?;
    parse(&text).map_err(|(line, why)| {
        Failure::new(ErrorKind::Precondition, format!("{}:{line}: {why}", path.display()))
            .hint("each line is NAME=value, NAME='value' or NAME=\"value\"; a comment begins with #")
    })
}

/// `NAME=value` lines: `export ` before, quotes around and comments behind are understood.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, String>, (usize, String)> {
    let mut vars = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        let at = |why: String| (index + 1, why);
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").map_or(line, str::trim_start);
        let (name, value) = line.split_once('=').ok_or_else(|| at("there is no '=' in this line".into()))?;
        let name = name.trim_end();
        if !is_name(name) {
            return Err(at(format!("{:?} is no name of a variable", name.chars().take(40).collect::<String>())));
        }
        vars.insert(name.to_owned(), unquote(value.trim()).map_err(|why| at(why.into()))?);
    }
    Ok(vars)
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn unquote(value: &str) -> Result<String, &'static str> {
    let mut chars = value.chars();
    let quote = match chars.next() {
        Some(quote @ ('\'' | '"')) => quote,
        _ => {
            let bare = value.find(" #").map_or(value, |at| &value[..at]);
            return Ok(bare.trim_end().to_owned());
        }
    };
    let mut out = String::new();
    while let Some(c) = chars.next() {
        match c {
            c if c == quote => {
                let rest = chars.as_str().trim_start();
                return if rest.is_empty() || rest.starts_with('#') { Ok(out) } else { Err("text behind the quotes") };
            }
            '\\' if quote == '"' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(c @ ('"' | '\\' | '$' | '`')) => out.push(c),
                Some(c) => out.extend(['\\', c]),
                None => break,
            },
            c => out.push(c),
        }
    }
    Err("the quotes are not closed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::context;

    #[test]
    fn an_env_file_is_understood_and_a_bad_line_is_named() {
        let text = "# c\n\nexport A=1\nB = two words # c\nC='a $x # b'\nD=\"l1\\nl2 \\\"q\\\"\"\nE=\nF=a#b\n";
        let vars = parse(text).unwrap();
        let got: Vec<(&str, &str)> = vars.iter().map(|(k, v)| (&**k, &**v)).collect();
        let want = [("A", "1"), ("B", "two words"), ("C", "a $x # b"), ("D", "l1\nl2 \"q\""), ("E", ""), ("F", "a#b")];
        assert_eq!(got, want);
        assert_eq!(parse("A=1\nB C=2\n").unwrap_err().0, 2);
        assert_eq!(parse("A=1\n\nfoo\n").unwrap_err().0, 3);
        assert_eq!(parse("A='x\n").unwrap_err(), (1, "the quotes are not closed".into()));
    }

    /// T11.
    #[test]
    fn nothing_overrides_what_is_forced() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("env");
        fs::write(&file, "KEY=file\nPORT=1\nUSER_SET=file\nWHARF_UNIT=liar\nONLY=file\n").unwrap();
        let cx = context(dir.path(), "hello");
        let command = Command {
            env_file: Some(file),
            env: BTreeMap::from([("PORT".into(), "2".into()), ("USER_SET".into(), "env".into())]),
            forced: BTreeMap::from([("KEY".into(), "forced".into()), ("PORT".into(), "3".into())]),
            ..Command::default()
        };
        let vars = build(&cx, &command, None, Base::Clean).unwrap();
        let of = |name: &str| vars.get(name).map(String::as_str);
        assert_eq!((of("KEY"), of("PORT")), (Some("forced"), Some("3")));
        assert_eq!((of("USER_SET"), of("ONLY")), (Some("env"), Some("file")));
        assert_eq!((of("WHARF_UNIT"), of("WHARF_RUN")), (Some("hello"), Some("1")));
        assert_eq!(of("CARGO_PKG_NAME"), None, "the daemon's own variables do not leak");
        assert!(of("PATH").is_some() && of("HOME").is_some() && of("USER").is_some());
    }

    #[test]
    fn what_is_meant_for_the_daemon_goes_no_further() {
        for name in ["LD_PRELOAD", "LD_LIBRARY_PATH", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "SSH_AUTH_SOCK"] {
            assert!(is_the_daemons(name), "{name}");
        }
        for name in ["PATH", "HTTPS_PROXY", "CARGO_HOME", "SSL_CERT_FILE", "OLD_NAME"] {
            assert!(!is_the_daemons(name), "{name}");
        }
        let dir = tempfile::tempdir().unwrap();
        let build = |command: Command| build(&context(dir.path(), "hello"), &command, None, Base::Daemon).unwrap();
        assert!(build(Command::default()).contains_key("CARGO_PKG_NAME"), "the user's own are there");
        // Given by the unit itself, it is the unit's.
        let given = Command { env: BTreeMap::from([("LD_PRELOAD".into(), "/x.so".into())]), ..Command::default() };
        assert_eq!(build(given).get("LD_PRELOAD").map(String::as_str), Some("/x.so"));
        redactor().learn(env!("CARGO_PKG_DESCRIPTION").as_bytes());
        assert!(!build(Command::default()).contains_key("CARGO_PKG_DESCRIPTION"), "a secret of a unit is not");
    }

    #[test]
    fn a_missing_env_file_is_a_precondition() {
        let dir = tempfile::tempdir().unwrap();
        let command = Command { env_file: Some("/nowhere/env".into()), ..Command::default() };
        let failure = build(&context(dir.path(), "hello"), &command, None, Base::Clean).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Precondition);
        assert!(failure.message.contains("/nowhere/env"));
    }
}

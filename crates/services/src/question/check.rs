//! What is wrong with a question, said before anything runs.

use std::path::Path;

use wharf_model::{ErrorKind, Failure};

use super::{PortRef, Question};
use crate::{Ports, Result};

/// How deep `all` and `any` may be nested.
const DEEPEST: usize = 4;
/// How many questions they may hold together.
const MOST: usize = 32;
/// A compiled expression takes no more, in bytes.
const PATTERN_BYTES: usize = 1 << 20;
/// `sun_path` of a Unix socket's address.
const SOCKET_PATH_BYTES: usize = 107;

/// A question that is wrong.
pub(super) fn wrong(text: &str, hint: &str) -> Failure {
    Failure::new(ErrorKind::InvalidParams, format!("with.health: {text}")).hint(hint)
}

/// A port that the unit does not have.
pub(super) fn no_such_port<'a>(name: &str, known: impl Iterator<Item = &'a String>) -> Failure {
    let known = known.map(String::as_str).collect::<Vec<_>>().join(", ");
    wrong(&format!("there is no port {name:?}"), &known_ports(&known))
}

/// A port that has to be named.
pub(super) fn which_port<'a>(known: impl Iterator<Item = &'a String>) -> Failure {
    let known = known.map(String::as_str).collect::<Vec<_>>().join(", ");
    wrong("it does not say which port", &known_ports(&known))
}

fn known_ports(known: &str) -> String {
    match known {
        "" => "give with.ports, or a number: {\"port\": 8080}".into(),
        known => format!("with.ports names: {known}"),
    }
}

/// A regular expression that cannot be used.
pub(super) fn pattern(field: &str, pattern: &str) -> Result<()> {
    if pattern.is_empty() {
        return Err(wrong(&format!("{field} is empty"), "name what the line says: \"listening on\""));
    }
    let compiled = regex::bytes::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES).build();
    compiled.map(drop).map_err(|e| {
        let text = e.to_string();
        let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        wrong(&format!("{field}: {pattern:?} is no regular expression: {why}"), "special characters take a backslash")
    })
}

/// The whole of a question.
pub(super) fn sound(question: &Question, ports: &Ports, is_ready: bool) -> Result<()> {
    if let (Question::Notify, false) = (question, is_ready) {
        let hint = "the policy's watchdog_ms makes it say that it is alive";
        return Err(wrong("live: notify tells only that it is ready", hint));
    }
    let mut count = 0;
    part(question, ports, 0, &mut count)
}

fn part(question: &Question, ports: &Ports, depth: usize, count: &mut usize) -> Result<()> {
    *count += 1;
    if *count > MOST || depth > DEEPEST {
        let text = format!("at most {MOST} questions, at most {DEEPEST} deep");
        return Err(wrong("it is too large", &text));
    }
    match question {
        Question::None | Question::Process => Ok(()),
        Question::Notify if depth == 0 => Ok(()),
        Question::Notify => {
            let hint = "{\"ready\": \"notify\", \"live\": …}";
            Err(wrong("notify is no part of all or any", hint))
        }
        Question::Http(http) => {
            one_place(http.port.as_ref(), http.socket.as_deref(), ports, "http")?;
            http.check()
        }
        Question::Tcp(tcp) => port(tcp.port.as_ref(), ports),
        Question::Unix(unix) => socket(&unix.socket),
        Question::Exec(argv) if argv.first().is_none_or(String::is_empty) => {
            Err(wrong("exec is empty", "name a program: {\"exec\": [\"/usr/bin/test\", \"-e\", \"/run/ready\"]}"))
        }
        Question::Exec(_) => Ok(()),
        Question::Resp(resp) => {
            if resp.expect.is_empty() {
                return Err(wrong("resp.expect is empty", "what the answer contains: \"PONG\""));
            }
            one_place(resp.port.as_ref(), resp.socket.as_deref(), ports, "resp")
        }
        Question::Log(text) => pattern("log", text),
        Question::All(parts) | Question::Any(parts) => {
            if parts.is_empty() {
                return Err(wrong("all or any is empty", "name questions in it"));
            }
            parts.iter().try_for_each(|inner| part(inner, ports, depth + 1, count))
        }
    }
}

fn one_place(named: Option<&PortRef>, path: Option<&Path>, ports: &Ports, field: &str) -> Result<()> {
    match (named, path) {
        (Some(_), Some(_)) => Err(wrong(&format!("{field} has a port and a socket"), "leave one of them out")),
        (None, Some(path)) => socket(path),
        (named, None) => port(named, ports),
    }
}

fn socket(path: &Path) -> Result<()> {
    let length = path.as_os_str().len();
    if length == 0 || length > SOCKET_PATH_BYTES {
        let hint = format!("a path of 1 to {SOCKET_PATH_BYTES} bytes");
        return Err(wrong(&format!("{} is no path of a socket", path.display()), &hint));
    }
    Ok(())
}

fn port(named: Option<&PortRef>, ports: &Ports) -> Result<()> {
    match named {
        Some(PortRef::Name(name)) if !ports.contains_key(name) => Err(no_such_port(name, ports.keys())),
        Some(PortRef::Number(0)) => Err(wrong("0 is no port", "a number from 1 to 65535")),
        Some(PortRef::Name(_) | PortRef::Number(_)) => Ok(()),
        None if ports.len() == 1 => Ok(()),
        None => Err(which_port(ports.keys())),
    }
}

//! `--health` and `--ready`: the health question of `command`, as it is typed.
//!
//! It owns the short forms. What is wrong with a question beyond its form is the daemon's to say.

use serde_json::{Value, json};

use crate::{trouble::Trouble, with};

/// How a program is found to be ready and well.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct HealthFlags {
    /// How it is found to be ready and well; given several times, all of them count. See below for the forms
    #[arg(long, value_name = "PROBE")]
    health: Vec<String>,
    /// How it is found to be ready, where that is another question; --health is asked from then on
    #[arg(long, value_name = "PROBE")]
    ready: Option<String>,
    /// What must be at a JSON pointer of the answer to an http probe: /status=healthy
    #[arg(long, value_name = "POINTER=VALUE")]
    expect_json: Vec<String>,
    /// The status of a good answer to an http probe: 204, 2xx, 200-299, or several of them with commas
    #[arg(long, value_name = "STATUS", value_delimiter = ',')]
    expect_status: Vec<String>,
}

/// For the help of a verb that takes the flags.
pub(crate) const FORMS: &str = "Probes:
  http:/PATH              GET at its port http, or at its only port; http@PORT:/PATH at another
  http:SOCKET:/PATH       GET over a Unix socket
  tcp:PORT                it accepts connections; PORT is a name or a number
  unix:SOCKET             it accepts connections; unix:SOCKET:/PATH is http:SOCKET:/PATH
  resp:PORT:SEND=EXPECT   a line and its answer, as Redis has them; resp:PORT is PING=PONG; a socket is a PORT too
  exec:COMMAND            /bin/sh runs it; well is exit code 0
  log:REGEX               a line of its log, once
  notify                  it says itself that it is ready (sd_notify)
  none                    it lives
  {…}                     any question, as JSON";

impl HealthFlags {
    /// The parameter `health`; `None`: nothing was said. `ports` are the names that `--port` gave.
    pub(crate) fn value(&self, ports: &[&str]) -> Result<Option<Value>, Trouble> {
        let asked = |text: &String| probe(text, ports);
        let mut parts: Vec<Value> = self.health.iter().map(asked).collect::<Result<_, _>>()?;
        let mut ready = self.ready.as_ref().map(asked).transpose()?;
        for part in parts.iter_mut().chain(&mut ready) {
            self.expect(part)?;
        }
        let wants_http = !self.expect_json.is_empty() || !self.expect_status.is_empty();
        if wants_http && !parts.iter().chain(&ready).any(|part| part.get("http").is_some()) {
            let text = "--expect-json and --expect-status need a --health or --ready of http";
            return Err(Trouble::Usage(text.into()));
        }
        // notify says only that it is ready; what else is named is asked from then on.
        if ready.is_none() && parts.len() > 1 {
            let notify = parts.iter().position(|part| part == "notify").map(|at| parts.remove(at));
            ready = notify;
        }
        let live = match parts.len() {
            0 => None,
            1 => parts.pop(),
            _ => Some(json!({ "all": parts })),
        };
        Ok(match (ready, live) {
            (Some(ready), Some(live)) => Some(json!({ "ready": ready, "live": live })),
            (Some(ready), None) => Some(json!({ "ready": ready })),
            (None, live) => live,
        })
    }

    fn expect(&self, part: &mut Value) -> Result<(), Trouble> {
        let Some(http) = part.get_mut("http").and_then(Value::as_object_mut) else { return Ok(()) };
        for text in &self.expect_json {
            let (pointer, value) = with::pair("--expect-json", text)?;
            with::put_plain(http, "json", pointer, with::lenient(value))?;
        }
        let status = |text: &String| text.parse::<u16>().map_or_else(|_| text.as_str().into(), Value::from);
        match self.expect_status.as_slice() {
            [] => {}
            [one] => drop(http.insert("status".into(), status(one))),
            several => drop(http.insert("status".into(), several.iter().map(status).collect())),
        }
        Ok(())
    }
}

fn probe(text: &str, ports: &[&str]) -> Result<Value, Trouble> {
    if text.starts_with('{') {
        return serde_json::from_str(text).map_err(|e| Trouble::Usage(format!("--health is no JSON: {e}")));
    }
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let (kind, port) = kind.split_once('@').map_or((kind, None), |(kind, port)| (kind, Some(port)));
    match (kind, port, rest) {
        ("none" | "process" | "notify", None, "") if !text.contains(':') => Ok(kind.into()),
        ("http" | "unix", None, rest) if socket_and_path(rest).is_some() => {
            let (socket, path) = socket_and_path(rest).unwrap_or_default();
            Ok(json!({ "http": { "socket": socket, "path": path } }))
        }
        ("http", Some(port), path) if path.starts_with('/') && !port.is_empty() => {
            Ok(json!({ "http": { "port": port_ref(port), "path": path } }))
        }
        ("http", None, path) if path.starts_with('/') => {
            Ok(json!({ "http": { "port": usual_port(ports)?, "path": path } }))
        }
        ("tcp", None, port) if !port.is_empty() => Ok(json!({ "tcp": { "port": port_ref(port) } })),
        ("unix", None, socket) if !socket.is_empty() => Ok(json!({ "unix": { "socket": socket } })),
        ("exec", None, command) if !command.is_empty() => Ok(json!({ "exec": ["/bin/sh", "-c", command] })),
        ("log", None, pattern) if !pattern.is_empty() => Ok(json!({ "log": pattern })),
        ("resp", None, rest) if !rest.is_empty() => resp(rest),
        _ => {
            let known = "http:/PATH, tcp:PORT, unix:SOCKET, resp:PORT, exec:COMMAND, log:REGEX, notify or none";
            Err(Trouble::Usage(format!("--health takes {known}, not {text:?}; wharf run --help has all forms")))
        }
    }
}

/// `/run/a.sock:/health`: a path, and behind a colon another one. A single path is none.
fn socket_and_path(text: &str) -> Option<(&str, &str)> {
    let (socket, path) = text.split_at_checked(text.find(":/")?)?;
    let is_path = socket.contains('/') || socket.ends_with(".sock");
    is_path.then_some((socket, path.get(1..)?))
}

fn resp(text: &str) -> Result<Value, Trouble> {
    let (at, said) = text.split_once(':').map_or((text, None), |(at, said)| (at, Some(said)));
    let mut resp = match at.contains('/') {
        true => json!({ "socket": at }),
        false => json!({ "port": port_ref(at) }),
    };
    if let Some(said) = said {
        let (send, expect) = with::pair("--health resp:PORT:", said)?;
        resp["send"] = send.into();
        resp["expect"] = expect.into();
    }
    Ok(json!({ "resp": resp }))
}

fn port_ref(text: &str) -> Value {
    text.parse::<u16>().map_or_else(|_| text.into(), Value::from)
}

/// The port that is meant where none is named: the one called http, or the only one.
fn usual_port<'a>(ports: &[&'a str]) -> Result<&'a str, Trouble> {
    match ports {
        [port] => Ok(port),
        _ => ports.iter().find(|port| **port == "http").copied().ok_or_else(|| {
            Trouble::Usage(
                "--health http:/PATH needs a --port called http, or one alone; http@PORT:/PATH names one".into(),
            )
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(health: &[&str], ready: Option<&str>) -> HealthFlags {
        let health = health.iter().map(|text| (*text).to_owned()).collect();
        HealthFlags { health, ready: ready.map(Into::into), ..HealthFlags::default() }
    }

    #[test]
    fn a_probe_is_the_question_of_command() {
        let asked = |text: &str, ports: &[&str]| probe(text, ports).unwrap();
        assert_eq!(asked("http:/health", &["admin", "http"]), json!({"http": {"port": "http", "path": "/health"}}));
        assert_eq!(asked("http:/", &["main"]), json!({"http": {"port": "main", "path": "/"}}));
        assert_eq!(asked("http@8000:/a:b", &[]), json!({"http": {"port": 8000, "path": "/a:b"}}));
        let over_socket = json!({"http": {"socket": "/run/a.sock", "path": "/h"}});
        assert_eq!(asked("unix:/run/a.sock:/h", &[]), over_socket);
        assert_eq!(asked("http:/run/a.sock:/h", &[]), over_socket);
        assert_eq!(asked("unix:a.sock", &[]), json!({"unix": {"socket": "a.sock"}}));
        assert_eq!(asked("tcp:main", &[]), json!({"tcp": {"port": "main"}}));
        assert_eq!(asked("exec:test -e ready", &[]), json!({"exec": ["/bin/sh", "-c", "test -e ready"]}));
        assert_eq!(asked("resp:main", &[]), json!({"resp": {"port": "main"}}));
        let status = json!({"resp": {"port": 1, "send": "INFO", "expect": "role:master"}});
        assert_eq!(asked("resp:1:INFO=role:master", &[]), status);
        let socket = json!({"resp": {"socket": "/r.sock", "send": "PING", "expect": "PONG"}});
        assert_eq!(asked("resp:/r.sock:PING=PONG", &[]), socket);
        assert_eq!(asked("log:listening on :\\d+", &[]), json!({"log": "listening on :\\d+"}));
        assert_eq!((asked("none", &[]), asked("notify", &[])), (json!("none"), json!("notify")));
        assert_eq!(asked("{\"any\": [\"none\"]}", &[]), json!({"any": ["none"]}));
    }

    #[test]
    fn several_are_all_of_them_and_ready_may_differ() {
        let value = |flags: HealthFlags| flags.value(&["http"]).unwrap();
        assert_eq!(value(flags(&[], None)), None);
        let http = json!({"http": {"port": "http", "path": "/h"}});
        assert_eq!(value(flags(&["http:/h", "tcp:1"], None)), Some(json!({"all": [http, {"tcp": {"port": 1}}]})));
        let both = json!({"ready": {"log": "up"}, "live": http});
        assert_eq!(value(flags(&["http:/h"], Some("log:up"))), Some(both));
        assert_eq!(value(flags(&[], Some("log:up"))), Some(json!({"ready": {"log": "up"}})));
        assert_eq!(value(flags(&["notify", "http:/h"], None)), Some(json!({"ready": "notify", "live": http})));
        let expected = HealthFlags {
            expect_json: vec!["/status=healthy".into(), "/n=1".into()],
            expect_status: vec!["2xx".into(), "404".into()],
            ..flags(&["http:/h"], None)
        };
        let http =
            json!({"port": "http", "path": "/h", "json": {"/status": "healthy", "/n": 1}, "status": ["2xx", 404]});
        assert_eq!(value(expected), Some(json!({ "http": http })));
    }

    #[test]
    fn what_is_no_probe_is_refused() {
        for bad in [
            "http",
            "http:health",
            "http:/health",
            "tcp:",
            "exec:",
            "none:x",
            "none:",
            "ping:1",
            "tcp@a:b",
            "log:",
            "{",
        ] {
            assert!(probe(bad, &[]).is_err(), "{bad:?} was taken");
        }
        let expects = HealthFlags { expect_json: vec!["/a=1".into()], ..flags(&["tcp:main"], None) };
        assert!(expects.value(&[]).is_err());
    }
}

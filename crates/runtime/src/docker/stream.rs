//! Answers of an engine that go on: events of containers, and what a container writes.

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use serde::Deserialize;

/// A longer line is cut there.
const LONGEST: usize = 64 * 1024;

/// What has happened to a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `start`, `die`, `destroy`, `pause`, `unpause`.
    pub action: String,
    /// How it ended, where it has.
    pub exit_code: Option<i32>,
}

/// Events as they come.
pub struct Events {
    body: Incoming,
    lines: Lines,
}

impl Events {
    pub(super) fn of(body: Incoming) -> Self {
        Self { body, lines: Lines::default() }
    }

    /// The next one; none: the engine has gone.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(line) = self.lines.next() {
                if let Some(event) = event(&line) {
                    return Some(event);
                }
            }
            self.lines.push(&chunk(&mut self.body).await?);
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Told {
    action: String,
    #[serde(default)]
    actor: Actor,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Actor {
    #[serde(default)]
    attributes: Attributes,
}

#[derive(Deserialize, Default)]
struct Attributes {
    /// Docker's name, and Podman's.
    #[serde(default, rename = "exitCode", alias = "containerExitCode")]
    exit_code: Option<String>,
}

fn event(line: &[u8]) -> Option<Event> {
    let told: Told = serde_json::from_slice(line).ok()?;
    let exit_code = told.actor.attributes.exit_code.and_then(|code| code.parse().ok());
    Some(Event { action: told.action, exit_code })
}

/// What a container writes, line by line.
pub struct Log {
    body: Incoming,
    parts: Parts,
}

impl Log {
    pub(super) fn of(body: Incoming, is_terminal: bool) -> Self {
        Self { body, parts: Parts { is_terminal, ..Parts::default() } }
    }

    /// The next lines, of stdout and stderr; none: the container has ended, or the engine has gone.
    pub async fn next(&mut self) -> Option<Vec<Vec<u8>>> {
        loop {
            let lines = self.parts.lines();
            if !lines.is_empty() {
                return Some(lines);
            }
            match chunk(&mut self.body).await {
                Some(bytes) => self.parts.push(&bytes),
                None => return Some(self.parts.rest()).filter(|rest| !rest.is_empty()),
            }
        }
    }
}

/// A stream without a terminal is made of parts: 1 or 2 for stdout or stderr, three zeros, a length, and so many bytes.
#[derive(Default)]
struct Parts {
    is_terminal: bool,
    held: Vec<u8>,
    lines: [Lines; 2],
}

impl Parts {
    fn push(&mut self, bytes: &[u8]) {
        if self.is_terminal {
            self.lines[0].push(bytes);
            return;
        }
        self.held.extend_from_slice(bytes);
        while let Some((head, rest)) = self.held.split_first_chunk::<8>() {
            let length = u32::from_be_bytes([head[4], head[5], head[6], head[7]]) as usize;
            let Some(part) = rest.get(..length) else { break };
            self.lines[usize::from(head[0] == 2)].push(part);
            self.held.drain(..8 + length);
        }
    }

    fn lines(&mut self) -> Vec<Vec<u8>> {
        self.lines.iter_mut().flat_map(|lines| std::iter::from_fn(|| lines.next())).collect()
    }

    /// Lines without an end.
    fn rest(&mut self) -> Vec<Vec<u8>> {
        self.lines.iter_mut().map(|lines| std::mem::take(&mut lines.held)).filter(|line| !line.is_empty()).collect()
    }
}

/// Lines out of pieces.
#[derive(Default)]
struct Lines {
    held: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
    }

    /// The next whole one, without its end.
    fn next(&mut self) -> Option<Vec<u8>> {
        let end = memchr::memchr(b'\n', &self.held);
        if end.is_none_or(|end| end > LONGEST) && self.held.len() > LONGEST {
            return Some(self.held.drain(..LONGEST).collect());
        }
        let mut line: Vec<u8> = self.held.drain(..=end?).collect();
        line.pop();
        line.pop_if(|last| *last == b'\r');
        Some(line)
    }
}

async fn chunk(body: &mut Incoming) -> Option<Bytes> {
    loop {
        if let Ok(bytes) = body.frame().await?.ok()?.into_data() {
            return Some(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_has_its_code() {
        let line = br#"{"status":"die","Type":"container","Action":"die","Actor":{"ID":"a","Attributes":{"exitCode":"137","name":"x"}}}"#;
        assert_eq!(event(line), Some(Event { action: "die".into(), exit_code: Some(137) }));
        assert_eq!(event(br#"{"Action":"start"}"#), Some(Event { action: "start".into(), exit_code: None }));
        assert_eq!(event(b"nonsense"), None);
    }

    #[test]
    fn parts_become_lines_wherever_they_are_cut() {
        let part =
            |to: u8, text: &str| [&[to, 0, 0, 0], &(text.len() as u32).to_be_bytes()[..], text.as_bytes()].concat();
        let all = [part(1, "one\ntw"), part(2, "err\r\n"), part(1, "o\nrest")].concat();
        for size in 1..all.len() {
            let mut parts = Parts::default();
            let mut got = vec![];
            for piece in all.chunks(size) {
                parts.push(piece);
                got.extend(parts.lines());
            }
            got.extend(parts.rest());
            got.sort();
            assert_eq!(got, [&b"err"[..], b"one", b"rest", b"two"], "in pieces of {size}");
        }
        let mut terminal = Parts { is_terminal: true, ..Parts::default() };
        terminal.push(b"plain\r\n");
        assert_eq!(terminal.lines(), [b"plain"]);
        // Without an end, it is cut: nothing is held for ever.
        let mut lines = Lines::default();
        lines.push(&vec![b'x'; 3 * LONGEST]);
        let mut whole = 0;
        while let Some(line) = lines.next() {
            whole += line.len();
        }
        assert!(whole >= 2 * LONGEST && lines.held.len() <= LONGEST);
    }
}

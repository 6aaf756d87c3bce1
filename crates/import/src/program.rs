//! A program as any of the files describes it: what is run, and how it is kept running.

use serde::Serialize;
use wharf_model::{OnExit, Policy, Signal};

/// What lives so long after its start has started.
const LIVES_FOR_MS: u64 = 300;
/// Between questions whose answer cannot change.
const RARELY_MS: u64 = 3_600_000;

/// Something that has no counterpart, or another one than might be thought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// The service that it is about; none: the file as a whole.
    pub service: Option<String>,
    /// A sentence.
    pub text: String,
}

/// A part of a text: what is known now, and what is known only when the unit starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// As it stands.
    Text(String),
    /// The instance's name, filled with zeros to this width.
    Instance(usize),
    /// The unit's data folder.
    Data,
    /// The unit's folder of files that are made anew at each start.
    Run,
}

/// An argument, a value, a path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Text(pub Vec<Piece>);

impl Text {
    /// As one string, where all of it is known.
    pub fn plain(&self) -> Option<String> {
        let known = |piece: &Piece| match piece {
            Piece::Text(text) => Some(text.clone()),
            Piece::Instance(_) | Piece::Data | Piece::Run => None,
        };
        self.0.iter().map(known).collect()
    }

    /// Adds text to its end.
    pub fn push(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Text(last)) => last.push_str(text),
            Some(Piece::Instance(_) | Piece::Data | Piece::Run) | None if text.is_empty() => {}
            Some(Piece::Instance(_) | Piece::Data | Piece::Run) | None => self.0.push(Piece::Text(text.to_owned())),
        }
    }

    /// It names the instance.
    #[cfg(test)]
    pub fn has_instance(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Instance(_)))
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(vec![Piece::Text(text.to_owned())])
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(vec![Piece::Text(text)])
    }
}

/// A port that it listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Port {
    pub name: String,
    pub number: u16,
    /// Each further instance has a number that is higher by this.
    pub step: u16,
    /// The variable by which the program is told; without, the number cannot be changed.
    pub told_by: Option<String>,
}

/// A file of variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EnvFile {
    pub path: Text,
    /// It need not be there.
    pub is_optional: bool,
}

/// What is asked to see how it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// `GET path` at a port of this machine.
    Http { port: u16, path: String, status: u16 },
    /// A program that ends with code 0.
    Exec(Vec<Text>),
    /// A line that it writes.
    Log(String),
}

/// Another service that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Needed {
    /// As the file calls it.
    pub name: String,
    pub soft: bool,
}

/// One program that is to be a service.
#[derive(Debug, Clone, PartialEq)]
pub struct Program {
    /// The service's name.
    pub name: String,
    /// As the file calls it, for needs of others.
    pub(crate) called: String,
    /// For people: `[program:web] of supervisord.conf`.
    pub from: String,
    /// One line for people.
    pub(crate) summary: String,
    pub(crate) argv: Vec<Text>,
    pub(crate) env: Vec<(String, Text)>,
    pub(crate) env_file: Option<EnvFile>,
    pub(crate) cwd: Option<Text>,
    /// Where Wharf is root: it runs as the unprivileged service user.
    pub(crate) unprivileged: bool,
    /// Its instances; none: there is one.
    pub instances: Vec<String>,
    /// It has instances, and which ones is not said.
    pub(crate) is_template: bool,
    pub(crate) ports: Vec<Port>,
    pub(crate) ready: Option<Question>,
    pub(crate) live: Option<Question>,
    /// A program that ends it, in place of a signal.
    pub(crate) stop: Option<Vec<Text>>,
    /// The signal that follows on that program; without, it alone ends it.
    pub(crate) stop_then: Option<Signal>,
    /// How it is supervised, needs aside.
    pub policy: Policy,
    pub(crate) needs: Vec<Needed>,
    /// What has no counterpart.
    pub notes: Vec<String>,
}

impl Program {
    pub(crate) fn new(called: &str, from: String) -> Self {
        Self {
            name: crate::names::service(called),
            called: called.to_owned(),
            summary: String::new(),
            from,
            argv: vec![],
            env: vec![],
            env_file: None,
            cwd: None,
            unprivileged: false,
            instances: vec![],
            is_template: false,
            ports: vec![],
            ready: None,
            live: None,
            stop: None,
            stop_then: None,
            policy: Policy::default(),
            needs: vec![],
            notes: vec![],
        }
    }

    pub(crate) fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// It is never started again; that it ends well is no failure.
    pub(crate) fn restart_never(&mut self) {
        self.policy.restart.budget = 0;
        self.policy.restart.slow_retry_s = 0;
        self.exits_well(&[0]);
    }

    /// It is started again only where it failed.
    pub(crate) fn restart_on_failure(&mut self) {
        self.exits_well(&[0]);
    }

    /// With these codes its work is done.
    pub(crate) fn exits_well(&mut self, codes: &[i32]) {
        for code in codes {
            self.policy.exits.insert(code.to_string(), OnExit::Stop);
        }
    }

    /// The same wait before each try, in milliseconds.
    pub(crate) fn restart_after(&mut self, delay_ms: u64) {
        self.policy.restart.delay_ms = delay_ms;
        self.policy.restart.max_delay_s = delay_ms.div_ceil(1000).max(1);
    }

    /// A variable; a later one of the same name is the one that counts.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<Text>) {
        self.env.retain(|(known, _)| known != name);
        self.env.push((name.to_owned(), value.into()));
    }

    /// The value of a variable, where it is known now.
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        self.env.iter().find(|(known, _)| known == name).and_then(|(_, value)| value.plain())
    }

    /// It has a port, by a variable that says its number: `PORT=3000`.
    pub(crate) fn port_of_variable(&mut self, variable: &str, step: u16) {
        let Some(number) = self.value(variable).and_then(|text| text.trim().parse().ok()).filter(|n| *n > 0) else {
            return;
        };
        self.env.retain(|(known, _)| known != variable);
        self.add_port("main", number, step, Some(variable));
    }

    /// It has a port; one that is known already stays as it is.
    pub(crate) fn add_port(&mut self, name: &str, number: u16, step: u16, told_by: Option<&str>) {
        if self.ports.iter().any(|port| port.number == number) {
            return;
        }
        let name =
            if self.ports.iter().any(|port| port.name == name) { format!("port-{number}") } else { name.to_owned() };
        self.ports.push(Port { name, number, step, told_by: told_by.map(str::to_owned) });
    }

    /// What follows from all that was read.
    pub(crate) fn settle(&mut self) {
        let policy = &mut self.policy;
        if self.stop.is_some() {
            // A signal of the policy would come in the place of the program.
            let signal = policy.stop_signal.take();
            self.stop_then = self.stop_then.and(signal.or(self.stop_then));
        }
        match (&self.ready, &self.live) {
            // Nobody can ask it: it is not woken for that, and what dies at once is a failed start.
            (None, None) => {
                policy.probe_early_ms = 0;
                policy.ready_after_ms = if policy.notify { 0 } else { policy.ready_after_ms.max(LIVES_FOR_MS) };
            }
            // Once the line is there, there is nothing more to ask.
            (Some(Question::Log(_)), None) => {
                policy.probe_early_ms = RARELY_MS;
                policy.probe_steady_ms = RARELY_MS;
            }
            (Some(_), _) | (None, Some(_)) => {}
        }
    }
}

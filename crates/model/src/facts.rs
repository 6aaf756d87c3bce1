//! What a service says of itself. For people, agents and the arbiter; nothing decides behaviour from it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A port's protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As it is on the wire: `tcp`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.word())
    }
}

/// A port that a service listens on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PortFact {
    /// What it is called: `main`, `http`, `admin`.
    pub name: String,
    /// The number unless another is asked for.
    pub default: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// What a service says of itself: the nine things of a definition, as data.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Facts {
    /// The service's name.
    pub name: String,
    /// One line for people.
    pub summary: String,
    /// Where it comes from: a package, a wheel, a source tree.
    pub source: String,
    /// How it is built from source, if it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub build: Option<String>,
    /// The programs that it needs and brings.
    pub commands: Vec<String>,
    /// Where it is placed, relative to the store.
    pub target: String,
    /// The environment variables that it is given.
    pub env: Vec<String>,
    /// The ports that it listens on.
    pub ports: Vec<PortFact>,
    /// What it keeps in its data folder.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub data: Option<String>,
    /// Where its output goes.
    pub logs: String,
    /// Services that it uses, and can do without.
    pub uses: Vec<String>,
    /// The instances that it is known to have.
    pub instances: Vec<String>,
    /// What it cannot do: the `Limitation:` lines of its documentation.
    pub limitations: Vec<String>,
}

impl Facts {
    /// The least that a service says.
    pub fn new(name: &str, summary: &str) -> Self {
        Self {
            name: name.into(),
            summary: summary.into(),
            target: format!("store/{name}"),
            logs: "stdout and stderr, one file a run".into(),
            ..Self::default()
        }
    }

    /// Where it comes from.
    #[must_use]
    pub fn source(mut self, source: &str) -> Self {
        self.source = source.into();
        self
    }

    /// How it is built from source.
    #[must_use]
    pub fn build(mut self, command: &str) -> Self {
        self.build = Some(command.into());
        self
    }

    /// A TCP port and its usual number.
    #[must_use]
    pub fn port(mut self, name: &str, default: u16) -> Self {
        self.ports.push(PortFact { name: name.into(), default, protocol: Protocol::Tcp });
        self
    }

    /// A program that it runs.
    #[must_use]
    pub fn command(mut self, name: &str) -> Self {
        self.commands.push(name.into());
        self
    }

    /// An environment variable that it is given.
    #[must_use]
    pub fn env(mut self, name: &str) -> Self {
        self.env.push(name.into());
        self
    }

    /// What it keeps in its data folder.
    #[must_use]
    pub fn data(mut self, what: &str) -> Self {
        self.data = Some(what.into());
        self
    }

    /// A service that it uses, and can do without.
    #[must_use]
    pub fn uses(mut self, name: &str) -> Self {
        self.uses.push(name.into());
        self
    }

    /// The instances that it is known to have. With any, the bare name is no unit.
    #[must_use]
    pub fn instances(mut self, names: &[&str]) -> Self {
        self.instances = names.iter().map(|n| (*n).into()).collect();
        self
    }

    /// Something that it cannot do.
    #[must_use]
    pub fn limitation(mut self, text: &str) -> Self {
        self.limitations.push(text.into());
        self
    }
}

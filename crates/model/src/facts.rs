//! What a service says of itself. For people, agents and the arbiter; nothing decides behaviour from it.

use std::collections::BTreeMap;

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

/// What is spoken on a port: the vocabulary of the list of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Speaks {
    /// TCP, and nothing is known of what is said in it.
    #[default]
    Tcp,
    /// UDP, the same.
    Udp,
    /// HTTP.
    Http,
    /// HTTP inside TLS.
    Https,
    /// HTTP, and WebSockets beside it.
    #[serde(rename = "http+ws")]
    HttpWs,
}

impl Speaks {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Tcp, Self::Udp, Self::Http, Self::Https, Self::HttpWs];

    /// As it is on the wire: `http+ws`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Http => "http",
            Self::Https => "https",
            Self::HttpWs => "http+ws",
        }
    }

    /// What carries it.
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Udp => Protocol::Udp,
            Self::Tcp | Self::Http | Self::Https | Self::HttpWs => Protocol::Tcp,
        }
    }
}

/// Where no more is known than what carries it.
impl From<Protocol> for Speaks {
    fn from(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::Tcp,
            Protocol::Udp => Self::Udp,
        }
    }
}

/// As people write it: HTTP+WS is http+ws.
impl std::str::FromStr for Speaks {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|one| one.word().eq_ignore_ascii_case(text));
        found.ok_or_else(|| {
            let all: Vec<&str> = Self::ALL.iter().map(|one| one.word()).collect();
            format!("{text:?} is none of {}", all.join(", "))
        })
    }
}

impl std::fmt::Display for Speaks {
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
    /// What is spoken there.
    #[serde(default)]
    pub speaks: Speaks,
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
    /// The version that an install places unless another is asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<String>,
    /// How its health is asked for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub health: Option<String>,
    /// What it takes of GPUs.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub gpu: Option<String>,
    /// What a machine must have: without it an install is refused.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub needs: Vec<String>,
    /// That it was seen to work.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verified: Option<Verified>,
}

/// That a service was installed, started, found healthy, stopped and deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verified {
    /// When: `2026-11-21`.
    pub date: String,
    /// In which version.
    pub version: String,
    /// How: for real on which machine, or against what stand-in.
    pub how: String,
    /// It was the real program, not a stand-in under its name.
    pub real: bool,
    /// How long each step took, in milliseconds: `install`, `start`, `health`, `stop`, `delete`.
    #[serde(default)]
    pub took_ms: BTreeMap<String, u64>,
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
    pub fn port(self, name: &str, default: u16) -> Self {
        self.port_of(name, default, Speaks::Tcp)
    }

    /// A port, its usual number, and what is spoken there.
    #[must_use]
    pub fn port_of(mut self, name: &str, default: u16, speaks: Speaks) -> Self {
        self.ports.push(PortFact { name: name.into(), default, protocol: speaks.protocol(), speaks });
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_of_ports_is_that_of_the_wire_and_of_people() {
        for speaks in Speaks::ALL {
            assert_eq!(serde_json::to_value(speaks).unwrap(), speaks.word());
            assert_eq!(speaks.word().to_uppercase().parse(), Ok(speaks), "LM-109");
        }
        assert!("ftp".parse::<Speaks>().unwrap_err().contains("http+ws"));
        assert_eq!(Speaks::HttpWs.protocol(), Protocol::Tcp);
        assert_eq!(Speaks::from(Protocol::Udp).protocol(), Protocol::Udp);
    }
}

//! What a lease is asked for with, and what it is.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use wharf_model::{Handoff, PortLeaseId, Protocol, Reach};

use super::{HOST, range::Span};

/// A process outside, exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Outside {
    /// Its number.
    pub pid: i32,
    /// Which one of that number.
    pub identity: u64,
}

/// Which port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// This one.
    Number(u16),
    /// Some of a range.
    Within {
        /// Where.
        span: Span,
        /// How many.
        count: u16,
        /// Side by side.
        contiguous: bool,
    },
}

/// What a lease is asked for with. Times are of the boot clock, in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Whose.
    pub uid: u32,
    /// Makes the same request the same lease.
    pub key: Option<String>,
    /// What the holder calls itself.
    pub service: String,
    /// What the port is for: `http`.
    pub name: String,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// On which network.
    pub network: String,
    /// Which port; none: the one that is written down for it, else the sticky one, else one of the purpose's range.
    /// Of a lease that was granted its ports are the answer.
    #[serde(skip)]
    pub want: Option<Want>,
    /// What it is for, by the table.
    pub purpose: Option<String>,
    /// From where it may be reached.
    pub reach: Reach,
    /// How it is kept.
    pub handoff: Handoff,
    /// The number is remembered after the lease.
    pub sticky: bool,
    /// It ends after so long without a renewal.
    pub ttl_ms: Option<u64>,
    /// It ends with this process.
    pub holder: Option<Outside>,
}

/// Ports that a program outside has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortLease {
    /// Which.
    pub id: PortLeaseId,
    /// Grows whenever it changes hands: what an earlier holder says is refused.
    pub epoch: u64,
    /// The numbers.
    pub ports: Vec<u16>,
    /// What it was asked for with. A new holder puts its own process and its own time there.
    #[serde(flatten)]
    pub terms: Terms,
    /// When it ends, by the boot clock.
    pub expires_ms: Option<u64>,
    /// When it was taken, in milliseconds since 1970.
    pub taken_at_ms: i64,
    /// Who was seen to listen for it: should they outlive the lease, they are known.
    #[serde(default)]
    pub seen: BTreeSet<Outside>,
}

impl PortLease {
    /// What people call it.
    pub fn label(&self) -> String {
        format!("{}/{}", self.terms.service, self.terms.name)
    }

    /// Whether a port of this machine is one of its own.
    pub fn covers(&self, protocol: Protocol, port: u16) -> bool {
        self.terms.network == HOST && self.terms.protocol == protocol && self.ports.contains(&port)
    }

    /// The same terms again.
    pub(super) fn is(&self, terms: &Terms) -> bool {
        let ports = match (terms.want, self.ports.as_slice()) {
            (Some(Want::Number(number)), ports) => ports == [number],
            (Some(Want::Within { span, count, .. }), ports) => {
                ports.len() == usize::from(count) && ports.iter().all(|port| span.contains(*port))
            }
            (None, ports) => ports.len() == 1,
        };
        let own = &self.terms;
        ports
            && (&own.service, &own.name, &own.network) == (&terms.service, &terms.name, &terms.network)
            && (own.protocol, own.reach, own.handoff) == (terms.protocol, terms.reach, terms.handoff)
    }
}

/// A port that a unit has or will have.
pub type Claim = (u16, Protocol);

/// A row of the journal: what stands under a key now; none: nothing does.
pub type Row = (String, Option<String>);

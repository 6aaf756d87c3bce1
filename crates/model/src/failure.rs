//! Every error that a person or a program sees: a kind with a stable code, the object, and the next thing to do.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::UnitName;

/// What kind of failure it is. The nine of a service have codes -32001 to -32009 and never change; those of GPUs
/// begin at -32010, those of ports at -32030; the last two are JSON-RPC's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// -32001: no such service or unit.
    NotFound,
    /// -32002: the unit's state does not allow it (not installed, busy, superseded).
    Conflict,
    /// -32003: another program or unit holds a port that it needs.
    PortTaken,
    /// -32004: it did not become true in time.
    Timeout,
    /// -32005: the caller, or Wharf itself, may not do that.
    Permission,
    /// -32006: the service itself failed: it died, or never got healthy.
    ServiceFailed,
    /// -32007: an install or a build failed: a registry, a digest, an archive, a compiler.
    InstallFailed,
    /// -32008: something must be there first: a program, a variable, a device, a file.
    Precondition,
    /// -32009: state or files could not be written: a full or read-only disk.
    Storage,
    /// -32010: no device of this machine could ever give it.
    Infeasible,
    /// -32011: others are there; waiting or sending them away would help.
    GpuBusy,
    /// -32012: what is in the way is pinned by hand.
    GpuPinned,
    /// -32013: what is in the way belongs to nobody that Wharf could ask.
    ForeignHolds,
    /// -32014: its turn did not come in time.
    QueueTimeout,
    /// -32015: the lease is over, expired, or another holder's by now.
    StaleEpoch,
    /// -32016: there is no room to grow; nothing has changed.
    WouldWait,
    /// -32017: something is wrong with every device that would do.
    DeviceTainted,
    /// -32018: the driver does not answer, so nothing new is handed out.
    ProbeStale,
    /// -32019: the lease is somebody else's.
    LeaseDenied,
    /// -32020: too many leases or requests of this caller.
    Quota,
    /// -32021: the holder may not be asked to leave.
    DrainRefused,
    /// -32022: memory did not come back after its holder ended.
    ReclaimFailed,
    /// -32030: somebody has the port, or will have it.
    PortConflict,
    /// -32031: no port of the range is free.
    RangeExhausted,
    /// -32032: two listen on one port.
    DuplicateListener,
    /// -32033: somebody else listens on a leased port.
    Intruder,
    /// -32034: the holder is none that Wharf may end.
    NotEvictable,
    /// -32035: the kernel gives these ports to outgoing connections.
    EphemeralOverlap,
    /// -32036: the port's lease is over, or another holder's by now.
    StalePortEpoch,
    /// -32602: the params are not of the method's shape.
    InvalidParams,
    /// -32603: a fault of Wharf.
    Internal,
}

impl ErrorKind {
    /// The nine kinds of a service's failures.
    pub const SERVICE: [Self; 9] = [
        Self::NotFound,
        Self::Conflict,
        Self::PortTaken,
        Self::Timeout,
        Self::Permission,
        Self::ServiceFailed,
        Self::InstallFailed,
        Self::Precondition,
        Self::Storage,
    ];

    /// The kinds of rpc.sock's `gpu.*`.
    pub const GPU: [Self; 13] = [
        Self::Infeasible,
        Self::GpuBusy,
        Self::GpuPinned,
        Self::ForeignHolds,
        Self::QueueTimeout,
        Self::StaleEpoch,
        Self::WouldWait,
        Self::DeviceTainted,
        Self::ProbeStale,
        Self::LeaseDenied,
        Self::Quota,
        Self::DrainRefused,
        Self::ReclaimFailed,
    ];

    /// The kinds of rpc.sock's `port.*`.
    pub const PORT: [Self; 7] = [
        Self::PortConflict,
        Self::RangeExhausted,
        Self::DuplicateListener,
        Self::Intruder,
        Self::NotEvictable,
        Self::EphemeralOverlap,
        Self::StalePortEpoch,
    ];

    /// The JSON-RPC error code.
    pub const fn code(self) -> i32 {
        match self {
            Self::NotFound => -32001,
            Self::Conflict => -32002,
            Self::PortTaken => -32003,
            Self::Timeout => -32004,
            Self::Permission => -32005,
            Self::ServiceFailed => -32006,
            Self::InstallFailed => -32007,
            Self::Precondition => -32008,
            Self::Storage => -32009,
            Self::Infeasible => -32010,
            Self::GpuBusy => -32011,
            Self::GpuPinned => -32012,
            Self::ForeignHolds => -32013,
            Self::QueueTimeout => -32014,
            Self::StaleEpoch => -32015,
            Self::WouldWait => -32016,
            Self::DeviceTainted => -32017,
            Self::ProbeStale => -32018,
            Self::LeaseDenied => -32019,
            Self::Quota => -32020,
            Self::DrainRefused => -32021,
            Self::ReclaimFailed => -32022,
            Self::PortConflict => -32030,
            Self::RangeExhausted => -32031,
            Self::DuplicateListener => -32032,
            Self::Intruder => -32033,
            Self::NotEvictable => -32034,
            Self::EphemeralOverlap => -32035,
            Self::StalePortEpoch => -32036,
            Self::InvalidParams => -32602,
            Self::Internal => -32603,
        }
    }

    /// It is about what is lent: GPUs and ports.
    pub const fn is_of_a_ledger(self) -> bool {
        matches!(self.code(), -32036..=-32010)
    }

    /// The nearest of the nine kinds of a service's failures; a fault of the call or of Wharf stays what it is.
    pub const fn nearest(self) -> Self {
        match self {
            Self::GpuBusy
            | Self::GpuPinned
            | Self::ForeignHolds
            | Self::StaleEpoch
            | Self::WouldWait
            | Self::Quota
            | Self::DrainRefused
            | Self::RangeExhausted
            | Self::DuplicateListener
            | Self::Intruder
            | Self::NotEvictable
            | Self::StalePortEpoch => Self::Conflict,
            Self::PortConflict => Self::PortTaken,
            Self::QueueTimeout => Self::Timeout,
            Self::LeaseDenied => Self::Permission,
            Self::Infeasible
            | Self::DeviceTainted
            | Self::ProbeStale
            | Self::ReclaimFailed
            | Self::EphemeralOverlap => Self::Precondition,
            Self::NotFound
            | Self::Conflict
            | Self::PortTaken
            | Self::Timeout
            | Self::Permission
            | Self::ServiceFailed
            | Self::InstallFailed
            | Self::Precondition
            | Self::Storage
            | Self::InvalidParams
            | Self::Internal => self,
        }
    }

    /// Whether the same call can succeed later without anything being changed by hand.
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::Conflict
            | Self::PortTaken
            | Self::Timeout
            | Self::InstallFailed
            | Self::Storage
            | Self::GpuBusy
            | Self::GpuPinned
            | Self::ForeignHolds
            | Self::QueueTimeout
            | Self::WouldWait
            | Self::DeviceTainted
            | Self::ProbeStale
            | Self::Quota
            | Self::DrainRefused
            | Self::ReclaimFailed
            | Self::PortConflict
            | Self::RangeExhausted
            | Self::DuplicateListener
            | Self::Intruder => true,
            Self::NotFound
            | Self::Permission
            | Self::ServiceFailed
            | Self::Precondition
            | Self::InvalidParams
            | Self::Infeasible
            | Self::StaleEpoch
            | Self::LeaseDenied
            | Self::NotEvictable
            | Self::EphemeralOverlap
            | Self::StalePortEpoch
            | Self::Internal => false,
        }
    }
}

/// A failure: what could not be done, why, and what to do next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// What kind it is.
    pub kind: ErrorKind,
    /// One sentence: `could not start redis: port 6379 is taken by …`.
    pub message: String,
    /// The unit that it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub service: Option<UnitName>,
    /// The same call can succeed later without anything being changed by hand.
    pub retryable: bool,
    /// The next thing to do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hint: Option<String>,
    /// What lies behind it, outermost first; the last lines of a log or of a tool's output among them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub causes: Vec<String>,
    /// The same as data, where a program can go on with it: blockers, remedies, a holder. Its shape is its kind's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<Box<Value>>,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            service: None,
            retryable: kind.is_retryable(),
            hint: None,
            causes: vec![],
            detail: None,
        }
    }

    /// Names the next thing to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the unit, unless it is named already.
    #[must_use]
    pub fn about(mut self, unit: &UnitName) -> Self {
        self.service.get_or_insert_with(|| unit.clone());
        self
    }

    /// Adds what lies behind it.
    #[must_use]
    pub fn cause(mut self, cause: impl fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// Adds several causes.
    #[must_use]
    pub fn causes(mut self, causes: impl IntoIterator<Item = String>) -> Self {
        self.causes.extend(causes);
        self
    }

    /// Adds what a program can go on with.
    #[must_use]
    pub fn detail(mut self, detail: Value) -> Self {
        self.detail = Some(Box::new(detail));
        self
    }

    /// Puts what was being done before the message: `could not start redis: …`.
    #[must_use]
    pub fn while_doing(mut self, what: impl fmt::Display) -> Self {
        self.message = format!("could not {what}: {}", self.message);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// An IO error becomes `storage` where the disk is the reason, `permission` where the rights are, else `internal`.
impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        match e.kind() {
            Io::StorageFull | Io::QuotaExceeded => Self::new(ErrorKind::Storage, format!("the disk is full: {e}"))
                .hint("free some space (`df -h` shows where it is used), then try again"),
            Io::ReadOnlyFilesystem => Self::new(ErrorKind::Storage, format!("the file system is read-only: {e}"))
                .hint("mount it writable, or set WHARF_HOME to a folder that can be written"),
            Io::PermissionDenied => Self::new(ErrorKind::Permission, e.to_string()),
            _ => Self::new(ErrorKind::Internal, e.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nine_codes_are_nine_and_in_order() {
        let codes: Vec<i32> = ErrorKind::SERVICE.iter().map(|k| k.code()).collect();
        assert_eq!(codes, (1..=9).map(|n| -32000 - n).collect::<Vec<_>>());
        let codes: Vec<i32> = ErrorKind::GPU.iter().map(|k| k.code()).collect();
        assert_eq!(codes, (10..=22).map(|n| -32000 - n).collect::<Vec<_>>());
        let codes: Vec<i32> = ErrorKind::PORT.iter().map(|k| k.code()).collect();
        assert_eq!(codes, (30..=36).map(|n| -32000 - n).collect::<Vec<_>>());
    }
}

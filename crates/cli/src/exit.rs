//! How the process ends, in one table: the documentation and the code are the same lines.

use std::process::ExitCode;

use wharf_model::ErrorKind;

/// The exit codes. They never change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// What was asked for is true.
    Done = 0,
    /// Something else went wrong, a full disk or a fault of Wharf among them.
    Failed = 1,
    /// The command line, a method or its params are wrong.
    Usage = 2,
    /// No such service or unit.
    NotFound = 3,
    /// The state does not allow it, a port is taken, or something is missing that must be there first.
    Conflict = 4,
    /// It did not become true in time.
    Timeout = 5,
    /// No daemon answers.
    Unreachable = 6,
    /// Not allowed.
    Permission = 7,
    /// The service is not well: it failed, an install or a build failed, or a check found something wrong.
    Unwell = 8,
    /// Ctrl-C.
    Interrupted = 130,
}

/// Each code and what it means, for the help.
pub(crate) const TABLE: [(Exit, &str); 10] = [
    (Exit::Done, "what was asked for is true"),
    (Exit::Failed, "something else went wrong (a full disk, a fault of Wharf)"),
    (Exit::Usage, "the command line, a method or its params are wrong"),
    (Exit::NotFound, "no such service"),
    (Exit::Conflict, "the state does not allow it, a port is taken, or something must be there first"),
    (Exit::Timeout, "it did not become true in time"),
    (Exit::Unreachable, "no daemon answers"),
    (Exit::Permission, "not allowed"),
    (Exit::Unwell, "the service failed, an install failed, or a check found something wrong"),
    (Exit::Interrupted, "Ctrl-C; what was begun goes on in the daemon"),
];

/// The table as the help shows it.
pub(crate) fn help() -> String {
    let rows: Vec<String> = TABLE.iter().map(|(exit, what)| format!("  {:>3}  {what}", *exit as u8)).collect();
    format!("Exit codes:\n{}", rows.join("\n"))
}

impl Exit {
    /// The code of a failure of this kind.
    pub const fn of(kind: ErrorKind) -> Self {
        match kind.nearest() {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Conflict | ErrorKind::PortTaken | ErrorKind::Precondition => Self::Conflict,
            ErrorKind::Timeout => Self::Timeout,
            ErrorKind::Permission => Self::Permission,
            ErrorKind::ServiceFailed | ErrorKind::InstallFailed => Self::Unwell,
            ErrorKind::InvalidParams => Self::Usage,
            ErrorKind::Storage | ErrorKind::Internal => Self::Failed,
            // Of the kinds of the ledgers `nearest` leaves none.
            _ => Self::Failed,
        }
    }

    /// The first that is no success wins.
    pub(crate) fn and(self, next: Self) -> Self {
        if self == Self::Done { next } else { self }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_code() {
        let codes: Vec<u8> = ErrorKind::SERVICE.iter().map(|kind| Exit::of(*kind) as u8).collect();
        assert_eq!(codes, [3, 4, 4, 5, 7, 8, 8, 4, 1]);
        assert_eq!(Exit::of(ErrorKind::InvalidParams) as u8, 2);
        assert_eq!(Exit::of(ErrorKind::Internal) as u8, 1);
    }
}

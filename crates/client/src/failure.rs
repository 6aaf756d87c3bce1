//! Why there is no result: nobody answers, the connection broke, or the daemon said no.

use std::{
    error::Error as StdError,
    io,
    path::{Path, PathBuf},
};

use hyper_util::client::legacy;
use jsonrpsee_core::client::Error as RpcError;
use jsonrpsee_types::ErrorObjectOwned;
use serde_json::Value;
use wharf_api::failure_of;
use wharf_model::{ErrorKind, Failure};

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientFailure {
    /// The socket is missing, or nobody listens at it.
    #[error("no Wharf daemon answers at {}", socket.display())]
    Unreachable {
        /// Where it was asked.
        socket: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The socket belongs to somebody else.
    #[error("the socket {} may not be opened by this user", socket.display())]
    Denied {
        /// Where it was asked.
        socket: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// The daemon took the call and says nothing, where it always answers at once.
    #[error("the daemon at {} takes calls and does not answer within {seconds} s", socket.display())]
    Silent {
        /// Where it was asked.
        socket: PathBuf,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The connection ended before the answer did.
    #[error("the connection to the daemon broke: {what}")]
    Broken {
        /// How it broke.
        what: String,
    },
    /// What came back, or what should be sent, is no JSON-RPC.
    #[error("{what}")]
    Malformed {
        /// What is wrong with it.
        what: String,
    },
    /// The daemon's own error.
    #[error("{}", .0.message())]
    Answered(ErrorObjectOwned),
}

impl ClientFailure {
    /// The same as a failure with a kind and the next thing to do.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Unreachable { source, .. } => {
                Failure::new(ErrorKind::Precondition, self.to_string()).hint("`wharf up` starts one").cause(source)
            }
            Self::Denied { source, .. } => Failure::new(ErrorKind::Permission, self.to_string())
                .hint("call it as the user that the daemon runs as, or as root")
                .cause(source),
            Self::Silent { .. } => Failure::new(ErrorKind::Timeout, self.to_string())
                .hint("it may be stopped (`kill -CONT PID`) or stuck; services go on without it"),
            Self::Broken { .. } => Failure::new(ErrorKind::Internal, self.to_string())
                .hint("services go on without the daemon; `wharf up` starts it again"),
            Self::Malformed { .. } => Failure::new(ErrorKind::Internal, self.to_string()),
            Self::Answered(error) => answered(error),
        }
    }

    /// No daemon could be asked, or it went away while it was.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            Self::Denied { .. } | Self::Silent { .. } | Self::Malformed { .. } | Self::Answered(_) => false,
        }
    }

    pub(crate) fn unreachable(socket: &Path, source: io::Error) -> Self {
        Self::Unreachable { socket: socket.to_owned(), source }
    }

    pub(crate) fn broken(error: &(dyn StdError + 'static)) -> Self {
        // The outermost text of hyper is "client error (SendRequest)": what lies behind it says more.
        let mut what = error;
        while let Some(source) = what.source() {
            what = source;
        }
        Self::Broken { what: what.to_string() }
    }

    pub(crate) fn of_request(socket: &Path, error: &legacy::Error) -> Self {
        let Some(io) = io_behind(error).filter(|_| error.is_connect()) else {
            return Self::broken(error);
        };
        // An io::Error cannot be cloned; its number and its kind are all that is read later.
        let source =
            io.raw_os_error().map_or_else(|| io::Error::new(io.kind(), io.to_string()), io::Error::from_raw_os_error);
        if source.kind() == io::ErrorKind::PermissionDenied {
            return Self::Denied { socket: socket.to_owned(), source };
        }
        Self::unreachable(socket, source)
    }
}

/// The queue of connections is full: somebody listens, and is busy.
pub(crate) fn is_full(error: &legacy::Error) -> bool {
    error.is_connect() && io_behind(error).is_some_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}

fn io_behind(error: &legacy::Error) -> Option<&io::Error> {
    let mut next: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = error.source();
    }
    None
}

fn answered(error: &ErrorObjectOwned) -> Failure {
    let mut failure = failure_of(error);
    if failure.hint.is_none()
        && let Some(data) = error.data()
        && let Ok(data) = serde_json::from_str::<Value>(data.get())
        && let Some(hint) = data.get("hint").and_then(Value::as_str)
    {
        failure.hint = Some(hint.to_owned());
    }
    failure
}

impl From<ClientFailure> for Failure {
    fn from(failure: ClientFailure) -> Self {
        failure.failure()
    }
}

impl From<ClientFailure> for RpcError {
    fn from(failure: ClientFailure) -> Self {
        match failure {
            ClientFailure::Answered(error) => Self::Call(error),
            other => Self::Transport(Box::new(other)),
        }
    }
}

/// What a typed call (`wharf_api::ServiceClient`) failed with.
impl From<RpcError> for ClientFailure {
    fn from(error: RpcError) -> Self {
        match error {
            RpcError::Call(error) => Self::Answered(error),
            RpcError::Transport(inner) => match inner.downcast::<Self>() {
                Ok(failure) => *failure,
                Err(other) => Self::Broken { what: other.to_string() },
            },
            other => Self::Malformed { what: format!("the daemon's answer was not understood: {other}") },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_typed_client() {
        let failure = ClientFailure::unreachable(Path::new("/nowhere"), io::Error::from_raw_os_error(2));
        let back = ClientFailure::from(RpcError::from(failure));
        assert!(back.is_unreachable());
        assert_eq!(back.failure().hint.as_deref(), Some("`wharf up` starts one"));
    }

    #[test]
    fn an_error_without_our_data_keeps_its_hint() {
        let data = serde_json::json!({ "hint": "did you mean service.list?" });
        let error = ErrorObjectOwned::owned(-32601, "Method not found: list", Some(data));
        assert_eq!(ClientFailure::Answered(error).failure().hint.as_deref(), Some("did you mean service.list?"));
    }
}

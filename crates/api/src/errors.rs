//! A failure on the wire: code and message of JSON-RPC, the rest in `data`.

use jsonrpsee_types::{ErrorObject, ErrorObjectOwned};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_model::{ErrorKind, Failure, UnitName};

/// The `data` of every error object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorData {
    /// What kind of failure it is; one for each code.
    pub kind: ErrorKind,
    /// The unit that it is about.
    pub service: Option<UnitName>,
    /// The same call can succeed later without anything being changed by hand.
    pub retryable: bool,
    /// The next thing to do.
    pub hint: Option<String>,
    /// What lies behind it, outermost first.
    pub causes: Vec<String>,
    /// The same as data, where a program can go on with it: blockers, remedies, a holder. Its shape is its kind's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<Box<serde_json::Value>>,
}

/// A failure as a JSON-RPC error object.
pub fn error_object(failure: Failure) -> ErrorObjectOwned {
    let Failure { kind, message, service, retryable, hint, causes, detail } = failure;
    let data = ErrorData { kind, service, retryable, hint, causes, detail };
    ErrorObject::owned(kind.code(), message, Some(data))
}

/// The failure in a JSON-RPC error object; one without our `data` is `internal`.
pub fn failure_of(error: &ErrorObjectOwned) -> Failure {
    let data: Option<ErrorData> = error.data().and_then(|raw| serde_json::from_str(raw.get()).ok());
    let message = error.message().to_owned();
    match data {
        Some(ErrorData { kind, service, retryable, hint, causes, detail }) => {
            Failure { kind, message, service, retryable, hint, causes, detail }
        }
        None if error.code() == -32602 => Failure::new(ErrorKind::InvalidParams, message),
        None => Failure::new(ErrorKind::Internal, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_wire() {
        let failure = Failure::new(ErrorKind::PortTaken, "port 1 is taken").hint("choose").cause("bind: in use");
        assert_eq!(failure_of(&error_object(failure.clone())), failure);
    }
}

//! Why a verb did not do what was asked, and how a person or a program is told.

use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};
use wharf_client::ClientFailure;
use wharf_model::Failure;

use crate::Exit;

/// Why a verb did not do what was asked.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The call has no result.
    Client(ClientFailure),
    /// Something in this process failed.
    Failure(Failure),
    /// The command line says something that cannot be meant.
    Usage(String),
    /// Ctrl-C while it was waited for: what to say.
    Interrupted(String),
    /// Nobody reads what is written any more.
    Pipe,
}

/// What a verb ends with.
pub(crate) type Outcome = Result<Exit, Trouble>;

impl Trouble {
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Client(failure) if failure.is_unreachable() => Exit::Unreachable,
            Self::Client(ClientFailure::Answered(error)) if error.code() == METHOD_NOT_FOUND => Exit::Usage,
            Self::Client(failure) => Exit::of(failure.failure().kind),
            Self::Failure(failure) => Exit::of(failure.kind),
            Self::Usage(_) => Exit::Usage,
            Self::Interrupted(_) => Exit::Interrupted,
            Self::Pipe => Exit::Done,
        }
    }

    /// As the `error` object of `--json`.
    pub(crate) fn to_json(&self) -> Value {
        let error = match self {
            Self::Client(ClientFailure::Answered(error)) => {
                let failure = ClientFailure::Answered(error.clone()).failure();
                let data = error.data().and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or(Value::Null);
                let kind =
                    if error.code() == METHOD_NOT_FOUND { json!("method_not_found") } else { json!(failure.kind) };
                json!({ "code": error.code(), "kind": kind, "message": error.message(), "hint": failure.hint, "data": data })
            }
            Self::Client(failure) if failure.is_unreachable() => without_code("unreachable", &failure.failure()),
            Self::Client(failure) => with_code(&failure.failure()),
            Self::Failure(failure) => with_code(failure),
            Self::Usage(message) => {
                without_code("usage", &Failure::new(wharf_model::ErrorKind::InvalidParams, message))
            }
            Self::Interrupted(message) => {
                without_code("interrupted", &Failure::new(wharf_model::ErrorKind::Internal, message))
            }
            Self::Pipe => return Value::Null,
        };
        json!({ "error": error })
    }

    /// Says it on stderr.
    pub(crate) fn report(&self, as_json: bool) -> Exit {
        let mut err = anstream::stderr();
        // Where stderr is gone there is nobody to be told.
        let _ = match self {
            Self::Pipe => Ok(()),
            Self::Interrupted(message) if !as_json => writeln!(err, "\n{message}"),
            _ if as_json => writeln!(err, "{}", self.to_json()),
            _ => err.write_all(self.text().as_bytes()),
        };
        self.exit()
    }

    fn text(&self) -> String {
        match self {
            Self::Client(failure) => text(&failure.failure()),
            Self::Failure(failure) => text(failure),
            Self::Usage(message) => text(&Failure::new(wharf_model::ErrorKind::InvalidParams, message)),
            Self::Interrupted(message) => format!("{message}\n"),
            Self::Pipe => String::new(),
        }
    }
}

/// JSON-RPC's own: no such method.
const METHOD_NOT_FOUND: i32 = -32601;

/// A failure as a person reads it. The first cause says `because`; the others are lines below it.
fn text(failure: &Failure) -> String {
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    let cyan = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
    let mut text = format!("{red}error:{red:#} {}\n", failure.message);
    for (n, cause) in failure.causes.iter().enumerate() {
        let lead = if n == 0 { "because" } else { "       " };
        for (n, line) in cause.lines().enumerate() {
            let lead = if n == 0 { lead } else { "       " };
            text.push_str(&format!("  {lead} {line}\n"));
        }
    }
    if let Some(hint) = &failure.hint {
        text.push_str(&format!("{cyan}hint:{cyan:#} {hint}\n"));
    }
    text
}

fn with_code(failure: &Failure) -> Value {
    let mut error = without_code("", failure);
    error["code"] = json!(failure.kind.code());
    error["kind"] = json!(failure.kind);
    error
}

/// What did not come from the daemon has no JSON-RPC code.
fn without_code(kind: &str, failure: &Failure) -> Value {
    let data = json!({ "service": failure.service, "retryable": failure.retryable, "causes": failure.causes });
    json!({ "code": null, "kind": kind, "message": failure.message, "hint": failure.hint, "data": data })
}

/// What clap says: help and version go to stdout, the rest to stderr with exit code 2.
pub(crate) fn refused(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        return if error.print().is_ok() { Exit::Done } else { Exit::Failed };
    }
    // The command line was not understood, so this word is all there is to go by.
    if std::env::args().any(|arg| arg == "--json") {
        let whole = error.render().to_string();
        let message = whole.strip_prefix("error: ").unwrap_or(&whole).trim_end();
        return Trouble::Usage(message.to_owned()).report(true);
    }
    let _ = error.print();
    Exit::Usage
}

impl From<ClientFailure> for Trouble {
    fn from(failure: ClientFailure) -> Self {
        Self::Client(failure)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Pipe } else { Self::Failure(error.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf_model::ErrorKind;

    fn taken() -> Failure {
        Failure::new(ErrorKind::PortTaken, "could not start redis: port 6379 is taken by redis-server (pid 4121)")
            .hint("stop it, or let Wharf choose: wharf start redis --port main=auto")
            .cause("bind: Address already in use")
            .cause("LISTEN 127.0.0.1:6379")
    }

    #[test]
    fn a_person_reads_error_because_hint() {
        let text = anstream::adapter::strip_str(&text(&taken())).to_string();
        insta::assert_snapshot!(text, @r"
        error: could not start redis: port 6379 is taken by redis-server (pid 4121)
          because bind: Address already in use
                  LISTEN 127.0.0.1:6379
        hint: stop it, or let Wharf choose: wharf start redis --port main=auto
        ");
    }

    #[test]
    fn a_program_reads_code_kind_message_hint_data() {
        let error = &Trouble::Client(ClientFailure::Answered(wharf_api::error_object(taken()))).to_json()["error"];
        assert_eq!(error["code"], -32003);
        assert_eq!(error["kind"], "port_taken");
        assert_eq!(error["data"]["causes"].as_array().map(Vec::len), Some(2));
        let here = &Trouble::Failure(taken()).to_json()["error"];
        assert_eq!((&here["code"], &here["hint"]), (&error["code"], &error["hint"]));
    }

    #[test]
    fn what_is_not_the_daemons_answer_has_its_own_exit_code() {
        let nobody = ClientFailure::Unreachable { socket: "/x".into(), source: io::Error::from_raw_os_error(2) };
        assert_eq!(Trouble::Client(nobody).exit(), Exit::Unreachable);
        assert_eq!(Trouble::Interrupted(String::new()).exit() as u8, 130);
        assert_eq!(Trouble::from(io::Error::from(io::ErrorKind::BrokenPipe)).exit(), Exit::Done);
    }
}

//! What a verb is given: the daemon, the way to write, and the services of this binary.

use std::{
    future::Future,
    io::{self, Write},
    path::PathBuf,
};

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use wharf_client::Client;
use wharf_model::{ErrorKind, Failure};
use wharf_services::Catalogue;

use crate::{args::Reach, json, socket, trouble::Trouble};

/// One command line's work.
pub(crate) struct Session {
    /// Results as JSON, for programs.
    pub(crate) json: bool,
    /// The daemon. Nothing is connected before the first call.
    pub(crate) client: Client,
    /// The socket that somebody named (`--socket`, `WHARF_SOCKET`).
    pub(crate) named_socket: Option<PathBuf>,
    /// For the daemon.
    pub(crate) catalogue: Catalogue,
}

impl Session {
    pub(crate) fn new(reach: Reach, catalogue: Catalogue) -> Self {
        let path = reach.socket.clone().unwrap_or_else(socket::default_path);
        Self { json: reach.json, client: Client::new(path), named_socket: reach.socket, catalogue }
    }

    /// Runs calls. One thread is enough for a client, and starts faster than several.
    pub(crate) fn block_on<F: Future<Output = Result<T, Trouble>>, T>(&self, work: F) -> Result<T, Trouble> {
        runtime()?.block_on(work)
    }

    /// Writes for people to stdout. Colours are taken out where nobody sees them.
    pub(crate) fn say(&self, text: &str) -> Result<(), Trouble> {
        let mut out = anstream::stdout().lock();
        out.write_all(text.as_bytes())?;
        if !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }

    /// Writes a result, token for token as it came, with line breaks.
    pub(crate) fn say_json(&self, raw: &str) -> Result<(), Trouble> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", json::pretty(raw))?;
        Ok(out.flush()?)
    }

    /// Writes lines that are JSON already, and does not keep them back.
    pub(crate) fn say_as_it_is(&self, lines: &str) -> Result<(), Trouble> {
        let mut out = io::stdout().lock();
        out.write_all(lines.as_bytes())?;
        Ok(out.flush()?)
    }

    /// Says something beside the result: on stderr, and not to programs.
    pub(crate) fn note(&self, text: &str) {
        if !self.json {
            // Where stderr is gone there is nobody to be told.
            let _ = writeln!(anstream::stderr(), "{text}");
        }
    }

    /// One result, for a program or for a person.
    pub(crate) fn show<T: DeserializeOwned>(
        &self,
        raw: &RawValue,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Trouble> {
        if self.json { self.say_json(raw.get()) } else { self.say(&text(&read(raw)?)) }
    }
}

/// A result as its type.
pub(crate) fn read<T: DeserializeOwned>(raw: &RawValue) -> Result<T, Trouble> {
    serde_json::from_str(raw.get()).map_err(|e| {
        Trouble::Failure(
            Failure::new(ErrorKind::Internal, format!("the daemon's answer was not understood: {e}"))
                .hint("is the daemon of another version? `wharf rpc call rpc.health` says; --json shows the answer"),
        )
    })
}

/// A runtime of one thread.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Trouble> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

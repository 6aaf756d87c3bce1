//! What giver and taker say to each other, and the limits of it. A word gains fields and never loses one:
//! versions that lie far apart must understand each other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use wharf_model::Failure;
use wharf_server::Keeper;

/// Changed when an older daemon could not understand what is said.
pub(crate) const PROTOCOL: u32 = 1;

/// One record. A failure with its causes is the longest word.
pub(super) const WORD_BYTES: usize = 64 * 1024;

/// Descriptors that one word brings.
pub(super) const DESCRIPTORS: usize = 2;

/// One word.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub(crate) enum Word {
    /// To the giver, first.
    Hello { protocol: u32, version: String, pid: u32, wish: Wish },
    /// To the taker: what there is to take.
    Offer(Offer),
    /// To either: no, and why.
    Refused { failure: Failure },
    /// To the giver: all that can fail before was tried.
    Ready,
    /// To the taker, with the open file: the lock of a folder.
    Lock { folder: PathBuf },
    /// To the taker, with the open socket.
    Listener(Socket),
    /// To the taker, with the open connection of the listener of this name, and a file of what was
    /// read of it and not begun.
    Guest { name: String },
    /// To the taker: that was all, and the giver does nothing any more.
    Go,
    /// To the giver: the taker's engine runs.
    Taken,
    /// To the taker: it is the service manager's main process now; it was meanwhile asked to end.
    Done { is_main: bool, quits: bool },
    /// To one who asked for a successor: this one has taken over.
    Replaced { pid: u32, version: String },
}

/// What is wanted of a daemon that runs.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub(crate) enum Wish {
    /// Who are you?
    Look,
    /// Give me everything.
    Take { patience_ms: u64 },
    /// Start this program where you are, and give it everything.
    Succeed { program: PathBuf, patience_ms: u64 },
}

/// A daemon that runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Offer {
    pub(crate) protocol: u32,
    pub(crate) version: String,
    pub(crate) pid: u32,
    /// A service manager watches it: only a program that it starts itself can take its place.
    pub(crate) is_supervised: bool,
    pub(crate) sockets: Vec<Socket>,
}

/// A socket that is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Socket {
    /// `service.sock`.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    /// Its file belongs to the service manager.
    pub(crate) is_managers: bool,
}

impl Socket {
    pub(super) fn keeper(&self) -> Keeper {
        if self.is_managers { Keeper::Manager } else { Keeper::Daemon }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_as_they_were() {
        // An older daemon says exactly this.
        let texts = [
            r#"{"say":"hello","protocol":1,"version":"0.1.0","pid":7,"wish":{"is":"take","patience_ms":10000}}"#,
            r#"{"say":"hello","protocol":1,"version":"0.1.0","pid":7,"wish":{"is":"look"}}"#,
            r#"{"say":"offer","protocol":1,"version":"0.1.0","pid":7,"is_supervised":false,"sockets":[{"name":"service.sock","path":"/run/wharf/service.sock","is_managers":true}]}"#,
            r#"{"say":"ready"}"#,
            r#"{"say":"lock","folder":"/run/wharf"}"#,
            r#"{"say":"guest","name":"service.sock"}"#,
            r#"{"say":"go"}"#,
            r#"{"say":"taken"}"#,
            r#"{"say":"done","is_main":true,"quits":false}"#,
        ];
        for text in texts {
            let word: Word = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&word).unwrap(), text);
        }
        assert!(serde_json::from_str::<Word>(r#"{"say":"done","is_main":true,"quits":false,"new":1}"#).is_ok());
    }
}

//! `wharf unpack`: the process that unpacks an archive, for the daemon.

use std::path::PathBuf;

use crate::{Exit, session::Session, trouble::Outcome};

/// Unpack an archive into an empty folder
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Unpack {
    /// The archive
    file: PathBuf,
    /// The folder
    into: PathBuf,
}

impl Unpack {
    pub(crate) fn run(self, _: &Session) -> Outcome {
        wharf_runtime::unpack(&self.file, &self.into);
        Ok(Exit::Done)
    }
}

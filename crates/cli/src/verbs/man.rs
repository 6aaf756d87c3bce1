//! `wharf man`: the manual page, for packagers.

use std::io::{self, Write};

use crate::{Exit, args, session::Session, trouble::Outcome};

/// Print the manual page
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Man {}

impl Man {
    pub(crate) fn run(self, _: &Session) -> Outcome {
        let mut page = vec![];
        clap_mangen::Man::new(args::command()).render(&mut page)?;
        io::stdout().write_all(&page)?;
        Ok(Exit::Done)
    }
}

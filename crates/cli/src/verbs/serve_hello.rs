//! `wharf serve-hello`: the program of the service `hello`.

use crate::{Exit, hello, session::Session, trouble::Outcome};

/// Serve the greeting of the service hello
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct ServeHello {
    /// Where it listens, on 127.0.0.1
    #[arg(long)]
    port: u16,
}

impl ServeHello {
    pub(crate) fn run(self, _: &Session) -> Outcome {
        hello::serve(self.port)?;
        Ok(Exit::Done)
    }
}

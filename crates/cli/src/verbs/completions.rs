//! `wharf completions`: names and flags at the Tab key.

use std::io::{self, Write};

use clap_complete::env::Shells;

use crate::{Exit, session::Session, trouble::{Outcome, Trouble}};

/// Print the completion script of a shell; names of services are asked of the daemon
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  echo 'source <(wharf completions bash)' >> ~/.bashrc
  echo 'source <(wharf completions zsh)' >> ~/.zshrc
  wharf completions fish > ~/.config/fish/completions/wharf.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_parser = ["bash", "zsh", "fish"])]
    shell: String,
}

impl Completions {
    pub(crate) fn run(self, _: &Session) -> Outcome {
        let shells = Shells::builtins();
        let shell = shells.completer(&self.shell).ok_or_else(|| Trouble::Usage(format!("no such shell: {}", self.shell)))?;
        let mut script = vec![];
        if self.shell == "bash" {
            // A word for bash ends at `@`, and names of units hold one.
            script.extend_from_slice(b"COMP_WORDBREAKS=${COMP_WORDBREAKS//@}\n");
        }
        shell.write_registration("COMPLETE", "wharf", "wharf", "wharf", &mut script)?;
        io::stdout().write_all(&script)?;
        Ok(Exit::Done)
    }
}

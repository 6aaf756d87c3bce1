//! The command line as a whole.

use std::path::PathBuf;

use clap::{CommandFactory, Parser, ValueHint};

use crate::{exit, verbs::Verb};

/// Runs the services of this machine, and says why everything is as it is.
#[derive(Debug, Parser)]
#[command(name = "wharf", version, max_term_width = 100, after_help = after_help())]
#[command(arg_required_else_help = true, subcommand_value_name = "VERB", subcommand_help_heading = "Verbs")]
pub(crate) struct Wharf {
    #[command(flatten)]
    pub(crate) reach: Reach,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Reach {
    /// Print results as JSON, as the daemon gave them; errors too, on stderr
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) json: bool,
    /// Ask the daemon behind this socket
    #[arg(long, global = true, env = "WHARF_SOCKET", hide_env = true, value_name = "PATH", value_hint = ValueHint::FilePath)]
    #[arg(help_heading = "Everywhere")]
    pub(crate) socket: Option<PathBuf>,
}

/// For completions, the man page and the help's snapshots.
pub(crate) fn command() -> clap::Command {
    Wharf::command()
}

fn after_help() -> String {
    format!(
        "Examples:
  wharf up --detach                          start the daemon and a first service
  wharf install redis                        fetch, check and place it
  wharf start redis                          run it; answers when it is ready
  wharf status                               everything that this Wharf knows
  wharf logs -f redis                        follow what it writes
  wharf run --name web -- ./server --fast    run any program as a service
  wharf troubleshoot redis                   what is wrong, and what to do
  wharf down                                 stop everything

{}

Environment:
  WHARF_SOCKET  the daemon's socket, where --socket does not name it
  WHARF_HOME    one folder for everything of an installation
  WHARF_LOG     what the daemon tells: error, warn, info, debug
  NO_COLOR      no colours

With --json a verb prints the result of its call; of several names, an array with a result or an
{{\"error\": …}} for each. Errors go to stderr as {{\"error\": {{code, kind, message, hint, data}}}}.",
        exit::help()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn the_help_of_every_verb_is_as_it_was() {
        fn visit(command: &mut clap::Command, path: &str) {
            insta::with_settings!({ prepend_module_to_snapshot => false, omit_expression => true }, {
                insta::assert_snapshot!(path.replace(' ', "-"), command.render_long_help().to_string());
            });
            for verb in command.get_subcommands_mut() {
                let name = verb.get_name().to_owned();
                // `wharf service` has the same verbs once more.
                if !verb.is_hide_set() && name != "help" && path != "wharf service" {
                    visit(verb, &format!("{path} {name}"));
                }
            }
        }
        // Built, so that usage lines have the whole name.
        let mut whole = command().term_width(100);
        whole.build();
        visit(&mut whole, "wharf");
    }
}

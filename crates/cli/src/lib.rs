//! The command line: what a person types, as calls to the daemon, and the daemon's own subcommand.
//!
//! A verb is one file in `verbs/` and one line in its list. Every verb but `daemon`, `up` and
//! `serve-hello` is a client: it takes the same socket as any agent does. This crate owns words,
//! tables, colours and exit codes; it refuses to know how a service is run.
//!
//! `main_with` is the whole binary, so that a crate with services of its own is four lines:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     wharf::main_with(wharf::services::Catalogue::built_in())
//! }
//! ```
//!
//! `wharf new` makes such a crate. All that a service is made of is here under one name: `services`, `model` and
//! `async_trait`.

mod amount;
mod args;
mod complete;
mod daemon;
mod detach;
mod dry_run;
mod exit;
mod given;
mod hello;
mod hosts;
mod json;
mod policy;
mod progress;
mod question;
mod session;
mod several;
mod socket;
mod table;
mod trouble;
mod verbs;
mod with;
mod words;

use std::process::ExitCode;

use clap::Parser;
use wharf_services::Catalogue;

/// What the methods of a service are marked with.
pub use async_trait::async_trait;
pub use daemon::DaemonOptions;
pub use exit::Exit;
/// The words: facts, health, policy, failures.
pub use wharf_model as model;
/// The trait, the context that it is given, and the catalogue.
pub use wharf_services as services;

/// Wharf with these services: reads the command line, does it, and says how it ended.
pub fn main_with(catalogue: Catalogue) -> ExitCode {
    clap_complete::CompleteEnv::with_factory(args::command).complete();
    let wharf = match args::Wharf::try_parse() {
        Ok(wharf) => wharf,
        Err(e) => return trouble::refused(&e).into(),
    };
    let session = session::Session::new(wharf.reach, catalogue);
    match wharf.verb.run(&session) {
        Ok(exit) => exit.into(),
        Err(trouble) => trouble.report(session.json).into(),
    }
}

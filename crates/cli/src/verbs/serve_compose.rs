//! `wharf serve-compose`: the program of the service `compose`.

use std::{path::PathBuf, time::Duration};

use wharf_runtime::compose::{self, Project};

use crate::{Exit, session::Session, trouble::Outcome};

/// Bring up a compose project, follow its containers, and take it down at SIGTERM
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct ServeCompose {
    /// Where its compose file lies
    #[arg(long)]
    folder: PathBuf,
    /// The project's name
    #[arg(long)]
    project: String,
    /// Where the container engine listens: unix:///run/docker.sock
    #[arg(long)]
    engine: String,
    /// Where its containers are written down
    #[arg(long)]
    record: PathBuf,
    /// Only take it down
    #[arg(long, conflicts_with = "up_limit")]
    down: bool,
    /// `up` may take this long, in seconds
    #[arg(long, default_value_t = 120)]
    up_limit: u64,
    /// `down` may take this long, in seconds
    #[arg(long)]
    down_limit: u64,
    /// The command that understands compose files
    #[arg(last = true)]
    compose: Vec<String>,
}

impl ServeCompose {
    pub(crate) fn run(self, _: &Session) -> Outcome {
        let project = Project {
            folder: self.folder,
            name: self.project,
            engine: self.engine,
            compose: self.compose,
            record: self.record,
            up_limit: Duration::from_secs(self.up_limit),
            down_limit: Duration::from_secs(self.down_limit),
        };
        if self.down {
            compose::take_down(&project)?;
            return Ok(Exit::Done);
        }
        match compose::serve(&project)? {
            0 => Ok(Exit::Done),
            // As a container ended: whoever reads of its end knows the code.
            code => std::process::exit(code.into()),
        }
    }
}

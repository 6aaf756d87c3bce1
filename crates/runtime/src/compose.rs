//! The follower of a compose project: the process that stands for its containers.
//!
//! ```text
//!   up -d ──> follow: their logs on stdout, the engine's events ──> none of them runs: it ends as they did
//!     │          │ SIGTERM
//!     └──────────┴──> down, what that leaves is removed ──> nothing of the project is there: exit code 0
//! ```
//!
//! Containers live in the engine, not in a run's cgroup: this process lives exactly as long as one of them does. It may
//! be killed at any time; what it leaves is taken down by another one (`take_down`). It refuses to know units and runs.

mod follow;
mod record;
#[cfg(test)]
mod tests;
mod tool;

use std::{io::Write, path::PathBuf, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use wharf_model::{ErrorKind, Failure};

use crate::docker::Docker;
use follow::{Ended, follow, note};
pub use record::{Record, recorded};
use tool::{Tool, run};

/// Written once everything was brought up. The service's health waits for this line.
const IS_UP: &str = "wharf: the project is up";
/// After `down`, lines that are still under way are waited for.
const LAST_LINES: Duration = Duration::from_secs(1);

/// A project, and how it is brought up and taken down.
#[derive(Debug, Clone)]
pub struct Project {
    /// Where its compose file lies.
    pub folder: PathBuf,
    /// Its name.
    pub name: String,
    /// The engine's address.
    pub engine: String,
    /// The command that understands compose files: `docker-compose`. Empty: there is none, and only what is left is removed.
    pub compose: Vec<String>,
    /// Where its containers are written down.
    pub record: PathBuf,
    /// `up` may take this long.
    pub up_limit: Duration,
    /// `down` may take this long.
    pub down_limit: Duration,
}

impl Project {
    fn tool(&self, args: &[&str], limit: Duration) -> Option<Tool> {
        let name = ["--project-name", &self.name];
        let words = self.compose.iter().map(String::as_str).chain(name).chain(args.iter().copied());
        let argv = words.map(str::to_owned).collect();
        // Who deletes the folder of what runs does not keep it from being taken down.
        let can = !self.compose.is_empty() && self.folder.is_dir();
        can.then(|| Tool { argv, folder: self.folder.clone(), limit })
    }

    fn up(&self) -> Option<Tool> {
        self.tool(&["up", "-d"], self.up_limit)
    }

    fn down(&self) -> Option<Tool> {
        self.tool(&["down"], self.down_limit)
    }
}

/// Brings it up and follows it. What comes back is the exit code: 0 after a SIGTERM that left nothing, else that of the
/// containers.
pub fn serve(project: &Project) -> Result<u8, Failure> {
    runtime()?.block_on(served(project))
}

/// Takes it down, whoever brought it up. Nothing of it is there afterwards.
pub fn take_down(project: &Project) -> Result<(), Failure> {
    runtime()?.block_on(take_down_of(project))
}

async fn take_down_of(project: &Project) -> Result<(), Failure> {
    let docker = Docker::at(&project.engine)?;
    if is_gone(&docker, &project.name).await? { Ok(()) } else { down(&docker, project).await }
}

/// A line for the log. A disk that is full takes none, and that is no reason to end.
fn say(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}

async fn served(project: &Project) -> Result<u8, Failure> {
    let mut asked_to_end = signal(SignalKind::terminate())?;
    let docker = Docker::at(&project.engine)?;
    let since_s = wharf_sys::clock::wall_ms() as f64 / 1_000.0;
    let Some(tool) = project.up() else {
        return Err(Failure::new(ErrorKind::Precondition, "there is no folder, or no command for its compose file"));
    };
    let brought_up = tokio::select! {
        ended = run(&tool) => Some(ended),
        () = note(&docker, project) => None,
        _ = asked_to_end.recv() => None,
    };
    match brought_up {
        None => return down(&docker, project).await.map(|()| 0),
        // Last in the log: it is told with the end.
        Some(Err(failure)) if failure.kind == ErrorKind::Timeout => {
            say(format_args!("Service start timed out: {}", failure.message));
            return Ok(1);
        }
        Some(Err(failure)) => return Err(failure),
        Some(Ok(said)) if said.code != 0 => {
            say(format_args!("Docker error: {}", said.last_words));
            return Ok(u8::try_from(said.code).unwrap_or(1));
        }
        Some(Ok(_)) => say(IS_UP),
    }
    let mut following = Box::pin(follow(&docker, project, since_s));
    tokio::select! {
        Ended { code } = &mut following => return Ok(code),
        _ = asked_to_end.recv() => {}
    }
    // Its last lines come while it is taken down.
    let taken_down = {
        let down = down(&docker, project);
        tokio::pin!(down);
        tokio::select! {
            done = &mut down => {
                let _ = tokio::time::timeout(LAST_LINES, following).await;
                done
            }
            _ = &mut following => down.await,
        }
    };
    taken_down.map(|()| 0)
}

/// `down`; then what that left, one by one; then a look.
async fn down(docker: &Docker, project: &Project) -> Result<(), Failure> {
    if let Some(tool) = project.down() {
        match run(&tool).await {
            Ok(said) if said.code == 0 => {}
            Ok(said) => say(format_args!(
                "wharf: {} ended with code {}; what is left is removed one by one",
                tool.name(),
                said.code
            )),
            Err(failure) => say(format_args!("wharf: {}; what is left is removed one by one", failure.message)),
        }
    }
    for container in docker.containers(&project.name).await? {
        say(format_args!("wharf: {} is removed", container.name));
        docker.remove(&container.id).await?;
    }
    for network in docker.networks(&project.name).await? {
        docker.remove_network(&network).await?;
    }
    match is_gone(docker, &project.name).await? {
        true => Ok(()),
        false => Err(Failure::new(
            ErrorKind::ServiceFailed,
            format!("something of the project {} is still there", project.name),
        )
        .hint(format!("docker ps --all --filter label=com.docker.compose.project={}", project.name))),
    }
}

async fn is_gone(docker: &Docker, project: &str) -> Result<bool, Failure> {
    Ok(docker.containers(project).await?.is_empty() && docker.networks(project).await?.is_empty())
}

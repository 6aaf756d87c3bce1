//! Which source a plan has, and what is looked up before anything is fetched: one line a source.

use wharf_model::{ErrorKind, Failure};
use wharf_services::{Binary, Crate, InstallPlan, Npm, Source};

use super::{Fetched, Job, builtin, cargo, debian, git, local, node::Node, npm, release, venv, wheel};

/// The Node is a program of the service, under that name.
pub(super) fn with_node(plan: &InstallPlan, npm: &Npm) -> InstallPlan {
    let mut plan = plan.clone();
    if npm.node.is_some() && !plan.binaries.iter().any(|b| b.name == "node") {
        plan.binaries.push(Binary { name: "node".into(), path: "bin/node".into() });
    }
    plan
}

/// What a source found out before it fetches.
pub(super) enum Chosen {
    /// Nothing: the plan says it all.
    Planned,
    /// What a build makes changes without a change of the plan.
    Changing,
    Debian(debian::Chosen),
    Commit(git::Checkout),
    /// The sha256 of a file of this machine.
    File(String),
    Release(Box<release::Chosen>),
}

impl Chosen {
    /// What two plans that place the same have in common beside themselves. `None`: nobody can say that beforehand.
    pub fn mark(&self) -> Option<String> {
        match self {
            Self::Planned => Some(String::new()),
            Self::Changing => None,
            Self::Debian(chosen) => Some(chosen.mark()),
            Self::Commit(checkout) => Some(checkout.commit.clone()),
            Self::File(sha256) => Some(sha256.clone()),
            Self::Release(chosen) => Some(chosen.mark()),
        }
    }
}

/// Looks up what a plan leaves open.
pub(super) async fn choose(job: &Job<'_>) -> Result<Chosen, Failure> {
    match &job.plan.source {
        Source::Debian { packages } => debian::choose(job, packages).await.map(Chosen::Debian),
        Source::Cargo(Crate::Tree(_)) => Ok(Chosen::Changing),
        Source::Cargo(Crate::Git { url, rev, .. }) => match cargo::own_copy(url) {
            Some(_) => Ok(Chosen::Changing),
            None => git::check_out(job, url, rev.as_deref()).await.map(Chosen::Commit),
        },
        // What is latest is known only when somebody has asked.
        Source::Release(release) if release.version.is_none() => {
            Ok(Chosen::Release(Box::new(release::choose(job, release).await?)))
        }
        Source::BuiltIn
        | Source::Wheel { .. }
        | Source::Venv { .. }
        | Source::Cargo(Crate::Registry { .. })
        | Source::Release(_)
        | Source::Npm(_) => Ok(Chosen::Planned),
        Source::File { path, .. } => local::digest(path).await.map(Chosen::File),
    }
}

/// Fetches what was chosen into the tree.
pub(super) async fn fetch(job: &Job<'_>, chosen: Chosen, node: Option<&Node>) -> Result<Fetched, Failure> {
    match (&job.plan.source, chosen) {
        (Source::BuiltIn, _) => Ok(builtin::fetch()),
        (Source::Debian { .. }, Chosen::Debian(chosen)) => debian::fetch(job, chosen).await,
        (Source::Debian { packages }, _) => debian::fetch(job, debian::choose(job, packages).await?).await,
        (Source::Wheel { package, version, sha256 }, _) => wheel::fetch(job, package, version, sha256).await,
        (Source::Venv { version, requirements }, _) => venv::fetch(job, version, requirements).await,
        (Source::Cargo(from), Chosen::Commit(checkout)) => cargo::fetch(job, from, Some(checkout)).await,
        (Source::Cargo(from), _) => cargo::fetch(job, from, None).await,
        (Source::Release(release), Chosen::Release(chosen)) => release::fetch(job, release, *chosen).await,
        (Source::Release(release), _) => release::fetch(job, release, release::choose(job, release).await?).await,
        (Source::Npm(npm), _) => match node {
            Some(node) => npm::fetch(job, npm, node).await,
            None => Err(Failure::new(ErrorKind::Internal, "a package of npm without a Node")),
        },
        (Source::File { path, version, sha256 }, _) => {
            local::fetch(job, path, version.as_deref(), sha256.as_deref()).await
        }
    }
}

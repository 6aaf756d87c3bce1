//! Placing: fetch into a staging folder, check, write a receipt, and make it visible by one rename.
//!
//! It owns the order of these steps and the folder `store/`. What is fetched from where is in one
//! file a source; each goes through the ordinary client (apt, pip, cargo), so that a user's mirrors,
//! proxies and certificates hold. It refuses to know who runs what was placed.

mod archive;
mod builtin;
mod cargo;
mod debian;
mod elf;
mod fault;
mod git;
mod listing;
mod local;
mod node;
mod npm;
mod pip;
mod place;
mod receipt;
mod release;
mod seal;
mod sources;
mod staging;
mod store;
mod venv;
mod web;
mod wheel;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};
use wharf_model::{ErrorKind, Failure, Installed, Placed, Progress, UnitName};
use wharf_services::{Context, InstallPlan, Npm, Output, Source};

pub use archive::unpack;
pub use fault::FAULT_POINTS;
pub(crate) use receipt::verify;
pub use receipt::{Origin, Program, Receipt};
pub use store::{Garbage, Kept, Store, bytes_below};

use crate::{
    account::Account,
    layout::Layout,
    tool::{Tool, last_lines},
};
use node::Node;
use seal::Seals;
use sources::{Chosen, choose, fetch, with_node};
use staging::Staging;

/// What a forge may be asked with. No code that is built sees them.
const TOKENS: [&str; 3] = ["FORGEJO_TOKEN", "GITHUB_TOKEN", "GH_TOKEN"];
/// A tool's last line is told so often.
const TOLD_EACH: Duration = Duration::from_millis(250);

/// Where progress is told.
pub(crate) type Say = Arc<dyn Fn(&UnitName, Progress) + Send + Sync>;

/// Places what plans say, one plan of a service at a time.
#[derive(Clone)]
pub(crate) struct Placer {
    layout: Layout,
    store: Store,
    own_binary: PathBuf,
    services_user: Option<Account>,
    say: Say,
    seals: Arc<Seals>,
    // A HashMap, because nothing is decided by its order.
    busy: Arc<Mutex<HashMap<String, Arc<Mutex<()>>>>>,
    // apt's own locks are switched off, because they need root.
    apt: Arc<Mutex<()>>,
}

/// What a plan would place now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookedUp {
    /// The version; empty where nobody can say before it is built.
    pub version: String,
    /// It lies there already.
    pub placed: Option<Installed>,
}

/// One plan on its way.
pub(crate) struct Job<'a> {
    pub plan: &'a InstallPlan,
    /// What is renamed into the store in the end.
    pub tree: PathBuf,
    /// Beside it, for what is fetched and not kept.
    pub scratch: PathBuf,
    pub cache: &'a Path,
    pub store: &'a Store,
    /// Where people name mirrors.
    pub sources_file: &'a Path,
    /// Wharf's own program, for what is done in a process of its own.
    pub own_binary: &'a Path,
    /// Who must be able to run it.
    pub services_user: Option<&'a Account>,
    say: &'a (dyn Fn(Progress) + Send + Sync),
}

impl Job<'_> {
    pub fn say(&self, stage: impl Into<String>) {
        (self.say)(Progress::stage(stage));
    }

    /// Runs a tool to its end, and tells the last line that it said while it is at work.
    pub async fn run(&self, stage: &str, tool: Tool) -> Result<Output, Failure> {
        let (heard, mut lines) = watch::channel(String::new());
        let tool = tool.heard(heard);
        let output = tool.output();
        tokio::pin!(output);
        self.say(stage);
        loop {
            if let Ok(output) = timeout(TOLD_EACH, &mut output).await {
                return output;
            }
            if lines.has_changed().unwrap_or(false) {
                let line = lines.borrow_and_update().clone();
                self.say(format!("{stage}: {line}"));
            }
        }
    }

    pub fn measure(&self, stage: impl Into<String>, done: u64, total: u64) {
        (self.say)(Progress { stage: stage.into(), done: Some(done.min(total)), total: Some(total) });
    }
}

/// What a source left in the tree.
pub(crate) struct Fetched {
    pub version: String,
    /// For people: `debian`, `pypi`, `npm`, `release`, `file`, `source`, `built-in`.
    pub source: &'static str,
    pub files: Vec<Placed>,
    /// Where it was found, where the source had to look.
    pub origin: Option<Origin>,
    /// Shared runtimes that the tree links to.
    pub runtimes: Vec<String>,
    /// It is such a runtime itself.
    pub is_runtime: bool,
}

impl Fetched {
    pub fn new(version: impl Into<String>, source: &'static str, files: Vec<Placed>) -> Self {
        Self { version: version.into(), source, files, origin: None, runtimes: vec![], is_runtime: false }
    }
}

impl Placer {
    pub fn new(layout: Layout, own_binary: PathBuf, services_user: Option<Account>, say: Say) -> Self {
        let store = Store::new(layout.store());
        let (busy, apt, seals) = (Arc::default(), Arc::default(), Arc::default());
        Self { layout, store, own_binary, services_user, say, seals, busy, apt }
    }

    /// Fails where a program that was placed is not what it was.
    pub async fn check_seals(&self, installed: &Installed) -> Result<(), Failure> {
        let (seals, store, installed) = (self.seals.clone(), self.store.clone(), installed.clone());
        let checked = tokio::task::spawn_blocking(move || seals.check(store.root(), &installed)).await;
        checked.map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))?
    }

    /// What a plan would place now, for people: the candidate, the latest release, the newest commit; and whether it
    /// lies there. Nothing is placed.
    pub async fn look_up(&self, plan: &InstallPlan) -> Result<LookedUp, Failure> {
        let plan = match &plan.source {
            Source::Npm(npm) => &with_node(plan, npm),
            _ => plan,
        };
        let say = |_| ();
        let staging = Staging::make(self.store.root(), &plan.service)?;
        let sources_file = self.layout.sources_file();
        let job = self.job(plan, &staging, &sources_file, &say);
        let _apt = if matches!(plan.source, Source::Debian { .. }) { Some(self.apt.lock().await) } else { None };
        let chosen = choose(&job).await?;
        let mark = chosen.mark();
        let placed = mark.and_then(|mark| place::find(&self.store, &plan.service, &place::key(plan, &mark)));
        let version = match (chosen, &plan.source) {
            (Chosen::Debian(chosen), Source::Debian { packages }) => {
                chosen.version(packages.first().map_or("", String::as_str))
            }
            (Chosen::Commit(checkout), _) => checkout.commit,
            (Chosen::Release(chosen), _) => chosen.version().to_owned(),
            (Chosen::File(sha256), Source::File { version, .. }) => {
                version.clone().unwrap_or_else(|| sha256[..12].to_owned())
            }
            (Chosen::Planned | Chosen::Changing | Chosen::File(_) | Chosen::Debian(_), source) => {
                source.version().unwrap_or_default()
            }
        };
        Ok(LookedUp { version, placed })
    }

    /// Everything that is placed.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Does what the plan says; answers at once where the same lies there.
    pub async fn place(&self, cx: &Context, plan: InstallPlan) -> Result<Installed, Failure> {
        let say = |progress| (self.say)(&cx.unit, progress);
        let placed = match &plan.source {
            Source::Npm(npm) => match self.node(npm, &say).await {
                Ok(node) => self.place_in_turn(&with_node(&plan, npm), Some(&node), &say).await,
                Err(failure) => Err(failure),
            },
            Source::BuiltIn
            | Source::Debian { .. }
            | Source::Wheel { .. }
            | Source::Venv { .. }
            | Source::Cargo(_)
            | Source::Release(_)
            | Source::File { .. } => self.place_in_turn(&plan, None, &say).await,
        };
        placed.map_err(|f| f.about(&cx.unit))
    }

    /// The Node that a package of npm is fetched and run with.
    async fn node(&self, npm: &Npm, say: &(dyn Fn(Progress) + Send + Sync)) -> Result<Node, Failure> {
        if let Some(node) = Node::of_machine(npm, self.services_user.as_ref()).await {
            return Ok(node);
        }
        let placed = self.place_in_turn(&node::plan(npm)?, None, say).await?;
        Ok(Node::of_store(self.store.root(), &placed))
    }

    async fn place_in_turn(
        &self,
        plan: &InstallPlan,
        node: Option<&Node>,
        say: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Installed, Failure> {
        let turn = self.busy.lock().await.entry(plan.service.clone()).or_default().clone();
        let _turn = turn.lock().await;
        self.place_alone(plan, node, say).await
    }

    async fn place_alone(
        &self,
        plan: &InstallPlan,
        node: Option<&Node>,
        say: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Installed, Failure> {
        let staging = Staging::make(self.store.root(), &plan.service)?;
        let sources_file = self.layout.sources_file();
        let job = self.job(plan, &staging, &sources_file, say);
        // One apt at a time.
        let _apt = if matches!(plan.source, Source::Debian { .. }) { Some(self.apt.lock().await) } else { None };
        let chosen = choose(&job).await?;
        let key = place::key(plan, chosen.mark().as_deref().unwrap_or_default());
        if chosen.mark().is_some()
            && let Some(found) = self.placed_before(plan, &key).await?
        {
            return Ok(found);
        }
        let mut fetched = fetch(&job, chosen, node).await?;
        fetched.is_runtime = plan.service == node::NAME;
        job.say(format!("placing {} {}", plan.service, fetched.version));
        let (plan, store) = (plan.clone(), self.store.clone());
        let done = tokio::task::spawn_blocking(move || place::finish(&store, staging, &plan, key, fetched)).await;
        done.map_err(|e| Failure::new(ErrorKind::Internal, format!("placing broke off: {e}")))?
    }

    fn job<'a>(
        &'a self,
        plan: &'a InstallPlan,
        staging: &Staging,
        sources_file: &'a Path,
        say: &'a (dyn Fn(Progress) + Send + Sync),
    ) -> Job<'a> {
        Job {
            plan,
            tree: staging.tree(),
            scratch: staging.scratch(),
            cache: self.layout.cache(),
            store: &self.store,
            sources_file,
            own_binary: &self.own_binary,
            services_user: self.services_user.as_ref(),
            say,
        }
    }

    /// The same, where it lies there and is what it was: what was changed is placed again.
    async fn placed_before(&self, plan: &InstallPlan, key: &str) -> Result<Option<Installed>, Failure> {
        if plan.reset {
            return Ok(None);
        }
        let (store, seals) = (self.store.clone(), self.seals.clone());
        let (service, key) = (plan.service.clone(), key.to_owned());
        let looked = tokio::task::spawn_blocking(move || {
            let found = place::find(&store, &service, &key).filter(|i| seals.check(store.root(), i).is_ok());
            let Some(installed) = found else { return Ok(None) };
            store.choose(&service, &installed.path).map_err(|e| place::unplaced(&installed.path, e))?;
            Ok(Some(installed))
        });
        looked.await.map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))?
    }
}

/// A tool that runs code of others: without the tokens that are meant for downloads.
pub(crate) fn builder(program: impl Into<PathBuf>) -> Tool {
    let is_open = |name: &str| !TOKENS.contains(&name);
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let env = std::env::vars_os().filter_map(text).filter(|(name, _)| is_open(name)).collect();
    Tool { env: Some(env), ..Tool::new(program) }
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

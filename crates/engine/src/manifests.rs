//! The manifests of this machine: what the folders of the services folder say, by name, and what a start makes of one.
//!
//! They are looked at when the daemon begins and when somebody asks for it, and kept in memory. What a manifest means is
//! its service's to say.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};
use wharf_core::{Ask, Goal};
use wharf_model::{ErrorKind, Failure, Policy, UnitName};
use wharf_runtime::discovery::{self, Found, Scan, USUAL_DEPTH};
use wharf_services::Service;

use crate::engine::{Engine, Shared};

/// A disk that does not answer within this is given up.
const LONGEST: Duration = Duration::from_secs(30);

/// What was found last.
pub struct Manifests {
    folder: PathBuf,
    known: ArcSwap<BTreeMap<String, Found>>,
    /// They were looked at since this daemon began.
    looked: watch::Sender<bool>,
}

impl Manifests {
    /// Nothing is known yet.
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, known: ArcSwap::default(), looked: watch::Sender::new(false) }
    }

    /// By name.
    pub fn get(&self, name: &str) -> Option<Found> {
        self.known.load().get(name).cloned()
    }

    /// The units that they describe: those of the services that take manifests.
    pub fn units(&self, service: &str) -> Vec<UnitName> {
        self.known.load().keys().filter_map(|name| UnitName::new(service, Some(name)).ok()).collect()
    }

    /// Looks at the folder, on a thread of its own: the end of the daemon waits for those of the runtime.
    pub async fn look_again(&self) -> Result<Scan, Failure> {
        let folder = self.folder.clone();
        let look = move || if folder.exists() { discovery::scan(&[folder], USUAL_DEPTH) } else { nothing() };
        let scan = aside(look).await?;
        let known = scan.manifests.iter().map(|found| (found.name.clone(), found.clone())).collect();
        self.known.store(Arc::new(known));
        self.looked.send_replace(true);
        Ok(scan)
    }

    /// Until they were looked at once, and not for ever.
    async fn looked(&self) {
        let mut looked = self.looked.subscribe();
        let _ = tokio::time::timeout(LONGEST, looked.wait_for(|is| *is)).await;
    }

    /// The parameters of a unit that nobody has started yet.
    pub fn parameters(&self, name: &UnitName, service: &dyn Service) -> Option<Value> {
        let found = service.takes_manifests().then(|| self.get(name.instance()?)).flatten()?;
        Some(with(&found, None))
    }
}

fn nothing() -> Scan {
    Scan { complete: true, ..Scan::default() }
}

/// What blocks, on a thread that may be left behind.
async fn aside<T: Send + 'static>(deed: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let (tell, told) = oneshot::channel();
    let thread = thread::Builder::new().name("discovery".into()).spawn(move || {
        // Whoever asked may have gone.
        let _ = tell.send(deed());
    });
    thread.map_err(|e| Failure::from(e).while_doing("look for manifests"))?;
    match tokio::time::timeout(LONGEST, told).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(_)) => Err(Failure::new(ErrorKind::Internal, "could not look for manifests: the search ended early")),
        Err(_) => {
            let text = format!("could not look for manifests: the disk does not answer within {} s", LONGEST.as_secs());
            Err(Failure::new(ErrorKind::Timeout, text)
                .hint("is one of the folders on a network disk that is gone? `df FOLDER` says"))
        }
    }
}

/// Parameters with the folder and the manifest filled in.
fn with(found: &Found, given: Option<Value>) -> Value {
    let mut with = given.unwrap_or_else(|| json!({}));
    if let Some(fields) = with.as_object_mut() {
        let folder = found.path.parent().unwrap_or(Path::new("/"));
        fields.insert("folder".into(), folder.to_string_lossy().into());
        fields.insert("manifest".into(), found.manifest.clone().into());
    }
    with
}

/// Looks for the first time. Faults are told; nobody waits.
pub fn keep(shared: &Arc<Shared>) {
    let shared = shared.clone();
    shared.tasks.clone().spawn(async move {
        match shared.manifests.look_again().await {
            Ok(scan) => {
                for fault in scan.faults {
                    tracing::warn!("no manifest: {} ({})", fault.message, fault.hint);
                }
            }
            Err(failure) => tracing::warn!("{failure}"),
        }
    });
}

impl Engine {
    /// The parameters of a start, with the manifest as it stands in its folder now: kept with the unit, so that a later
    /// change of the file changes nothing that runs.
    pub(crate) async fn with_manifest(
        &self,
        name: &UnitName,
        service: &dyn Service,
        given: Option<Value>,
    ) -> Result<Option<Value>, Failure> {
        let Some(instance) = name.instance().filter(|_| service.takes_manifests()) else { return Ok(given) };
        let folder_in = |with: &Value| with.get("folder").and_then(Value::as_str).map(PathBuf::from);
        let manifests = &self.shared.manifests;
        let folder = match given.as_ref().and_then(folder_in) {
            Some(named) => named,
            None => {
                manifests.looked().await;
                let known = manifests.get(instance).and_then(|found| found.path.parent().map(Path::to_owned));
                let kept = || self.unit(name).and_then(|unit| folder_in(&unit.with));
                known.or_else(kept).ok_or_else(|| unknown(name, instance, &manifests.folder))?
            }
        };
        if !folder.is_absolute() {
            let text = format!("with.folder: {} is no whole path", folder.display());
            return Err(Failure::new(ErrorKind::InvalidParams, text).hint("begin it with /").about(name));
        }
        let fault =
            |message: String, hint: String| Failure::new(ErrorKind::Precondition, message).hint(hint).about(name);
        let found = aside(move || discovery::read(&folder)).await?.map_err(|f| fault(f.message, f.hint))?;
        if found.name != instance {
            let text = format!("the manifest {} is called {}, not {instance}", found.path.display(), found.name);
            return Err(fault(text, format!("wharf start {}@{}", name.service(), found.name)));
        }
        Ok(Some(with(&found, given)))
    }

    /// Units that this one needs, and that nobody has made yet, are made where nothing has to be installed for them: a
    /// start takes them along.
    pub(crate) async fn make_needed(&self, policy: &Policy) -> Result<(), Failure> {
        let mut todo: Vec<UnitName> = policy.required().cloned().collect();
        let mut seen = std::collections::BTreeSet::new();
        while let Some(name) = todo.pop() {
            if !seen.insert(name.clone()) || self.unit(&name).is_some() {
                continue;
            }
            let Ok(service) = self.shared.service(&name) else { continue };
            let is_manifest = name.instance().and_then(|instance| self.shared.manifests.get(instance)).is_some();
            // What needs no install is only made; one that cannot be without parameters is its operator's to make.
            if !is_manifest && service.needs_install() {
                continue;
            }
            let with = self.with_manifest(&name, &*service, None).await?;
            let declared = match self.declare(&name, &*service, with, None) {
                Ok(declared) => declared,
                Err(failure) if is_manifest => return Err(failure),
                Err(_) => continue,
            };
            todo.extend(declared.policy.required().cloned());
            let goal = Goal::Install { version: None, reset: false, from: None };
            self.ask(Ask { unit: name, goal, declared: Some(declared), wait: true, force: false }).await?;
        }
        Ok(())
    }
}

/// No folder is known to keep it.
pub fn unknown(name: &UnitName, instance: &str, folder: &Path) -> Failure {
    Failure::new(ErrorKind::NotFound, format!("no manifest is called {instance}"))
        .hint(format!(
            "link its folder into {} and say `wharf discover --own`, or name it: wharf start {name} --with folder=DIR",
            folder.display()
        ))
        .about(name)
}

impl Manifests {
    /// Whether a unit that nobody has made can be.
    pub fn knows(&self, name: &UnitName) -> Result<(), Failure> {
        match name.instance().filter(|instance| !self.known.load().contains_key(*instance)) {
            Some(instance) => Err(unknown(name, instance, &self.folder)),
            None => Ok(()),
        }
    }
}

//! `discovery.*`: what is asked of the folders of this machine, and how often at a time.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::{Semaphore, oneshot};
use wharf_api::{
    Caller, ListParams,
    rpc::discovery::{DiscoveryApi, ManifestRow, OwnService, RescanReport, ScanError, ScanParams, ScanReport},
};
use wharf_model::{ErrorKind, Failure};
use wharf_runtime::{
    discovery::{self, DEEPEST, Fault, Found, Scan, USUAL_DEPTH},
    executables::Unusable,
};

use crate::engine::Engine;

/// A call names no more folders.
const FOLDERS: usize = 64;

/// A disk that is gone holds up whoever asks it, for ever. So many threads may wait for one.
const AT_ONCE: usize = 2;

/// Longer than the scan's own limit, which ends it between two questions to the disk.
const LONGEST: Duration = Duration::from_secs(30);

/// The turns of scans.
#[derive(Debug, Clone)]
pub struct Turns(Arc<Semaphore>);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

#[async_trait]
impl DiscoveryApi for Engine {
    async fn scan(&self, _: &Caller, p: ScanParams) -> Result<ScanReport, Failure> {
        let (folders, depth) = sensible(p)?;
        let turn = self.shared.scans.0.clone().try_acquire_owned().map_err(|_| {
            Failure::new(ErrorKind::Conflict, "could not look for manifests: other scans are under way")
                .hint("try again in a moment; a scan that does not end waits for a disk that does not answer")
        })?;
        let (tell, told) = oneshot::channel();
        // A thread of its own: the end of the daemon waits for those of the runtime.
        let thread = thread::Builder::new().name("discovery".into()).spawn(move || {
            // Whoever asked may have gone.
            let _ = tell.send(discovery::scan(&folders, depth));
            drop(turn);
        });
        thread.map_err(|e| Failure::from(e).while_doing("look for manifests"))?;
        match tokio::time::timeout(LONGEST, told).await {
            Ok(Ok(scan)) => Ok(report(scan)),
            Ok(Err(_)) => {
                Err(Failure::new(ErrorKind::Internal, "could not look for manifests: the search ended early"))
            }
            Err(_) => Err(Failure::new(
                ErrorKind::Timeout,
                format!("could not look for manifests: the disk does not answer within {} s", LONGEST.as_secs()),
            )
            .hint("is one of the folders on a network disk that is gone? `df FOLDER` says")),
        }
    }

    async fn rescan(&self, _: &Caller, _: ListParams) -> Result<RescanReport, Failure> {
        let offer = &self.shared.catalogue;
        let found = offer.look_again().await;
        let manifests = report(self.shared.manifests.look_again().await?);
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let own = |(name, path, summary): &(String, PathBuf, String)| OwnService {
            name: name.clone(),
            path: text(path),
            summary: summary.clone(),
        };
        let error = |one: &Unusable| ScanError {
            path: text(&one.path),
            message: one.message.clone(),
            hint: one.hint.clone(),
            other_path: None,
        };
        Ok(RescanReport {
            folder: text(offer.folder()),
            services: found.services.iter().map(own).collect(),
            manifests: manifests.manifests,
            errors: found.unusable.iter().map(error).chain(manifests.errors).collect(),
        })
    }
}

fn sensible(p: ScanParams) -> Result<(Vec<PathBuf>, u32), Failure> {
    let wrong = |text: String, hint: &str| Err(Failure::new(ErrorKind::InvalidParams, text).hint(hint));
    if p.folders.is_empty() {
        return wrong("folders is empty".into(), "name the folder that your services are kept in");
    }
    if p.folders.len() > FOLDERS {
        return wrong(format!("{} folders are too many", p.folders.len()), "name at most 64, or one that they lie in");
    }
    if let Some(folder) = p.folders.iter().find(|folder| !folder.starts_with('/') || folder.contains('\0')) {
        return wrong(format!("{folder:?} is no whole path"), "begin it with /");
    }
    let depth = p.depth.unwrap_or(USUAL_DEPTH);
    if depth > DEEPEST {
        return wrong(format!("a depth of {depth} is too deep"), "at most 16 levels");
    }
    Ok((p.folders.into_iter().map(PathBuf::from).collect(), depth))
}

fn report(scan: Scan) -> ScanReport {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let row =
        |Found { name, path, discovered_at, manifest }| ManifestRow { name, path: text(path), discovered_at, manifest };
    let error = |Fault { path, message, hint, other_path }| ScanError {
        path: text(path),
        message,
        hint,
        other_path: other_path.map(text),
    };
    ScanReport {
        manifests: scan.manifests.into_iter().map(row).collect(),
        errors: scan.faults.into_iter().map(error).collect(),
        complete: scan.complete,
    }
}

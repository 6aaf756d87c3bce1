//! Files of a release on a forge: the release is found, the file chosen, judged, fetched, and its origin recorded.
//!
//! It owns the order of these steps and what a file is believed by: the service's own digest, the publisher's
//! signature, the publisher's list, the forge's digest, and with none of them the first fetch, which no later one may
//! contradict. It refuses to know which service it is for.

mod assets;
mod checksums;
mod forge;
mod signature;
mod site;

use std::{
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use wharf_model::{ErrorKind, Failure, Placed};
use wharf_services::Release;

use super::{
    Fetched, Job, local,
    receipt::Origin,
    web::{Credential, Mirrors, Saved, Wanted, Web},
};
use crate::secret::hex;
use assets::Picked;
use checksums::Expected;
use forge::{Asset, Found};

/// A file of a release has at most so many bytes.
const LARGEST: u64 = 8 << 30;
/// Progress is told so often.
const TOLD_EACH: Duration = Duration::from_millis(200);

/// One release, found and looked into.
pub(super) struct Chosen {
    web: Web,
    found: Found,
    credential: Option<Credential>,
}

impl Chosen {
    pub fn version(&self) -> &str {
        &self.found.version
    }

    /// Two answers with the same mark are the same release with the same files.
    pub fn mark(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(&self.found.tag);
        for asset in &self.found.assets {
            hash.update(format!("\0{} {} {}", asset.name, asset.bytes, asset.digest.as_deref().unwrap_or_default()));
        }
        hex(&hash.finalize())
    }
}

/// Finds the release.
pub(super) async fn choose(job: &Job<'_>, release: &Release) -> Result<Chosen, Failure> {
    let variable = std::env::var("WHARF_MIRRORS").ok();
    let web = Web::new(Mirrors::load(job.sources_file, variable.as_deref())?)?;
    let (found, credential) = forge::find(job, &web, release).await?;
    Ok(Chosen { web, found, credential })
}

/// Fetches what this machine needs of it.
pub(super) async fn fetch(job: &Job<'_>, release: &Release, chosen: Chosen) -> Result<Fetched, Failure> {
    let picked = assets::pick(&job.plan.service, &job.plan.binaries, release, &chosen.found)?;
    let mut files = vec![];
    let mut trusted = vec![];
    for one in &picked {
        let (placed, trust) = fetch_one(job, release, &chosen, one).await?;
        files.push(placed);
        trusted.push(trust);
    }
    trusted.dedup();
    let mut fetched = Fetched::new(chosen.found.version.clone(), "release", files);
    fetched.origin = Some(Origin {
        asked: release.version.clone().unwrap_or_else(|| "latest".into()),
        place: chosen.found.place.clone(),
        found: chosen.found.tag.clone(),
        trust: trusted.join("; "),
    });
    Ok(fetched)
}

async fn fetch_one(
    job: &Job<'_>,
    release: &Release,
    chosen: &Chosen,
    picked: &Picked<'_>,
) -> Result<(Placed, String), Failure> {
    let asset = picked.asset;
    let what = format!("{} of {}", asset.name, chosen.found.title());
    let mut expected = checksums::expected(&chosen.web, chosen.credential.as_ref(), &chosen.found, asset).await?;
    expected.pinned.clone_from(&release.sha256);
    let file = job.scratch.join("asset");
    let saved = download(job, chosen, asset, &expected, &what, &file).await?;
    judge(&what, asset, &expected, &saved)?;
    if let Some(key) = &release.minisign {
        job.say(format!("checking the signature of {}", asset.name));
        let by = signature::check(chosen, asset, &expected, key, &file, &what).await?;
        expected.trust.insert(0, by);
    }
    if expected.is_unknown() && release.minisign.is_none() {
        known_before(job, chosen, asset, &saved, &what)?;
        expected.trust.push("the first fetch: its publisher gives no digest".into());
    }
    match &picked.program {
        Some(program) => local::put_program(job, &file, program)?,
        None => local::put(job, &file, &asset.name).await?,
    }
    let placed = Placed { name: asset.name.clone(), sha256: saved.sha256, bytes: saved.bytes };
    Ok((placed, expected.trust()))
}

async fn download(
    job: &Job<'_>,
    chosen: &Chosen,
    asset: &Asset,
    expected: &Expected,
    what: &str,
    file: &Path,
) -> Result<Saved, Failure> {
    let stage = format!("downloading {what}");
    let told = Mutex::new(None::<Instant>);
    let tell = |done: u64, total: Option<u64>| {
        let mut told = told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_last = total == Some(done);
        if is_last || told.is_none_or(|at| at.elapsed() >= TOLD_EACH) {
            *told = Some(Instant::now());
            match total.or(asset.known_bytes()) {
                Some(total) => job.measure(&stage, done, total),
                None => job.say(format!("{stage}: {done} bytes")),
            }
        }
    };
    let wanted = Wanted {
        url: &asset.url,
        credential: chosen.credential.as_ref(),
        bytes: asset.known_bytes(),
        most: LARGEST,
        sha512: expected.sha512.is_some(),
        is_checked: !expected.is_unknown(),
    };
    chosen.web.save(&wanted, file, &tell).await.map_err(|trouble| {
        let failure = trouble.failure(what);
        failure.causes(chosen.found.offer())
    })
}

/// Whether it is what everybody says that it is.
fn judge(what: &str, asset: &Asset, expected: &Expected, saved: &Saved) -> Result<(), Failure> {
    if let Some(bytes) = asset.known_bytes().filter(|bytes| *bytes != saved.bytes) {
        let text = format!("{what} has {} bytes, and its release says {bytes}", saved.bytes);
        return Err(Failure::new(ErrorKind::InstallFailed, text)
            .hint("a proxy or the server has cut or changed the file; try again, or another network"));
    }
    let Some(wrong) = expected.contradicts(saved) else { return Ok(()) };
    let text = format!("the digest of {what} is not {}, so nothing was placed", wrong.by);
    Err(Failure::new(ErrorKind::InstallFailed, text)
        .cause(format!("{} is {} and should be {}", wrong.algorithm, wrong.found, wrong.wanted))
        .hint("the file was changed on its way, or replaced by its publisher: do not use it before you know which"))
}

/// A file without any digest is believed once: another one under the same name is not the same release.
fn known_before(job: &Job<'_>, chosen: &Chosen, asset: &Asset, saved: &Saved, what: &str) -> Result<(), Failure> {
    for kept in job.store.versions(&job.plan.service) {
        let Some(origin) = &kept.receipt.origin else { continue };
        if (&origin.place, &origin.found) != (&chosen.found.place, &chosen.found.tag) {
            continue;
        }
        let same_name = kept.receipt.fetched.iter().find(|file| file.name == asset.name);
        if let Some(first) = same_name.filter(|first| first.sha256 != saved.sha256) {
            let text = format!("{what} is another file than the one that was placed first");
            return Err(Failure::new(ErrorKind::InstallFailed, text)
                .cause(format!("sha256 is {} and was {}", saved.sha256, first.sha256))
                .hint(format!(
                    "its publisher has replaced it, or somebody else has; ask, then: wharf delete {} --purge-binaries, and install again",
                    job.plan.service
                )));
        }
    }
    Ok(())
}

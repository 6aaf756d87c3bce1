//! Rust source, built by cargo: a folder, a git repository, or a crate of the registry.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;
use wharf_model::{ErrorKind, Failure, Placed};
use wharf_services::Crate;

use super::{
    Fetched, Job, builder,
    git::{Checkout, owner_and_name},
    pip::text,
    place::unplaced,
    receipt::{Origin, digest_of},
    tool_failed,
};
use crate::tool::Tool;

/// How much of the compiler's words is kept. HS-67.
const LAST_LINES: usize = 200;

/// Builds, and leaves the binaries in `tree/bin`.
pub(super) async fn fetch(job: &Job<'_>, from: &Crate, checkout: Option<Checkout>) -> Result<Fetched, Failure> {
    match (from, checkout) {
        (Crate::Tree(tree), _) => build(job, tree).await,
        (Crate::Registry { name, version }, _) => install(job, name, version).await,
        (Crate::Git { url, folder, .. }, None) => {
            let own = own_copy(url).ok_or_else(|| Failure::new(ErrorKind::Conflict, "CODEROOT has changed"))?;
            build(job, &own.join(folder)).await
        }
        (Crate::Git { url, rev, folder }, Some(checkout)) => {
            let mut fetched = build(job, &checkout.folder.join(folder)).await?;
            fetched.origin = Some(Origin {
                asked: rev.clone().unwrap_or_else(|| "latest".into()),
                place: url.clone(),
                found: checkout.commit,
                trust: "git's own digest of the commit".into(),
            });
            Ok(fetched)
        }
    }
}

/// Where the binaries are made: kept between builds, so that the second one takes seconds. HS-65.
fn target(job: &Job<'_>) -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR").filter(|dir| Path::new(dir).is_absolute()) {
        Some(dir) => Path::new(&dir).join("wharf").join(&job.plan.service),
        None => job.cache.join("build").join(&job.plan.service),
    }
}

fn cargo() -> Result<Tool, Failure> {
    let program = crate::which::first("cargo").ok_or_else(|| {
        Failure::new(ErrorKind::Precondition, "cargo was not found in PATH")
            .hint("install Rust: https://rustup.rs, or apt-get install cargo")
    })?;
    Ok(builder(program).limit(Duration::from_secs(3_600)))
}

/// `cargo build` of a source tree.
async fn build(job: &Job<'_>, source: &Path) -> Result<Fetched, Failure> {
    let manifest = source.join("Cargo.toml");
    if !manifest.is_file() {
        let failure = Failure::new(ErrorKind::Precondition, format!("there is no {}", manifest.display()));
        return Err(failure.hint("name the folder of the source tree that holds its Cargo.toml"));
    }
    let tool = |verb: &str| Ok::<_, Failure>(cargo()?.args([verb, "--manifest-path", &text(&manifest)]).cwd(source));
    let metadata = tool("metadata")?.args(["--no-deps", "--format-version", "1"]).output().await?;
    if metadata.code != 0 {
        return Err(tool_failed(&format!("cargo cannot read {}", manifest.display()), &metadata, LAST_LINES));
    }
    let wanted: Vec<&str> = job.plan.binaries.iter().map(|b| b.name.as_str()).collect();
    let (version, bins) = look(&metadata.stdout, &wanted)
        .ok_or_else(|| Failure::new(ErrorKind::InstallFailed, format!("{} has no such binary", manifest.display())))?;

    let target = target(job);
    let flags = bins.iter().flat_map(|b| ["--bin".to_owned(), b.clone()]);
    let building = tool("build")?.args(["--release", "--target-dir"]).args([text(&target)]).args(flags);
    let output = job.run(&format!("building {} {version}", job.plan.service), building).await?;
    if output.code != 0 {
        return Err(tool_failed(&format!("cargo could not build {}", job.plan.service), &output, LAST_LINES));
    }
    let mut files = vec![];
    for bin in bins {
        let placed = job.tree.join("bin").join(&bin);
        let copied = fs::create_dir_all(job.tree.join("bin"))
            .and_then(|()| fs::copy(target.join("release").join(&bin), &placed))
            .and_then(|_| digest_of(&placed));
        let (sha256, bytes) = copied.map_err(|e| unplaced(&placed, e))?;
        files.push(Placed { name: bin, sha256, bytes });
    }
    Ok(Fetched::new(version, "source", files))
}

/// `cargo install` of a published crate, with the lock file that it was published with.
async fn install(job: &Job<'_>, name: &str, version: &str) -> Result<Fetched, Failure> {
    let bins = job.plan.binaries.iter().flat_map(|b| ["--bin".to_owned(), b.name.clone()]);
    let installing = cargo()?
        .args(["install", "--locked", "--no-track", "--version"])
        .args([format!("={version}"), "--root".into(), text(&job.tree)])
        .args(["--target-dir".into(), text(&target(job))])
        .args(bins)
        .args(["--".to_owned(), name.to_owned()]);
    let output = job.run(&format!("building {name} {version}"), installing).await?;
    if output.code != 0 {
        let what = format!("cargo could not build {name} {version}");
        let said = format!("{}{}", output.stdout, output.stderr);
        let failure = tool_failed(&what, &output, LAST_LINES);
        if said.contains("could not find") {
            return Err(failure.hint(format!("is that version published? `cargo info {name}` shows which are")));
        }
        return Err(failure);
    }
    let mut files = vec![];
    for entry in fs::read_dir(job.tree.join("bin"))? {
        let path = entry?.path();
        let (sha256, bytes) = digest_of(&path).map_err(|e| unplaced(&path, e))?;
        files.push(Placed { name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(), sha256, bytes });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    let mut fetched = Fetched::new(version, "source", files);
    fetched.origin = Some(Origin {
        asked: version.into(),
        place: format!("the crate registry: {name}"),
        found: version.into(),
        trust: "the registry's digest and the crate's lock file".into(),
    });
    Ok(fetched)
}

/// The working copy below `CODEROOT` that is built instead of a clone: `NAME`, or `OWNER/NAME`. HS-148, HS-149.
pub(super) fn own_copy(url: &str) -> Option<PathBuf> {
    let root = std::env::var_os("CODEROOT").map(PathBuf::from).filter(|root| root.is_absolute())?;
    let (owner, name) = owner_and_name(url)?;
    [root.join(&owner).join(&name), root.join(&name)].into_iter().find(|folder| folder.join(".git").exists())
}

/// The version of the package that has the first binary, and the binaries to build.
fn look(metadata: &str, wanted: &[&str]) -> Option<(String, Vec<String>)> {
    let metadata: Value = serde_json::from_str(metadata).ok()?;
    let mut found: Vec<(String, String)> = vec![];
    for package in metadata["packages"].as_array()? {
        for target in package["targets"].as_array()? {
            let is_bin = target["kind"].as_array()?.iter().any(|k| k == "bin");
            let name = target["name"].as_str()?;
            if is_bin && (wanted.is_empty() || wanted.contains(&name)) {
                found.push((name.to_owned(), package["version"].as_str()?.to_owned()));
            }
        }
    }
    if !wanted.iter().all(|w| found.iter().any(|(name, _)| name == w)) {
        return None;
    }
    let version = found.first()?.1.clone();
    Some((version, found.into_iter().map(|(name, _)| name).collect()))
}

//! A source tree, built by cargo.

use std::{fs, path::Path, time::Duration};

use serde_json::Value;
use wharf_model::{ErrorKind, Failure, Placed};

use super::{Fetched, Job, pip::text, place::unplaced, receipt::digest_of, tool_failed};
use crate::tool::Tool;

/// How much of the compiler's words is kept.
const LAST_LINES: usize = 200;

/// Builds, and copies the binaries into `tree/bin`.
pub(super) async fn fetch(job: &Job<'_>, source: &Path) -> Result<Fetched, Failure> {
    let manifest = source.join("Cargo.toml");
    if !manifest.is_file() {
        let failure = Failure::new(ErrorKind::Precondition, format!("there is no {}", manifest.display()));
        return Err(failure.hint("name the folder of the source tree that holds its Cargo.toml"));
    }
    let cargo = crate::which::first("cargo").ok_or_else(|| {
        Failure::new(ErrorKind::Precondition, "cargo was not found in PATH")
            .hint("install Rust: https://rustup.rs, or apt-get install cargo")
    })?;
    let tool = |verb: &str| {
        Tool::new(&cargo)
            .args([verb, "--manifest-path", &text(&manifest)])
            .cwd(source)
            .limit(Duration::from_secs(3_600))
    };
    let metadata = tool("metadata").args(["--no-deps", "--format-version", "1"]).output().await?;
    if metadata.code != 0 {
        return Err(tool_failed(&format!("cargo cannot read {}", manifest.display()), &metadata, LAST_LINES));
    }
    let wanted: Vec<&str> = job.plan.binaries.iter().map(|b| b.name.as_str()).collect();
    let (version, bins) = look(&metadata.stdout, &wanted)
        .ok_or_else(|| Failure::new(ErrorKind::InstallFailed, format!("{} has no such binary", manifest.display())))?;

    job.say(format!("building {} {version}", job.plan.service));
    // Kept between builds: the second one takes seconds.
    let target = job.cache.join("build").join(&job.plan.service);
    let flags = bins.iter().flat_map(|b| ["--bin".to_owned(), b.clone()]);
    let output = tool("build").args(["--release", "--target-dir"]).args([text(&target)]).args(flags).output().await?;
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
    Ok(Fetched { version, source: "source", files })
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

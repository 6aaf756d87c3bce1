//! A package of npm with all that it needs, as its lock file has it, by the machine's npm or the shared one.
//!
//! Install scripts do not run unless the service says so: they may fetch and run anything.

use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::Path, time::Duration};

use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use wharf_model::{ErrorKind, Failure, Placed};
use wharf_services::{Npm, Output};

use super::{Fetched, Job, builder, debian, node::Node, pip::text, place::unplaced, receipt::Origin, tool_failed};
use crate::secret::hex;

const LAST_LINES: usize = 40;

/// What is read of a package-lock.json.
#[derive(Deserialize)]
struct Lock {
    #[serde(rename = "lockfileVersion")]
    version: u32,
    packages: BTreeMap<String, Package>,
}

#[derive(Debug, Default, Deserialize)]
struct Package {
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    integrity: Option<String>,
    #[serde(default)]
    resolved: Option<String>,
    #[serde(default)]
    dependencies: BTreeMap<String, String>,
    /// Of the root alone, and of ours: npm keeps them in the package.json.
    #[serde(default)]
    overrides: BTreeMap<String, String>,
    #[serde(default, rename = "inBundle")]
    in_bundle: bool,
}

/// Into `tree/node_modules`.
pub(super) async fn fetch(job: &Job<'_>, npm: &Npm, node: &Node) -> Result<Fetched, Failure> {
    let root = check(npm)?;
    let manifest = json!({
        "name": job.plan.service, "private": true, "dependencies": root.dependencies, "overrides": root.overrides,
    });
    let manifest = manifest.to_string();
    for (name, text) in [("package.json", &manifest), ("package-lock.json", &npm.lock)] {
        let path = job.tree.join(name);
        fs::write(&path, text).map_err(|e| unplaced(&path, e))?;
    }
    let cache = job.cache.join("npm");
    let scripts = if npm.scripts { "--foreground-scripts" } else { "--ignore-scripts" };
    let installing = node
        .npm(|program| builder(program).cwd(&job.tree).limit(Duration::from_secs(1_800)))
        .args(["ci", scripts, "--omit=dev", "--no-audit", "--no-fund", "--no-update-notifier", "--no-progress"])
        .args(["--loglevel=error".into(), "--cache".into(), text(&cache)]);
    let what = format!("{} {}", npm.package, npm.version);
    let output = job.run(&format!("fetching {what} from npm"), installing).await?;
    if output.code != 0 {
        return Err(unfetched(&what, &output));
    }
    debian::disarm(&job.tree)?;
    if npm.node.is_some() {
        link(&job.tree, &node.program)?;
    }
    let lock = Placed {
        name: "package-lock.json".into(),
        sha256: hex(&Sha256::digest(&npm.lock)),
        bytes: npm.lock.len() as u64,
    };
    let mut fetched = Fetched::new(npm.version.clone(), "npm", vec![lock]);
    fetched.origin = Some(Origin {
        asked: npm.version.clone(),
        place: format!("npm: {}", npm.package),
        found: npm.version.clone(),
        trust: "the digests in the service's lock file".into(),
    });
    if npm.node.is_some() {
        fetched.runtimes = node.runtime.iter().cloned().collect();
    }
    Ok(fetched)
}

/// `tree/bin/node`: the service's program finds its Node there, whichever it is.
fn link(tree: &Path, program: &Path) -> Result<(), Failure> {
    let bin = tree.join("bin");
    let linked = fs::create_dir_all(&bin).and_then(|()| symlink(program, bin.join("node")));
    linked.map_err(|e| unplaced(&bin, e))
}

/// The lock pins this version, and a digest of everything; nothing in it comes from elsewhere. Answers its root: what
/// the package.json must say.
fn check(npm: &Npm) -> Result<Package, Failure> {
    let wrong = |text: String| {
        Failure::new(ErrorKind::InstallFailed, format!("the lock file of {} {text}", npm.package)).hint(format!(
            "make it anew: npm install --package-lock-only --ignore-scripts --save-exact {}@{}",
            npm.package, npm.version
        ))
    };
    let mut lock: Lock = serde_json::from_str(&npm.lock).map_err(|e| wrong(format!("is none: {e}")))?;
    if lock.version < 2 {
        return Err(wrong(format!("is of version {}, which knows no digests of everything", lock.version)));
    }
    let pinned = lock.packages.get(&format!("node_modules/{}", npm.package)).and_then(|p| p.version.as_deref());
    if pinned != Some(&npm.version) {
        return Err(wrong(format!("pins {} and not {}", pinned.unwrap_or("nothing"), npm.version)));
    }
    for (name, package) in lock.packages.iter().filter(|(name, package)| !name.is_empty() && !package.in_bundle) {
        let digest = package.integrity.as_deref().unwrap_or_default();
        if !digest.starts_with("sha512-") {
            return Err(wrong(format!("has no sha512 of {name}")));
        }
        if package.resolved.as_deref().is_some_and(|from| !from.starts_with("https://")) {
            return Err(wrong(format!("takes {name} from elsewhere than a registry")));
        }
    }
    Ok(lock.packages.remove("").unwrap_or_default())
}

fn unfetched(what: &str, output: &Output) -> Failure {
    let said = format!("{}{}", output.stderr, output.stdout);
    if said.contains("EINTEGRITY") {
        let text = format!("the digest of something that {what} needs is not the pinned one, so nothing was placed");
        return Failure::new(ErrorKind::InstallFailed, text)
            .hint("the mirror or a proxy changes files: see `npm config get registry`; with an honest one, try again")
            .causes(crate::tool::last_lines(output, LAST_LINES));
    }
    tool_failed(&format!("npm could not fetch {what}"), output, LAST_LINES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npm(lock: serde_json::Value) -> Npm {
        Npm { package: "semver".into(), version: "7.7.3".into(), lock: lock.to_string(), scripts: false, node: None }
    }

    fn lock(package: serde_json::Value) -> serde_json::Value {
        json!({
            "lockfileVersion": 3,
            "packages": { "": { "dependencies": { "semver": "7.7.3" } }, "node_modules/semver": package },
        })
    }

    #[test]
    fn a_lock_pins_the_version_and_every_digest() {
        let sound = json!({ "version": "7.7.3", "integrity": "sha512-x" });
        assert_eq!(check(&npm(lock(sound))).unwrap().dependencies["semver"], "7.7.3");
        for (package, wanted) in [
            (json!({ "version": "7.7.2", "integrity": "sha512-x" }), "pins 7.7.2 and not 7.7.3"),
            (json!({ "version": "7.7.3" }), "has no sha512 of node_modules/semver"),
            (json!({ "version": "7.7.3", "integrity": "sha1-x" }), "has no sha512 of node_modules/semver"),
            (json!({ "version": "7.7.3", "integrity": "sha512-x", "resolved": "git+ssh://x" }), "from elsewhere"),
        ] {
            let failure = check(&npm(lock(package))).unwrap_err();
            assert!(failure.message.contains(wanted), "{failure}");
            assert!(failure.hint.unwrap().contains("--package-lock-only"));
        }
        assert!(
            check(&npm(json!({ "lockfileVersion": 1, "packages": {} }))).unwrap_err().message.contains("version 1")
        );
    }
}

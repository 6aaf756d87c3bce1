//! Debian packages, unpacked without root and without touching the system's state.
//!
//! apt keeps lists and archives of Wharf's own, asks the system's dpkg what is there already, and
//! checks signatures and digests as always. Only what this machine lacks is fetched, and the named
//! packages with those of the same make even where the machine has them: the store must hold the
//! program itself. Maintainer scripts never run.

mod apt;
mod tree;

use std::{collections::BTreeSet, fs, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wharf_model::{ErrorKind, Failure, Placed};

use super::{
    Fetched, Job,
    pip::text,
    place::{resolve, unplaced},
    receipt::digest_of,
    tool_failed,
};
use crate::{secret::hex, tool::Tool};
use apt::{Apt, Record};

/// The dynamic linker of the machine fits only the machine's C library.
const NEVER: [&str; 4] = ["libc6", "libc-bin", "base-files", "dpkg"];

/// What will be fetched.
#[derive(Serialize, Deserialize)]
pub(super) struct Chosen {
    /// What the choice rests on.
    basis: String,
    debs: Vec<Deb>,
}

#[derive(Serialize, Deserialize)]
struct Deb {
    package: String,
    version: String,
    file: String,
    sha256: String,
    bytes: u64,
}

impl Chosen {
    /// Of the package that was asked for first.
    pub fn version(&self, first: &str) -> String {
        let name = first.split('=').next().unwrap_or(first);
        let deb = self.debs.iter().find(|deb| deb.package == name).or(self.debs.last());
        deb.map(|deb| deb.version.clone()).unwrap_or_default()
    }

    /// Two choices with the same mark are the same.
    pub fn mark(&self) -> String {
        let mut all: Vec<&str> = self.debs.iter().map(|d| d.sha256.as_str()).collect();
        all.sort_unstable();
        hex(&Sha256::digest(all.concat()))
    }
}

/// Chooses what is to be fetched, by the signed index.
pub(super) async fn choose(job: &Job<'_>, packages: &[String]) -> Result<Chosen, Failure> {
    for (program, hint) in [("apt-get", "this needs a Debian or Ubuntu machine"), ("dpkg-deb", "apt-get install dpkg")]
    {
        if crate::which::first(program).is_none() {
            return Err(Failure::new(ErrorKind::Precondition, format!("{program} was not found in PATH")).hint(hint));
        }
    }
    let apt = Apt { folder: job.cache.join("apt") };
    apt.prepare()?;
    apt.refresh(job).await?;
    // The same lists on the same machine give the same choice; to ask apt again takes seconds.
    let kept = apt.folder.join(format!("chosen-{}.json", job.plan.service));
    let basis = apt.basis(packages);
    let before = fs::read(&kept).ok().and_then(|text| serde_json::from_slice::<Chosen>(&text).ok());
    if let Some(chosen) = before.filter(|c| c.basis == basis && !job.plan.reset) {
        return Ok(chosen);
    }
    let chosen = Chosen { basis, debs: ask_apt(&apt, packages).await? };
    let text = serde_json::to_vec(&chosen).map_err(std::io::Error::from)?;
    fs::write(&kept, text).map_err(|e| unplaced(&kept, e))?;
    Ok(chosen)
}

async fn ask_apt(apt: &Apt, packages: &[String]) -> Result<Vec<Deb>, Failure> {
    let (names, version) = match packages.first().and_then(|p| p.split_once('=')) {
        Some((first, version)) => {
            (std::iter::once(first).chain(packages[1..].iter().map(String::as_str)).collect(), Some(version))
        }
        None => (packages.iter().map(String::as_str).collect::<Vec<_>>(), None),
    };
    let family = family(apt, &names).await?;
    let family = match version {
        Some(version) => pin(apt, &family, version).await?,
        None => family.into_iter().collect(),
    };
    let mut args = vec!["install", "--print-uris", "-qq", "-y", "--no-install-recommends", "--reinstall"];
    args.extend(["--allow-downgrades", "--allow-change-held-packages"]);
    args.extend(family.iter().map(String::as_str));
    let output = apt.ask("apt-get", &args).await?;
    if output.code != 0 {
        return Err(tool_failed(&format!("apt cannot install {}", names.join(", ")), &output, 20)
            .hint("its last lines say why; `apt-cache policy NAME` shows what this machine's sources offer"));
    }
    let wanted: Vec<(String, String, String)> = output.stdout.lines().filter_map(parse_uri).collect();
    let wanted: Vec<_> = wanted.into_iter().filter(|(package, ..)| !NEVER.contains(&package.as_str())).collect();
    let asked: Vec<String> = wanted.iter().map(|(package, version, _)| format!("{package}={version}")).collect();
    let records = apt.records(asked.iter().map(String::as_str)).await?;
    wanted.into_iter().map(|(package, version, file)| deb(&records, package, version, file)).collect()
}

/// The named packages and those of the same make that they need: the server and the client of PostgreSQL.
async fn family(apt: &Apt, names: &[&str]) -> Result<BTreeSet<String>, Failure> {
    let mut family: BTreeSet<String> = BTreeSet::new();
    let mut news = apt.records(names.iter().copied()).await?;
    for name in names {
        if !news.iter().any(|r| r.get("Package").is_some_and(|p| p == name)) {
            let text = format!("the machine's package sources do not offer {name}");
            return Err(Failure::new(ErrorKind::InstallFailed, text).hint(format!(
                "`apt-cache policy {name}` shows what they offer; are they reachable, and of the right release?"
            )));
        }
    }
    while !news.is_empty() {
        let mut next: BTreeSet<String> = BTreeSet::new();
        let mut makes: Vec<(String, String)> = vec![];
        for record in &news {
            let Some(name) = record.get("Package") else { continue };
            family.insert(name.clone());
            makes.push((name.clone(), make_of(record)));
            next.extend(needs(record).into_iter().filter(|n| !family.contains(n)));
        }
        let found = apt.records(next.iter().map(String::as_str)).await?;
        let akin = |record: &Record| {
            let name = record.get("Package").map_or("", String::as_str);
            makes.iter().any(|(of, make)| make_of(record) == *make || name.starts_with(&format!("{of}-")))
                && !family.contains(name)
        };
        news = found.into_iter().filter(akin).collect();
    }
    Ok(family)
}

/// The source package.
fn make_of(record: &Record) -> String {
    let source = record.get("Source").or_else(|| record.get("Package")).map_or("", String::as_str);
    source.split(' ').next().unwrap_or_default().to_owned()
}

/// The packages in its Depends, the first of alternatives.
fn needs(record: &Record) -> Vec<String> {
    let fields = ["Pre-Depends", "Depends"].into_iter().filter_map(|f| record.get(f));
    let first = |need: &str| need.split(['|', '(', ':', ' ']).find(|w| !w.is_empty()).map(str::to_owned);
    fields.flat_map(|f| f.split(", ")).filter_map(|n| first(n.trim())).collect()
}

/// Those that the sources offer in this version are pinned to it.
async fn pin(apt: &Apt, family: &BTreeSet<String>, version: &str) -> Result<Vec<String>, Failure> {
    let mut args = vec!["madison"];
    args.extend(family.iter().map(String::as_str));
    let output = apt.ask("apt-cache", &args).await?;
    let offers: Vec<(&str, &str)> = output
        .stdout
        .lines()
        .filter_map(|line| {
            let mut columns = line.split('|').map(str::trim);
            Some((columns.next()?, columns.next()?))
        })
        .collect();
    if !offers.iter().any(|(_, v)| *v == version) {
        let on_offer: BTreeSet<String> = offers.iter().map(|(p, v)| format!("{p} {v}")).collect();
        return Err(Failure::new(
            ErrorKind::InstallFailed,
            format!("the package sources do not offer version {version}"),
        )
        .hint(format!("on offer: {}", on_offer.into_iter().collect::<Vec<_>>().join(", "))));
    }
    let pinned = |name: &String| match offers.contains(&(name.as_str(), version)) {
        true => format!("{name}={version}"),
        false => name.clone(),
    };
    Ok(family.iter().map(pinned).collect())
}

/// `'URI' FILE SIZE [DIGEST]`: the package, its version and the file.
fn parse_uri(line: &str) -> Option<(String, String, String)> {
    let file = line.strip_prefix('\'')?.split_once("' ")?.1.split(' ').next()?;
    let mut parts = file.splitn(3, '_');
    let (package, version) = (parts.next()?, parts.next()?);
    // apt writes the epoch's colon as %3a in names of files.
    Some((package.into(), version.replace("%3a", ":"), file.into()))
}

fn deb(records: &[Record], package: String, version: String, file: String) -> Result<Deb, Failure> {
    let is = |r: &&Record| r.get("Package") == Some(&package) && r.get("Version") == Some(&version);
    let record = records.iter().find(is);
    let sha256 = record.and_then(|r| r.get("SHA256")).cloned();
    let bytes = record.and_then(|r| r.get("Size")).and_then(|s| s.parse().ok());
    match (sha256, bytes) {
        (Some(sha256), Some(bytes)) => Ok(Deb { package, version, file, sha256, bytes }),
        _ => Err(Failure::new(
            ErrorKind::InstallFailed,
            format!("the package index has no sha256 of {package} {version}"),
        )
        .hint("the source that offers it is too old or broken; try another mirror")),
    }
}

/// Downloads, checks and unpacks.
pub(super) async fn fetch(job: &Job<'_>, chosen: Chosen) -> Result<Fetched, Failure> {
    let apt = Apt { folder: job.cache.join("apt") };
    let archives = apt.archives();
    // A file that was cut off or changed is thrown away and fetched once more.
    for last in [false, true] {
        let bad = unfit(&archives, &chosen.debs)?;
        if bad.is_empty() {
            break;
        }
        if let (true, Some((deb, Some(found)))) = (last, bad.first()) {
            let text = format!("the digest of {} {} is not that of the signed index", deb.package, deb.version);
            return Err(Failure::new(ErrorKind::InstallFailed, text)
                .cause(format!("sha256 is {found} and should be {}", deb.sha256))
                .hint("a mirror or a proxy changes files; try another mirror"));
        }
        let all: Vec<&Deb> = bad.into_iter().map(|(deb, _)| deb).collect();
        download(job, &apt, &all).await?;
    }
    let first = job.plan.binaries.first().map(|b| b.path.clone());
    let mut version = None;
    for deb in &chosen.debs {
        job.say(format!("unpacking {} {}", deb.package, deb.version));
        let output = Tool::new("dpkg-deb")
            .args(["-x".into(), text(&archives.join(&deb.file)), text(&job.tree)])
            .output()
            .await?;
        if output.code != 0 {
            return Err(tool_failed(&format!("could not unpack {}", deb.file), &output, 20));
        }
        let carried = first.as_ref().is_some_and(|path| resolve(&job.tree, path).is_some());
        version = version.or_else(|| carried.then(|| deb.version.clone()));
    }
    disarm(&job.tree)?;
    let version = version.or_else(|| chosen.debs.last().map(|d| d.version.clone())).unwrap_or_default();
    let placed = |d: Deb| Placed { name: d.file, sha256: d.sha256, bytes: d.bytes };
    Ok(Fetched::new(version, "debian", chosen.debs.into_iter().map(placed).collect()))
}

/// Takes away what a service's files should not have.
pub(super) fn disarm(tree: &Path) -> Result<(), Failure> {
    tree::disarm(tree, tree)
}

/// The files that are not there, or are not what they should be; those are removed.
fn unfit<'a>(archives: &Path, debs: &'a [Deb]) -> Result<Vec<(&'a Deb, Option<String>)>, Failure> {
    let mut bad = vec![];
    for deb in debs {
        let path = archives.join(&deb.file);
        match digest_of(&path) {
            Ok((found, _)) if found == deb.sha256 => {}
            Ok((found, _)) => {
                fs::remove_file(&path).map_err(|e| unplaced(&path, e))?;
                bad.push((deb, Some(found)));
            }
            Err(_) => bad.push((deb, None)),
        }
    }
    Ok(bad)
}

async fn download(job: &Job<'_>, apt: &Apt, debs: &[&Deb]) -> Result<(), Failure> {
    let archives = apt.archives();
    let stage = format!("downloading {}", debs.iter().map(|d| d.package.as_str()).collect::<Vec<_>>().join(", "));
    let total = debs.iter().map(|d| d.bytes).sum();
    let tool = apt
        .tool("apt-get")
        .args(["download", "-qq"])
        .args(debs.iter().map(|d| format!("{}={}", d.package, d.version)))
        .cwd(&archives);
    let fetching = tool.output();
    tokio::pin!(fetching);
    let output = loop {
        let size = |d: &&Deb| fs::metadata(archives.join(&d.file)).map_or(0, |m| m.len());
        job.measure(&stage, debs.iter().map(size).sum(), total);
        tokio::select! {
            output = &mut fetching => break output?,
            () = tokio::time::sleep(Duration::from_millis(300)) => {}
        }
    };
    let lost = debs.iter().find(|d| !archives.join(&d.file).exists());
    match (output.code, lost) {
        (0, None) => Ok(()),
        (_, Some(deb)) => {
            Err(tool_failed(&format!("apt could not download {} {}", deb.package, deb.version), &output, 20))
        }
        (_, None) => Err(tool_failed("apt could not download", &output, 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_lines_are_read() {
        let line =
            "'http://x/redis-tools_7.0.15-1%7edeb12u10_amd64.deb' redis-tools_5%3a7.0.15-1~deb12u10_amd64.deb 991988 ";
        let (package, version, file) = parse_uri(line).unwrap();
        assert_eq!((package.as_str(), version.as_str()), ("redis-tools", "5:7.0.15-1~deb12u10"));
        assert_eq!(file, "redis-tools_5%3a7.0.15-1~deb12u10_amd64.deb");
        assert_eq!(parse_uri("Reading package lists..."), None);
        let all = apt::records(
            "Package: a\nDepends: libc6 (>= 2.34), b:any | c, a-15\nDescription: x\n more: y\n\nPackage: b\n",
        );
        assert_eq!(all.len(), 2);
        assert_eq!(needs(&all[0]), ["libc6", "b", "a-15"]);
    }
}

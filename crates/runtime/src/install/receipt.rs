//! What is written beside everything that is placed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::Path,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use wharf_model::{Installed, Placed};
use wharf_services::Check;

use super::listing;
use crate::secret::hex;

/// Its name in the placed folder.
pub(super) const NAME: &str = "receipt.json";

/// At most so many changed files are named.
const NAMED: usize = 12;

/// What was placed, whence, and what it must look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The service.
    pub service: String,
    /// The version, as its publisher writes it.
    pub version: String,
    /// sha256 over everything that was fetched.
    pub digest: String,
    /// `debian`, `pypi`, `npm`, `release`, `file`, `source`, `built-in`.
    pub source: String,
    /// Two plans with the same key place the same.
    pub key: String,
    /// Each thing that was fetched.
    pub fetched: Vec<Placed>,
    /// The programs.
    pub binaries: BTreeMap<String, Program>,
    /// When it was placed, in milliseconds since 1970.
    pub placed_at_ms: u64,
    /// What was asked for and what that turned out to be, where a source had to look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Shared runtimes that it links to, below the store: `node/24.19.0-0123456789ab`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<String>,
    /// It is a runtime that services share, and is kept as long as one of them links to it.
    #[serde(default)]
    pub is_runtime: bool,
    /// How many files its list has; 0: it has none, because an older Wharf placed it.
    #[serde(default)]
    pub files: u64,
}

/// Where a version was found, and why its files were believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// What was asked for: `latest`, or a version.
    pub asked: String,
    /// Where it was found: `github.com/prometheus/prometheus`.
    pub place: String,
    /// What it turned out to be: a release's tag, a commit.
    pub found: String,
    /// By what the files were judged: `pinned in the service's file`, `SHA256SUMS of the release`, `first use`.
    pub trust: String,
}

/// A program among what was placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Below the placed folder.
    pub path: String,
    /// Of its content, in hex. `None`: it is a link to a program elsewhere, of the machine or of a shared runtime.
    pub sha256: Option<String>,
}

impl Receipt {
    /// Of a placed folder.
    pub fn read(folder: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(folder.join(NAME))?)?)
    }

    pub(super) fn write(&self, folder: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        fs::write(folder.join(NAME), text)
    }

    /// As others see it.
    pub fn installed(&self, folder: &Path) -> Installed {
        let at = |(name, program): (&String, &Program)| (name.clone(), folder.join(&program.path));
        Installed {
            version: self.version.clone(),
            digest: self.digest.clone(),
            path: folder.to_owned(),
            binaries: self.binaries.iter().map(at).collect(),
            source: self.source.clone(),
        }
    }
}

/// Compares a placed folder with its receipt and its list: every file is read.
pub(crate) fn verify(installed: &Installed) -> Vec<Check> {
    let folder = &installed.path;
    let receipt = match Receipt::read(folder) {
        Ok(receipt) => receipt,
        Err(e) => return vec![Check::new("receipt", false, format!("{}: {e}", folder.join(NAME).display()))],
    };
    let same = receipt.digest == installed.digest;
    let mut detail = format!("{} {}, placed from {}", receipt.service, receipt.version, receipt.source);
    if let Some(origin) = &receipt.origin {
        detail.push_str(&format!(": {} of {}, checked by {}", origin.found, origin.place, origin.trust));
    }
    let mut checks = vec![Check::new("receipt", same, detail)];
    checks.extend(receipt.binaries.iter().map(|(name, program)| verify_program(folder, name, program)));
    if receipt.files > 0 {
        checks.push(verify_files(folder, receipt.files));
    }
    checks
}

fn verify_program(folder: &Path, name: &str, program: &Program) -> Check {
    let path = folder.join(&program.path);
    let Some(sha256) = &program.sha256 else {
        let found = fs::canonicalize(&path);
        let detail =
            found.as_ref().map_or_else(|e| format!("{name}: {e}"), |p| format!("it is the machine's {}", p.display()));
        return Check::new(format!("link {}", program.path), found.is_ok(), detail);
    };
    let check = format!("digest of {}", program.path);
    match digest_of(&path) {
        Ok((found, _)) if found == *sha256 => Check::new(check, true, format!("sha256 {found}")),
        Ok((found, _)) => Check::new(check, false, format!("sha256 is {found} and was {sha256}")),
        Err(e) => Check::new(check, false, format!("{name} cannot be read: {e}")),
    }
}

fn verify_files(folder: &Path, files: u64) -> Check {
    let check = "files";
    let found = match listing::compare(folder) {
        Ok(found) => found,
        Err(e) => return Check::new(check, false, format!("{}: {e}", folder.join(listing::NAME).display())),
    };
    if found.wrong.is_empty() && found.same == files {
        return Check::new(check, true, format!("all {files} are as they were placed"));
    }
    let mut detail = format!("{} of {files} are as they were placed", found.same);
    for wrong in found.wrong.iter().take(NAMED) {
        detail.push_str(&format!("; {wrong}"));
    }
    if found.wrong.len() > NAMED {
        detail.push_str(&format!("; and {} more", found.wrong.len() - NAMED));
    }
    Check::new(check, false, detail)
}

/// sha256 in hex and the size of a file.
pub(super) fn digest_of(path: &Path) -> io::Result<(String, u64)> {
    let mut hash = Sha256::new();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut bytes = 0;
    loop {
        match io::Read::read(&mut file, &mut buffer)? {
            0 => return Ok((hex(&hash.finalize()), bytes)),
            n => {
                hash.update(&buffer[..n]);
                bytes += n as u64;
            }
        }
    }
}

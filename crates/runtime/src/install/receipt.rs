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

use crate::secret::hex;

/// Its name in the placed folder.
pub(super) const NAME: &str = "receipt.json";

/// What was placed, whence, and what it must look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The service.
    pub service: String,
    /// The version, as its publisher writes it.
    pub version: String,
    /// sha256 over everything that was fetched.
    pub digest: String,
    /// `debian`, `pypi`, `source`, `built-in`.
    pub source: String,
    /// Two plans with the same key place the same.
    pub key: String,
    /// Each thing that was fetched.
    pub fetched: Vec<Placed>,
    /// The programs.
    pub binaries: BTreeMap<String, Program>,
    /// When it was placed, in milliseconds since 1970.
    pub placed_at_ms: u64,
}

/// A program among what was placed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Below the placed folder.
    pub path: String,
    /// Of its content, in hex. `None`: it is a link to a program of the machine.
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

/// Compares a placed folder with its receipt.
pub(crate) fn verify(installed: &Installed) -> Vec<Check> {
    let folder = &installed.path;
    let receipt = match Receipt::read(folder) {
        Ok(receipt) => receipt,
        Err(e) => return vec![Check::new("receipt", false, format!("{}: {e}", folder.join(NAME).display()))],
    };
    let same = receipt.digest == installed.digest;
    let detail = format!("{} {}, placed from {}", receipt.service, receipt.version, receipt.source);
    let mut checks = vec![Check::new("receipt", same, detail)];
    for (name, program) in &receipt.binaries {
        let path = folder.join(&program.path);
        let Some(sha256) = &program.sha256 else {
            let found = fs::canonicalize(&path);
            let detail = found
                .as_ref()
                .map_or_else(|e| format!("{name}: {e}"), |p| format!("it is the machine's {}", p.display()));
            checks.push(Check::new(format!("link {}", program.path), found.is_ok(), detail));
            continue;
        };
        let check = format!("digest of {}", program.path);
        checks.push(match digest_of(&path) {
            Ok((found, _)) if found == *sha256 => Check::new(check, true, format!("sha256 {found}")),
            Ok((found, _)) => Check::new(check, false, format!("sha256 is {found} and was {sha256}")),
            Err(e) => Check::new(check, false, format!("{name} cannot be read: {e}")),
        });
    }
    checks
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

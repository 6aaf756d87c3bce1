//! A wharf with two more services, `thing` and `other`, that come from wherever their parameters say: for tests of every source.

use std::{path::PathBuf, process::ExitCode};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use wharf_model::{Facts, Health, Installed};
use wharf_services::{Catalogue, Context, Params, Pinned, Placing, Ports, Result, Run, Service, Wanted};

/// Serves HTTP on its port, as far as its program is Wharf's talker.
struct Thing(&'static str);

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// `github`, `HOST` of a Forgejo, `file`, `crate`, `git`, `npm`.
    from: String,
    /// A repository, a file, a crate, an address, a package.
    of: String,
    /// What is built or wanted without a version in the call.
    #[serde(default)]
    version: Option<String>,
    /// Patterns of names.
    #[serde(default)]
    assets: Vec<String>,
    /// How tags are written.
    #[serde(default)]
    tag: Option<String>,
    /// Of `version`.
    #[serde(default)]
    sha256: Option<String>,
    #[serde(default)]
    minisign: Option<String>,
    /// Of npm.
    #[serde(default)]
    lock: Option<PathBuf>,
    #[serde(default)]
    node: Option<u32>,
    /// Install scripts run.
    #[serde(default)]
    scripts: bool,
    binaries: Vec<String>,
    /// What is started; the first of the binaries unless it is named.
    #[serde(default)]
    program: Option<String>,
    /// What it is started with.
    #[serde(default)]
    args: Vec<String>,
}

impl With {
    fn placing<'a>(&self, cx: &'a Context, want: &Wanted) -> Placing<'a> {
        let version = self.version.as_deref();
        let placing = match self.from.as_str() {
            "file" => cx.local(&self.of, want),
            "crate" => cx.cargo_crate(&self.of, version.unwrap_or_default(), want),
            "git" => cx.cargo_git(&self.of, version, want),
            "npm" => {
                let lock = self.lock.as_ref().and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
                let placing = cx.npm(&self.of, version.unwrap_or_default(), &lock, want);
                let placing = if self.scripts { placing.with_scripts() } else { placing };
                self.node.into_iter().fold(placing, |placing, node| placing.node(node))
            }
            "github" => cx.github(&self.of, want),
            host => cx.forgejo(host, &self.of, want),
        };
        let placing = self.assets.iter().fold(placing, |placing, pattern| placing.asset(pattern));
        let placing = self.tag.iter().fold(placing, |placing, tag| placing.tag(tag));
        let placing = self.minisign.iter().fold(placing, |placing, key| placing.minisign(key));
        let placing = match (version, &self.sha256) {
            (Some(version), Some(sha256)) => {
                // A catalogue's versions live as long as the program.
                let version: &'static str = Box::leak(version.to_owned().into_boxed_str());
                let sha256: &'static str = Box::leak(sha256.clone().into_boxed_str());
                placing.pinned(&[Pinned { version, sha256: Box::leak(Box::new([sha256])) }])
            }
            _ => placing,
        };
        self.binaries.iter().fold(placing, |placing, path| placing.binary(path))
    }
}

#[async_trait]
impl Service for Thing {
    fn facts(&self) -> Facts {
        Facts::new(self.0, "Whatever its parameters name")
            .source("what its parameters say")
            .port("main", 7007)
            .command("thing")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        cx.with::<With>()?.placing(cx, want).place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let with: With = cx.with()?;
        let first = with.binaries.first().map_or("thing", |path| path.rsplit('/').next().unwrap_or(path));
        let program = with.program.as_deref().unwrap_or(first);
        if with.args.is_empty() {
            let serve = format!("serve:{}:200:fine", cx.port("main"));
            return cx.run(program).args([serve.as_str(), "wait"]).spawn().await;
        }
        let port = cx.port("main").to_string();
        cx.run(program).args(with.args.iter().map(|arg| arg.replace("{port}", &port))).spawn().await
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.tcp(cx.port("main")).await
    }
}

fn main() -> ExitCode {
    wharf::main_with(Catalogue::built_in().with(Thing("thing")).with(Thing("other")))
}

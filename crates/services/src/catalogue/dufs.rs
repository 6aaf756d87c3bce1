//! dufs: a folder on the web, to look at and, where that is wanted, to put files into.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Policy, Requirement, Speaks};

use crate::{Built, Context, Params, Placing, Ports, Result, Run, Service, Wanted};

/// dufs, built by cargo from the crate registry. Each folder is an instance: `dufs@music`.
///
/// Limitation: it listens on 127.0.0.1 only, plain HTTP, and asks for no password.
/// Limitation: it is built on this machine: that takes minutes, and a Rust toolchain.
/// Limitation: where Wharf is root, `root` must be readable by the user wharf or nobody.
pub struct Dufs;

const VERSION: &str = "0.47.0";

/// Parameters of dufs.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"http": 5001}` or `{"http": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// The folder that is shown. Usually its data folder.
    #[serde(default)]
    root: Option<PathBuf>,
    /// Files may be put there, changed and removed. Usually they may only be read.
    #[serde(default)]
    writable: bool,
}

fn crate_of<'a>(cx: &'a Context, want: &Wanted) -> Placing<'a> {
    cx.cargo_crate("dufs", VERSION, want).binary("bin/dufs")
}

#[async_trait]
impl Service for Dufs {
    fn facts(&self) -> Facts {
        Facts::new("dufs", "A folder on the web, to look at and to put files into")
            .source("crate dufs, built from source")
            .build("cargo install --locked")
            .command("cargo")
            .command("dufs")
            .port_of("http", 5000, Speaks::Http)
            .data("the files, unless `root` names another folder")
            .limitation("it listens on 127.0.0.1 only, plain HTTP, and asks for no password.")
            .limitation("it is built on this machine: that takes minutes, and a Rust toolchain.")
            .limitation("where Wharf is root, `root` must be readable by the user wharf or nobody.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, with: &Value) -> Policy {
        let root = With::deserialize(with).ok().and_then(|with| with.root);
        Policy { requires: root.into_iter().map(Requirement::File).collect(), ..Policy::default() }
    }

    async fn build(&self, cx: &Context, want: &Wanted) -> Result<Built> {
        let installed = crate_of(cx, want).place().await?;
        let installed_paths = installed.binaries.values().cloned().collect();
        Ok(Built { installed_paths, note: "built by cargo".into(), installed: Some(installed) })
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        crate_of(cx, want).place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let with: With = cx.with()?;
        let mut run = cx.run("dufs").args(["--bind", "127.0.0.1", "--port"]).arg(cx.port("http"));
        if with.writable {
            run = run.arg("--allow-all");
        }
        run.arg(with.root.as_deref().unwrap_or(cx.data_dir()).display()).unprivileged().spawn().await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("http").map(|port| format!("http://127.0.0.1:{port}/__dufs__/health"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("http", "/__dufs__/health").expect_json("/status", "OK").await
    }
}

//! A wharf of a user's own: Wharf's catalogue and one more service, built from source.

use std::process::ExitCode;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_model::{Facts, Health, Installed};
use wharf_services::{Built, Catalogue, Context, Params, Ports, Result, Run, Service, Wanted};

/// Sends back what it is sent. Its source lies in tests/echo.
struct Echo;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Its port: `main`.
    #[serde(default)]
    ports: Ports,
    /// The source tree.
    #[serde(default = "own_tree")]
    tree: String,
}

fn own_tree() -> String {
    concat!(env!("CARGO_MANIFEST_DIR"), "/echo").into()
}

#[async_trait]
impl Service for Echo {
    fn facts(&self) -> Facts {
        Facts::new("echo", "Sends back what it is sent")
            .source("a source tree: tests/echo")
            .build("cargo build --release")
            .port("main", 7007)
            .command("echo")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    async fn build(&self, cx: &Context, want: &Wanted) -> Result<Built> {
        let with: With = cx.with()?;
        let installed = cx.cargo(with.tree, want).binary("bin/echo").place().await?;
        let installed_paths = installed.binaries.values().cloned().collect();
        Ok(Built { installed_paths, note: "built by cargo".into(), installed: Some(installed) })
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let with: With = cx.with()?;
        cx.cargo(with.tree, want).binary("bin/echo").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        cx.run("echo").arg(cx.port("main")).spawn().await
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.tcp(cx.port("main")).await
    }
}

fn main() -> ExitCode {
    wharf::main_with(Catalogue::built_in().with(Echo))
}

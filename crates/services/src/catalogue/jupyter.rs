//! jupyter: notebooks in the browser.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Policy, Speaks};

use crate::{Context, Params, Pinned, Ports, Result, Run, Service, Wanted};

/// JupyterLab from the Python package index. Its token is in the installation's secrets.
///
/// Limitation: it listens on 127.0.0.1 only, plain HTTP.
/// Limitation: what a notebook imports must be installed by the notebook itself, into its data folder.
pub struct Jupyter;

const VERSIONS: &[Pinned] = &[Pinned { version: "4.6.6", sha256: &[] }];

/// Parameters of Jupyter.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 8889}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// The folder of the notebooks. Usually `notebooks` in its data folder.
    #[serde(default)]
    root: Option<PathBuf>,
}

#[async_trait]
impl Service for Jupyter {
    fn facts(&self) -> Facts {
        Facts::new("jupyter", "Notebooks in the browser")
            .source("PyPI: jupyterlab, by a lock file with digests")
            .command("python3")
            .env("JUPYTER_TOKEN")
            .env("HOME")
            .port_of("main", 8888, Speaks::HttpWs)
            .data("notebooks, and Jupyter's own folders; the token is in the installation's secrets")
            .limitation("it listens on 127.0.0.1 only, plain HTTP.")
            .limitation("what a notebook imports must be installed by the notebook itself, into its data folder.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, _with: &Value) -> Policy {
        Policy { start_timeout_ms: 60_000, ..Policy::default() }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let Pinned { version, .. } = Pinned::choose("jupyter", VERSIONS, want)?;
        cx.venv(version, include_str!("jupyter.lock"), want).binary("venv/bin/python").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let token = cx.secret(&format!("{}-token", cx.unit.as_str().replace('@', ".")), 24).await?;
        let root = match cx.with::<With>()?.root {
            Some(root) => root,
            None => {
                let folder = cx.data_dir().join("notebooks");
                cx.run("/bin/mkdir").arg("-p").arg(folder.display()).unprivileged().success().await?;
                folder
            }
        };
        cx.run("python")
            .args(["-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--ServerApp.port_retries=0"])
            .arg(format!("--port={}", cx.port("main")))
            .arg(format!("--ServerApp.root_dir={}", root.display()))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            // Everything that it keeps for itself lies below its home.
            .force_env("HOME", cx.data_dir().display())
            .force_env("JUPYTER_TOKEN", token.reveal())
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/api"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        // The one page that asks for no token.
        cx.http("main", "/api").expect("version").await
    }
}

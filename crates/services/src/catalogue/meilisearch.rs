//! meilisearch: a search for people who have just begun to type.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Policy, Speaks};

use crate::{Context, Params, Ports, Result, Run, Service, Wanted};

/// Meilisearch from its newest release. Its master key is in the installation's secrets.
///
/// Limitation: it listens on 127.0.0.1 only, plain HTTP.
/// Limitation: no version is pinned: the newest is placed, believed by the forge's digest, else by the first fetch.
/// Limitation: its data fit one version: a newer one reads them only through a dump that was made before.
pub struct Meilisearch;

/// Parameters of Meilisearch.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 7701}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// For trying out: no key is asked for, and there is a page in the browser.
    #[serde(default)]
    open: bool,
}

#[async_trait]
impl Service for Meilisearch {
    fn facts(&self) -> Facts {
        Facts::new("meilisearch", "Search for people who have just begun to type")
            .source("release of github.com/meilisearch/meilisearch")
            .command("meilisearch")
            .env("MEILI_MASTER_KEY")
            .port_of("main", 7700, Speaks::Http)
            .data("data.ms, the indexes; dumps and snapshots")
            .limitation("it listens on 127.0.0.1 only, plain HTTP.")
            .limitation(
                "no version is pinned: the newest is placed, believed by the forge's digest, else by the first fetch.",
            )
            .limitation("its data fit one version: a newer one reads them only through a dump that was made before.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, _with: &Value) -> Policy {
        Policy { start_timeout_ms: 60_000, ..Policy::default() }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let release = cx.github("meilisearch/meilisearch", want).asset("meilisearch-{os}-{arch}");
        release.binary("meilisearch").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let data = cx.data_dir();
        let run = cx
            .run("meilisearch")
            .args(["--no-analytics", "--http-addr", &format!("127.0.0.1:{}", cx.port("main"))])
            .args(["--db-path", &data.join("data.ms").display().to_string()])
            .args(["--dump-dir", &data.join("dumps").display().to_string()])
            .args(["--snapshot-dir", &data.join("snapshots").display().to_string()]);
        let run = match cx.with::<With>()?.open {
            true => run.args(["--env", "development"]),
            false => {
                let key = cx.secret(&super::secret_of(cx, "master-key"), 24).await?;
                run.args(["--env", "production"]).force_env("MEILI_MASTER_KEY", key.reveal())
            }
        };
        run.unprivileged().spawn().await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/health"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("main", "/health").expect_json("/status", "available").await
    }
}

//! grafana: pictures of measures, in the browser.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Policy, Speaks};

use crate::{Context, Params, Pinned, Ports, Result, Run, Service, Wanted};

/// Grafana, the open edition, from its publisher's own host. Its first administrator is `admin`; the password is in the
/// installation's secrets.
///
/// Limitation: it listens on 127.0.0.1 only, plain HTTP.
/// Limitation: no digest is pinned: what is placed is believed by the list of digests beside it.
/// Limitation: its host tells nobody which version is the newest: name one with `--version`.
/// Limitation: the password counts at the first start; who changes it later changes it in Grafana.
pub struct Grafana;

const VERSIONS: &[Pinned] = &[Pinned { version: "12.0.1", sha256: &[] }];

/// Parameters of Grafana.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 3030}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
}

#[async_trait]
impl Service for Grafana {
    fn facts(&self) -> Facts {
        Facts::new("grafana", "Pictures of measures, in the browser")
            .source("release files of dl.grafana.com")
            .command("grafana")
            .env("GF_SERVER_HTTP_ADDR")
            .env("GF_SERVER_HTTP_PORT")
            .env("GF_PATHS_DATA")
            .env("GF_SECURITY_ADMIN_PASSWORD")
            .port_of("main", 3000, Speaks::HttpWs)
            .data("grafana.db, and plugins")
            .uses("prometheus")
            .limitation("it listens on 127.0.0.1 only, plain HTTP.")
            .limitation("no digest is pinned: what is placed is believed by the list of digests beside it.")
            .limitation("its host tells nobody which version is the newest: name one with `--version`.")
            .limitation("the password counts at the first start; who changes it later changes it in Grafana.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, _with: &Value) -> Policy {
        // Its database is made at the first start, table by table.
        Policy { start_timeout_ms: 120_000, ..Policy::default() }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        cx.site("dl.grafana.com", "oss/release", want)
            .pinned(VERSIONS)
            .asset("grafana-{version}.linux-{arch}.tar.gz")
            .asset("grafana-{version}.linux-{arch}.tar.gz.sha256")
            .binary("bin/grafana")
            .place()
            .await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let password = cx.secret(&super::secret_of(cx, "admin-password"), 16).await?;
        let data = cx.data_dir();
        cx.run("grafana")
            .args(["server", "--homepath"])
            .arg(super::placed(cx)?.path.display())
            .env("GF_LOG_MODE", "console")
            .env("GF_ANALYTICS_REPORTING_ENABLED", "false")
            .env("GF_ANALYTICS_CHECK_FOR_UPDATES", "false")
            .env("GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES", "false")
            .force_env("GF_SERVER_HTTP_ADDR", "127.0.0.1")
            .force_env("GF_SERVER_HTTP_PORT", cx.port("main"))
            // Else all of it would lie below what is placed, which nobody may change.
            .force_env("GF_PATHS_DATA", data.display())
            .force_env("GF_PATHS_LOGS", data.join("log").display())
            .force_env("GF_PATHS_PLUGINS", data.join("plugins").display())
            .force_env("GF_SECURITY_ADMIN_PASSWORD", password.reveal())
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/api/health"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("main", "/api/health").expect_json("/database", "ok").await
    }
}

//! typesense: a search that forgives typing errors.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Policy, Speaks};

use crate::{Context, Params, Pinned, Ports, Result, Run, Service, Wanted};

/// Typesense from its publisher's own host. Its key is in the installation's secrets.
///
/// Limitation: it listens on 127.0.0.1 only, plain HTTP.
/// Limitation: its publisher gives no digest, and none is pinned: the first fetch of a version is believed.
/// Limitation: its host tells nobody which version is the newest: name one with `--version`.
/// Limitation: one node; a cluster over several machines is not made by Wharf.
pub struct Typesense;

const VERSIONS: &[Pinned] = &[Pinned { version: "30.2", sha256: &[] }];

/// Parameters of Typesense.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Other port numbers: `{"main": 8118, "peering": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
}

#[async_trait]
impl Service for Typesense {
    fn facts(&self) -> Facts {
        Facts::new("typesense", "Search that forgives typing errors")
            .source("release files of dl.typesense.org")
            .command("typesense-server")
            .env("TYPESENSE_API_KEY")
            .port_of("main", 8108, Speaks::Http)
            .port("peering", 8107)
            .data("collections and their log")
            .limitation("it listens on 127.0.0.1 only, plain HTTP.")
            .limitation("its publisher gives no digest, and none is pinned: the first fetch of a version is believed.")
            .limitation("its host tells nobody which version is the newest: name one with `--version`.")
            .limitation("one node; a cluster over several machines is not made by Wharf.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, _with: &Value) -> Policy {
        // All that it searches in is read into memory first.
        Policy { start_timeout_ms: 300_000, ..Policy::default() }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        cx.site("dl.typesense.org", "releases/{version}", want)
            .pinned(VERSIONS)
            .asset("typesense-server-{version}-linux-{arch}.tar.gz")
            .binary("typesense-server")
            .place()
            .await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let key = cx.secret(&super::secret_of(cx, "api-key"), 24).await?;
        cx.run("typesense-server")
            .arg("--data-dir")
            .arg(cx.data_dir().display())
            .args(["--api-address", "127.0.0.1", "--api-port"])
            .arg(cx.port("main"))
            // Unless it is told, it looks for an address of the local network.
            .args(["--peering-address", "127.0.0.1", "--peering-port"])
            .arg(cx.port("peering"))
            .force_env("TYPESENSE_API_KEY", key.reveal())
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/health"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("main", "/health").expect_json("/ok", true).await
    }
}

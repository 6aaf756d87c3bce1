//! qdrant: a database that finds what is alike.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use wharf_model::{Facts, Health, Installed, Policy, Speaks};

use crate::{Context, Params, Ports, Result, Run, Service, Wanted};

/// Qdrant from its newest release, one node.
///
/// Limitation: it listens on 127.0.0.1 only and asks for no key.
/// Limitation: no version is pinned: the newest is placed, believed by the forge's digest, else by the first fetch.
/// Limitation: its page in the browser is no part of its release; and this build computes on the CPU.
pub struct Qdrant;

/// Parameters of Qdrant.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Other port numbers: `{"http": 6343, "grpc": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
}

#[async_trait]
impl Service for Qdrant {
    fn facts(&self) -> Facts {
        Facts::new("qdrant", "Database that finds what is alike")
            .source("release of github.com/qdrant/qdrant")
            .command("qdrant")
            .port_of("http", 6333, Speaks::Http)
            .port("grpc", 6334)
            .data("storage, the collections, and snapshots")
            .limitation("it listens on 127.0.0.1 only and asks for no key.")
            .limitation(
                "no version is pinned: the newest is placed, believed by the forge's digest, else by the first fetch.",
            )
            .limitation("its page in the browser is no part of its release; and this build computes on the CPU.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, _with: &Value) -> Policy {
        // Collections are loaded first, and written to their ends when it stops.
        Policy { start_timeout_ms: 120_000, stop_timeout_ms: 30_000, ..Policy::default() }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        cx.github("qdrant/qdrant", want).asset("qdrant-{triple}.tar.gz").binary("qdrant").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let data = cx.data_dir();
        // YAML reads JSON.
        let config = json!({
            "service": { "host": "127.0.0.1", "http_port": cx.port("http"), "grpc_port": cx.port("grpc") },
            "storage": { "storage_path": data.join("storage"), "snapshots_path": data.join("snapshots") },
            "telemetry_disabled": true,
        });
        let path = cx.run_dir().join("qdrant.yaml");
        cx.write(&path, &config.to_string(), 0o644).await?;
        cx.run("qdrant").arg("--config-path").arg(path.display()).unprivileged().spawn().await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("http").map(|port| format!("http://127.0.0.1:{port}/readyz"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("http", "/readyz").await
    }
}

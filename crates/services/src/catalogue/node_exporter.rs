//! node-exporter: tells Prometheus how this machine is.

use std::{collections::BTreeMap, net::SocketAddr};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Speaks};

use crate::{Context, Endpoint, HttpProbe, Listen, Params, Ports, Probe, Result, Run, Service, Wanted};

/// node-exporter from the machine's Debian sources. It can listen on an address that is found at each start, so that
/// a Prometheus elsewhere reaches it through a private network.
///
/// Limitation: whoever reaches its address reads it: it asks for no password.
/// Limitation: as an unprivileged user it cannot tell what only root may read, such as some disks' state.
pub struct NodeExporter;

/// Parameters of node-exporter.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 9101}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// Where it listens: `loopback`, `interface:wg0` or `10.0.0.0/8`, looked for at each start. Usually `loopback`.
    #[serde(default)]
    listen: Listen,
}

/// One measure instead of all of them.
const CHEAPEST: &str = "/metrics?collect%5B%5D=time";

impl NodeExporter {
    fn address(cx: &Context) -> Result<SocketAddr> {
        Ok(SocketAddr::new(cx.with::<With>()?.listen.address(cx)?, cx.port("main")))
    }
}

#[async_trait]
impl Service for NodeExporter {
    fn facts(&self) -> Facts {
        Facts::new("node-exporter", "Tells Prometheus how this machine is")
            .source("Debian package prometheus-node-exporter")
            .command("prometheus-node-exporter")
            .port_of("main", 9100, Speaks::Http)
            .limitation("whoever reaches its address reads it: it asks for no password.")
            .limitation("as an unprivileged user it cannot tell what only root may read, such as some disks' state.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        cx.debian("prometheus-node-exporter", want).binary("usr/bin/prometheus-node-exporter").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        cx.run("prometheus-node-exporter")
            .args(["--web.listen-address", &Self::address(cx)?.to_string()])
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, with: &Value) -> Option<String> {
        // Another address is known only while it is looked for.
        let here = with.get("listen").is_none_or(|listen| listen == "loopback");
        ports.get("main").filter(|_| here).map(|port| format!("http://127.0.0.1:{port}{CHEAPEST}"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.ask(Probe::Http(HttpProbe::new(Endpoint::Address(Self::address(cx)?), CHEAPEST))).await
    }
}

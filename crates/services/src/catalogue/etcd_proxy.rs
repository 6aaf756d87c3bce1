//! etcd-proxy: etcd's own proxy, a child of etcd by the same program.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Policy, Speaks, UnitName};

use super::etcd;
use crate::{Context, Params, Ports, Result, Run, Service, Wanted};

/// Answers for an etcd, and keeps watches and leases of many clients off it. It brings that etcd up first, finds its
/// port by itself, and shares its programs: both are placed once.
///
/// Limitation: it listens on 127.0.0.1 only and asks for no password.
/// Limitation: it is told of one etcd of this machine; those of other machines are not looked for.
pub struct EtcdProxy;

/// Parameters of the proxy.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"client": 23800}` or `{"client": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// The etcd that it stands before: `etcd@a`. Usually `etcd`.
    #[serde(default)]
    of: Option<UnitName>,
}

impl With {
    fn mother(&self) -> &str {
        self.of.as_ref().map_or("etcd", |of| of.as_str())
    }
}

#[async_trait]
impl Service for EtcdProxy {
    fn facts(&self) -> Facts {
        Facts::new("etcd-proxy", "Proxy that stands before an etcd")
            .source("Debian packages etcd-server and etcd-client, shared with etcd")
            .command("etcd")
            .port_of("client", 23790, Speaks::Http)
            .limitation("it listens on 127.0.0.1 only and asks for no password.")
            .limitation("it is told of one etcd of this machine; those of other machines are not looked for.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, with: &Value) -> Policy {
        let with = With::deserialize(with).ok();
        Policy::default().needing(with.as_ref().map_or("etcd", With::mother))
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        etcd::package(cx, want).place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let mother = cx.port_of(cx.with::<With>()?.mother(), "client")?;
        cx.run("etcd")
            .args(["grpc-proxy", "start", "--endpoints", &format!("127.0.0.1:{mother}")])
            .args(["--listen-addr", &format!("127.0.0.1:{}", cx.port("client"))])
            .env(etcd::ARM.0, etcd::ARM.1)
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("client").map(|port| format!("http://127.0.0.1:{port}/health"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("client", "/health").expect_json("/health", "true").await
    }
}

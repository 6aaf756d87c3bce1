//! etcd: a key-value store that machines can agree on.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Speaks};

use crate::{Context, Params, Placing, Ports, Result, Run, Service, Wanted};

/// etcd from the machine's Debian sources, one member that is a whole cluster. Any number of them: `etcd@a`.
///
/// Limitation: it listens on 127.0.0.1 only and asks for no password.
/// Limitation: one member; a cluster over several machines is not made by Wharf.
pub struct Etcd;

/// Parameters of etcd.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Other port numbers: `{"client": 2479, "peer": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// The most that its data may grow to, in MiB. Usually 2,048.
    #[serde(default = "usual_quota")]
    quota_mib: u32,
}

fn usual_quota() -> u32 {
    2_048
}

/// What mother and child share: they are placed once, under the mother's name.
pub(super) fn package<'a>(cx: &'a Context, want: &Wanted) -> Placing<'a> {
    cx.debian("etcd-server", want)
        .package("etcd-client")
        .shared_with("etcd")
        .binary("usr/bin/etcd")
        .binary("usr/bin/etcdctl")
}

/// Debian's 3.4 starts on arm64 only where it is told that somebody wants that.
pub(super) const ARM: (&str, &str) =
    ("ETCD_UNSUPPORTED_ARCH", if cfg!(target_arch = "aarch64") { "arm64" } else { "" });

#[async_trait]
impl Service for Etcd {
    fn facts(&self) -> Facts {
        Facts::new("etcd", "Key-value store that machines can agree on")
            .source("Debian packages etcd-server and etcd-client")
            .command("etcd")
            .command("etcdctl")
            .port_of("client", 2379, Speaks::Http)
            .port_of("peer", 2380, Speaks::Http)
            .data("member, the store and its write-ahead log")
            .limitation("it listens on 127.0.0.1 only and asks for no password.")
            .limitation("one member; a cluster over several machines is not made by Wharf.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        package(cx, want).place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let (client, peer) = (url(cx.port("client")), url(cx.port("peer")));
        let quota = u64::from(cx.with::<With>()?.quota_mib) << 20;
        cx.run("etcd")
            .args(["--name", "wharf", "--data-dir"])
            .arg(cx.data_dir().display())
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
            .args(["--initial-cluster", &format!("wharf={peer}"), "--quota-backend-bytes", &quota.to_string()])
            .env(ARM.0, ARM.1)
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("client").map(|port| format!("http://127.0.0.1:{port}/health"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        // It says so as a text.
        cx.http("client", "/health").expect_json("/health", "true").await
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

//! dkron: a cron whose jobs are seen and changed in the browser.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Policy, Speaks};

use crate::{Context, Params, Ports, Result, Run, Service, Wanted};

/// Dkron from its newest release, one server that is a whole cluster.
///
/// Limitation: it listens on 127.0.0.1 only and asks for no password: whoever reaches it runs programs as its user.
/// Limitation: no version is pinned: the newest is placed, believed by its release's list of digests, else the forge's.
/// Limitation: one server; a cluster over several machines is not made by Wharf.
pub struct Dkron;

/// Parameters of dkron.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Other port numbers: `{"http": 8081, "gossip": "auto", "rpc": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
}

#[async_trait]
impl Service for Dkron {
    fn facts(&self) -> Facts {
        Facts::new("dkron", "Cron whose jobs are seen and changed in the browser")
            .source("release of github.com/distribworks/dkron")
            .command("dkron")
            .port_of("http", 8080, Speaks::Http)
            .port("gossip", 8946)
            .port("rpc", 6868)
            .data("jobs and what became of them")
            .limitation(
                "it listens on 127.0.0.1 only and asks for no password: whoever reaches it runs programs as its user.",
            )
            .limitation(
                "no version is pinned: the newest is placed, believed by its release's list of digests, else the forge's.",
            )
            .limitation("one server; a cluster over several machines is not made by Wharf.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, _with: &Value) -> Policy {
        // It is healthy before it has elected itself; that takes some seconds more.
        Policy { start_timeout_ms: 60_000, ..Policy::default() }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        // What its jobs run with are programs of their own, which it looks for beside itself.
        cx.github("distribworks/dkron", want).asset("dkron_{version}_{os}_{arch}.tar.gz").binary("dkron").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let at = |port: &str| format!("127.0.0.1:{}", cx.port(port));
        cx.run("dkron")
            .args(["agent", "--server", "--bootstrap-expect=1", "--data-dir"])
            .arg(cx.data_dir().display())
            // Its data are its own only under the name that it had then; usually that is the machine's.
            .args(["--node-name", "wharf"])
            .args(["--bind-addr", &at("gossip"), "--http-addr", &at("http"), "--rpc-port"])
            .arg(cx.port("rpc"))
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("http").map(|port| format!("http://127.0.0.1:{port}/health"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("http", "/health").await
    }
}

//! restate: a workflow engine that remembers how far each call has come.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Policy, Speaks};

use crate::{Context, Endpoint, HttpProbe, Params, Pinned, Ports, Probe, Result, Run, Service, Wanted};

/// Restate from npm, which carries the publisher's binary: no Node runs it. One node that is a whole cluster.
///
/// Limitation: it listens on 127.0.0.1 only and asks for no password.
/// Limitation: one node; a cluster over several machines is not made by Wharf.
/// Limitation: its licence is the Business Source License 1.1.
pub struct Restate;

const VERSIONS: &[Pinned] = &[Pinned { version: "1.7.12", sha256: &[] }];

/// Parameters of Restate.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Other port numbers: `{"ingress": 8090, "admin": "auto", "node": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
}

#[async_trait]
impl Service for Restate {
    fn facts(&self) -> Facts {
        Facts::new("restate", "Workflow engine that remembers how far each call has come")
            .source("npm: @restatedev/restate-server, by a lock file with digests")
            .command("restate-server")
            .env("RESTATE_INGRESS__BIND_ADDRESS")
            .env("RESTATE_ADMIN__BIND_ADDRESS")
            .env("RESTATE_BIND_ADDRESS")
            .port_of("ingress", 8080, Speaks::Http)
            .port_of("admin", 9070, Speaks::Http)
            .port_of("node", 5122, Speaks::Http)
            .data("the log of all calls and their state")
            .limitation("it listens on 127.0.0.1 only and asks for no password.")
            .limitation("one node; a cluster over several machines is not made by Wharf.")
            .limitation("its licence is the Business Source License 1.1.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, _with: &Value) -> Policy {
        // What it has written down is read again.
        Policy { start_timeout_ms: 60_000, ..Policy::default() }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let Pinned { version, .. } = Pinned::choose("restate", VERSIONS, want)?;
        let lock = include_str!("restate.lock.json");
        // Its program lies in a folder that is named for the processor.
        cx.npm("@restatedev/restate-server", version, lock, want).binary("restate-server").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let at = |port: &str| format!("127.0.0.1:{}", cx.port(port));
        cx.run("restate-server")
            .arg("--base-dir")
            .arg(cx.data_dir().display())
            // What it has written down is its own only under the name that it had then.
            .args(["--node-name", "wharf"])
            .env("RESTATE_DISABLE_TELEMETRY", "true")
            .force_env("RESTATE_INGRESS__BIND_ADDRESS", at("ingress"))
            .force_env("RESTATE_ADMIN__BIND_ADDRESS", at("admin"))
            .force_env("RESTATE_BIND_ADDRESS", at("node"))
            .force_env("RESTATE_ADVERTISED_ADDRESS", format!("http://{}/", at("node")))
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("admin").map(|port| format!("http://127.0.0.1:{port}/health"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        let http = |port: &str, path: &str| Probe::Http(HttpProbe::new(Endpoint::Port(cx.port(port)), path));
        let node = Probe::Connect(Endpoint::Port(cx.port("node")));
        cx.ask(Probe::All(vec![http("admin", "/health"), http("ingress", "/restate/health"), node])).await
    }
}

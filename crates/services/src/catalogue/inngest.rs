//! inngest: functions that are called by events, with a queue and a memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Speaks};

use crate::{Context, Params, Pinned, Ports, Result, Run, Service, Wanted};

/// Inngest from its release, one server with its own database. Its keys are in the installation's secrets.
///
/// Limitation: it listens on 127.0.0.1 only; its page in the browser asks for no password.
/// Limitation: no digest is pinned: what is placed is believed by `checksums.txt` of its release.
/// Limitation: what it opens for debugging, besides its four ports, has a number of its own choice.
pub struct Inngest;

/// Its package on npm has this number and no program in it: that fetches this release.
const VERSIONS: &[Pinned] = &[Pinned { version: "1.45.1", sha256: &[] }];

/// Parameters of Inngest.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Other port numbers: `{"main": 8290, "gateway": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// Where your functions are served: `["http://127.0.0.1:3000/api/inngest"]`.
    #[serde(default)]
    apps: Vec<String>,
}

#[async_trait]
impl Service for Inngest {
    fn facts(&self) -> Facts {
        Facts::new("inngest", "Functions that are called by events, with a queue and a memory")
            .source("release of github.com/inngest/inngest")
            .command("inngest")
            .env("INNGEST_EVENT_KEY")
            .env("INNGEST_SIGNING_KEY")
            .port_of("main", 8288, Speaks::Http)
            .port_of("gateway", 8289, Speaks::HttpWs)
            .port("gateway-grpc", 50_052)
            .port("executor-grpc", 50_053)
            .data("main.db, the events and the functions' states")
            .limitation("it listens on 127.0.0.1 only; its page in the browser asks for no password.")
            .limitation("no digest is pinned: what is placed is believed by `checksums.txt` of its release.")
            .limitation("what it opens for debugging, besides its four ports, has a number of its own choice.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let release = cx.github("inngest/inngest", want).pinned(VERSIONS);
        release.asset("inngest_{version}_{os}_{arch}.tar.gz").binary("inngest").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let event = cx.secret(&super::secret_of(cx, "event-key"), 16).await?;
        // It reads bytes out of this one: an even number of digits.
        let signing = cx.secret(&super::secret_of(cx, "signing-key"), 32).await?;
        let mut run = cx.run("inngest").args(["start", "--host", "127.0.0.1", "--sqlite-dir"]);
        run = run.arg(cx.data_dir().display());
        for (option, port) in [
            ("--port", "main"),
            ("--connect-gateway-port", "gateway"),
            ("--connect-gateway-grpc-port", "gateway-grpc"),
            ("--connect-executor-grpc-port", "executor-grpc"),
        ] {
            run = run.arg(option).arg(cx.port(port));
        }
        for app in cx.with::<With>()?.apps {
            run = run.arg("--sdk-url").arg(app);
        }
        run.force_env("INNGEST_EVENT_KEY", event.reveal())
            .force_env("INNGEST_SIGNING_KEY", signing.reveal())
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/health"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("main", "/health").await
    }
}

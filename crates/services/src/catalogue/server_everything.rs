//! server-everything: an MCP server that has every kind of thing that a client can ask for, to try clients with.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Speaks};

use crate::{Context, Endpoint, HttpProbe, Params, Pinned, Ports, Probe, Result, Run, Service, Wanted};

/// MCP's reference server from npm; clients find it at `/mcp`.
///
/// Limitation: it binds all addresses of its own accord; a module of Wharf's, loaded before it, holds it to 127.0.0.1.
/// Limitation: it asks for no token, and answers requests from every web page.
/// Limitation: its transport is streamable HTTP; the older one with server-sent events is not offered.
pub struct ServerEverything;

const VERSIONS: &[Pinned] = &[Pinned { version: "2026.8.31", sha256: &[] }];
const PROGRAM: &str = "node_modules/@modelcontextprotocol/server-everything/dist/index.js";

/// Parameters of server-everything.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 3002}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
}

#[async_trait]
impl Service for ServerEverything {
    fn facts(&self) -> Facts {
        Facts::new("server-everything", "MCP server with every kind of thing, to try clients with")
            .source("npm: @modelcontextprotocol/server-everything, by a lock file with digests")
            .command("node")
            .env("PORT")
            .port_of("main", 3001, Speaks::Http)
            .limitation(
                "it binds all addresses of its own accord; a module of Wharf's, loaded before it, holds it to 127.0.0.1.",
            )
            .limitation("it asks for no token, and answers requests from every web page.")
            .limitation("its transport is streamable HTTP; the older one with server-sent events is not offered.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let Pinned { version, .. } = Pinned::choose("server-everything", VERSIONS, want)?;
        let lock = include_str!("server-everything.lock.json");
        cx.npm("@modelcontextprotocol/server-everything", version, lock, want)
            .node(20)
            .binary(PROGRAM)
            .file("app/loopback.mjs", include_str!("loopback.mjs"))
            .place()
            .await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let placed = &super::placed(cx)?.path;
        cx.run("node")
            .arg("--import")
            .arg(placed.join("app/loopback.mjs").display())
            .arg(placed.join(PROGRAM).display())
            .arg("streamableHttp")
            .force_env("PORT", cx.port("main"))
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/mcp"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        // A greeting would leave a session behind each time, a GET a line in the log. To end a session that is none
        // leaves nothing, and is refused by MCP's own code.
        let mut end = HttpProbe::new(Endpoint::Port(cx.port("main")), "/mcp");
        end.method = "DELETE".into();
        end.status = vec![400..=400];
        end.contains = Some("No valid session ID".into());
        cx.ask(Probe::Http(end)).await
    }
}

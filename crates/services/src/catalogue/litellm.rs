//! litellm: one OpenAI-shaped API before many language models.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use wharf_model::{Facts, Health, Installed, Policy, Speaks};

use crate::{Context, Params, Pinned, Ports, Result, Run, Service, Wanted};

/// LiteLLM's proxy from the Python package index. Its master key is in the installation's secrets.
///
/// Limitation: it listens on 127.0.0.1 only, plain HTTP.
/// Limitation: keys and budgets of users need a PostgreSQL: name its `DATABASE_URL` in a configuration of your own.
pub struct LiteLlm;

const VERSIONS: &[Pinned] = &[Pinned { version: "1.106.2", sha256: &[] }];
/// What its own script does.
const MAIN: &str = "from litellm import run_server; run_server()";

/// Parameters of LiteLLM.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 4001}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// Models that it passes requests on to, by the names that clients use: `{"local": "http://127.0.0.1:8003/v1"}`.
    #[serde(default)]
    models: BTreeMap<String, String>,
    /// A configuration of your own; `models` is not used then.
    #[serde(default)]
    config: Option<PathBuf>,
    /// A file of `NAME=value` lines with the keys of providers.
    #[serde(default)]
    env_file: Option<PathBuf>,
}

impl With {
    /// Each model behind an address that speaks as OpenAI does. YAML reads JSON.
    fn written(&self) -> String {
        let model = |(name, base): (&String, &String)| {
            let parameters = json!({ "model": format!("openai/{name}"), "api_base": base, "api_key": "none" });
            json!({ "model_name": name, "litellm_params": parameters })
        };
        json!({ "model_list": self.models.iter().map(model).collect::<Vec<_>>() }).to_string()
    }
}

#[async_trait]
impl Service for LiteLlm {
    fn facts(&self) -> Facts {
        Facts::new("litellm", "One OpenAI-shaped API before many language models")
            .source("PyPI: litellm[proxy], by a lock file with digests")
            .command("python3")
            .env("LITELLM_MASTER_KEY")
            .env("LITELLM_LOCAL_MODEL_COST_MAP")
            .port_of("main", 4000, Speaks::Http)
            .data("nothing; the master key is in the installation's secrets")
            .limitation("it listens on 127.0.0.1 only, plain HTTP.")
            .limitation(
                "keys and budgets of users need a PostgreSQL: name its `DATABASE_URL` in a configuration of your own.",
            )
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, _with: &Value) -> Policy {
        Policy { start_timeout_ms: 120_000, ..Policy::default() }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let Pinned { version, .. } = Pinned::choose("litellm", VERSIONS, want)?;
        cx.venv(version, include_str!("litellm.lock"), want).binary("venv/bin/python").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let with: With = cx.with()?;
        let key = cx.secret(&format!("{}-master-key", cx.unit.as_str().replace('@', ".")), 24).await?;
        let made = cx.run_dir().join("config.yaml");
        let config: &Path = match &with.config {
            Some(own) => own,
            None => {
                cx.write(&made, &with.written(), 0o600).await?;
                &made
            }
        };
        let mut run = cx
            .run("python")
            .args(["-c", MAIN, "--host", "127.0.0.1", "--telemetry", "False", "--port"])
            .arg(cx.port("main"))
            .arg("--config")
            .arg(config.display())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            // Else it first tries to fetch a price list, for as long as it takes.
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
            .force_env("LITELLM_MASTER_KEY", format!("sk-{}", key.reveal()));
        if let Some(file) = with.env_file {
            run = run.env_file(file);
        }
        run.unprivileged().spawn().await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/health/readiness"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("main", "/health/readiness").await
    }
}

//! python-api: four small Python services, as an application with several processes has them.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{ErrorKind, Facts, Failure, Health, Installed, Speaks, UnitName};

use crate::{Context, Params, PortChoice, PortWish, Ports, Result, Run, Service, Wanted};

/// Alden (assistant), vault (encrypted memory), core (sessions) and synapse (plugins): FastAPI on uvicorn.
///
/// Limitation: they listen on 127.0.0.1 only.
/// Limitation: alden keeps its memory in the vault while that answers, and forgets what it was told without it at its end.
pub struct PythonApi;

/// Instance, script, usual port.
const INSTANCES: [(&str, &str, u16); 4] = [
    ("alden", "src/api/alden_api.py", 8888),
    ("vault", "src/vault/vault_api_server.py", 8001),
    ("core", "src/api/core_api.py", 8000),
    ("synapse", "src/api/synapse_api_server.py", 8002),
];

/// Parameters of each instance.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 9001}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// Alden: where the vault answers. Usually `http://127.0.0.1:8001`.
    #[serde(default)]
    vault_url: Option<String>,
    /// A file of `NAME=value` lines for its environment.
    #[serde(default)]
    env_file: Option<std::path::PathBuf>,
}

impl PythonApi {
    fn instance(unit: &UnitName) -> Result<(&'static str, &'static str, u16)> {
        let named = unit.instance().unwrap_or_default();
        INSTANCES.into_iter().find(|(name, ..)| *name == named).ok_or_else(|| {
            let known: Vec<String> = INSTANCES.iter().map(|(name, ..)| format!("{}@{name}", unit.service())).collect();
            Failure::new(ErrorKind::NotFound, format!("there is no {unit}"))
                .hint(format!("there are: {}", known.join(", ")))
                .about(unit)
        })
    }
}

#[async_trait]
impl Service for PythonApi {
    fn facts(&self) -> Facts {
        Facts::new("python-api", "Four small Python services: assistant, vault, sessions, plugins")
            .source("PyPI: fastapi, uvicorn and cryptography, by a lock file with digests")
            .command("python3")
            .env("PYTHONPATH")
            .env("HEARTHLINK_DATA_DIR")
            .env("HEARTHLINK_VAULT_KEY")
            .env("HEARTHLINK_VAULT_URL")
            .port_of("main", 8000, Speaks::Http)
            .data("hearthlink_data")
            .uses("python-api@vault")
            .instances(&INSTANCES.map(|(name, ..)| name))
            .limitation("they listen on 127.0.0.1 only.")
            .limitation(
                "alden keeps its memory in the vault while that answers, and forgets what it was told without it at its end.",
            )
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn ports(&self, unit: &UnitName, with: &Value) -> Result<Vec<PortWish>> {
        let (_, _, number) = Self::instance(unit)?;
        let chosen = PortChoice::all_of(with)?;
        if let Some(other) = chosen.keys().find(|name| *name != "main") {
            return Err(Failure::new(ErrorKind::InvalidParams, format!("{unit} has no port {other:?}"))
                .hint("its only port is: main")
                .about(unit));
        }
        let choice = chosen.get("main").copied().unwrap_or(PortChoice::Number(number));
        Ok(vec![PortWish { name: "main".into(), choice }])
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        if let Some(other) = want.version.as_deref().filter(|v| *v != "1.0.0") {
            return Err(Failure::new(
                ErrorKind::InvalidParams,
                format!("python-api {other} is not a version that this Wharf knows"),
            )
            .hint("on offer: 1.0.0"));
        }
        cx.venv("1.0.0", include_str!("python-api.lock"), want)
            .binary("venv/bin/python")
            .file("app/hearthlink.py", include_str!("python-api/hearthlink.py"))
            .file("app/src/api/alden_api.py", include_str!("python-api/alden_api.py"))
            .file("app/src/api/core_api.py", include_str!("python-api/core_api.py"))
            .file("app/src/api/synapse_api_server.py", include_str!("python-api/synapse_api_server.py"))
            .file("app/src/vault/vault_api_server.py", include_str!("python-api/vault_api_server.py"))
            .place()
            .await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let (name, script, _) = Self::instance(&cx.unit)?;
        let with: With = cx.with()?;
        let placed = cx.installed.as_ref().ok_or_else(|| {
            Failure::new(ErrorKind::Precondition, format!("{} is not placed", cx.unit))
                .hint(format!("place it: wharf install {}", cx.unit))
        })?;
        let resources = placed.path.join("app");
        let mut run = cx
            .run("python")
            .arg(resources.join(script).display())
            .args(["--host", "127.0.0.1", "--port"])
            .arg(cx.port("main"))
            .cwd(&resources)
            // The store is not writable for it.
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .force_env("PYTHONPATH", resources.display())
            .force_env("HEARTHLINK_DATA_DIR", cx.data_dir().join("hearthlink_data").display());
        if let Some(file) = with.env_file {
            run = run.env_file(file);
        }
        if name == "vault" {
            // Made once: with another key, what it keeps could not be read any more.
            let key = cx.secret("hearthlink-vault-key", 32).await?;
            run = run.force_env("HEARTHLINK_VAULT_KEY", key.reveal());
        }
        if let Some(url) = with.vault_url {
            run = run.env("HEARTHLINK_VAULT_URL", url);
        }
        run.unprivileged().spawn().await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/health"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("main", "/health").expect_json("/status", "healthy").await
    }
}

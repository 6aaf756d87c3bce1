//! whisper: speech to text behind OpenAI's API, by faster-whisper.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, Health, Installed, Policy, Requirement, Speaks};

use super::onnxruntime;
use crate::{Context, Params, Pinned, Ports, Result, Run, Service, Wanted};

/// faster-whisper from the Python package index, behind a small server of Wharf's own: `/v1/audio/transcriptions`.
/// It rests on onnxruntime, which is placed once for all that need it.
///
/// Limitation: it computes on the CPU.
/// Limitation: without `model` its weights are fetched from their hub with the first request, and kept in its data.
/// Limitation: a request is answered when all of it is understood; there is no stream.
pub struct Whisper;

const VERSIONS: &[Pinned] = &[Pinned { version: "1.2.1", sha256: &[] }];

/// Parameters of whisper.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 9001}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// A folder with a model of CTranslate2. Without, `size` is fetched.
    #[serde(default)]
    model: Option<PathBuf>,
    /// Which model is fetched: `tiny`, `base`, `small`, `medium`, `large-v3`. Usually `base`.
    #[serde(default = "usual_size")]
    size: String,
}

fn usual_size() -> String {
    "base".into()
}

#[async_trait]
impl Service for Whisper {
    fn facts(&self) -> Facts {
        Facts::new("whisper", "Speech to text behind OpenAI's API")
            .source("PyPI: faster-whisper, by a lock file with digests")
            .command("python3")
            .env("PYTHONPATH")
            .env("HF_HOME")
            .port_of("main", 9000, Speaks::Http)
            .data("weights that were fetched")
            .limitation("it computes on the CPU.")
            .limitation(
                "without `model` its weights are fetched from their hub with the first request, and kept in its data.",
            )
            .limitation("a request is answered when all of it is understood; there is no stream.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, with: &Value) -> Policy {
        let model = With::deserialize(with).ok().and_then(|with| with.model);
        Policy {
            requires: model.into_iter().map(Requirement::File).collect(),
            start_timeout_ms: 120_000,
            ..Policy::default()
        }
    }

    fn rests_on(&self) -> &'static [&'static str] {
        &["onnxruntime"]
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let Pinned { version, .. } = Pinned::choose("whisper", VERSIONS, want)?;
        cx.venv(version, include_str!("whisper.lock"), want)
            .binary("venv/bin/python")
            .file("app/serve.py", include_str!("whisper/serve.py"))
            .place()
            .await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let with: With = cx.with()?;
        let model = with.model.map_or(with.size, |folder| folder.display().to_string());
        cx.run("python")
            .arg(super::placed(cx)?.path.join("app/serve.py").display())
            .args(["--model", &model, "--port"])
            .arg(cx.port("main"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .force_env("PYTHONPATH", onnxruntime::folder(cx)?)
            .force_env("HF_HOME", cx.data_dir().display())
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/health"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("main", "/health").expect_json("/status", "ok").await
    }
}

//! piper: text to speech, small enough for a CPU.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{ErrorKind, Facts, Failure, Health, Installed, Policy, Requirement, Speaks};

use super::onnxruntime;
use crate::{Context, Params, Pinned, Ports, Result, Run, Service, Wanted};

/// Piper from the Python package index, with its own HTTP server: a POST of `{"text": "…"}` to `/synthesize`
/// answers with a WAV file.
/// It rests on onnxruntime, which is placed once for all that need it.
///
/// Limitation: a voice is two files that its publisher's hub has, and that you bring: NAME.onnx and NAME.onnx.json.
/// Limitation: it computes on the CPU.
pub struct Piper;

const VERSIONS: &[Pinned] = &[Pinned { version: "1.8.0", sha256: &[] }];

/// Parameters of Piper.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 5001}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// The voice: a file NAME.onnx, with NAME.onnx.json beside it. It does not start without.
    #[serde(default)]
    voice: Option<PathBuf>,
}

#[async_trait]
impl Service for Piper {
    fn facts(&self) -> Facts {
        Facts::new("piper", "Text to speech, small enough for a CPU")
            .source("PyPI: piper-tts[http], by a lock file with digests")
            .command("python3")
            .env("PYTHONPATH")
            .port_of("main", 5000, Speaks::Http)
            .limitation(
                "a voice is two files that its publisher's hub has, and that you bring: NAME.onnx and NAME.onnx.json.",
            )
            .limitation("it computes on the CPU.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, with: &Value) -> Policy {
        let voice = With::deserialize(with).ok().and_then(|with| with.voice);
        Policy {
            requires: voice.into_iter().map(Requirement::File).collect(),
            start_timeout_ms: 60_000,
            ..Policy::default()
        }
    }

    fn rests_on(&self) -> &'static [&'static str] {
        &["onnxruntime"]
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let Pinned { version, .. } = Pinned::choose("piper", VERSIONS, want)?;
        cx.venv(version, include_str!("piper.lock"), want).binary("venv/bin/python").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let voice = cx.with::<With>()?.voice.ok_or_else(|| {
            Failure::new(ErrorKind::Precondition, format!("{} has no voice to speak with", cx.unit))
                .hint(format!("name one: wharf start {} --with voice=/path/NAME.onnx", cx.unit))
                .about(&cx.unit)
        })?;
        cx.run("python")
            .args(["-m", "piper.http_server", "--host", "127.0.0.1", "--port"])
            .arg(cx.port("main"))
            .arg("--model")
            .arg(voice.display())
            .arg("--data-dir")
            .arg(cx.data_dir().display())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .force_env("PYTHONPATH", onnxruntime::folder(cx)?)
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/info"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        // It listens when its voice is loaded.
        cx.http("main", "/info").await
    }
}

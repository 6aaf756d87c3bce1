//! chatterbox: text to speech in a voice of your choice.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, GpuNeed, GpuRequest, Health, Installed, Policy, Preempt, Requirement, Speaks};

use crate::{Context, Params, Pinned, Ports, Result, Run, Service, Size, Wanted};

/// Chatterbox from the Python package index, behind a small server of Wharf's own: `/v1/audio/speech`. It computes on a
/// GPU where `vram` says how much of one it takes, else on the CPU.
///
/// Limitation: it is large: PyTorch and its CUDA libraries, several gigabytes; pinned for x86-64 only.
/// Limitation: its weights are fetched from their hub with the first start, and kept in its data.
/// Limitation: its PyTorch knows NVIDIA's GPUs only.
pub struct Chatterbox;

const VERSIONS: &[Pinned] = &[Pinned { version: "0.1.7", sha256: &[] }];

/// Parameters of Chatterbox.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 41223}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// What it takes of a GPU: `"6GiB"`, or bytes. Without, it computes on the CPU.
    #[serde(default)]
    vram: Option<Size>,
    /// A WAV file of the voice that it speaks with. Usually its own.
    #[serde(default)]
    voice: Option<PathBuf>,
}

#[async_trait]
impl Service for Chatterbox {
    fn facts(&self) -> Facts {
        Facts::new("chatterbox", "Text to speech in a voice of your choice")
            .source("PyPI: chatterbox-tts, by a lock file with digests")
            .command("python3")
            .env("HF_HOME")
            .port_of("main", 41222, Speaks::Http)
            .data("weights that were fetched")
            .limitation("it is large: PyTorch and its CUDA libraries, several gigabytes; pinned for x86-64 only.")
            .limitation("its weights are fetched from their hub with the first start, and kept in its data.")
            .limitation("its PyTorch knows NVIDIA's GPUs only.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, with: &Value) -> Policy {
        let with = With::deserialize(with).ok();
        let vram = with.as_ref().and_then(|with| with.vram);
        let gpu = vram.map(|Size(bytes)| GpuRequest {
            need: GpuNeed { vram_bytes: Some(bytes), ..GpuNeed::default() },
            preempt: Preempt::Idle,
            ..GpuRequest::default()
        });
        let voice = with.and_then(|with| with.voice).map(Requirement::File);
        let system = Requirement::System("linux-x86_64".into());
        Policy {
            requires: [system].into_iter().chain(voice).collect(),
            gpu,
            start_timeout_ms: 900_000,
            ..Policy::default()
        }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let Pinned { version, .. } = Pinned::choose("chatterbox", VERSIONS, want)?;
        cx.venv(version, include_str!("chatterbox.lock"), want)
            .binary("venv/bin/python")
            .file("app/serve.py", include_str!("chatterbox/serve.py"))
            .place()
            .await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let with: With = cx.with()?;
        let mut run = cx
            .run("python")
            .arg(super::placed(cx)?.path.join("app/serve.py").display())
            .args(["--device", if with.vram.is_some() { "cuda" } else { "cpu" }, "--port"])
            .arg(cx.port("main"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .force_env("HF_HOME", cx.data_dir().display());
        if let Some(voice) = with.voice {
            run = run.arg("--voice").arg(voice.display());
        }
        run.unprivileged().spawn().await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/health"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("main", "/health").expect_json("/status", "ok").await
    }
}

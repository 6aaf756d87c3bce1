//! ollama: language models that are fetched by name.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, GpuNeed, GpuRequest, Health, Installed, Policy, Preempt, Speaks};

use crate::{Context, Params, Ports, Result, Run, Service, Size, Wanted};

/// Ollama's server from its newest release. It computes on a GPU where `vram` says how much of one it takes.
///
/// Limitation: it listens on 127.0.0.1 only and asks for no password.
/// Limitation: no version is pinned: the newest is placed, believed by `sha256sum.txt` of its release.
/// Limitation: it loads and drops models by itself: `vram` must be enough for the largest that you ask it for.
/// Limitation: what AMD's GPUs need is a file of its own, which is not placed; there it computes on the CPU.
/// Limitation: it is large: the libraries for NVIDIA's GPUs come with it, several gigabytes.
pub struct Ollama;

/// Parameters of Ollama.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 11435}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// What it takes of a GPU: `"8GiB"`, or bytes. Without, it computes on the CPU.
    #[serde(default)]
    vram: Option<Size>,
    /// The folder of the models. Usually `models` in its data folder.
    #[serde(default)]
    models: Option<PathBuf>,
}

#[async_trait]
impl Service for Ollama {
    fn facts(&self) -> Facts {
        Facts::new("ollama", "Language models that are fetched by name")
            .source("release of github.com/ollama/ollama")
            .command("ollama")
            .env("OLLAMA_HOST")
            .env("OLLAMA_MODELS")
            .port_of("main", 11434, Speaks::Http)
            .data("models that were fetched")
            .limitation("it listens on 127.0.0.1 only and asks for no password.")
            .limitation("no version is pinned: the newest is placed, believed by `sha256sum.txt` of its release.")
            .limitation(
                "it loads and drops models by itself: `vram` must be enough for the largest that you ask it for.",
            )
            .limitation("what AMD's GPUs need is a file of its own, which is not placed; there it computes on the CPU.")
            .limitation("it is large: the libraries for NVIDIA's GPUs come with it, several gigabytes.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, with: &Value) -> Policy {
        let gpu = With::deserialize(with).ok().and_then(|with| with.vram).map(|Size(bytes)| GpuRequest {
            need: GpuNeed { vram_bytes: Some(bytes), ..GpuNeed::default() },
            preempt: Preempt::Idle,
            ..GpuRequest::default()
        });
        Policy { gpu, ..Policy::default() }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        // It was a .tgz until 2025.
        let release = cx.github("ollama/ollama", want);
        let release = release.asset("ollama-{os}-{arch}.tar.zst").asset("ollama-{os}-{arch}.tgz");
        // Its libraries are looked for beside it: ../lib/ollama.
        release.binary("bin/ollama").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let with: With = cx.with()?;
        let models = with.models.unwrap_or_else(|| cx.data_dir().join("models"));
        cx.run("ollama")
            .arg("serve")
            .force_env("OLLAMA_HOST", format!("127.0.0.1:{}", cx.port("main")))
            .force_env("OLLAMA_MODELS", models.display())
            // Its own key lies there.
            .force_env("HOME", cx.data_dir().display())
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/api/version"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("main", "/api/version").expect("version").await
    }
}

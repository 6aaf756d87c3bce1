//! vllm: large language models on NVIDIA's GPUs, behind OpenAI's API.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{
    ErrorKind, Facts, Failure, GpuNeed, GpuRequest, Health, Installed, Policy, Preempt, Requirement, Speaks, Vendor,
    Verdict,
};

use crate::{Context, Endpoint, HttpProbe, Params, Pinned, Ports, Probe, Result, Run, Service, Size, Wanted};

/// vLLM from the Python package index. Another that needs its GPU has it sleep: the weights go to the machine's memory,
/// and come back when it is its turn. Each model is an instance: `vllm@qwen`.
///
/// Limitation: it needs an NVIDIA GPU on x86-64; elsewhere it is refused at install.
/// Limitation: it counts in shares of a device, Wharf in bytes: `share` must fit `vram`, or it has its devices alone.
/// Limitation: a model that is named and is no folder is fetched from its hub at the first start.
pub struct Vllm;

const VERSIONS: &[Pinned] = &[Pinned { version: "0.32.0", sha256: &[] }];
/// What its own script does.
const MAIN: &str = "from vllm.entrypoints.cli.main import main; main()";
/// What it was seen to keep on a device while it sleeps, in bytes; `sleeps_in` says otherwise.
const SLEEPS_IN: u64 = 2 << 30;

/// Weights are moved between a device and the machine's memory within this, in milliseconds.
const MOVE_MS: u64 = 120_000;

/// Parameters of vLLM.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 8001}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// A folder with a model, or what a hub calls it. Usually a small one: `Qwen/Qwen3-0.6B`.
    #[serde(default = "usual_model")]
    model: String,
    /// What it takes of each device: `"40GiB"`, or bytes. Without, it has its devices alone.
    #[serde(default)]
    vram: Option<Size>,
    /// The same as vLLM counts it: a share of each device. Usually 0.9.
    #[serde(default = "usual_share")]
    share: f64,
    /// Over how many devices the model is spread. Usually 1.
    #[serde(default = "usual_devices")]
    devices: u32,
    /// What it keeps of each device while it sleeps: `"2GiB"`, or bytes. 0: it is not made to sleep.
    #[serde(default = "usual_sleep")]
    sleeps_in: Size,
    /// More arguments: `["--max-model-len", "8192"]`.
    #[serde(default)]
    args: Vec<String>,
}

fn usual_model() -> String {
    "Qwen/Qwen3-0.6B".into()
}

fn usual_share() -> f64 {
    0.9
}

fn usual_devices() -> u32 {
    1
}

fn usual_sleep() -> Size {
    Size(SLEEPS_IN)
}

impl Vllm {
    /// Asks for a change, which is answered when it is done.
    async fn post(cx: &Context, path: &str) -> Result<()> {
        let mut ask = HttpProbe::new(Endpoint::Port(cx.port("main")), path);
        ask.method = "POST".into();
        // No probe takes so long: gigabytes are moved first.
        let mut patient = cx.clone();
        patient.probe_timeout_ms = MOVE_MS;
        Self::must(cx, patient.ask(Probe::Http(ask)).await?)
    }

    /// Whether it sleeps now, by its own words.
    async fn is_asleep(cx: &Context, asleep: bool) -> Result<()> {
        Self::must(cx, cx.http("main", "/is_sleeping").expect_json("/is_sleeping", asleep).await?)
    }

    fn must(cx: &Context, answer: Health) -> Result<()> {
        match answer.verdict {
            Verdict::Healthy => Ok(()),
            Verdict::Degraded | Verdict::Unhealthy => {
                Err(Failure::new(ErrorKind::ServiceFailed, format!("{}: {}", cx.unit, answer.detail)).about(&cx.unit))
            }
        }
    }
}

#[async_trait]
impl Service for Vllm {
    fn facts(&self) -> Facts {
        Facts::new("vllm", "Large language models on NVIDIA's GPUs, behind OpenAI's API")
            .source("PyPI: vllm, by a lock file with digests")
            .command("python3")
            .env("HF_HOME")
            .env("VLLM_SERVER_DEV_MODE")
            .port_of("main", 8000, Speaks::Http)
            .data("weights that were fetched")
            .limitation("it needs an NVIDIA GPU on x86-64; elsewhere it is refused at install.")
            .limitation("it counts in shares of a device, Wharf in bytes: `share` must fit `vram`, or it has its devices alone.")
            .limitation("a model that is named and is no folder is fetched from its hub at the first start.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, with: &Value) -> Policy {
        let given = With::deserialize(with).ok();
        let sleeps_in = given.as_ref().map_or(SLEEPS_IN, |with| with.sleeps_in.0);
        let need = GpuNeed {
            devices: given.as_ref().map_or(1, |with| with.devices),
            vram_bytes: given.and_then(|with| with.vram).map(|Size(bytes)| bytes),
            ..GpuNeed::default()
        };
        let gpu = GpuRequest {
            need,
            preempt: Preempt::Idle,
            parked_bytes: (sleeps_in > 0).then_some(sleeps_in),
            ..GpuRequest::default()
        };
        Policy {
            requires: vec![Requirement::System("linux-x86_64".into()), Requirement::Gpu(Vendor::Nvidia)],
            gpu: Some(gpu),
            // Graphs are compiled for minutes before the first token.
            start_timeout_ms: 1_800_000,
            stop_timeout_ms: 30_000,
            ..Policy::default()
        }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let Pinned { version, .. } = Pinned::choose("vllm", VERSIONS, want)?;
        cx.venv(version, include_str!("vllm.lock"), want).binary("venv/bin/python").place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let with: With = cx.with()?;
        let mut run = cx
            .run("python")
            .args(["-c", MAIN, "serve", &with.model, "--host", "127.0.0.1", "--port"])
            .arg(cx.port("main"))
            .args(["--gpu-memory-utilization", &with.share.to_string()])
            .args(["--tensor-parallel-size", &with.devices.to_string()]);
        if with.sleeps_in.0 > 0 {
            run = run.arg("--enable-sleep-mode");
        }
        run.args(with.args)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .env("VLLM_NO_USAGE_STATS", "1")
            // Without it there is no /sleep.
            .env("VLLM_SERVER_DEV_MODE", "1")
            .force_env("HOME", cx.data_dir().display())
            .force_env("HF_HOME", cx.data_dir().display())
            .unprivileged()
            .spawn()
            .await
    }

    async fn park(&self, cx: &Context) -> Result<()> {
        // Level 1: the weights wait in the machine's memory, what was computed for open requests is dropped.
        Self::post(cx, "/sleep?level=1").await?;
        Self::is_asleep(cx, true).await
    }

    async fn wake(&self, cx: &Context) -> Result<()> {
        Self::post(cx, "/wake_up").await?;
        Self::is_asleep(cx, false).await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/health"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("main", "/health").await
    }
}

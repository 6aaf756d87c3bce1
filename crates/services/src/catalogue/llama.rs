//! llama: a language model behind OpenAI's API, by llama.cpp.

use std::{collections::BTreeMap, path::PathBuf};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{
    ErrorKind, Facts, Failure, GpuNeed, GpuRequest, Health, Installed, OnDemand, Policy, Preempt, Requirement, Speaks,
    UnitName,
};

use crate::{Auto, Context, Params, PortChoice, PortWish, Ports, Result, Run, Service, Size, Wanted};

/// A GGUF model on llama.cpp's server, started by its first request. Each model is an instance: `llama@a`.
///
/// Limitation: PyPI's xllamacpp computes on the CPU; wheels for GPUs come from its own index. `vram` is what it is counted for.
/// Limitation: without `model` it serves a tiny model of random weights, which writes no sense.
/// Limitation: a killed daemon breaks the requests in flight at its front; the program goes on.
pub struct Llama;

/// The one version, of xllamacpp.
const VERSION: &str = "2026.10.11549";
const PORT: u16 = 8003;
/// From the daemon's SIGTERM: the last answers are written to their ends.
const STOP_TIMEOUT_MS: u64 = 30_000;
/// Large models take minutes to be read.
const START_TIMEOUT_MS: u64 = 300_000;

/// Parameters of llama.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Other port numbers: `{"http": 8004}` or `{"http": "auto"}`. `http` is where clients ask, `inner` the program behind it.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// A GGUF file. Usually a tiny model that the install makes.
    #[serde(default)]
    model: Option<PathBuf>,
    /// What it takes of a GPU: `"6GiB"`, or bytes. Without, it needs no GPU.
    #[serde(default)]
    vram: Option<Size>,
    /// Tokens of one request. Usually 2,048.
    #[serde(default = "usual_ctx")]
    ctx: u32,
    /// Requests that are worked on at once. Usually 2.
    #[serde(default = "usual_parallel")]
    parallel: u32,
    /// Threads on the CPU. Usually as many as llama.cpp thinks good.
    #[serde(default)]
    threads: u32,
    /// It starts with its first request, and Wharf listens for it. Usually true.
    #[serde(default = "usually")]
    on_demand: bool,
    /// On demand: it stops after so long without a request, in seconds. Usually 300; 0: never.
    #[serde(default = "usual_idle_stop")]
    idle_stop_s: u64,
}

fn usual_ctx() -> u32 {
    2_048
}

fn usual_parallel() -> u32 {
    2
}

fn usually() -> bool {
    true
}

fn usual_idle_stop() -> u64 {
    300
}

impl With {
    fn of(with: &Value) -> Option<Self> {
        let nothing = Value::Object(serde_json::Map::new());
        Self::deserialize(if with.is_null() { &nothing } else { with }).ok()
    }

    /// The port that the program itself listens on.
    fn own_port(&self) -> &'static str {
        if self.on_demand { "inner" } else { "http" }
    }
}

fn own_port(with: &Value) -> &'static str {
    With::of(with).map_or("inner", |with| with.own_port())
}

#[async_trait]
impl Service for Llama {
    fn facts(&self) -> Facts {
        Facts::new("llama", "A language model behind OpenAI's API, started by its first request")
            .source("PyPI: xllamacpp and gguf, by a lock file with digests")
            .command("python3")
            .port_of("http", PORT, Speaks::Http)
            .limitation(
                "PyPI's xllamacpp computes on the CPU; wheels for GPUs come from its own index. `vram` is what it is counted for.",
            )
            .limitation("without `model` it serves a tiny model of random weights, which writes no sense.")
            .limitation("a killed daemon breaks the requests in flight at its front; the program goes on.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, with: &Value) -> Policy {
        let Some(with) = With::of(with) else {
            return Policy::default();
        };
        let front = BTreeMap::from([("http".to_owned(), "inner".to_owned())]);
        let on_demand = OnDemand { idle_stop_s: with.idle_stop_s, front, ..OnDemand::default() };
        let gpu = with.vram.map(|Size(bytes)| GpuRequest {
            need: GpuNeed { vram_bytes: Some(bytes), ..GpuNeed::default() },
            preempt: Preempt::Idle,
            min_residency_ms: 5_000,
            drain_ms: STOP_TIMEOUT_MS,
            ..GpuRequest::default()
        });
        Policy {
            on_demand: with.on_demand.then_some(on_demand),
            gpu,
            requires: with.model.into_iter().map(Requirement::File).collect(),
            start_timeout_ms: START_TIMEOUT_MS,
            stop_timeout_ms: STOP_TIMEOUT_MS,
            ..Policy::default()
        }
    }

    fn ports(&self, unit: &UnitName, with: &Value) -> Result<Vec<PortWish>> {
        let usual = if unit.instance().is_none() { PortChoice::Number(PORT) } else { PortChoice::Auto(Auto::Auto) };
        let mut wishes = vec![PortWish { name: "http".into(), choice: usual }];
        if own_port(with) == "inner" {
            wishes.push(PortWish { name: "inner".into(), choice: PortChoice::Auto(Auto::Auto) });
        }
        for (name, choice) in PortChoice::all_of(with)? {
            let Some(wish) = wishes.iter_mut().find(|wish| wish.name == name) else {
                return Err(Failure::new(ErrorKind::InvalidParams, format!("{unit} has no port {name:?}"))
                    .hint("its ports are: http, and inner where it runs on demand")
                    .about(unit));
            };
            wish.choice = choice;
        }
        Ok(wishes)
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        if let Some(other) = want.version.as_deref().filter(|version| *version != VERSION) {
            let text = format!("llama {other} is not a version that this Wharf knows");
            return Err(Failure::new(ErrorKind::InvalidParams, text).hint(format!("on offer: {VERSION}")));
        }
        let placed = cx
            .venv(VERSION, include_str!("llama.lock"), want)
            .binary("venv/bin/python")
            .file("app/serve.py", include_str!("llama/serve.py"))
            .file("app/tiny_model.py", include_str!("llama/tiny_model.py"))
            .place()
            .await?;
        cx.progress("making a tiny model");
        let python = placed.path.join("venv/bin/python");
        cx.run(python.display().to_string())
            .arg(placed.path.join("app/tiny_model.py").display())
            .arg(tiny_model(cx).display())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .unprivileged()
            .success()
            .await?;
        Ok(placed)
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let with: With = cx.with()?;
        let placed = cx.installed.as_ref().ok_or_else(|| {
            Failure::new(ErrorKind::Precondition, format!("{} is not placed", cx.unit))
                .hint(format!("place it: wharf install {}", cx.unit))
        })?;
        let model = with.model.clone().unwrap_or_else(|| tiny_model(cx));
        cx.run("python")
            .arg(placed.path.join("app/serve.py").display())
            .arg("--model")
            .arg(model.display())
            .args(["--alias", cx.unit.as_str(), "--port"])
            .arg(cx.port(with.own_port()))
            .args(["--ctx", &with.ctx.to_string(), "--parallel", &with.parallel.to_string()])
            .args(["--threads", &with.threads.to_string()])
            .args(["--vram", &with.vram.map_or(0, |Size(bytes)| bytes).to_string()])
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .unprivileged()
            .spawn()
            .await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, with: &Value) -> Option<String> {
        ports.get(own_port(with)).map(|port| format!("http://127.0.0.1:{port}/health"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        let with: With = cx.with()?;
        cx.http(with.own_port(), "/health").expect_json("/status", "ok").await
    }
}

/// The model that an install makes.
fn tiny_model(cx: &Context) -> PathBuf {
    cx.data_dir().join("tiny.gguf")
}

//! comfyui: pictures out of models, by a plan that is drawn in the browser.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use wharf_model::{Facts, GpuNeed, GpuRequest, Health, Installed, Policy, Preempt, Speaks};

use crate::{Context, Params, Pinned, Ports, Result, Run, Service, Size, Wanted};

/// ComfyUI, the source of a tag; its Python packages are installed into its data.
///
/// Limitation: no digest is pinned: the first fetch of a version is believed, and its host names no newest one.
/// Limitation: its Python packages are the newest that its own requirements allow; PyTorch among them, several gigabytes.
/// Limitation: PyPI's PyTorch knows NVIDIA's GPUs; for another maker's name its index with `torch_index`.
/// Limitation: models are files that you bring, into `models` in its data folder.
/// Limitation: it listens on 127.0.0.1 only and asks for no password; its custom nodes are programs of others.
pub struct ComfyUi;

const VERSIONS: &[Pinned] = &[Pinned { version: "0.33.1", sha256: &[] }];
/// What it is counted for unless somebody says otherwise, in bytes: enough for models of its usual size.
const VRAM: u64 = 10 << 30;
/// Gigabytes are fetched and unpacked within this, in milliseconds.
const PACKAGES_MS: u64 = 3_600_000;

/// Parameters of ComfyUI.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct With {
    /// Another port number: `{"main": 8189}` or `{"main": "auto"}`.
    #[serde(default)]
    #[expect(dead_code, reason = "read by Service::ports")]
    ports: Ports,
    /// What it takes of a GPU: `"6GiB"`, or bytes. Usually 10 GiB.
    #[serde(default = "usual_vram")]
    vram: Size,
    /// It computes on the CPU, and takes no GPU.
    #[serde(default)]
    cpu: bool,
    /// The Python that its packages are installed with. Usually the system's, which every user may run.
    #[serde(default = "usual_python")]
    python: PathBuf,
    /// An index of Python packages that comes before PyPI for PyTorch.
    #[serde(default)]
    torch_index: Option<String>,
}

fn usual_vram() -> Size {
    Size(VRAM)
}

fn usual_python() -> PathBuf {
    "/usr/bin/python3".into()
}

#[async_trait]
impl Service for ComfyUi {
    fn facts(&self) -> Facts {
        Facts::new("comfyui", "Pictures out of models, by a plan that is drawn in the browser")
            .source("release source of github.com/Comfy-Org/ComfyUI; its packages from PyPI")
            .command("python3")
            .port_of("main", 8188, Speaks::HttpWs)
            .data("models, input, output, custom_nodes, and venv, its Python packages")
            .limitation("no digest is pinned: the first fetch of a version is believed, and its host names no newest one.")
            .limitation(
                "its Python packages are the newest that its own requirements allow; PyTorch among them, several gigabytes.",
            )
            .limitation("PyPI's PyTorch knows NVIDIA's GPUs; for another maker's name its index with `torch_index`.")
            .limitation("models are files that you bring, into `models` in its data folder.")
            .limitation("it listens on 127.0.0.1 only and asks for no password; its custom nodes are programs of others.")
    }

    fn params(&self) -> Params {
        Params::of::<With>()
    }

    fn policy(&self, with: &Value) -> Policy {
        let with = With::deserialize(with).ok();
        let vram = with.as_ref().map_or(VRAM, |with| with.vram.0);
        let gpu = GpuRequest {
            need: GpuNeed { vram_bytes: Some(vram), ..GpuNeed::default() },
            preempt: Preempt::Idle,
            ..GpuRequest::default()
        };
        let computes_on_cpu = with.is_some_and(|with| with.cpu);
        Policy { gpu: (!computes_on_cpu).then_some(gpu), start_timeout_ms: 300_000, ..Policy::default() }
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let with: With = cx.with()?;
        cx.need(
            &with.python.display().to_string(),
            "install it: apt-get install python3 python3-venv; or name another with `python`",
        )?;
        let placed = cx
            .site("github.com", "Comfy-Org/ComfyUI/archive/refs/tags", want)
            .pinned(VERSIONS)
            .asset("v{version}.tar.gz")
            .place()
            .await?;
        packages(cx, &with, &placed.path).await?;
        Ok(placed)
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        let data = cx.data_dir();
        let run = cx
            .run(python(cx).display().to_string())
            .arg(super::placed(cx)?.path.join("main.py").display())
            .args(["--disable-auto-launch", "--listen", "127.0.0.1", "--port"])
            .arg(cx.port("main"))
            // Else it would keep all of that beside its code, which nobody may change.
            .arg("--base-directory")
            .arg(data.display())
            .arg("--database-url")
            .arg(format!("sqlite:///{}", data.join("comfyui.db").display()))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("PYTHONUNBUFFERED", "1")
            .force_env("HOME", data.display());
        let run = if cx.with::<With>()?.cpu { run.arg("--cpu") } else { run };
        run.unprivileged().spawn().await
    }

    fn health_url(&self, ports: &BTreeMap<String, u16>, _with: &Value) -> Option<String> {
        ports.get("main").map(|port| format!("http://127.0.0.1:{port}/system_stats"))
    }

    async fn health(&self, cx: &Context) -> Result<Health> {
        cx.http("main", "/system_stats").expect("comfyui_version").await
    }
}

fn python(cx: &Context) -> PathBuf {
    cx.data_dir().join("venv/bin/python")
}

/// Makes its environment, or brings the one that is there to what this version requires.
async fn packages(cx: &Context, with: &With, code: &Path) -> Result<()> {
    cx.progress("making a virtual environment");
    let venv = cx.data_dir().join("venv");
    cx.run(with.python.display().to_string()).args(["-m", "venv"]).arg(venv.display()).unprivileged().success().await?;
    cx.progress("installing the Python packages of ComfyUI");
    let mut pip = cx
        .run(python(cx).display().to_string())
        .args(["-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--no-cache-dir"])
        .arg("--requirement")
        .arg(code.join("requirements.txt").display());
    if let Some(index) = &with.torch_index {
        pip = pip.arg("--extra-index-url").arg(index);
    }
    pip.limit_ms(PACKAGES_MS).unprivileged().success().await.map(drop)
}

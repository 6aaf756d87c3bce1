//! onnxruntime: a library that runs neural networks. It is placed once, for every service that rests on it.

use async_trait::async_trait;
use wharf_model::{ErrorKind, Facts, Failure, Installed};

use crate::{Context, Pinned, Result, Run, Service, Wanted};

/// ONNX Runtime from the Python package index: installed with the first service that rests on it, never started.
///
/// Limitation: it computes on the CPU; the index has its build for GPUs under another name.
pub struct OnnxRuntime;

const VERSIONS: &[Pinned] = &[Pinned { version: "1.31.1", sha256: &[] }];

#[async_trait]
impl Service for OnnxRuntime {
    fn facts(&self) -> Facts {
        Facts::new("onnxruntime", "Library that runs neural networks; installed, never started")
            .source("PyPI: onnxruntime, by a lock file with digests")
            .command("python3")
            .limitation("it computes on the CPU; the index has its build for GPUs under another name.")
    }

    fn is_tool(&self) -> bool {
        true
    }

    async fn install(&self, cx: &Context, want: &Wanted) -> Result<Installed> {
        let Pinned { version, .. } = Pinned::choose("onnxruntime", VERSIONS, want)?;
        cx.venv(version, include_str!("onnxruntime.lock"), want).binary(LIBRARY).place().await
    }

    async fn start(&self, cx: &Context) -> Result<Run> {
        Err(super::never_started(cx))
    }
}

/// One of its libraries: the others are named for the version of Python.
const LIBRARY: &str = "venv/lib/*/site-packages/onnxruntime/capi/libonnxruntime_providers_shared.so";

/// For PYTHONPATH of a service that rests on it.
pub(super) fn folder(cx: &Context) -> Result<String> {
    let placed = cx.placed_of("onnxruntime")?;
    let packages = placed.binaries.values().next().and_then(|library| library.ancestors().nth(3));
    packages.map(|folder| folder.display().to_string()).ok_or_else(|| {
        Failure::new(ErrorKind::Precondition, "onnxruntime is not as it was placed")
            .hint("place it again: wharf install onnxruntime --reset")
            .about(&cx.unit)
    })
}

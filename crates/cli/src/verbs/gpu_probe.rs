//! `wharf gpu-probe`: the process that asks NVIDIA's driver, for the daemon.

use crate::{Exit, session::Session, trouble::Outcome};

/// Ask NVIDIA's driver what standard input wants to know
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct GpuProbe {}

impl GpuProbe {
    pub(crate) fn run(self, _: &Session) -> Outcome {
        wharf_runtime::gpu::serve()?;
        Ok(Exit::Done)
    }
}

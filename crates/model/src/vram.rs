//! Limits of GPU memory for single cgroups as words: what a policy wants, what a run is given, what it came to.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DeviceId, LimitsBackend};

/// Whether what was declared is enforced, beyond being watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VramLimit {
    /// It is watched.
    #[default]
    None,
    /// Who has more is the first to lose memory, where the driver can do that.
    Soft,
    /// Who wants more gets no memory from the driver.
    Hard,
}

impl VramLimit {
    /// It is only watched.
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }
}

/// By what a limit of GPU memory is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Enforced {
    /// By nothing: what was declared is watched.
    #[default]
    None,
    /// By the kernel's dmem controller.
    Dmem,
    /// By NVIDIA's driver.
    Nvml,
}

/// How much of a device's memory a run may have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VramCap {
    /// Of which device.
    pub device: DeviceId,
    /// Its PCI address.
    pub pci: Option<String>,
    /// By what its memory can be limited.
    pub backend: LimitsBackend,
    /// How.
    pub how: VramLimit,
    /// How much.
    pub bytes: u64,
}

impl VramCap {
    /// By what it can be kept: the kernel's controller knows hard limits only.
    pub fn keeper(&self) -> Enforced {
        match (self.how, self.backend) {
            (VramLimit::None, _) | (_, LimitsBackend::None) | (VramLimit::Soft, LimitsBackend::Dmem) => Enforced::None,
            (VramLimit::Hard, LimitsBackend::Dmem) => Enforced::Dmem,
            (VramLimit::Soft | VramLimit::Hard, LimitsBackend::NvmlDmem | LimitsBackend::NvmlMisc) => Enforced::Nvml,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_kept_by_what_the_device_has() {
        let keeper = |how, backend| VramCap { device: "a".into(), pci: None, backend, how, bytes: 1 }.keeper();
        assert_eq!(keeper(VramLimit::Hard, LimitsBackend::Dmem), Enforced::Dmem);
        assert_eq!(keeper(VramLimit::Soft, LimitsBackend::Dmem), Enforced::None);
        assert_eq!(keeper(VramLimit::Soft, LimitsBackend::NvmlMisc), Enforced::Nvml);
        assert_eq!(keeper(VramLimit::Hard, LimitsBackend::NvmlDmem), Enforced::Nvml);
        assert_eq!(keeper(VramLimit::Hard, LimitsBackend::None), Enforced::None);
        assert_eq!(keeper(VramLimit::None, LimitsBackend::Dmem), Enforced::None);
    }
}

//! One look at one source: what it found, and what it could not ask.
//!
//! Owns the way from a source's own words to devices with holders. It waits for nobody.

use std::{collections::BTreeMap, path::Path};

use wharf_model::{Device, LimitsBackend, Vendor};

use super::{Ground, Pids, dmem, drm, ground, nvidia, reading::Reading, simulated, whose::Whose};

/// What one source found.
#[derive(Debug, Default)]
pub struct Part {
    pub devices: Vec<Device>,
    pub sources: Vec<String>,
    pub problems: Vec<String>,
}

/// What a reading means on this machine. Reads /proc for each process that it lists.
pub fn understood(reading: &Reading, ground: &Ground, before: &BTreeMap<u32, Device>) -> Part {
    let whose = Whose::new(&ground.runs);
    let dmem = dmem::read(&ground.root);
    let limits = match (reading.has_limits, dmem.is_there) {
        (true, true) => LimitsBackend::NvmlDmem,
        (true, false) => LimitsBackend::NvmlMisc,
        (false, _) => LimitsBackend::None,
    };
    let proofs = || {
        let pids = nvidia::listed(reading).into_iter().filter_map(|pid| i32::try_from(pid).ok());
        nvidia::pids_are_ours(pids.map(|pid| (whose.lives(pid), ground::has_nvidia_open(&ground.root, pid))))
    };
    let around = nvidia::Around {
        pids_are_ours: match ground.pids {
            Pids::FindOut => reading.is_stand_in || ground::is_first_pid_namespace(&ground.root) || proofs(),
            Pids::OfAnotherNamespace => proofs(),
        },
        limits,
        machine: ground::machine_memory(&ground.root),
        near: &|pci| drm::near(&ground.root, pci),
        process: &|pid, used, kind| whose.process(pid, used, kind),
        before,
    };
    let nvidia::Found { devices, problems } = nvidia::found(reading, &around);
    Part { devices, problems, sources: vec![format!("nvml {}", reading.driver)] }
}

/// AMD's and Intel's devices as the kernel shows them.
pub fn files(ground: &Ground) -> Part {
    let whose = Whose::new(&ground.runs);
    let (devices, problems) = drm::read(&ground.root, |pid, used, kind| whose.process(pid, used, kind));
    let has = |vendor: Vendor| devices.iter().any(|device| device.vendor == vendor);
    let sources = [(Vendor::Amd, "amdgpu"), (Vendor::Intel, "the kernel's files (Intel)")];
    let sources = sources.iter().filter(|(vendor, _)| has(*vendor)).map(|(_, name)| (*name).to_owned());
    Part { sources: sources.collect(), devices, problems }
}

/// The simulated devices as they are now.
pub fn declared(ground: &Ground) -> Part {
    let declared = match simulated::read(&ground.simulated) {
        Ok(Some(declared)) => declared,
        Ok(None) => return Part::default(),
        Err(why) => return Part { problems: vec![why], ..Part::default() },
    };
    let folder = declared.folder.clone().unwrap_or_else(|| ground.held.clone());
    let mut part = Part { sources: vec![file_name(&ground.simulated)], ..Part::default() };
    if let Err(e) = ground::make_open_folder(&folder) {
        part.problems.push(format!("{} could not be made for simulated devices: {e}", folder.display()));
    }
    let (held, problems) = simulated::held(&folder);
    part.problems.extend(problems);
    let whose = Whose::new(&ground.runs);
    part.devices = simulated::devices(&declared, &held, |pid, used, kind| whose.process(pid, used, kind));
    part
}

fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

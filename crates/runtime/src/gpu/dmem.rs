//! The kernel's own account of device memory: the dmem controller of cgroup2 (Linux 6.14).
//!
//! Owns the reading of its files. It refuses to set limits.

use std::{collections::BTreeMap, fs, path::Path};

/// Where a systemd-like hybrid and a pure machine have cgroup2.
const MOUNTS: [&str; 2] = ["sys/fs/cgroup/unified", "sys/fs/cgroup"];

/// The memory of devices by PCI address, as far as their drivers take part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dmem {
    /// The controller is there, with or without devices.
    pub is_there: bool,
    /// All of it, in bytes.
    pub capacity: BTreeMap<String, u64>,
    /// What is charged to the cgroups below the root, in bytes.
    pub current: BTreeMap<String, u64>,
}

/// Reads it; without the controller all is empty.
pub fn read(root: &Path) -> Dmem {
    let Some(mount) = MOUNTS.iter().map(|m| root.join(m)).find(|m| m.join("cgroup.controllers").exists()) else {
        return Dmem::default();
    };
    let text = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let is_there = text(&mount.join("cgroup.controllers")).split_ascii_whitespace().any(|name| name == "dmem");
    let mut current = BTreeMap::new();
    if is_there {
        // The root has no such file; what its children have includes all below them.
        for child in fs::read_dir(&mount).into_iter().flatten().flatten() {
            for (pci, bytes) in regions(&text(&child.path().join("dmem.current"))) {
                let sum: &mut u64 = current.entry(pci).or_insert(0);
                *sum = sum.saturating_add(bytes);
            }
        }
    }
    Dmem { is_there, capacity: regions(&text(&mount.join("dmem.capacity"))), current }
}

/// Lines of `drm/0000:03:00.0/vram0 8514437120`, summed by device. amdgpu calls its region `vram`; what is
/// not the device's own memory (`stolen`, `gtt`) does not count.
fn regions(text: &str) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for line in text.lines() {
        let Some((region, bytes)) = line.split_once(' ') else { continue };
        let mut parts = region.split('/');
        if let (Some("drm"), Some(pci), Some(name)) = (parts.next(), parts.next(), parts.next())
            && name.starts_with("vram")
            && let Ok(bytes) = bytes.trim().parse::<u64>()
        {
            let sum: &mut u64 = found.entry(pci.to_owned()).or_insert(0);
            *sum = sum.saturating_add(bytes);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_read_by_device() {
        let text = "drm/0000:03:00.0/vram0 8514437120\ndrm/0000:03:00.0/vram1 10\ndrm/0000:03:00.0/stolen 67108864\n\
            drm/0000:c6:00.0/vram 1073741824\nmisc 5\n";
        let wanted = [("0000:03:00.0".to_owned(), 8_514_437_130), ("0000:c6:00.0".to_owned(), 1 << 30)];
        assert_eq!(regions(text), BTreeMap::from(wanted));
    }

    #[test]
    fn what_the_cgroups_have_is_summed_and_a_kernel_without_it_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()), Dmem::default());
        let mount = dir.path().join("sys/fs/cgroup");
        for (path, text) in [
            ("cgroup.controllers", "cpu memory dmem\n"),
            ("dmem.capacity", "drm/0000:03:00.0/vram0 100\n"),
            ("user.slice/dmem.current", "drm/0000:03:00.0/vram0 30\n"),
            ("system.slice/dmem.current", "drm/0000:03:00.0/vram0 12\n"),
            ("system.slice/a.service/dmem.current", "drm/0000:03:00.0/vram0 12\n"),
        ] {
            fs::create_dir_all(mount.join(path).parent().unwrap()).unwrap();
            fs::write(mount.join(path), text).unwrap();
        }
        let dmem = read(dir.path());
        assert!(dmem.is_there);
        assert_eq!((dmem.capacity["0000:03:00.0"], dmem.current["0000:03:00.0"]), (100, 42));
    }
}

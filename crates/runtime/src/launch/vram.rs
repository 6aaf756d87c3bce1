//! GPU memory of a run: what its cgroup may have of each device, by the kernel's dmem controller.
//!
//! Owns `dmem.max` of the run's cgroup: written before anything lives in it, and read to say what holds. It refuses to
//! know NVIDIA's driver, which keeps limits of its own, and who may have how much.

use std::{fs, io, path::Path};

use wharf_model::{Enforced, VramCap};

const MAX: &str = "dmem.max";
/// Only the root of cgroup2 has it.
const CAPACITY: &str = "dmem.capacity";

/// Sets what the kernel is to keep. A cap that this machine cannot keep is said in the log, and the run goes on: what it
/// has is watched, as everybody's is.
pub(super) fn set(caps: &[VramCap], cgroup: Option<&Path>, name: &str) -> io::Result<()> {
    for cap in caps.iter().filter(|cap| cap.keeper() == Enforced::Dmem) {
        let lines = lines(cap, cgroup);
        let file = cgroup.map(|dir| dir.join(MAX)).filter(|file| file.exists());
        let Some(file) = file.filter(|_| !lines.is_empty()) else {
            tracing::warn!("{name}: the memory of {} cannot be limited for it here", cap.device);
            continue;
        };
        for line in lines {
            // A region a write, and no truncation: the kernel takes each as a command.
            let max = fs::OpenOptions::new().write(true).open(&file);
            max.and_then(|mut max| io::Write::write_all(&mut max, line.as_bytes()))
                .map_err(|e| io::Error::new(e.kind(), format!("{}: {line}: {e}", file.display())))?;
        }
    }
    Ok(())
}

/// Whether all that the kernel was to keep holds in a run's cgroup, by the kernel's own word.
pub fn holds(caps: &[VramCap], cgroup: Option<&Path>) -> bool {
    let wanted = caps.iter().filter(|cap| cap.keeper() == Enforced::Dmem).map(|cap| lines(cap, cgroup));
    let wanted: Vec<Vec<String>> = wanted.collect();
    let told = cgroup.and_then(|dir| fs::read_to_string(dir.join(MAX)).ok()).unwrap_or_default();
    let is_kept = |line: &String| told.lines().any(|told| told == line);
    !wanted.is_empty() && wanted.iter().all(|lines| !lines.is_empty() && lines.iter().all(is_kept))
}

/// A line for each region of the device's own memory. One of several regions (a card of tiles) gives each its part.
fn lines(cap: &VramCap, cgroup: Option<&Path>) -> Vec<String> {
    let root = cgroup.and_then(|dir| dir.ancestors().find(|above| above.join(CAPACITY).exists()));
    let told = root.and_then(|root| fs::read_to_string(root.join(CAPACITY)).ok()).unwrap_or_default();
    let mut regions: Vec<(&str, u64)> = vec![];
    for line in told.lines() {
        let Some((region, bytes)) = line.split_once(' ') else { continue };
        let mut parts = region.split('/');
        let is_own = parts.next() == Some("drm") && parts.next() == cap.pci.as_deref();
        if let (true, true, Ok(bytes)) =
            (is_own, parts.next().is_some_and(|name| name.starts_with("vram")), bytes.trim().parse())
        {
            regions.push((region, bytes));
        }
    }
    let total = regions.iter().map(|(_, bytes)| u128::from(*bytes)).sum::<u128>().max(1);
    let part = |of: u64| u128::from(cap.bytes) * u128::from(of) / total;
    regions.iter().map(|(region, bytes)| format!("{region} {}", part(*bytes))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
    use wharf_model::{LimitsBackend, VramLimit};

    /// A cgroup2 that is only files: what was written last stands in `dmem.max`.
    fn machine(capacity: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(CAPACITY), capacity).unwrap();
        let run = dir.path().join("system.slice/wharf-x/llama:3");
        fs::create_dir_all(&run).unwrap();
        fs::write(run.join(MAX), "").unwrap();
        (dir, run)
    }

    fn cap(pci: &str, how: VramLimit, backend: LimitsBackend) -> VramCap {
        VramCap { device: "GPU-1".into(), pci: Some(pci.into()), backend, how, bytes: 6 << 30 }
    }

    #[test]
    fn a_hard_limit_is_written_for_the_region_of_its_device_and_read_back() {
        let capacity = "drm/0000:03:00.0/vram0 8589934592\ndrm/0000:03:00.0/stolen 67108864\n\
            drm/0000:c6:00.0/vram0 8589934592\n";
        let (_dir, run) = machine(capacity);
        let caps = [cap("0000:03:00.0", VramLimit::Hard, LimitsBackend::Dmem)];
        assert!(!holds(&caps, Some(&run)), "not yet");
        set(&caps, Some(&run), "llama:3").unwrap();
        assert_eq!(fs::read_to_string(run.join(MAX)).unwrap(), "drm/0000:03:00.0/vram0 6442450944");
        assert!(holds(&caps, Some(&run)));
        fs::write(run.join(MAX), "drm/0000:03:00.0/vram0 max\n").unwrap();
        assert!(!holds(&caps, Some(&run)), "somebody has taken it away");
    }

    #[test]
    fn a_card_of_tiles_gives_each_its_part() {
        let (_dir, run) = machine("drm/0000:03:00.0/vram0 3000\ndrm/0000:03:00.0/vram1 1000\n");
        let lines = lines(&cap("0000:03:00.0", VramLimit::Hard, LimitsBackend::Dmem), Some(&run));
        assert_eq!(lines, ["drm/0000:03:00.0/vram0 4831838208", "drm/0000:03:00.0/vram1 1610612736"]);
    }

    #[test]
    fn what_the_kernel_cannot_keep_is_left_alone_and_the_run_goes_on() {
        let (dir, run) = machine("drm/0000:03:00.0/vram0 8589934592\n");
        let nothing = |caps: &[VramCap], cgroup: Option<&Path>| {
            set(caps, cgroup, "llama:3").unwrap();
            !holds(caps, cgroup) && fs::read_to_string(run.join(MAX)).unwrap().is_empty()
        };
        let hard = |pci| [cap(pci, VramLimit::Hard, LimitsBackend::Dmem)];
        assert!(nothing(&[], Some(&run)), "no limit is wanted");
        assert!(
            nothing(&[cap("0000:03:00.0", VramLimit::Soft, LimitsBackend::Dmem)], Some(&run)),
            "it has no soft one"
        );
        assert!(nothing(&[cap("0000:03:00.0", VramLimit::Hard, LimitsBackend::NvmlDmem)], Some(&run)), "the driver's");
        assert!(nothing(&hard("0000:99:00.0"), Some(&run)), "no such device");
        assert!(nothing(&hard("0000:03:00.0"), None), "no cgroup");
        assert!(nothing(&hard("0000:03:00.0"), Some(dir.path())), "a kernel that does not hand the controller on");
    }
}

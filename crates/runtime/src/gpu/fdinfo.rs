//! Device memory by process, as the kernel's graphics drivers tell it in `/proc/PID/fdinfo`
//! (drm-usage-stats), for AMD and Intel.
//!
//! Owns the reading and the counting. It refuses to know devices beyond their PCI addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// One client of a graphics driver: an open file. Copies of the descriptor are the same client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// The device's PCI address.
    pub pci: String,
    /// Which client of that device.
    pub id: u64,
    /// The memory of the device that it has, in bytes. None: its driver does not tell.
    pub used_bytes: Option<u64>,
}

/// Reads one fdinfo; none where it is of no graphics device.
pub fn parse(text: &str) -> Option<Client> {
    let fields: BTreeMap<&str, &str> =
        text.lines().filter_map(|line| line.split_once(':')).map(|(key, value)| (key, value.trim())).collect();
    // What is there, before what was asked for; the second is the older name of the first.
    let used = ["drm-resident-", "drm-memory-", "drm-total-"].iter().find_map(|prefix| {
        let regions = fields.iter().filter_map(|(key, value)| Some((key.strip_prefix(prefix)?, *value)));
        let own: Vec<u64> = regions.filter(|(region, _)| is_device_memory(region)).filter_map(|r| size(r.1)).collect();
        (!own.is_empty()).then(|| own.iter().fold(0, |sum: u64, one| sum.saturating_add(*one)))
    });
    Some(Client {
        pci: (*fields.get("drm-pdev")?).to_owned(),
        id: fields.get("drm-client-id")?.parse().ok()?,
        used_bytes: used,
    })
}

/// amdgpu says `vram`, xe `vram0`, i915 `local0`. The rest (`gtt`, `system`, `stolen`) is the machine's memory.
fn is_device_memory(region: &str) -> bool {
    region.starts_with("vram") || region.starts_with("local")
}

/// `23992 KiB`, `16 MiB`, `4096`.
fn size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_once(' ').unwrap_or((text, ""));
    let factor = match unit.trim() {
        "" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// What each process has of each device, by PCI address and pid. A client that several processes have open
/// is counted once, for the oldest of them.
pub fn read(root: &Path) -> BTreeMap<String, BTreeMap<i32, Option<u64>>> {
    let mut pids: Vec<i32> = names(&root.join("proc")).iter().filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    let mut counted = BTreeSet::new();
    let mut found: BTreeMap<String, BTreeMap<i32, Option<u64>>> = BTreeMap::new();
    for pid in pids {
        for client in clients(&root.join(format!("proc/{pid}"))) {
            if counted.insert((client.pci.clone(), client.id)) {
                let sum = found.entry(client.pci).or_default().entry(pid).or_insert(Some(0));
                *sum = sum.zip(client.used_bytes).map(|(sum, more)| sum.saturating_add(more));
            }
        }
    }
    found
}

/// The graphics clients of one process. Most descriptors are none: only those of /dev/dri are read.
fn clients(process: &Path) -> Vec<Client> {
    let is_graphics = |number: &String| {
        fs::read_link(process.join("fd").join(number)).is_ok_and(|target| target.starts_with("/dev/dri"))
    };
    let numbers = names(&process.join("fd")).into_iter().filter(is_graphics);
    numbers.filter_map(|number| parse(&fs::read_to_string(process.join("fdinfo").join(number)).ok()?)).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AMD: &str = "pos:\t0\nflags:\t02100002\nmnt_id:\t26\nino:\t1036\ndrm-driver:\tamdgpu\ndrm-client-id:\t32\n\
        drm-pdev:\t0000:03:00.0\npasid:\t32775\ndrm-total-cpu:\t0\ndrm-total-gtt:\t2048 KiB\n\
        drm-total-vram:\t9216 KiB\ndrm-shared-vram:\t0\ndrm-resident-vram:\t8192 KiB\ndrm-memory-vram:\t8192 KiB\n";

    #[test]
    fn each_driver_names_its_memory_differently() {
        let amd = parse(AMD).unwrap();
        assert_eq!((amd.pci.as_str(), amd.id, amd.used_bytes), ("0000:03:00.0", 32, Some(8192 << 10)));
        let old = "drm-driver:\tamdgpu\ndrm-pdev:\t0000:03:00.0\ndrm-client-id:\t2\ndrm-memory-vram:\t7 KiB\n";
        assert_eq!(parse(old).unwrap().used_bytes, Some(7 << 10));
        let xe = "drm-client-id:\t3\ndrm-pdev:\t0000:03:00.0\ndrm-resident-gtt:\t192 KiB\ndrm-shared-vram0:\t16 MiB\n\
            drm-resident-vram0:\t23992 KiB\ndrm-resident-vram1:\t8 KiB\ndrm-resident-stolen:\t9 MiB\n";
        assert_eq!(parse(xe).unwrap().used_bytes, Some(24_000 << 10));
        let i915 =
            "drm-client-id:\t9\ndrm-pdev:\t0000:0a:00.0\ndrm-total-local0:\t2 MiB\ndrm-resident-local0:\t1 MiB\n";
        assert_eq!(parse(i915).unwrap().used_bytes, Some(1 << 20));
        assert_eq!(parse("drm-client-id:\t9\ndrm-pdev:\t0000:0a:00.0\n").unwrap().used_bytes, None);
        assert_eq!(parse("pos:\t0\nflags:\t02\n"), None);
        assert_eq!(parse("drm-pdev:\t0000:0a:00.0\n"), None, "a client without a number cannot be counted once");
    }

    #[test]
    fn a_client_that_a_child_inherited_is_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        for (pid, fd) in [(41, 5), (41, 6), (77, 5)] {
            let process = dir.path().join(format!("proc/{pid}"));
            fs::create_dir_all(process.join("fd")).unwrap();
            fs::create_dir_all(process.join("fdinfo")).unwrap();
            std::os::unix::fs::symlink("/dev/dri/renderD128", process.join(format!("fd/{fd}"))).unwrap();
            fs::write(process.join(format!("fdinfo/{fd}")), AMD).unwrap();
        }
        let found = read(dir.path());
        assert_eq!(found["0000:03:00.0"], BTreeMap::from([(41, Some(8192 << 10))]));
    }
}

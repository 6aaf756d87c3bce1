//! Recorded machines with AMD's and Intel's devices.

use std::os::unix::fs::symlink;

use super::*;

/// A machine as its kernel shows it, file by file.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, path: &str, bytes: impl AsRef<[u8]>) -> &Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self
    }

    fn card(&self, number: u32, pci: &str, files: &[(&str, &str)]) -> &Self {
        let device = format!("sys/devices/pci0000:00/{pci}");
        for (name, text) in files {
            self.write(&format!("{device}/{name}"), format!("{text}\n"));
        }
        let drm = self.0.path().join(format!("sys/class/drm/card{number}"));
        fs::create_dir_all(&drm).unwrap();
        fs::create_dir_all(self.0.path().join(format!("sys/class/drm/card{number}-DP-1"))).unwrap();
        symlink(self.0.path().join(device), drm.join("device")).unwrap();
        self
    }

    fn client(&self, pid: i32, fd: u32, fdinfo: &str) -> &Self {
        self.write(&format!("proc/{pid}/fdinfo/{fd}"), fdinfo);
        let fds = self.0.path().join(format!("proc/{pid}/fd"));
        fs::create_dir_all(&fds).unwrap();
        symlink("/dev/dri/renderD128", fds.join(fd.to_string())).unwrap();
        self
    }

    fn read(&self) -> (Vec<Device>, Vec<String>) {
        read(self.0.path(), DeviceProcess::new)
    }
}

fn told(device: &Device) -> Vec<(i32, Option<u64>, ProcessKind)> {
    device.processes.iter().flatten().map(|p| (p.pid, p.used_bytes, p.kind)).collect()
}

#[test]
fn amd_cards_are_read_with_those_who_compute_and_those_who_draw() {
    let tree = Tree::new();
    for (number, pci, unique) in [(1, "0000:03:00.0", "9f3e2a1b4c5d6e7f"), (2, "0000:83:00.0", "1111111111111111")] {
        tree.card(
            number,
            pci,
            &[
                ("vendor", "0x1002"),
                ("mem_info_vram_total", "25753026560"),
                ("mem_info_vram_used", "9000000000"),
                ("mem_info_gtt_total", "33000000000"),
                ("mem_info_gtt_used", "5"),
                ("unique_id", unique),
                ("numa_node", "-1"),
                ("product_name", "Radeon PRO W7900"),
            ],
        );
    }
    tree.write("sys/class/kfd/kfd/topology/nodes/0/gpu_id", "0\n")
        .write("sys/class/kfd/kfd/topology/nodes/0/properties", "cpu_cores_count 16\nlocation_id 0\n")
        .write("sys/class/kfd/kfd/topology/nodes/1/gpu_id", "51962\n")
        .write("sys/class/kfd/kfd/topology/nodes/1/properties", "location_id 768\ndomain 0\nhive_id 77\n")
        .write("sys/class/kfd/kfd/topology/nodes/2/gpu_id", "7\n")
        .write("sys/class/kfd/kfd/topology/nodes/2/properties", "location_id 33536\ndomain 0\nhive_id 77\n")
        .write("sys/class/kfd/kfd/proc/500/vram_51962", "8000000000\n")
        .write("sys/class/kfd/kfd/proc/500/vram_7", "0\n")
        .client(500, 9, "drm-client-id:\t4\ndrm-pdev:\t0000:03:00.0\ndrm-memory-vram:\t1 KiB\n")
        .client(600, 4, "drm-client-id:\t5\ndrm-pdev:\t0000:03:00.0\ndrm-resident-vram:\t512 MiB\n")
        .client(700, 4, "drm-client-id:\t6\ndrm-pdev:\t0000:03:00.0\ndrm-resident-vram:\t0\n")
        .write("sys/fs/cgroup/cgroup.controllers", "cpu dmem\n")
        .write("sys/fs/cgroup/dmem.capacity", "drm/0000:03:00.0/vram 25753026560\n");
    let (devices, problems) = tree.read();
    assert_eq!((devices.len(), problems), (2, vec![]));
    let first = &devices[0];
    assert_eq!((first.id.to_string().as_str(), first.vendor), ("GPU-9f3e2a1b4c5d6e7f", Vendor::Amd));
    assert_eq!((first.total_bytes, first.used_bytes), (25_753_026_560, Some(9_000_000_000)));
    assert_eq!((first.numa_node, first.unified, first.limits), (None, false, LimitsBackend::Dmem));
    assert_eq!(
        told(first),
        [(500, Some(8_000_000_000), ProcessKind::Compute), (600, Some(512 << 20), ProcessKind::Graphics)]
    );
    assert_eq!((first.island, devices[1].island), (Some(0), Some(0)), "one hive");
    assert_eq!(devices[1].limits, LimitsBackend::None);
}

#[test]
fn a_processor_with_graphics_has_the_machines_memory() {
    let tree = Tree::new();
    tree.card(
        0,
        "0000:c6:00.0",
        &[
            ("vendor", "0x1002"),
            ("mem_info_vram_total", "1073741824"),
            ("mem_info_vram_used", "1006202880"),
            ("mem_info_gtt_total", "120259084288"),
            ("mem_info_gtt_used", "1590456320"),
        ],
    );
    tree.write("sys/devices/pci0000:00/0000:c6:00.0/gpu_metrics", [0x78, 0, 3, 0]);
    let device = &tree.read().0[0];
    assert!(device.unified);
    assert_eq!((device.id.to_string().as_str(), device.total_bytes), ("PCI-0000:c6:00.0", 121_332_826_112));
    assert_eq!(device.used_bytes, Some(2_596_659_200));
}

#[test]
fn intels_card_is_known_by_the_kernels_account_or_named_as_unknown() {
    let tree = Tree::new();
    tree.card(0, "0000:00:02.0", &[("vendor", "0x8086")]).card(1, "0000:03:00.0", &[("vendor", "0x8086")]);
    let (devices, problems) = tree.read();
    assert!(devices.is_empty());
    assert!(problems.len() == 1 && problems[0].contains("0000:03:00.0") && problems[0].contains("dmem"));
    tree.client(800, 3, "drm-client-id:\t4\ndrm-pdev:\t0000:03:00.0\ndrm-resident-vram0:\t3 MiB\n")
        .write("sys/fs/cgroup/cgroup.controllers", "cpu dmem\n")
        .write("sys/fs/cgroup/dmem.capacity", "drm/0000:03:00.0/vram0 12000000000\n")
        .write("sys/fs/cgroup/user.slice/dmem.current", "drm/0000:03:00.0/vram0 5000000\n");
    let (devices, problems) = tree.read();
    assert_eq!((devices.len(), problems), (1, vec![]));
    let card = &devices[0];
    assert_eq!((card.vendor, card.total_bytes, card.used_bytes), (Vendor::Intel, 12_000_000_000, Some(5_000_000)));
    assert_eq!(told(card), [(800, Some(3 << 20), ProcessKind::Graphics)]);
}

#[test]
fn a_machine_without_such_cards_has_none() {
    let tree = Tree::new();
    assert!(!is_there(tree.0.path()));
    tree.card(0, "0000:01:00.0", &[("vendor", "0x10de")]);
    assert!(!is_there(tree.0.path()));
}

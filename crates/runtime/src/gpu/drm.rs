//! AMD's and Intel's devices, from the kernel's files: no library, and no call that could hang in one.
//!
//! Owns `/sys/class/drm` and what it means. It refuses to know NVIDIA's cards, which are there too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use wharf_model::{Device, DeviceKind, DeviceProcess, LimitsBackend, ProcessKind, Vendor};

use super::{dmem, dmem::Dmem, fdinfo, kfd, kfd::Node};

/// What the kernel says of one card.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Card {
    number: u32,
    vendor: Vendor,
    pci: String,
    name: Option<String>,
    unique_id: Option<String>,
    numa_node: Option<u32>,
    /// All and used, in bytes, where a file tells.
    vram: (Option<u64>, Option<u64>),
    /// The machine's memory that it may use.
    gtt: (Option<u64>, Option<u64>),
    /// It has no memory of its own but a part that the firmware set aside.
    is_integrated: bool,
}

/// Whether there is any card to look at: two folders are read.
pub fn is_there(root: &Path) -> bool {
    !cards(root).is_empty()
}

/// The devices, and what could not be asked. Reads all of /proc where there is a card: some milliseconds.
pub fn read(
    root: &Path,
    process: impl Fn(i32, Option<u64>, ProcessKind) -> DeviceProcess,
) -> (Vec<Device>, Vec<String>) {
    let cards = cards(root);
    if cards.is_empty() {
        return (vec![], vec![]);
    }
    let (clients, nodes, dmem) = (fdinfo::read(root), kfd::read(root), dmem::read(root));
    let hives: BTreeSet<u64> = nodes.values().filter_map(|node| node.hive).collect();
    let (mut devices, mut problems) = (vec![], vec![]);
    for card in cards {
        let node = nodes.get(&card.pci);
        let holders = holders(clients.get(&card.pci), node);
        match full(&card, &holders, &dmem) {
            Ok(Some((total, used))) => {
                let known = |(pid, (used, kind)): (&i32, &(Option<u64>, ProcessKind))| process(*pid, *used, *kind);
                let processes = Some(holders.iter().map(known).collect());
                let hive = node.and_then(|node| node.hive);
                let island = hive.and_then(|hive| u32::try_from(hives.iter().position(|other| *other == hive)?).ok());
                devices.push(device(card, total, used, island, &dmem, processes));
            }
            Ok(None) => {}
            Err(why) => problems.push(why),
        }
    }
    (devices, problems)
}

/// All and used. None: it has no memory of its own to hand out.
fn full(
    card: &Card,
    holders: &BTreeMap<i32, (Option<u64>, ProcessKind)>,
    dmem: &Dmem,
) -> Result<Option<(u64, Option<u64>)>, String> {
    let named = || holders.values().try_fold(0_u64, |sum, (used, _)| Some(sum.saturating_add((*used)?)));
    match card.vendor {
        // Its programs use both: what the firmware set aside, and as much more as the kernel lets them.
        Vendor::Amd if card.is_integrated => {
            let ((vram, vram_used), (gtt, gtt_used)) = (card.vram, card.gtt);
            let sum = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a + b);
            Ok(sum(vram, gtt).map(|total| (total, sum(vram_used, gtt_used))))
        }
        Vendor::Amd => Ok(card.vram.0.map(|total| (total, card.vram.1))),
        Vendor::Intel => match dmem.capacity.get(&card.pci).copied().or(card.vram.0) {
            Some(total) => {
                // Nothing tells what is used: what the cgroups are charged, or what the processes say.
                let used = named().max(dmem.current.get(&card.pci).copied());
                Ok(Some((total, used.map(|used| used.min(total)))))
            }
            None if card.is_integrated => Ok(None),
            None => Err(format!(
                "how much memory Intel's card {} has is not told: that takes Linux 6.14 with its dmem controller",
                card.pci
            )),
        },
        Vendor::Nvidia | Vendor::Simulated => Ok(None),
    }
}

/// Who has memory. Compute need not show in fdinfo, and what shows in both is the same memory.
fn holders(
    clients: Option<&BTreeMap<i32, Option<u64>>>,
    node: Option<&Node>,
) -> BTreeMap<i32, (Option<u64>, ProcessKind)> {
    let mut found: BTreeMap<i32, (Option<u64>, ProcessKind)> = BTreeMap::new();
    for (pid, used) in clients.into_iter().flatten() {
        // A client without memory is somebody who looks at the card, like us.
        if *used != Some(0) {
            found.insert(*pid, (*used, ProcessKind::Graphics));
        }
    }
    for (pid, used) in node.iter().flat_map(|node| &node.processes) {
        let before = found.get(pid).and_then(|(used, _)| *used);
        found.insert(*pid, (before.max(Some(*used)), ProcessKind::Compute));
    }
    found
}

fn device(
    card: Card,
    total_bytes: u64,
    used_bytes: Option<u64>,
    island: Option<u32>,
    dmem: &Dmem,
    processes: Option<Vec<DeviceProcess>>,
) -> Device {
    let maker = if card.vendor == Vendor::Amd { "AMD" } else { "Intel" };
    let id = match &card.unique_id {
        Some(unique) => format!("GPU-{unique}"),
        None => format!("PCI-{}", card.pci),
    };
    Device {
        id: id.as_str().into(),
        vendor: card.vendor,
        name: card.name.unwrap_or_else(|| format!("{maker} card {}", card.number)),
        kind: DeviceKind::Gpu,
        parent: None,
        index: card.number,
        numa_node: card.numa_node,
        island,
        total_bytes,
        used_bytes,
        reserved_bytes: 0,
        unified: card.is_integrated,
        keeps_memory: false,
        limits: if dmem.capacity.contains_key(&card.pci) { LimitsBackend::Dmem } else { LimitsBackend::None },
        taints: vec![],
        processes,
        pci: Some(card.pci),
    }
}

fn cards(root: &Path) -> Vec<Card> {
    let folder = root.join("sys/class/drm");
    let mut found: Vec<Card> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        // `card0` is a card, `card0-DP-1` a plug of it.
        .filter_map(|entry| entry.file_name().to_str()?.strip_prefix("card")?.parse().ok())
        .filter_map(|number| card(number, &folder.join(format!("card{number}/device"))))
        .collect();
    found.sort_by_key(|card| card.number);
    found
}

fn card(number: u32, device: &Path) -> Option<Card> {
    let text = |name: &str| fs::read_to_string(device.join(name)).ok().map(|text| text.trim().to_owned());
    let bytes = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
    let vendor = match text("vendor")?.as_str() {
        "0x1002" => Vendor::Amd,
        "0x8086" => Vendor::Intel,
        _ => return None,
    };
    let pci = fs::read_link(device).ok()?.file_name()?.to_str()?.to_owned();
    let is_integrated = match vendor {
        Vendor::Amd => is_apu(&fs::read(device.join("gpu_metrics")).unwrap_or_default()),
        // Intel's own are at the processor's own bus.
        Vendor::Intel => pci.starts_with("0000:00:"),
        Vendor::Nvidia | Vendor::Simulated => false,
    };
    let tiles = (0..4).filter_map(|tile| bytes(&format!("tile{tile}/physical_vram_size_bytes")));
    let of_tiles = tiles.reduce(|all, one| all + one);
    Some(Card {
        number,
        vendor,
        name: text("product_name").filter(|name| !name.is_empty()),
        unique_id: text("unique_id").filter(|id| !id.trim_start_matches('0').is_empty()),
        numa_node: text("numa_node").and_then(|node| node.parse().ok()),
        vram: (bytes("mem_info_vram_total").or(of_tiles), bytes("mem_info_vram_used")),
        gtt: (bytes("mem_info_gtt_total"), bytes("mem_info_gtt_used")),
        is_integrated,
        pci,
    })
}

/// The third byte of `gpu_metrics` is the format: 1 are cards, 2 and 3 processors with graphics.
fn is_apu(metrics: &[u8]) -> bool {
    matches!(metrics.get(2), Some(2 | 3))
}

/// The memory node that a PCI address is near to.
pub fn near(root: &Path, pci: &str) -> Option<u32> {
    let path: PathBuf = root.join("sys/bus/pci/devices").join(pci).join("numa_node");
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
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
            read(self.0.path(), |pid, used_bytes, kind| DeviceProcess {
                pid,
                identity: None,
                used_bytes,
                kind,
                unit: None,
                program: None,
                uid: None,
                belongs_to: None,
                parents: vec![],
            })
        }
    }

    fn told(device: &Device) -> Vec<(i32, Option<u64>, ProcessKind)> {
        device.processes.iter().flatten().map(|p| (p.pid, p.used_bytes, p.kind)).collect()
    }

    #[test]
    fn amd_cards_are_read_with_those_who_compute_and_those_who_draw() {
        let tree = Tree::new();
        for (number, pci, unique) in [(1, "0000:03:00.0", "9f3e2a1b4c5d6e7f"), (2, "0000:83:00.0", "1111111111111111")]
        {
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
}

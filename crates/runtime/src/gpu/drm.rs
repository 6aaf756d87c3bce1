//! AMD's and Intel's devices, from the kernel's files: no library, and no call that could hang in one.
//!
//! Owns `/sys/class/drm` and what it means. It refuses to know NVIDIA's cards, which are there too.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use wharf_model::{Device, DeviceProcess, LimitsBackend, ProcessKind, Vendor};

use super::{dmem, dmem::Dmem, fdinfo, kfd, kfd::Node};

#[cfg(test)]
mod tests;

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
            let sum = |a: Option<u64>, b: Option<u64>| a.zip(b).map(|(a, b)| a.saturating_add(b));
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
        name: card.name.unwrap_or_else(|| format!("{maker} card {}", card.number)),
        index: card.number,
        numa_node: card.numa_node,
        island,
        used_bytes,
        unified: card.is_integrated,
        limits: if dmem.capacity.contains_key(&card.pci) { LimitsBackend::Dmem } else { LimitsBackend::None },
        processes,
        pci: Some(card.pci),
        ..Device::new(id.as_str(), card.vendor, total_bytes)
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
        // To read this wakes a device that sleeps; only cards sleep.
        Vendor::Amd if text("power/runtime_status").is_some_and(|status| status == "suspended") => false,
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

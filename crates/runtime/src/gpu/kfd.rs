//! AMD's compute driver in sysfs: memory by process, and which devices reach each other.
//!
//! Owns the reading of `/sys/class/kfd/kfd`. Compute need not show in fdinfo: this is its other half.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

/// What it says of one device.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Node {
    /// Devices of one hive reach each other by xGMI.
    pub hive: Option<u64>,
    /// What each process has, in bytes, by pid.
    pub processes: BTreeMap<i32, u64>,
}

/// Its devices by PCI address.
pub fn read(root: &Path) -> BTreeMap<String, Node> {
    let kfd = root.join("sys/class/kfd/kfd");
    let mut by_id: HashMap<String, String> = HashMap::new();
    let mut found = BTreeMap::new();
    for node in names(&kfd.join("topology/nodes")) {
        let node = kfd.join("topology/nodes").join(node);
        let text = |name: &str| fs::read_to_string(node.join(name)).unwrap_or_default();
        let (id, properties) = (text("gpu_id").trim().to_owned(), text("properties"));
        // The machine's processors are nodes too, with the number 0.
        let Some(pci) = pci_in(&properties).filter(|_| !matches!(id.as_str(), "" | "0")) else { continue };
        by_id.insert(id, pci.clone());
        let hive = number_in(&properties, "hive_id").filter(|hive| *hive != 0);
        found.insert(pci, Node { hive, ..Node::default() });
    }
    for process in names(&kfd.join("proc")) {
        let Ok(pid) = process.parse::<i32>() else { continue };
        for (id, pci) in &by_id {
            let bytes = fs::read_to_string(kfd.join("proc").join(&process).join(format!("vram_{id}"))).ok();
            if let (Some(bytes), Some(node)) = (bytes.and_then(|b| b.trim().parse().ok()), found.get_mut(pci)) {
                node.processes.insert(pid, bytes);
            }
        }
    }
    found
}

/// `location_id` is bus, device and function; `domain` stands by itself.
fn pci_in(properties: &str) -> Option<String> {
    let location = number_in(properties, "location_id")?;
    let domain = number_in(properties, "domain").unwrap_or(0);
    let (bus, device, function) = (location >> 8 & 0xFF, location >> 3 & 0x1F, location & 7);
    Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function}"))
}

fn number_in(properties: &str, key: &str) -> Option<u64> {
    let mut lines = properties.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == key)?.1.trim().parse().ok()
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_pci_address() {
        assert_eq!(pci_in("domain 1\nlocation_id 49921\n").unwrap(), "0001:c3:00.1");
        assert_eq!(pci_in("location_id 792\n").unwrap(), "0000:03:03.0");
        assert_eq!(pci_in("cpu_cores_count 16\n"), None);
    }
}

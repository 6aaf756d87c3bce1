//! Devices that a file declares: for machines without a GPU, for demos and for tests.
//!
//! Owns `gpus.toml` and the folder in which programs write what they would have taken:
//!
//! ```toml
//! [[device]]
//! id = "sim-0"
//! name = "Simulated"   # none: its id
//! total = "8GiB"
//! island = 0           # devices with the same number reach each other directly
//! reserved = "256MiB"  # taken from the start
//! ```
//!
//! A program that plays an engine writes `<folder>/<its pid>`, whole or by a rename, and may write it anew:
//!
//! ```json
//! {"start_ticks": 123456, "devices": {"sim-0": 1073741824}}
//! ```
//!
//! `start_ticks` is field 22 of its `/proc/self/stat`. The file counts as long as that very process lives,
//! and only if it belongs to that process's user: as with a real device, death gives memory back.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use wharf_model::{Device, DeviceProcess, ProcessKind, Vendor};

#[cfg(test)]
mod tests;

/// No honest file of a process is longer.
const LONGEST: u64 = 64 * 1024;

/// `gpus.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declared {
    /// Where programs write what they have; none: a folder of the installation.
    #[serde(default)]
    pub folder: Option<PathBuf>,
    /// The devices.
    #[serde(default)]
    pub device: Vec<Simulated>,
}

/// One device of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Simulated {
    /// What it is called.
    pub id: String,
    /// What it is sold as.
    #[serde(default)]
    pub name: Option<String>,
    /// All its memory: `8GiB`, `800MiB`, or bytes.
    pub total: Size,
    /// Taken from the start.
    #[serde(default)]
    pub reserved: Size,
    /// Its island.
    #[serde(default)]
    pub island: Option<u32>,
}

/// A number of bytes: `8GiB`, `1.5 GiB`, `800MiB`, `4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "Written")]
pub struct Size(pub u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Bytes(u64),
    Text(String),
}

impl TryFrom<Written> for Size {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        match written {
            Written::Bytes(bytes) => Ok(Self(bytes)),
            Written::Text(text) => {
                let wrong = || format!("{text:?} is no size: write 8GiB, 800MiB or a number of bytes");
                size(&text).map(Self).ok_or_else(wrong)
            }
        }
    }
}

/// Up to three digits behind a point: sizes are whole numbers everywhere else.
fn size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    if part.is_empty() || part.len() > 3 {
        return None;
    }
    let thousandths = whole.parse::<u64>().ok()?.checked_mul(1000)?;
    let thousandths = thousandths.checked_add(format!("{part:0<3}").parse().ok()?)?;
    u64::try_from(u128::from(thousandths) * u128::from(factor) / 1000).ok()
}

/// What a program that plays an engine writes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Held {
    /// When it started, in ticks since boot: tells it from a later process with its number.
    pub start_ticks: u64,
    /// Bytes by device.
    pub devices: BTreeMap<String, u64>,
}

/// Reads the file; none where there is none.
///
/// # Errors
/// What is wrong with it, for people.
pub fn read(path: &Path) -> Result<Option<Declared>, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("{} cannot be read: {e}", path.display())),
    };
    parse(&text).map(Some).map_err(|why| format!("{} is not understood: {why}", path.display()))
}

fn parse(text: &str) -> Result<Declared, String> {
    let declared: Declared = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
    let mut seen = BTreeSet::new();
    for device in &declared.device {
        if device.id.is_empty() || device.id.contains([',', ' ', '/']) {
            return Err(format!("the id {:?} is empty or has a comma, a space or a slash", device.id));
        }
        if !seen.insert(&device.id) {
            return Err(format!("two devices are called {}", device.id));
        }
        if device.total.0 <= device.reserved.0 {
            return Err(format!("{} has no memory: total must be more than reserved", device.id));
        }
    }
    Ok(declared)
}

/// What living processes wrote, by pid; and what could not be read.
pub fn held(folder: &Path) -> (BTreeMap<i32, Held>, Vec<String>) {
    let (mut found, mut problems) = (BTreeMap::new(), vec![]);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let Some((start_ticks, uid)) = alive(pid) else { continue };
        match read_held(&entry.path()) {
            // Of an earlier process, or not its own word.
            Ok((held, owner)) if held.start_ticks != start_ticks || (owner != uid && owner != 0) => {}
            Ok((held, _)) => {
                found.insert(pid, held);
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => problems.push(format!("{} cannot be read: {e}", entry.path().display())),
        }
    }
    (found, problems)
}

fn read_held(path: &Path) -> io::Result<(Held, u32)> {
    // The folder may be open to others: no link is followed, and nothing is waited for.
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let file: File = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    let owner = file.metadata()?.uid();
    let mut text = vec![];
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok((serde_json::from_slice(&text)?, owner))
}

/// When a living process started, and whose it is. A zombie holds nothing.
fn alive(pid: i32) -> Option<(u64, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    let start_ticks = fields.nth(18)?.parse().ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let uids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    // The effective one: files are made with it.
    Some((start_ticks, uids.split_ascii_whitespace().nth(1)?.parse().ok()?))
}

/// The devices with what is held of them.
pub fn devices(
    declared: &Declared,
    held: &BTreeMap<i32, Held>,
    process: impl Fn(i32, Option<u64>, ProcessKind) -> DeviceProcess,
) -> Vec<Device> {
    let device = |(index, device): (u32, &Simulated)| {
        let of = |held: &Held| held.devices.get(&device.id).copied().filter(|bytes| *bytes > 0);
        let holders: Vec<(i32, u64)> = held.iter().filter_map(|(pid, held)| Some((*pid, of(held)?))).collect();
        let named = holders.iter().fold(device.reserved.0, |sum, (_, bytes)| sum.saturating_add(*bytes));
        let holders = holders.iter().map(|(pid, bytes)| process(*pid, Some(*bytes), ProcessKind::Compute));
        Device {
            name: device.name.clone().unwrap_or_else(|| device.id.clone()),
            index,
            island: device.island,
            used_bytes: Some(named.min(device.total.0)),
            reserved_bytes: device.reserved.0,
            processes: Some(holders.collect()),
            ..Device::new(device.id.as_str(), Vendor::Simulated, device.total.0)
        }
    };
    (0..).zip(&declared.device).map(device).collect()
}

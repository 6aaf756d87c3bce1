//! What people and the kernel say of ports: `ports.toml`, and the range of outgoing connections.
//!
//! ```toml
//! [[range]]                 # with any, these are the whole table
//! purpose = "gpu"
//! from = 8000
//! to = 8009
//!
//! [[range]]                 # never handed out, only by number
//! purpose = "ingress"
//! from = 8080
//! to = 8080
//! reserved_for = "Restate"
//!
//! [units."command@sd"]
//! purpose = "gpu"           # else: gpu for a unit that asks for one
//! bind = "any"              # it is meant to be reached from outside; else: loopback
//! ```

use std::{collections::BTreeMap, fs, io, path::Path};

use serde::Deserialize;
use wharf_model::{ErrorKind, Failure, PortRange, Reach, UnitName};

/// `ports.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The table of ranges; empty: the usual one.
    #[serde(rename = "range")]
    pub ranges: Vec<PortRange>,
    /// What is said of single units.
    pub units: BTreeMap<UnitName, OfUnit>,
}

/// What is said of a unit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OfUnit {
    /// What its ports are for.
    pub purpose: Option<String>,
    /// From where they may be reached.
    pub bind: Option<Reach>,
}

impl Settings {
    /// Reads the file; without one everything is as usual.
    ///
    /// # Errors
    /// `precondition`: it cannot be read, or is not what it should be.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = match fs::read_to_string(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            read => read.map_err(|e| wrong(path, &e))?,
        };
        toml::from_str(&text).map_err(|e| wrong(path, &e))
    }
}

fn wrong(path: &Path, e: &dyn std::fmt::Display) -> Failure {
    let text = format!("{} cannot be read: {}", path.display(), e.to_string().trim());
    Failure::new(ErrorKind::Precondition, text).hint("correct it, or move it away for the usual table (docs/ports.md)")
}

/// The ports that the kernel gives to outgoing connections, less those that it is told to leave alone: firsts and lasts.
pub fn ephemeral() -> Vec<(u16, u16)> {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    left(&read("ip_local_port_range"), &read("ip_local_reserved_ports"))
}

fn left(range: &str, reserved: &str) -> Vec<(u16, u16)> {
    let mut ends = range.split_ascii_whitespace().filter_map(|end| end.parse::<u16>().ok());
    let (Some(first), Some(last)) = (ends.next(), ends.next()) else { return vec![] };
    let mut left = vec![];
    let mut next = Some(first);
    for part in reserved.trim().split(',').filter(|part| !part.is_empty()) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (Ok(from), Ok(to)) = (from.parse::<u16>(), to.parse::<u16>()) else { continue };
        // The kernel writes them in order.
        match next {
            Some(begin) if from <= last && to >= begin => {
                if from > begin {
                    left.push((begin, from - 1));
                }
                next = to.checked_add(1).filter(|begin| *begin <= last);
            }
            Some(_) | None => {}
        }
    }
    left.extend(next.map(|begin| (begin, last)));
    left
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_and_a_wrong_one_names_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ports.toml");
        assert_eq!(Settings::read(&path).unwrap(), Settings::default());
        fs::write(&path, "[[range]]\npurpose = \"a\"\nfrom = 1\nto = 2\n\n[units.redis]\nbind = \"any\"\n").unwrap();
        let read = Settings::read(&path).unwrap();
        assert_eq!(read.ranges[0].purpose, "a");
        assert_eq!(read.units[&"redis".parse().unwrap()].bind, Some(Reach::Any));
        fs::write(&path, "[[range]]\npurpose = \"a\"\nform = 1\n").unwrap();
        let failure = Settings::read(&path).unwrap_err();
        assert!(failure.message.contains("form") && failure.message.contains('3'), "{failure}");
    }

    #[test]
    fn what_the_kernel_leaves_alone_is_not_given_away() {
        assert_eq!(left("32768\t60999\n", "\n"), [(32_768, 60_999)]);
        assert_eq!(left("32768 60999", "8080,40000-40009\n"), [(32_768, 39_999), (40_010, 60_999)]);
        assert_eq!(left("32768 60999", "32768-40000,60999"), [(40_001, 60_998)]);
        assert_eq!(left("1 65535", "1-65535"), []);
        assert_eq!(left("", ""), []);
    }
}

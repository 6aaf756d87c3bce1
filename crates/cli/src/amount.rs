//! Sizes, times, leases and devices as people type them.

use serde_json::Value;
use wharf_model::LeaseId;

/// `8GiB`, `8G`, `1.5g`, `8192MiB`, `24GB` (of 10^9 bytes), or bytes.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: 8GiB, 8192MiB, 1.5G, or bytes");
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(unit).ok_or_else(wrong);
    }
    // Half a byte is none.
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let exact = number * unit as f64;
    if unit > 1 && exact.is_finite() && exact < 1e18 { Ok(exact as u64) } else { Err(wrong()) }
}

/// The same; 0 and what is no size are refused.
pub(crate) fn some_bytes(text: &str) -> Result<u64, String> {
    match bytes(text)? {
        0 => Err("0 bytes are nothing; without a size a device is had alone".into()),
        bytes => Ok(bytes),
    }
}

/// `500ms`, `90s`, `10m`, `2h`, `1d`; a number alone is seconds. In milliseconds.
pub(crate) fn millis(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no time: 90s, 10m, 2h, 500ms");
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let unit = match unit.trim() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)
}

/// `lease-12`, or `12`.
pub(crate) fn lease(text: &str) -> Result<LeaseId, String> {
    let number = text.strip_prefix("lease-").unwrap_or(text);
    number.parse().map(LeaseId).map_err(|_| format!("{text:?} is no lease: lease-12, as wharf gpu leases shows it"))
}

/// What a device is called by, among those that there are: its whole id, the beginning of it, or its place.
pub(crate) fn device(text: &str, devices: &[(String, u32)]) -> Result<String, String> {
    let all = || devices.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>().join(", ");
    if let Some((id, _)) = devices.iter().find(|(id, index)| id == text || index.to_string() == text) {
        return Ok(id.clone());
    }
    let mut like = devices.iter().filter(|(id, _)| !text.is_empty() && id.starts_with(text));
    match (like.next(), like.next()) {
        (Some((id, _)), None) => Ok(id.clone()),
        (Some(_), Some(_)) => Err(format!("{text} may be several devices; there are {}", all())),
        (None, _) if devices.is_empty() => Err("this machine has no device".into()),
        (None, _) => Err(format!("there is no device {text}; there are {}", all())),
    }
}

/// The policy of `--gpu`: a size, or `whole`.
pub(crate) fn gpu_policy(text: &str) -> Result<Value, String> {
    match text {
        "whole" => Ok(serde_json::json!({ "exclusive": true })),
        "none" => Ok(Value::Null),
        size => Ok(serde_json::json!({ "vram_bytes": some_bytes(size)? })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        const GIB: u64 = 1 << 30;
        for (text, meant) in [
            ("8GiB", 8 * GIB),
            ("8G", 8 * GIB),
            ("8g", 8 * GIB),
            ("8192MiB", 8 * GIB),
            ("8 GiB", 8 * GIB),
            ("1.5GiB", 3 * GIB / 2),
            ("24GB", 24_000_000_000),
            ("1073741824", GIB),
            ("0", 0),
        ] {
            assert_eq!(bytes(text), Ok(meant), "{text}");
        }
        for text in ["", "G", "8X", "-1G", "1.5", "99999999999999T", "8 G i B", "NaNG"] {
            assert!(bytes(text).is_err(), "{text} was taken");
        }
        assert!(some_bytes("0").is_err());
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, meant) in [("10m", 600_000), ("90", 90_000), ("500ms", 500), ("2h", 7_200_000), ("0", 0)] {
            assert_eq!(millis(text), Ok(meant), "{text}");
        }
        for text in ["", "m", "10x", "-1s", "99999999999999999d"] {
            assert!(millis(text).is_err(), "{text} was taken");
        }
    }

    #[test]
    fn a_device_is_found_by_its_place_or_the_beginning_of_its_name() {
        let devices = [("GPU-6f0b".to_owned(), 0), ("GPU-6fff".to_owned(), 1)];
        assert_eq!(device("1", &devices).unwrap(), "GPU-6fff");
        assert_eq!(device("GPU-6f0", &devices).unwrap(), "GPU-6f0b");
        assert!(device("GPU-6f", &devices).unwrap_err().contains("several"));
        assert!(device("7", &devices).unwrap_err().contains("GPU-6f0b"));
        assert_eq!(lease("lease-12"), Ok(LeaseId(12)));
        assert_eq!(lease("12"), Ok(LeaseId(12)));
        assert!(lease("command@chat").is_err());
    }
}

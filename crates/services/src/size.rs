//! A size as people write it in parameters: `"6GiB"`, or bytes.

use schemars::JsonSchema;
use serde::Deserialize;

/// A size: bytes, or a number with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Written")]
#[schemars(with = "Written")]
pub struct Size(pub u64);

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Written {
    Bytes(u64),
    Text(String),
}

impl TryFrom<Written> for Size {
    type Error = String;

    fn try_from(written: Written) -> std::result::Result<Self, String> {
        let text = match written {
            Written::Bytes(bytes) => return Ok(Self(bytes)),
            Written::Text(text) => text,
        };
        let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)];
        let read = |(unit, bytes): &(&str, u64)| {
            let number: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
            number.checked_mul(*bytes)
        };
        units.iter().find_map(read).map(Self).ok_or_else(|| format!("{text:?} is no size: 6GiB, 800MiB, or bytes"))
    }
}

//! Names and numbers by which things are called.

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A service on this machine: `redis`, or an instance of one: `python-api@vault`.
///
/// Each part is `^[a-z0-9][a-z0-9._-]{0,62}$`, so that it can stand in a path, a cgroup and a label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitName(Arc<str>);

/// Why a text is no unit name.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error(
    "{0:?} is not a unit name: use NAME or NAME@INSTANCE, each of a-z, 0-9, '.', '_' and '-', starting with a letter or digit, at most 63 long"
)]
pub struct BadName(String);

impl UnitName {
    /// The pattern that a unit name matches.
    pub const PATTERN: &'static str = "^[a-z0-9][a-z0-9._-]{0,62}(@[a-z0-9][a-z0-9._-]{0,62})?$";

    /// Builds `service` or `service@instance`.
    pub fn new(service: &str, instance: Option<&str>) -> Result<Self, BadName> {
        match instance {
            None => service.parse(),
            Some(i) => format!("{service}@{i}").parse(),
        }
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The service that this unit is, or is an instance of.
    pub fn service(&self) -> &str {
        self.0.split_once('@').map_or(&*self.0, |(s, _)| s)
    }

    /// The instance, if it is one.
    pub fn instance(&self) -> Option<&str> {
        self.0.split_once('@').map(|(_, i)| i)
    }
}

fn part_is_sound(part: &str) -> bool {
    let mut bytes = part.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let sound = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    first && part.len() <= 63 && bytes.all(sound)
}

impl FromStr for UnitName {
    type Err = BadName;
    fn from_str(s: &str) -> Result<Self, BadName> {
        let sound = match s.split_once('@') {
            None => part_is_sound(s),
            Some((service, instance)) => part_is_sound(service) && part_is_sound(instance),
        };
        if sound { Ok(Self(s.into())) } else { Err(BadName(s.chars().take(80).collect())) }
    }
}

impl fmt::Display for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for UnitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for UnitName {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for UnitName {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Cow::<str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for UnitName {
    fn schema_name() -> Cow<'static, str> {
        "UnitName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "title": "UnitName", "pattern": Self::PATTERN })
    }
}

/// One life of a unit's processes. It grows and is never used twice on one installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RunId(pub u64);

/// One operation: a request that takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct OpId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_a_service_and_perhaps_an_instance() {
        let name: UnitName = "python-api@vault".parse().unwrap();
        assert_eq!((name.service(), name.instance()), ("python-api", Some("vault")));
        let name: UnitName = "redis".parse().unwrap();
        assert_eq!((name.service(), name.instance()), ("redis", None));
    }

    #[test]
    fn what_could_leave_its_folder_is_no_name() {
        for bad in ["", "..", "a/b", "A", "a@", "@a", "a@b@c", ".hidden", "a b", "-x", &"x".repeat(64)] {
            assert!(bad.parse::<UnitName>().is_err(), "{bad:?} was taken as a name");
        }
    }
}

//! The shape of a request object before anything in it is judged: every member raw, faults noted
//! and not yet reported, so that a syntax error further on still wins.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// How much of an unknown member's name is told back.
const SHOWN_CHARS: usize = 40;

/// How many elements of a batch are kept; the rest are only counted.
const KEPT: usize = 1024;

/// The members of one request object.
#[derive(Default)]
pub(super) struct Frame<'a> {
    pub(super) version: Option<&'a RawValue>,
    pub(super) method: Option<&'a RawValue>,
    pub(super) params: Option<&'a RawValue>,
    pub(super) id: Option<&'a RawValue>,
    /// A member that came twice.
    pub(super) repeated: Option<&'static str>,
    /// A member that JSON-RPC does not name.
    pub(super) unknown: Option<String>,
}

/// The elements of a batch.
pub(super) struct Elements<'a> {
    pub(super) kept: Vec<&'a RawValue>,
    pub(super) count: usize,
}

enum Member {
    Version,
    Method,
    Params,
    Id,
    Unknown(String),
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl Visitor<'_> for Names {
            type Value = Member;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member's name")
            }

            fn visit_str<E>(self, name: &str) -> Result<Member, E> {
                Ok(match name {
                    "jsonrpc" => Member::Version,
                    "method" => Member::Method,
                    "params" => Member::Params,
                    "id" => Member::Id,
                    other => Member::Unknown(other.chars().take(SHOWN_CHARS).collect()),
                })
            }
        }
        deserializer.deserialize_identifier(Names)
    }
}

impl<'de> Deserialize<'de> for Frame<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Frame<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a request object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Frame<'de>, A::Error> {
                let mut frame = Frame::default();
                while let Some(member) = map.next_key::<Member>()? {
                    let value: &'de RawValue = map.next_value()?;
                    let (slot, name) = match member {
                        Member::Version => (&mut frame.version, "jsonrpc"),
                        Member::Method => (&mut frame.method, "method"),
                        Member::Params => (&mut frame.params, "params"),
                        Member::Id => (&mut frame.id, "id"),
                        Member::Unknown(name) => {
                            frame.unknown.get_or_insert(name);
                            continue;
                        }
                    };
                    if slot.replace(value).is_some() {
                        frame.repeated = Some(name);
                    }
                }
                Ok(frame)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl<'de> Deserialize<'de> for Elements<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Elements<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a batch")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Elements<'de>, A::Error> {
                let mut kept = Vec::new();
                while kept.len() < KEPT {
                    match seq.next_element()? {
                        Some(raw) => kept.push(raw),
                        None => return Ok(Elements { count: kept.len(), kept }),
                    }
                }
                let mut count = kept.len();
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Elements { kept, count })
            }
        }
        deserializer.deserialize_seq(All)
    }
}

//! A place in what a unit wrote: `redis/42/183320` is before byte 183320 of redis's run 42.
//!
//! Offsets count from the run's first byte and never change: neither a rotation nor a new daemon
//! moves them. Whether the bytes are still there is no concern of this file.

use std::{fmt, str::FromStr};

use wharf_model::{RunId, UnitName};

/// A place in what a unit wrote.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The unit.
    pub unit: UnitName,
    /// The run.
    pub run: RunId,
    /// So many bytes of the run lie before it.
    pub offset: u64,
}

/// A text that is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no cursor: it is UNIT/RUN/OFFSET, as `service.logs` gave it")]
pub struct BadCursor(String);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.unit, self.run, self.offset)
    }
}

impl FromStr for Cursor {
    type Err = BadCursor;

    fn from_str(text: &str) -> Result<Self, BadCursor> {
        let mut parts = text.split('/');
        let cursor = (|| {
            let unit = parts.next()?.parse().ok()?;
            let run = RunId(number(parts.next()?)?);
            Some(Self { unit, run, offset: number(parts.next()?)? })
        })();
        match (cursor, parts.next()) {
            (Some(cursor), None) => Ok(cursor),
            (Some(_) | None, _) => Err(BadCursor(text.chars().take(100).collect())),
        }
    }
}

/// Digits and nothing else: no sign, no space.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        for text in ["redis/42/183320", "python-api@vault/1/0"] {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
        }
        for wrong in ["", "redis", "redis/42", "redis/42/1/2", "redis/-1/0", "redis/1/+5", "../x/1/1", "redis/1/ 5"] {
            assert!(wrong.parse::<Cursor>().is_err(), "{wrong:?} was taken");
        }
    }
}

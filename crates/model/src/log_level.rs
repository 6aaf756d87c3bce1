//! How serious a line of a log is. Who reads it out of a line is no concern of this file.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How serious a line of a log says that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    /// Each step.
    Trace,
    /// For who looks for a fault.
    Debug,
    /// What happens.
    Info,
    /// Not as it should be.
    Warn,
    /// Something failed.
    Error,
    /// The program cannot go on.
    Fatal,
}

impl LogLevel {
    /// All of them, the least serious first.
    pub const ALL: [Self; 6] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error, Self::Fatal];

    /// Its word: `error`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
            Self::Fatal => "fatal",
        }
    }

    /// The level that programs mean by a word, in any case: `ERR`, `warning`, `critical`.
    pub fn meant_by(word: &str) -> Option<Self> {
        const WORDS: [(&str, LogLevel); 19] = [
            ("trace", LogLevel::Trace),
            ("verbose", LogLevel::Debug),
            ("debug", LogLevel::Debug),
            ("dbg", LogLevel::Debug),
            ("info", LogLevel::Info),
            ("information", LogLevel::Info),
            ("notice", LogLevel::Info),
            ("warn", LogLevel::Warn),
            ("warning", LogLevel::Warn),
            ("error", LogLevel::Error),
            ("err", LogLevel::Error),
            ("severe", LogLevel::Error),
            ("crit", LogLevel::Fatal),
            ("critical", LogLevel::Fatal),
            ("fatal", LogLevel::Fatal),
            ("panic", LogLevel::Fatal),
            ("alert", LogLevel::Fatal),
            ("emerg", LogLevel::Fatal),
            ("emergency", LogLevel::Fatal),
        ];
        WORDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(word)).map(|(_, level)| *level)
    }

    /// The level that bunyan and pino mean by a number: 50 is an error.
    pub fn numbered(number: u64) -> Option<Self> {
        match number {
            10..20 => Some(Self::Trace),
            20..30 => Some(Self::Debug),
            30..40 => Some(Self::Info),
            40..50 => Some(Self::Warn),
            50..60 => Some(Self::Error),
            60..70 => Some(Self::Fatal),
            _ => None,
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for LogLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::meant_by(text).ok_or_else(|| {
            let all: Vec<&str> = Self::ALL.iter().map(|l| l.word()).collect();
            format!("{text:?} is no level: it is one of {}", all.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_read_from_its_own_word_and_from_others() {
        for level in LogLevel::ALL {
            assert_eq!(level.word().parse(), Ok(level));
            assert_eq!(serde_json::to_value(level).unwrap(), level.word());
        }
        assert_eq!("ERR".parse(), Ok(LogLevel::Error));
        assert_eq!("Warning".parse(), Ok(LogLevel::Warn));
        assert!("loud".parse::<LogLevel>().unwrap_err().contains("trace, debug"));
        assert!(LogLevel::Error > LogLevel::Warn);
        assert_eq!(LogLevel::numbered(50), Some(LogLevel::Error));
    }
}

//! What a line says: its level, its message and its fields, where it is JSON or logfmt; else what
//! its words tell. Everything here is text that a service wrote: it is shown, never obeyed.

use serde_json::{Map, Value};
use wharf_model::LogLevel;

/// A longer line is shown and not taken apart, in bytes.
const MOST_BYTES: usize = 32 << 10;
/// A level stands at a line's beginning, in bytes.
const LEVEL_WITHIN: usize = 160;
/// Fields of one line beyond so many are left out.
const MOST_FIELDS: usize = 64;
const LEVEL_KEYS: [&str; 7] = ["level", "lvl", "severity", "levelname", "log.level", "loglevel", "@l"];
const MESSAGE_KEYS: [&str; 5] = ["msg", "message", "event", "@m", "text"];

/// What a line says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Said {
    /// How serious it is, where it says so.
    pub level: Option<LogLevel>,
    /// Its message, where it is JSON or logfmt.
    pub message: Option<String>,
    /// Its other fields, where it is JSON or logfmt.
    pub fields: Option<Map<String, Value>>,
}

/// Takes a line apart.
pub fn read(text: &str) -> Said {
    let text = text.trim();
    if text.len() > MOST_BYTES {
        return Said { level: level_of_words(text), ..Said::default() };
    }
    match json(text).or_else(|| logfmt(text)) {
        Some(fields) => structured(fields),
        None => Said { level: level_of_words(text), ..Said::default() },
    }
}

fn structured(mut fields: Map<String, Value>) -> Said {
    let level_key = LEVEL_KEYS.iter().find(|key| fields.get(**key).and_then(level_of).is_some());
    let level = level_key.and_then(|key| level_of(&fields.remove(*key)?));
    let message_key = MESSAGE_KEYS.iter().find(|key| fields.get(**key).is_some_and(Value::is_string));
    let message = message_key.and_then(|key| fields.remove(*key)?.as_str().map(str::to_owned));
    while fields.len() > MOST_FIELDS {
        let Some(key) = fields.keys().next_back().cloned() else { break };
        fields.remove(&key);
    }
    Said { level, message, fields: Some(fields) }
}

fn level_of(value: &Value) -> Option<LogLevel> {
    match value {
        Value::String(word) => LogLevel::meant_by(word),
        Value::Number(number) => LogLevel::numbered(number.as_u64()?),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

fn json(text: &str) -> Option<Map<String, Value>> {
    (text.starts_with('{') && text.ends_with('}')).then(|| serde_json::from_str(text).ok())?
}

/// `key=value key="a value"` and nothing else, two of them at least.
fn logfmt(text: &str) -> Option<Map<String, Value>> {
    let is_key = |c: char| c.is_ascii_alphanumeric() || "_.-@/".contains(c);
    let mut fields = Map::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (key, behind) = rest.split_once('=')?;
        if key.is_empty() || !key.chars().all(is_key) {
            return None;
        }
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => {
                let end = behind.find(' ').unwrap_or(behind.len());
                (behind[..end].to_owned(), &behind[end..])
            }
        };
        if !behind.is_empty() && !behind.starts_with(' ') {
            return None;
        }
        fields.insert(key.to_owned(), value.into());
        rest = behind.trim_start_matches(' ');
    }
    (fields.len() >= 2).then_some(fields)
}

/// The text up to the closing quote, and what is behind it.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                other => value.push(other),
            },
            _ => value.push(c),
        }
    }
    None
}

/// The first word that can only be a level: in capitals, in brackets, or with a colon behind it.
/// Then what languages say when something was not caught.
fn level_of_words(text: &str) -> Option<LogLevel> {
    let bytes = text.as_bytes();
    let limit = bytes.len().min(LEVEL_WITHIN);
    let mut at = 0;
    while at < limit {
        if !bytes[at].is_ascii_alphabetic() {
            at += 1;
            continue;
        }
        let size = bytes[at..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count();
        let word = &text[at..at + size];
        let (before, behind) = (at.checked_sub(1).map(|n| bytes[n]), bytes.get(at + size));
        if let Some(level) = LogLevel::meant_by(word) {
            let in_capitals = word.bytes().all(|b| b.is_ascii_uppercase());
            let in_brackets = matches!((before, behind), (Some(b'[' | b'<' | b'('), Some(b']' | b'>' | b')')));
            let named = behind == Some(&b':') || before == Some(b'=');
            if in_capitals || in_brackets || named {
                return Some(level);
            }
        }
        let thrown = (word.ends_with("Error") || word.ends_with("Exception")) && word.len() > 5;
        if thrown && matches!(behind, None | Some(b':')) {
            return Some(LogLevel::Error);
        }
        at += size;
    }
    let start = text.get(..limit).unwrap_or(text);
    let uncaught = ["Traceback (most recent call last)", "' panicked at ", "Exception in thread", "Unhandled"];
    uncaught.iter().any(|words| start.contains(words)).then_some(LogLevel::Error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_of_json_or_logfmt_is_taken_apart() {
        let said = read(r#"{"level":"error","msg":"no route","code":7,"at":{"x":1}}"#);
        assert_eq!((said.level, said.message.as_deref()), (Some(LogLevel::Error), Some("no route")));
        assert_eq!(Value::from(said.fields.unwrap()), json!({ "code": 7, "at": { "x": 1 } }));
        let said = read(r#"time=2026-11-21T08:00:00Z level=warn msg="slow \"disk\"" took=3s"#);
        assert_eq!((said.level, said.message.as_deref()), (Some(LogLevel::Warn), Some("slow \"disk\"")));
        assert_eq!(Value::from(said.fields.unwrap()), json!({ "time": "2026-11-21T08:00:00Z", "took": "3s" }));
        assert_eq!(read(r#"{"level":50,"msg":"pino"}"#).level, Some(LogLevel::Error));
        assert_eq!(read(r#"{"severity":"CRITICAL","message":"x"}"#).level, Some(LogLevel::Fatal));
        for plain in ["a=b", "x = 1 y = 2", "{not json}", "sum a=1 b=2", "a=\"open b=2", "[1]", "a=1 =2"] {
            assert_eq!(read(plain).fields, None, "{plain}");
        }
    }

    #[test]
    fn words_tell_the_level_where_they_can_mean_nothing_else() {
        let lines = [
            ("2026-11-21 08:00:00 ERROR [main] no", Some(LogLevel::Error)),
            ("2026/11/21 08:00:00 [error] 12#0: no", Some(LogLevel::Error)),
            ("INFO done, last error: none", Some(LogLevel::Info)),
            ("error: could not", Some(LogLevel::Error)),
            ("ValueError: no", Some(LogLevel::Error)),
            ("thread 'main' panicked at src/main.rs:1:2:", Some(LogLevel::Error)),
            ("Traceback (most recent call last):", Some(LogLevel::Error)),
            ("java.lang.NullPointerException", Some(LogLevel::Error)),
            ("2026-11-21 UTC [12] FATAL:  the database is gone", Some(LogLevel::Fatal)),
            ("<warn> slow", Some(LogLevel::Warn)),
            ("0 errors, 3 warnings", None),
            ("an error page was served", None),
            ("GET /error 200", None),
            ("listening on 127.0.0.1:80", None),
            ("", None),
            ("größer als Ä", None),
        ];
        for (line, level) in lines {
            assert_eq!(read(line).level, level, "{line}");
        }
    }
}

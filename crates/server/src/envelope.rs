//! The JSON-RPC 2.0 envelope, strictly: bytes in, calls out; outcomes in, bytes out. No IO, no async.
//!
//! Ids and params are kept byte for byte as they were sent (`RawValue`): `1e3`, `1.50` and a number
//! of 40 digits come back as they went. A member that is there and `null` is not one that is absent.
//!
//! What is refused, and how (<https://www.jsonrpc.org/specification>):
//! - not JSON, not UTF-8, or nested deeper than 128: -32700, id null
//! - JSON, but no request: -32600; with the request's own id where it has one that can be trusted
//! - a member twice, or an id that is no string, number or null: -32600, id null
//! - a member that JSON-RPC does not name: -32600, so that a misspelt `parms` is not a call without params

mod frame;
mod reply;

use std::borrow::Cow;

use serde_json::value::RawValue;

pub use reply::{error, join, one_line, result};

/// How deep JSON may be nested, as serde_json's own limit for typed values.
const DEPTH: usize = 128;

/// What a body says.
#[derive(Debug)]
pub enum Message<'a> {
    /// One request object, or something in its place.
    One(Entry<'a>),
    /// A batch, neither empty nor too long.
    Many(Vec<Entry<'a>>),
}

/// One request, or why it is none.
pub type Entry<'a> = Result<Call<'a>, Refusal<'a>>;

/// A valid request.
#[derive(Debug)]
pub struct Call<'a> {
    /// As it was sent; `None` is a notification.
    pub id: Option<&'a RawValue>,
    /// The method's name, unescaped.
    pub method: Cow<'a, str>,
    /// An object or an array, as it was sent.
    pub params: Option<&'a RawValue>,
}

/// What is answered in place of a call.
#[derive(Debug)]
pub struct Refusal<'a> {
    /// The request's id; `None` is answered as null.
    pub id: Option<&'a RawValue>,
    /// Why.
    pub fault: Fault,
}

/// The two ways of being no request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// -32700.
    Parse(String),
    /// -32600.
    Invalid(String),
}

impl Fault {
    /// The JSON-RPC error code.
    pub const fn code(&self) -> i32 {
        match self {
            Self::Parse(_) => -32700,
            Self::Invalid(_) => -32600,
        }
    }

    /// The specification's own words.
    pub const fn message(&self) -> &'static str {
        match self {
            Self::Parse(_) => "Parse error",
            Self::Invalid(_) => "Invalid Request",
        }
    }

    /// What exactly is wrong, for a person.
    pub fn detail(&self) -> &str {
        match self {
            Self::Parse(detail) | Self::Invalid(detail) => detail,
        }
    }
}

/// Reads a body. Never fails: what cannot be read is a refusal.
pub fn parse(body: &[u8], batch_calls: usize) -> Message<'_> {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(e) => return refused(Fault::Parse(format!("the body is not UTF-8: {e}"))),
    };
    if !depth_fits(body) {
        return refused(Fault::Parse(format!("nested deeper than {DEPTH}")));
    }
    match text.trim_ascii_start().as_bytes().first() {
        Some(b'{') => Message::One(entry(text)),
        Some(b'[') => batch(text, batch_calls),
        _ => refused(match serde_json::from_str::<&RawValue>(text) {
            Ok(_) => Fault::Invalid("a request is an object, or an array of them".into()),
            Err(e) => Fault::Parse(e.to_string()),
        }),
    }
}

fn refused<'a>(fault: Fault) -> Message<'a> {
    Message::One(Err(Refusal { id: None, fault }))
}

fn batch(text: &str, batch_calls: usize) -> Message<'_> {
    let entries = match serde_json::from_str::<frame::Elements>(text) {
        Ok(entries) => entries,
        Err(e) => return refused(Fault::Parse(e.to_string())),
    };
    if entries.count == 0 {
        return refused(Fault::Invalid("an empty batch".into()));
    }
    if entries.count > batch_calls {
        let fault = format!("a batch of {} calls; {batch_calls} are allowed", entries.count);
        return refused(Fault::Invalid(fault));
    }
    Message::Many(entries.kept.into_iter().map(|raw| entry(raw.get())).collect())
}

/// Reads one request from what may be any JSON, or none.
fn entry(text: &str) -> Entry<'_> {
    let refuse = |id, fault| Err(Refusal { id, fault });
    let invalid = |id, detail: &str| refuse(id, Fault::Invalid(detail.into()));
    if !text.trim_ascii_start().starts_with('{') {
        return invalid(None, "a request is an object");
    }
    let frame = match serde_json::from_str::<frame::Frame>(text) {
        Ok(frame) => frame,
        Err(e) => return refuse(None, Fault::Parse(e.to_string())),
    };
    if let Some(member) = frame.repeated {
        return invalid(None, &format!("`{member}` is there twice"));
    }
    let id = frame.id;
    if id.is_some_and(|id| !matches!(id.get().as_bytes()[0], b'"' | b'n' | b'-' | b'0'..=b'9')) {
        return invalid(None, "`id` is a string, a number or null");
    }
    if let Some(member) = &frame.unknown {
        return invalid(id, &format!("JSON-RPC knows no member `{member}`; params belong in `params`"));
    }
    if frame.version.and_then(string).as_deref() != Some("2.0") {
        return invalid(id, "`jsonrpc` must be \"2.0\"");
    }
    let Some(method) = frame.method.and_then(string) else {
        return invalid(id, "`method` must be there, and a string");
    };
    if frame.params.is_some_and(|p| !matches!(p.get().as_bytes()[0], b'{' | b'[')) {
        return invalid(id, "`params` is an object or an array, or absent");
    }
    Ok(Call { id, method, params: frame.params })
}

/// The text of a JSON string: borrowed unless something in it is escaped.
fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') { serde_json::from_str(raw.get()).ok().map(Cow::Owned) } else { Some(Cow::Borrowed(inner)) }
}

/// Raw values are skipped without recursion, so depth has to be counted: a method that decodes its
/// params would refuse them later, and with another code.
fn depth_fits(text: &[u8]) -> bool {
    if text.len() <= 2 * DEPTH {
        return true;
    }
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => {
                depth += 1;
                if depth > DEPTH {
                    return false;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Entry<'_> {
        match parse(text.as_bytes(), 64) {
            Message::One(entry) => entry,
            Message::Many(_) => panic!("a batch"),
        }
    }

    #[test]
    fn null_is_not_absent() {
        assert_eq!(only(r#"{"jsonrpc":"2.0","method":"a","id":null}"#).unwrap().id.unwrap().get(), "null");
        assert!(only(r#"{"jsonrpc":"2.0","method":"a"}"#).unwrap().id.is_none());
    }

    #[test]
    fn escapes_are_read_where_names_are_compared() {
        let call = only(r#"{"jsonrpc":"2\u002e0","m\u0065thod":"\u0061"}"#).unwrap();
        assert_eq!(call.method, "a");
        assert!(only(r#"{"jsonrpc":"2.0","method":"\ud800"}"#).is_err());
    }

    #[test]
    fn depth_is_counted_outside_of_strings() {
        let nested =
            |n: usize| format!(r#"{{"jsonrpc":"2.0","method":"a","params":{}{}}}"#, "[".repeat(n), "]".repeat(n));
        assert!(only(&nested(127)).is_ok());
        assert_eq!(only(&nested(128)).unwrap_err().fault.code(), -32700);
        let quoted = format!(r#"{{"jsonrpc":"2.0","method":"a","params":["\"{}"]}}"#, "[".repeat(500));
        assert!(only(&quoted).is_ok());
    }

    #[test]
    fn the_syntax_of_the_whole_body_comes_before_its_meaning() {
        assert_eq!(only(r#"{"id":{},"id":1,"x":"#).unwrap_err().fault.code(), -32700);
        assert_eq!(only(r#"{"id":1} x"#).unwrap_err().fault.code(), -32700);
        assert_eq!(only("").unwrap_err().fault.code(), -32700);
    }

    #[test]
    fn misspelt_members_are_named() {
        let refusal = only(r#"{"jsonrpc":"2.0","method":"a","parms":[],"id":7}"#).unwrap_err();
        assert!(refusal.fault.detail().contains("`parms`"));
        assert_eq!(refusal.id.unwrap().get(), "7");
    }
}

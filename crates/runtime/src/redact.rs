//! What must not be seen is taken out of what is said, by value.
//!
//! It owns every value that a secret had while this process lives, in the forms in which it is likely to
//! be printed: as it is, escaped in JSON, in base64 (at each of the three offsets, so that `user:password`
//! is found too) and percent-encoded or in hex. It refuses to know where values come from and who reads what is left.
//!
//! A secret of several lines is looked for line by line, as logs are read. What is shorter than eight bytes
//! is not looked for: it would be found in innocent text.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    io,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use aho_corasick::{AhoCorasick, MatchKind};
use arc_swap::ArcSwapOption;
use serde_json::{Value, value::RawValue};
use wharf_model::Failure;

/// What stands in the place of a secret.
pub const REDACTED: &str = "[redacted]";
/// What is shorter, in bytes, is not looked for.
const LEAST: usize = 8;
/// A longer line of a secret is looked for in pieces of this length, in bytes.
const PIECE: usize = 512;

static REDACTOR: LazyLock<Redactor> = LazyLock::new(Redactor::default);

/// The one of this process: whoever loads a secret tells it, whatever leaves the process goes through it.
pub fn redactor() -> &'static Redactor {
    &REDACTOR
}

/// Knows values and finds them. Nobody who reads waits for a lock.
#[derive(Default)]
pub struct Redactor {
    forms: Mutex<BTreeSet<String>>,
    /// None: no secret was loaded, and everything passes untouched.
    finder: ArcSwapOption<AhoCorasick>,
}

impl Redactor {
    /// From now on this value is not seen.
    pub fn learn(&self, value: &[u8]) {
        let new = forms(value);
        let mut known = self.forms.lock().unwrap_or_else(PoisonError::into_inner);
        let before = known.len();
        known.extend(new);
        if known.len() == before {
            return;
        }
        let finder = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(known.iter());
        match finder {
            Ok(finder) => self.finder.store(Some(Arc::new(finder))),
            Err(e) => tracing::error!("a secret cannot be looked for: {e}"),
        }
    }

    /// Whether a form of a secret is in this text.
    pub fn is_told_by(&self, text: &str) -> bool {
        self.finder.load().as_ref().is_some_and(|finder| finder.is_match(text))
    }

    /// The text without secrets.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.finder.load().as_ref() {
            Some(finder) if finder.is_match(text) => Cow::Owned(replaced(finder, text)),
            Some(_) | None => Cow::Borrowed(text),
        }
    }

    /// Takes secrets out of a text.
    pub fn clean(&self, text: &mut String) {
        if let Cow::Owned(clean) = self.text(text) {
            *text = clean;
        }
    }

    /// Takes secrets out of a failure.
    pub fn failure(&self, failure: &mut Failure) {
        if self.finder.load().is_none() {
            return;
        }
        self.clean(&mut failure.message);
        failure.hint.iter_mut().for_each(|hint| self.clean(hint));
        failure.causes.iter_mut().for_each(|cause| self.clean(cause));
    }

    /// Takes secrets out of every text in a value. What is under `keep` stays: names by which things are called.
    pub fn value(&self, value: &mut Value, keep: &[&str]) {
        match value {
            Value::String(text) => self.clean(text),
            Value::Array(values) => values.iter_mut().for_each(|value| self.value(value, keep)),
            Value::Object(fields) => {
                let theirs = fields.iter_mut().filter(|(name, _)| !keep.contains(&name.as_str()));
                theirs.for_each(|(_, value)| self.value(value, keep));
            }
            // A password of digits alone, in a log of JSON.
            Value::Number(number) if self.is_told_by(&number.to_string()) => *value = REDACTED.into(),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// The same of serialised JSON; none where there is nothing to take out.
    pub fn json(&self, raw: &RawValue, keep: &[&str]) -> Option<Box<RawValue>> {
        if !self.is_told_by(raw.get()) {
            return None;
        }
        let mut value: Value = serde_json::from_str(raw.get()).ok()?;
        self.value(&mut value, keep);
        serde_json::value::to_raw_value(&value).ok()
    }
}

/// Writes without secrets. Each `write` must be of whole lines, as tracing's are.
pub struct Redacting<W>(pub W);

impl<W: io::Write> io::Write for Redacting<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let said = String::from_utf8_lossy(bytes);
        match redactor().text(&said) {
            Cow::Owned(clean) => self.0.write_all(clean.as_bytes())?,
            Cow::Borrowed(_) => self.0.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn replaced(finder: &AhoCorasick, text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    // Pieces that follow each other were one secret.
    let (mut at, mut is_after) = (0, false);
    for found in finder.find_iter(text) {
        clean.push_str(&text[at..found.start()]);
        if !(is_after && at == found.start()) {
            clean.push_str(REDACTED);
        }
        (at, is_after) = (found.end(), true);
    }
    clean.push_str(&text[at..]);
    clean
}

/// Every form in which a value is looked for.
fn forms(value: &[u8]) -> BTreeSet<String> {
    let mut forms = BTreeSet::new();
    let trimmed = value.trim_ascii();
    let mut add = |form: &str| forms.extend(pieces(form));
    if let Ok(text) = std::str::from_utf8(trimmed) {
        // The frame of a key in PEM is the same in all of them.
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with("-----"));
        for line in lines.filter(|line| line.len() >= LEAST) {
            add(line);
            // In JSON, and in JSON that is a text in JSON.
            let once = escaped(line);
            add(&escaped(&once));
            add(&once);
            for plain in PLAIN_IN_URLS {
                let capital = percent(line, plain);
                add(&capital.replace("%20", "+"));
                add(&small(&capital));
                add(&capital);
            }
            let hex = crate::secret::hex(line.as_bytes());
            add(&hex.to_uppercase());
            add(&hex);
        }
    }
    for whole in [value, trimmed] {
        if whole.len() >= LEAST {
            base64(whole).iter().for_each(|form| add(form));
        }
    }
    forms
}

/// A long form in pieces, each at a boundary of characters.
fn pieces(form: &str) -> Vec<String> {
    let mut pieces = vec![];
    let mut rest = form;
    // No piece is too short to be looked for.
    while rest.len() > PIECE + LEAST {
        let cut = (1..=PIECE).rev().find(|at| rest.is_char_boundary(*at)).unwrap_or(rest.len());
        pieces.push(rest[..cut].to_owned());
        rest = &rest[cut..];
    }
    pieces.extend((rest.len() >= LEAST).then(|| rest.to_owned()));
    pieces
}

fn escaped(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted.trim_start_matches('"').strip_suffix('"').map_or(quoted.clone(), str::to_owned)
}

/// What stays as it is in a URL, by who makes it: nothing, RFC 3986, `encodeURIComponent`, `encodeURI`.
const PLAIN_IN_URLS: [Option<&str>; 4] = [None, Some("-_.~"), Some("-_.~!'()*"), Some("-_.~!'()*;,/?:@&=+$#")];

/// As in a URL, in capital letters.
fn percent(text: &str, plain: Option<&str>) -> String {
    let is_plain = |b: u8| plain.is_some_and(|more| b.is_ascii_alphanumeric() || more.as_bytes().contains(&b));
    let escaped = |b: u8| if is_plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") };
    text.bytes().map(escaped).collect()
}

/// The same with small letters behind each `%`.
fn small(capital: &str) -> String {
    let mut since = 3;
    let lowered = |c: char| {
        since = if c == '%' { 0 } else { since + 1 };
        if (1..=2).contains(&since) { c.to_ascii_lowercase() } else { c }
    };
    capital.chars().map(lowered).collect()
}

/// In both alphabets, and at each offset: what is the same whatever stands before and behind it.
fn base64(value: &[u8]) -> Vec<String> {
    const PLAIN: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut forms = vec![];
    for alphabet in [PLAIN, URL] {
        for offset in 0..3 {
            let bits = |at: usize| -> u8 {
                // The six bits that begin `at` sixes after the offset's own.
                (0..6).fold(0, |sum, bit| {
                    let place = at * 6 + bit;
                    let of_value = (place / 8).checked_sub(offset).and_then(|n| value.get(n));
                    sum << 1 | of_value.map_or(0, |byte| byte >> (7 - place % 8) & 1)
                })
            };
            // From the first six bits that are all the value's to the last ones.
            let (from, to) = ((offset * 8).div_ceil(6), (offset + value.len()) * 8 / 6);
            forms.push((from..to).map(|at| char::from(alphabet[usize::from(bits(at))])).collect());
        }
    }
    forms
}

#[cfg(test)]
mod tests;

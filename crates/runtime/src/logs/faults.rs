//! The same error again and again: which lines are the same, and when it is too often.
//!
//! Pure: lines and times go in, news come out. Refuses to know files and clocks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use wharf_model::{LogLevel, LogPolicy};

use super::said;

/// Different errors of one run that are counted at once; the longest unseen makes room.
const MOST_KINDS: usize = 64;
/// So much of a line is told, and so much of it is compared, in characters.
const TOLD: usize = 500;
const COMPARED: usize = 200;

/// Whether a line may be an error at all. Cheap: most lines of a burst end here.
pub fn may_be_error(line: &[u8]) -> bool {
    const SIGNS: [&[u8]; 12] = [
        b"rror",
        b"RROR",
        b"atal",
        b"ATAL",
        b"anic",
        b"ANIC",
        b"xception",
        b"raceback",
        b"CRIT",
        b"crit",
        b"SEVERE",
        b"\"level\":",
    ];
    SIGNS.iter().any(|sign| memchr::memmem::find(line, sign).is_some())
        || memchr::memmem::find(line, b"EMERG").is_some()
}

/// What is the same in two lines that report the same error: without what changes from one to the
/// next, such as times, numbers, ids and addresses. `None`: it is no error.
pub fn signature(line: &str) -> Option<String> {
    let plain = without_colour(line);
    let said = said::read(&plain);
    if said.level.is_none_or(|level| level < LogLevel::Error) {
        return None;
    }
    let text = said.message.as_deref().unwrap_or(&plain);
    Some(text.chars().take(COMPARED * 2).collect::<String>())
        .map(|text| without_numbers(&text).chars().take(COMPARED).collect())
}

/// Without terminal escapes: `ESC [ … letter`.
fn without_colour(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c != '\u{1b}' {
            plain.push(c);
        } else if chars.next() == Some('[') {
            chars.find(char::is_ascii_alphabetic);
        }
    }
    plain
}

/// Words with a digit in them, and long words of hex digits, become `#`; so do several in a row.
fn without_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if !first.is_alphanumeric() {
            // What stands between two numbers belongs to them: `2026-11-21 08:00:00.123`.
            let next_is_number = word(&rest[first.len_utf8()..]).is_some_and(changes);
            if !(out.ends_with('#') && next_is_number) {
                out.push(first);
            }
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let Some(found) = word(rest) else { break };
        match (changes(found), out.ends_with('#')) {
            (true, true) => {}
            (true, false) => out.push('#'),
            (false, _) => out.push_str(found),
        }
        rest = &rest[found.len()..];
    }
    out
}

fn word(text: &str) -> Option<&str> {
    let size = text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len());
    (size > 0).then(|| &text[..size])
}

fn changes(word: &str) -> bool {
    let is_hex = || word.len() >= 8 && word.bytes().all(|b| b.is_ascii_hexdigit());
    word.bytes().any(|b| b.is_ascii_digit()) || is_hex()
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// This error comes again and again.
    Repeats(String),
    /// No error does any more.
    Over,
}

/// The errors of one run.
#[derive(Debug, Default)]
pub struct Faults {
    /// When each was seen, in milliseconds of the boot clock, the last `error_repeats` times.
    seen: BTreeMap<String, VecDeque<u64>>,
    told: BTreeSet<String>,
}

impl Faults {
    /// Takes a line that was written at this time.
    pub fn take(&mut self, line: &str, at_ms: u64, policy: &LogPolicy) -> Option<Verdict> {
        if policy.error_repeats == 0 {
            return None;
        }
        let signature = signature(line)?;
        let times = self.seen.entry(signature.clone()).or_default();
        times.push_back(at_ms);
        let most = policy.error_repeats as usize;
        while times.len() > most {
            times.pop_front();
        }
        let within = times.front().is_some_and(|first| at_ms.saturating_sub(*first) <= policy.error_window_s * 1000);
        let repeats = times.len() == most && within;
        if self.seen.len() > MOST_KINDS {
            self.make_room();
        }
        let is_new = repeats && self.told.insert(signature);
        is_new.then(|| Verdict::Repeats(line.trim().chars().take(TOLD).collect()))
    }

    /// What a time without errors changes.
    pub fn pass(&mut self, now_ms: u64, policy: &LogPolicy) -> Option<Verdict> {
        let window_ms = policy.error_window_s * 1000;
        let is_fresh =
            |times: &VecDeque<u64>| times.back().is_some_and(|last| now_ms.saturating_sub(*last) < window_ms);
        self.seen.retain(|_, times| is_fresh(times));
        let had_told = !self.told.is_empty();
        self.told.retain(|signature| self.seen.contains_key(signature));
        (had_told && self.told.is_empty()).then_some(Verdict::Over)
    }

    /// When [`Faults::pass`] can change something, by the boot clock.
    pub fn next_ms(&self, policy: &LogPolicy) -> Option<u64> {
        let last = self.told.iter().filter_map(|signature| self.seen.get(signature)?.back()).min()?;
        Some(last + policy.error_window_s * 1000)
    }

    fn make_room(&mut self) {
        let told = &self.told;
        let unseen =
            self.seen.iter().filter(|(s, _)| !told.contains(*s)).min_by_key(|(_, times)| times.back().copied());
        if let Some(signature) = unseen.map(|(signature, _)| signature.clone()) {
            self.seen.remove(&signature);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000;

    #[test]
    fn the_same_error_is_the_same_whatever_changes_in_it() {
        let same = [
            [
                "2026-11-21 08:00:00,123 ERROR no route to 10.0.0.7:6379",
                "2026-11-21 09:13:59,001 ERROR no route to 10.0.0.12:80",
            ],
            ["ERROR job 7f3a-11 of deadbeefcafe failed", "ERROR job 0011-9c of abcdefabcdef failed"],
            ["\u{1b}[31mERROR\u{1b}[0m no 1", "ERROR no 2"],
            [r#"{"level":"error","msg":"no disk 1","ts":1}"#, r#"{"ts":2,"level":"error","msg":"no disk 22"}"#],
            ["error: 0d4f4dd0-5b5e-4f3a-9e0c-0123456789ab gone", "error: 1e5f4dd0-5b5e-4f3a-9e0c-a123456789ab gone"],
        ];
        for [a, b] in same {
            assert!(signature(a).is_some(), "{a}");
            assert_eq!(signature(a), signature(b), "{a}");
        }
        assert_ne!(signature("ERROR no route"), signature("ERROR no disk"));
        assert_eq!(signature("INFO no error"), None);
        for line in
            ["ERROR x", "panic: x", "Traceback (most recent call last):", r#"{"level":50,"msg":"x"}"#, "[crit] x"]
        {
            assert!(signature(line).is_some() && may_be_error(line.as_bytes()), "{line}");
        }
        assert!(!may_be_error(b"GET /health 200 in 3 ms"));
    }

    #[test]
    fn three_in_ten_minutes_are_told_once_and_ten_minutes_without_one_end_it() {
        let policy = LogPolicy::default();
        let mut faults = Faults::default();
        let line = |n: u64| format!("ERROR no route to host, try {n}\n");
        assert_eq!(faults.take(&line(1), 0, &policy), None);
        assert_eq!(faults.take(&line(2), MINUTE, &policy), None);
        assert_eq!(faults.take("ERROR another", MINUTE, &policy), None);
        let told = Verdict::Repeats("ERROR no route to host, try 3".into());
        assert_eq!(faults.take(&line(3), 2 * MINUTE, &policy), Some(told));
        assert_eq!(faults.take(&line(4), 3 * MINUTE, &policy), None, "it was told");
        assert_eq!(faults.next_ms(&policy), Some(13 * MINUTE));
        assert_eq!(faults.pass(12 * MINUTE, &policy), None);
        assert_eq!(faults.pass(13 * MINUTE, &policy), Some(Verdict::Over));
        assert_eq!((faults.pass(14 * MINUTE, &policy), faults.next_ms(&policy)), (None, None));
    }

    #[test]
    fn what_comes_seldom_is_no_fault_and_a_policy_can_turn_it_off() {
        let mut faults = Faults::default();
        for n in 0..20 {
            assert_eq!(faults.take("ERROR once in a while", n * 6 * MINUTE, &LogPolicy::default()), None);
        }
        let off = LogPolicy { error_repeats: 0, ..LogPolicy::default() };
        assert!((0..20).all(|n| faults.take("ERROR always", n, &off).is_none()));
    }

    #[test]
    fn errors_that_are_all_different_take_no_more_than_their_room() {
        let mut faults = Faults::default();
        for n in 0..10_000_u64 {
            let letters: String = n.to_string().bytes().map(|b| char::from(b + 60)).collect();
            faults.take(&format!("ERROR kind {letters}"), n, &LogPolicy::default());
        }
        assert!(faults.seen.len() <= MOST_KINDS, "{}", faults.seen.len());
    }
}

//! YAML of somebody else's, as JSON, within limits.
//!
//! The rules are those of PyYAML's safe loader, by which these files are read today: `yes` and `on` are
//! true, `0644` is octal, a tag that names no plain type is refused, and nothing is ever included or run.
//! Here stand the limits that end deep, long and alias-laden texts: the parser counts what aliases unfold.

use serde_json::Value;
use serde_saphyr::{
    Error, Options, RenderOptions, UserMessageFormatter, budget::BudgetBreach, options::DuplicateKeyPolicy,
};

/// Why a text is not taken.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) what: String,
    pub(super) hint: &'static str,
}

/// The one document of a text. An empty text is null.
pub(super) fn read(text: &str) -> Result<Value, Refused> {
    serde_saphyr::from_str_with_options(text, limits()).map_err(|e| refused(&e))
}

fn limits() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 200_000,
            max_nodes: 100_000,
            max_depth: 64,
            flow_nesting_limit: 64,
            max_documents: 1,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_merge_keys: 1_000,
            // Four times the largest file: more is made of aliases.
            max_total_scalar_bytes: 4 * 1024 * 1024,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: 20_000, max_replay_stack_depth: 16 },
        duplicate_keys: DuplicateKeyPolicy::Error,
        legacy_octal_numbers: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

fn refused(e: &Error) -> Refused {
    const WRITE_OUT: &str = "write out what is meant, without aliases";
    let at = e.location().map_or_else(String::new, |at| format!(" (line {}, column {})", at.line(), at.column()));
    let said = |what: &str, hint| Refused { what: format!("{what}{at}"), hint };
    match behind(e) {
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::Budget {
            breach:
                BudgetBreach::ScalarBytes { .. } | BudgetBreach::Aliases { .. } | BudgetBreach::AliasAnchorRatio { .. },
            ..
        } => said("its aliases unfold to more than a manifest may hold", WRITE_OUT),
        Error::RecursiveReferencesRequireWeakTypes { .. } => said("an alias leads back to itself", WRITE_OUT),
        Error::Budget { breach: BudgetBreach::Documents { .. }, .. } | Error::MultipleDocuments { .. } => {
            said("it holds more than one document", "a manifest is one document: take out what follows `---`")
        }
        Error::Budget { .. } => {
            said("it is deeper or longer than a manifest may be", "at most 64 levels and 100,000 values")
        }
        Error::DuplicateMappingKey { .. } => {
            let what = behind(e).to_string();
            // What follows is advice for who calls the parser.
            said(what.split(", set ").next().unwrap_or_default(), "a field stands once: take one of them out")
        }
        Error::UnsupportedTag { tag, .. } => {
            said(&format!("the tag {tag} has no meaning here"), "take the tag out: a manifest holds plain values")
        }
        _ => {
            let what = e.render_with_options(RenderOptions::new(&UserMessageFormatter));
            Refused { what, hint: "correct the line; indent with blanks, never tabs" }
        }
    }
}

/// What an alias stands for is refused in the alias's name.
fn behind(e: &Error) -> &Error {
    match e {
        Error::AliasError { error, .. } => behind(error),
        _ => e,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_what_they_are_read_as_today() {
        let text = "a: yes\nb: off\nc: 8.0\nd: 8000\ne: \"4.0\"\nf:\ng: ~\nh: 0644\ni: 0x1F\nj: 2026-01-02\nk: \"?\"\n\
                    l: 1.2.3\nm: -3\nn: [1, two]\no: &o {x: 1}\np: {<<: *o, y: 2}\n7: seven\nq: \"${HOME}\"\n";
        let expected = json!({
            "a": true, "b": false, "c": 8.0, "d": 8000, "e": "4.0", "f": null, "g": null, "h": 420, "i": 31,
            "j": "2026-01-02", "k": "?", "l": "1.2.3", "m": -3, "n": [1, "two"], "o": {"x": 1}, "p": {"x": 1, "y": 2},
            "7": "seven", "q": "${HOME}"
        });
        assert_eq!(read(text).unwrap(), expected);
        assert_eq!(read("").unwrap(), Value::Null);
        assert_eq!(read("\u{feff}---\nname: a\n...\n").unwrap(), json!({ "name": "a" }));
    }

    /// Nine lists of nine, one in the other, twelve times.
    fn bomb() -> String {
        let list = |of: String| vec![of; 9].join(",");
        let first = format!("a0: &a0 [{}]\n", list("x".into()));
        let others = (1..12).map(|n| format!("a{n}: &a{n} [{}]\n", list(format!("*a{}", n - 1))));
        first + &others.collect::<String>()
    }

    #[test]
    fn hostile_texts_are_refused_soon_and_in_words() {
        let fat = "x".repeat(900_000);
        let deep_block: String = (0..3000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        for (what, text, says) in [
            ("a bomb of aliases", bomb(), "aliases unfold"),
            ("one fat alias", format!("a: &a {fat}\nb: [{}]\n", ["*a"; 90].join(",")), "aliases unfold"),
            ("a fat alias in a list", format!("a: &a [{fat}]\nb: [{}]\n", ["*a"; 90].join(",")), "aliases unfold"),
            ("depth", format!("a: {}{}", "[".repeat(100_000), "]".repeat(100_000)), "line 1"),
            ("depth by blanks", deep_block, "at most 64 levels and"),
            ("width", format!("a: [{}]\n", "1,".repeat(300_000)), "at most 64 levels and"),
            ("a ring", "a: &a [*a]\n".into(), "leads back to itself"),
            ("an unknown alias", "a: *b\n".into(), "reference to unknown value"),
            ("two documents", "name: a\n---\nname: b\n".into(), "more than one document"),
            ("a key twice", "name: a\nname: b\n".into(), "duplicate mapping key: name (line 2, column 1)"),
            ("a key twice inside", "x: {a: 1, a: 2}\n".into(), "duplicate mapping key: a"),
            ("an object of Python", "a: !!python/object:os.system {x: 1}\n".into(), "has no meaning here"),
            ("an include", "a: !include /etc/passwd\n".into(), "the tag !include"),
            ("infinity", "a: .inf\n".into(), "line 1"),
            ("a tab", "a:\n\tb: 1\n".into(), "line 2"),
            ("an end that is missing", "a: [1, 2\nb: 3\n".into(), "line 2"),
            ("a control character", "a: b\u{1b}[31m\n".into(), "line 1"),
        ] {
            let began = Instant::now();
            let refused = read(&text).expect_err(what);
            let said = format!("{} {}", refused.what, refused.hint);
            assert!(said.contains(says), "{what}: {said}");
            println!("{what}: {said}");
            assert!(refused.what.chars().count() < 300 && !refused.what.contains('\u{1b}'), "{what}: {said}");
            assert!(began.elapsed() < Duration::from_secs(5), "{what} took {:?}", began.elapsed());
        }
    }
}

//! Texts as Rust has them.

use crate::program::{Piece, Text};

/// No line of a comment is longer.
const COLUMNS: usize = 110;

/// A string's literal.
pub(super) fn literal(text: &str) -> String {
    format!("{text:?}")
}

/// A text as an expression: a literal, or `format!` where a part is known only at the start.
pub(super) fn once(text: &Text) -> String {
    if let Some(plain) = text.plain() {
        return literal(&plain);
    }
    let part = |piece: &Piece| match piece {
        Piece::Text(text) => text.replace('{', "{{").replace('}', "}}"),
        Piece::Instance(0) => "{instance}".into(),
        Piece::Instance(width) => format!("{{instance:0>{width}}}"),
        Piece::Data => "{data}".into(),
        Piece::Run => "{run}".into(),
    };
    format!("format!({})", literal(&text.0.iter().map(part).collect::<String>()))
}

/// The same where anything that can be shown does.
pub(super) fn shown(text: &Text) -> String {
    match &text.0[..] {
        [Piece::Instance(0)] => "instance".into(),
        [Piece::Data] => "data".into(),
        [Piece::Run] => "run".into(),
        _ => once(text),
    }
}

/// Arguments as calls: literals together, the others alone.
pub(super) fn args(args: &[Text], indent: &str) -> String {
    let mut calls = String::new();
    let mut rest = args;
    while let Some(first) = rest.first() {
        let plain = rest.iter().take_while(|text| text.plain().is_some()).count();
        match plain {
            0 | 1 => {
                calls.push_str(&format!("{indent}.arg({})\n", shown(first)));
                rest = &rest[1..];
            }
            several => {
                let words: Vec<String> = rest[..several].iter().map(once).collect();
                calls.push_str(&format!("{indent}.args([{}])\n", words.join(", ")));
                rest = &rest[several..];
            }
        }
    }
    calls
}

/// Lines of a comment, wrapped.
pub(super) fn comment(mark: &str, text: &str) -> String {
    let (mut lines, mut line) = (String::new(), String::new());
    for word in text.split_whitespace() {
        if !line.is_empty() && mark.len() + line.len() + 1 + word.len() > COLUMNS {
            lines.push_str(&format!("{mark}{line}\n"));
            line.clear();
        }
        line.push_str(if line.is_empty() { "" } else { " " });
        line.push_str(word);
    }
    lines + &format!("{mark}{line}\n")
}

//! Command lines: into words where no shell is needed, else for a shell.

use crate::program::{Piece, Program, Text};

/// What a shell would not take as a plain word, outside of quotes.
const SYNTAX: [char; 19] =
    ['$', '`', ';', '&', '|', '<', '>', '(', ')', '{', '}', '*', '?', '[', ']', '~', '#', '!', '\n'];
/// Words that only a shell knows.
const BUILTINS: [&str; 22] = [
    "if", "for", "while", "until", "case", "cd", "export", "exec", "source", ".", "set", "ulimit", "umask", "trap",
    "eval", "alias", "unset", "read", "wait", "function", "select", "time",
];

/// Whether a shell must read this line.
pub(crate) fn needs_shell(line: &str) -> bool {
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None | Some('"'), '\\') => drop(chars.next()),
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (None, c) if SYNTAX.contains(&c) => return true,
            (Some('"'), '$' | '`') => return true,
            (Some(_) | None, _) => {}
        }
    }
    let first = line.split_whitespace().next().unwrap_or_default();
    quote.is_some() || BUILTINS.contains(&first) || shlex::split(line).is_none()
}

/// Puts a line as a shell would run it into a program: `A=1 ./serve --fast` or `cd x && ./serve | tee log`.
pub(crate) fn command(program: &mut Program, line: &str) {
    let line = line.trim();
    if needs_shell(line) {
        program.argv = vec!["/bin/sh".into(), "-c".into(), for_shell(line).into()];
        return;
    }
    let mut words = shlex::split(line).unwrap_or_default().into_iter().peekable();
    while let Some((name, value)) = words.peek().and_then(|word| assignment(word)) {
        program.set(&name, value);
        words.next();
    }
    program.argv = words.map(Text::from).collect();
}

/// `NAME=value` before a command.
fn assignment(word: &str) -> Option<(String, String)> {
    let (name, value) = word.split_once('=')?;
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    (first && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')).then(|| (name.to_owned(), value.to_owned()))
}

/// A single command takes the shell's place, so that signals reach it.
pub(crate) fn for_shell(line: &str) -> String {
    let mut quote = None;
    let mut is_single = true;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None | Some('"'), '\\') => drop(chars.next()),
            (None, '\'' | '"') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            (None, ';' | '&' | '|' | '\n' | '(' | '{' | '!') => is_single = false,
            (Some(_) | None, _) => {}
        }
    }
    // `${X}` is no group.
    let is_single = is_single || !line.replace("${", "").contains([';', '&', '|', '\n', '(', '{', '!']);
    let first = line.split_whitespace().next().unwrap_or_default();
    let is_plain = !BUILTINS.contains(&first) && assignment(first).is_none();
    if is_single && is_plain { format!("exec {line}") } else { line.to_owned() }
}

/// A text of a configuration as one word of a shell. What is known only at the start goes in as it is: names of units
/// and of folders need no quotes.
pub(crate) fn quoted(text: &Text) -> Text {
    if let Some(plain) = text.plain() {
        return Text::from(quote(&plain));
    }
    let part = |piece: &Piece| match piece {
        Piece::Text(text) => Piece::Text(quote(text)),
        other @ (Piece::Instance(_) | Piece::Data | Piece::Run) => other.clone(),
    };
    Text(text.0.iter().map(part).collect())
}

fn quote(text: &str) -> String {
    // Only a NUL cannot be quoted, and no file that was read as text has one that means something.
    shlex::try_quote(text).map_or_else(|_| text.replace('\0', ""), std::borrow::Cow::into_owned)
}

/// Variables that a line takes from its surroundings: `$HOME`, `${PORT:-80}`.
pub(crate) fn variables(line: &str) -> Vec<String> {
    let mut found = vec![];
    let mut rest = line;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        let name = rest.strip_prefix('{').unwrap_or(rest);
        let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(name.len());
        let name = &name[..end];
        if name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && !found.iter().any(|known| known == name) {
            found.push(name.to_owned());
        }
    }
    found
}

/// Variables that every program of Wharf has.
const GIVEN: [&str; 8] = ["HOME", "USER", "LOGNAME", "PATH", "LANG", "TMPDIR", "TZ", "PWD"];

/// Notes which variables a line takes that nobody sets here.
pub(crate) fn note_variables(program: &mut Program, line: &str) {
    let set = |name: &String| {
        program.env.iter().any(|(known, _)| known == name)
            || program.ports.iter().any(|port| port.told_by.as_ref() == Some(name))
    };
    let strange: Vec<String> =
        variables(line).into_iter().filter(|name| !GIVEN.contains(&name.as_str()) && !set(name)).collect();
    if !strange.is_empty() && program.env_file.is_none() {
        program.note(format!(
            "its command takes {} from the environment: Wharf gives a unit only what its service sets, so set it in `start`",
            strange.join(", ")
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(line: &str) -> Program {
        let mut program = Program::new("x", String::new());
        command(&mut program, line);
        program
    }

    fn argv(line: &str) -> Vec<String> {
        program(line).argv.iter().map(|text| text.plain().unwrap()).collect()
    }

    #[test]
    fn plain_words_need_no_shell() {
        assert_eq!(
            argv("python3 -m http.server 'a b' \"c d\" e\\ f"),
            ["python3", "-m", "http.server", "a b", "c d", "e f"]
        );
        assert_eq!(argv("grep 'a$b;c' \"x\\$y\""), ["grep", "a$b;c", "x$y"]);
        let with = program("A=1 B='two words' ./serve --x=y");
        assert_eq!(with.value("B").as_deref(), Some("two words"));
        assert_eq!(argv("A=1 ./serve --x=y"), ["./serve", "--x=y"]);
    }

    #[test]
    fn what_only_a_shell_understands_goes_to_one() {
        for (line, script) in [
            ("./serve -p $PORT", "exec ./serve -p $PORT"),
            ("./serve -p ${PORT:-80}", "exec ./serve -p ${PORT:-80}"),
            ("cd app && ./serve", "cd app && ./serve"),
            ("./a | tee log", "./a | tee log"),
            ("A=1 ./serve $X", "A=1 ./serve $X"),
            ("exec ./serve *.conf", "exec ./serve *.conf"),
            ("./serve > /tmp/log 2>&1", "./serve > /tmp/log 2>&1"),
            ("echo \"$(date)\"", "exec echo \"$(date)\""),
            ("./serve ~/x", "exec ./serve ~/x"),
            ("echo 'open", "exec echo 'open"),
        ] {
            assert_eq!(argv(line), ["/bin/sh", "-c", script]);
        }
    }

    #[test]
    fn variables_of_a_line_are_found() {
        assert_eq!(variables("a $X ${Y:-$Z} $1 $$ \"$X\""), ["X", "Y", "Z"]);
    }
}

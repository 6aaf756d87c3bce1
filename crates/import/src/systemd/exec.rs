//! systemd's command lines: their quotes, prefixes, specifiers and variables. No shell reads them there; one is put
//! between here only where a variable is known at the start alone.

use super::unit::Unit;
use crate::{
    File, Program,
    program::{Piece, Text},
    shell,
};

/// What `%x` stands for.
pub(super) struct Specifiers<'a> {
    called: &'a str,
    /// It is a unit of a user's own systemd.
    pub is_user: bool,
    pub home: String,
    run_folders: Vec<String>,
    state_folders: Vec<String>,
}

impl<'a> Specifiers<'a> {
    pub fn of(file: &File<'a>, called: &'a str, unit: &Unit) -> Self {
        let is_user = file.folder.contains("/systemd/user");
        let home = file.folder.split_once("/.config/").map_or("/root", |(home, _)| home).to_owned();
        let folders = |key: &str, base: &str| {
            let names = unit.all("Service", key).into_iter().flat_map(str::split_whitespace);
            names.map(|name| format!("{base}/{}", name.split(':').next().unwrap_or(name))).collect()
        };
        Self {
            called,
            is_user,
            home,
            run_folders: folders("RuntimeDirectory", "/run"),
            state_folders: folders("StateDirectory", "/var/lib"),
        }
    }

    /// A text with its specifiers filled in. Folders that systemd would make are Wharf's own.
    pub fn fill(&self, text: &str, program: &mut Program) -> Text {
        let mut filled = Text::default();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '%' => self.specifier(chars.next().unwrap_or('%'), &mut filled, program),
                c => filled.push(c.encode_utf8(&mut [0; 4])),
            }
        }
        self.own_folders(filled)
    }

    fn specifier(&self, which: char, filled: &mut Text, program: &mut Program) {
        let prefix = self.called.split('@').next().unwrap_or(self.called);
        match which {
            '%' => filled.push("%"),
            'i' | 'I' if program.is_template => {
                if which == 'I' {
                    program.note("%I is %i here: an instance's name has no slashes");
                }
                filled.0.push(Piece::Instance(0));
            }
            'i' | 'I' => filled.push(self.called.split_once('@').map_or("", |(_, i)| i)),
            'p' | 'P' | 'j' => filled.push(prefix),
            'n' | 'N' => {
                filled.push(self.called);
                if program.is_template {
                    filled.0.push(Piece::Instance(0));
                }
                filled.push(if which == 'n' { ".service" } else { "" });
            }
            'h' => filled.push(&self.home),
            't' => filled.push("/run"),
            'S' => filled.push("/var/lib"),
            'C' => filled.push("/var/cache"),
            'L' => filled.push("/var/log"),
            'E' => filled.push("/etc"),
            'T' => filled.push("/tmp"),
            'V' => filled.push("/var/tmp"),
            other => {
                program.note(format!("%{other} was left as it stands: fill it in by hand"));
                filled.push(&format!("%{other}"));
            }
        }
    }

    fn own_folders(&self, text: Text) -> Text {
        let mut folded = text;
        for (folders, piece) in [(&self.run_folders, Piece::Run), (&self.state_folders, Piece::Data)] {
            // With several, only the first is one of Wharf's.
            if let Some(folder) = folders.first() {
                folded = fold(folded, folder, &piece);
            }
        }
        folded
    }
}

/// Puts a piece in the place of a folder's path.
fn fold(text: Text, folder: &str, piece: &Piece) -> Text {
    let mut folded = Text::default();
    for part in text.0 {
        let Piece::Text(mut rest) = part else {
            folded.0.push(part);
            continue;
        };
        while let Some(at) = rest.find(folder) {
            let after = rest[at + folder.len()..].to_owned();
            if after.starts_with(|c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')) {
                break;
            }
            folded.push(&rest[..at]);
            folded.0.push(piece.clone());
            rest = after;
        }
        folded.push(&rest);
    }
    folded
}

/// Words as systemd splits them: quotes and C's escapes.
pub(super) fn split(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (vec![], None::<String>, None);
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(q), c) if q == c => quote = None,
            (Some(_) | None, '\\') => word.get_or_insert_default().push_str(&escape(chars.next())),
            (Some(_) | None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn escape(c: Option<char>) -> String {
    match c {
        Some('n') => "\n".into(),
        Some('t') => "\t".into(),
        Some('s') => " ".into(),
        Some(c @ ('\\' | '"' | '\'' | ' ' | ';' | '$')) => c.into(),
        Some(c) => format!("\\{c}"),
        None => "\\".into(),
    }
}

/// A command line as argv.
pub(super) fn argv(program: &mut Program, line: &str, specifiers: &Specifiers<'_>) -> Vec<Text> {
    let (line, marks) = prefixes(program, line);
    let mut words = split(line);
    if marks.contains('@') && words.len() > 1 {
        words.remove(1);
        program.note("ExecStart with @ names another argv[0]: it was left out");
    }
    if marks.contains(':') {
        return words.iter().map(|word| specifiers.fill(word, program)).collect();
    }
    let unknown = words.iter().flat_map(|word| names(word)).any(|name| known(program, &name).is_none());
    if unknown {
        return vec!["/bin/sh".into(), "-c".into(), script(program, &words, specifiers, "exec ")];
    }
    let mut filled = vec![];
    for word in &words {
        match whole_variable(word).and_then(|name| known(program, name)) {
            // Alone, it is as many words as its value has.
            Some(value) => filled.extend(value.split_whitespace().map(Text::from)),
            None => {
                let word = substituted(program, word);
                filled.push(specifiers.fill(&word, program));
            }
        }
    }
    filled
}

/// Several command lines, one after the other, as one for a shell.
pub(super) fn several(program: &mut Program, lines: &[&str], specifiers: &Specifiers<'_>) -> Vec<Text> {
    let mut all = Text::default();
    for (n, line) in lines.iter().enumerate() {
        let (line, marks) = prefixes(program, line);
        let words = split(line);
        all.push(if n == 0 { "" } else { " && " });
        let may_fail = marks.contains('-');
        all.push(if may_fail { "{ " } else { "" });
        for piece in script(program, &words, specifiers, "").0 {
            match piece {
                Piece::Text(text) => all.push(&text),
                other @ (Piece::Instance(_) | Piece::Data | Piece::Run) => all.0.push(other),
            }
        }
        all.push(if may_fail { " || true; }" } else { "" });
    }
    vec!["/bin/sh".into(), "-c".into(), all]
}

fn prefixes<'a>(program: &mut Program, line: &'a str) -> (&'a str, &'a str) {
    let rest = line.trim_start_matches(['-', '@', ':', '+', '!', '|']);
    let marks = &line[..line.len() - rest.len()];
    if marks.contains(['+', '!']) {
        program.note("a command with + or ! runs with more rights there; here all of a unit runs as its user");
    }
    (rest.trim_start(), marks)
}

/// `${NAME}` anywhere in a word, `$NAME` alone.
fn names(word: &str) -> Vec<String> {
    let mut found: Vec<String> = whole_variable(word).map(str::to_owned).into_iter().collect();
    let mut rest = word;
    while let Some((before, after)) = rest.split_once("${") {
        let is_escaped = before.ends_with('$');
        let Some((name, after)) = after.split_once('}') else { break };
        if !is_escaped {
            found.push(name.to_owned());
        }
        rest = after;
    }
    found
}

fn whole_variable(word: &str) -> Option<&str> {
    let name = word.strip_prefix('$')?;
    let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_name.then_some(name)
}

/// What a variable is for certain: an env file could change it.
fn known(program: &Program, name: &str) -> Option<String> {
    program.value(name).filter(|_| program.env_file.is_none())
}

fn substituted(program: &Program, word: &str) -> String {
    let mut filled = word.to_owned();
    for name in names(word) {
        if let Some(value) = known(program, &name) {
            // What comes from a variable holds no specifiers.
            filled = filled.replace(&format!("${{{name}}}"), &value.replace('%', "%%"));
        }
    }
    filled.replace("$$", "$")
}

/// The words for a shell: everything quoted but the variables.
fn script(program: &mut Program, words: &[String], specifiers: &Specifiers<'_>, before: &str) -> Text {
    let mut line = Text::default();
    let splits = words.iter().any(|word| whole_variable(word).is_some());
    // A variable alone is split into words, and no file names are made of them.
    line.push(if splits { "set -f; " } else { "" });
    line.push(before);
    for (n, word) in words.iter().enumerate() {
        line.push(if n == 0 { "" } else { " " });
        if whole_variable(word).is_some() {
            line.push(word);
            continue;
        }
        let mut rest = word.as_str();
        if rest.is_empty() {
            line.push("''");
        }
        while !rest.is_empty() {
            let (plain, variable, after) = match rest.split_once("${") {
                Some((plain, after)) if !plain.ends_with('$') => match after.split_once('}') {
                    Some((name, after)) => (plain, Some(name), after),
                    None => (rest, None, ""),
                },
                Some(_) | None => (rest, None, ""),
            };
            if !plain.is_empty() {
                let text = specifiers.fill(&plain.replace("$$", "$"), program);
                line.0.extend(shell::quoted(&text).0);
            }
            if let Some(name) = variable {
                line.push(&format!("\"${{{name}}}\""));
            }
            rest = after;
        }
    }
    joined(line)
}

/// Neighbouring texts as one.
fn joined(text: Text) -> Text {
    let mut joined = Text::default();
    for piece in text.0 {
        match piece {
            Piece::Text(text) => joined.push(&text),
            other @ (Piece::Instance(_) | Piece::Data | Piece::Run) => joined.0.push(other),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(line: &str, env: &[(&str, &str)], has_file: bool) -> Vec<String> {
        let mut program = Program::new("x", String::new());
        for (name, value) in env {
            program.set(name, *value);
        }
        if has_file {
            program.env_file = Some(crate::program::EnvFile { path: "/etc/x".into(), is_optional: false });
        }
        let unit = Unit::default();
        let specifiers = Specifiers::of(&File::default(), "x", &unit);
        argv(&mut program, line, &specifiers).iter().map(|t| t.plain().unwrap()).collect()
    }

    #[test]
    fn words_are_split_as_systemd_splits_them() {
        assert_eq!(
            split(r#"/bin/x 'a b' "c \"d\"" e\sf --x="1 2" '' \t"#),
            ["/bin/x", "a b", "c \"d\"", "e f", "--x=1 2", "", "\t"]
        );
    }

    #[test]
    fn variables_that_are_known_are_filled_in() {
        let env = [("OPTS", "-a -b"), ("ONE", "a b")];
        assert_eq!(
            filled("/bin/x $OPTS ${ONE} --x=${ONE} $$HOME 100%% %p", &env, false),
            ["/bin/x", "-a", "-b", "a b", "--x=a b", "$HOME", "100%", "x"]
        );
    }

    #[test]
    fn a_shell_fills_in_the_others() {
        let shell = filled("/bin/x $OPTS 'a b' --x=${ONE}y", &[], true);
        assert_eq!(shell[2], "set -f; exec /bin/x $OPTS 'a b' '--x='\"${ONE}\"y");
        assert_eq!(filled("/bin/x ${A}", &[("A", "1")], true)[2], "exec /bin/x \"${A}\"");
    }
}

//! Where a secret's value comes from: a file, the daemon's environment, a program, or chance.

use std::{
    fs::OpenOptions,
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use wharf_model::{ErrorKind, Failure, UnitName};
use zeroize::{Zeroize, Zeroizing};

use crate::{secret, tool::Tool, which};

/// A longer value is no secret, in bytes.
const MOST_BYTES: u64 = 64 << 10;
/// A program that is asked for a secret may take this long.
const ASK_TIME: Duration = Duration::from_secs(10);
/// How many random bytes can be asked for.
const GENERATED: std::ops::RangeInclusive<usize> = 8..=1024;

/// A secret's reference, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// `file:/path`: the file's bytes.
    File(PathBuf),
    /// `env:NAME`: a variable of the daemon.
    Env(String),
    /// `command:PROGRAM ARGUMENTS`: what it writes to stdout, without the last line's end.
    Command(Vec<String>),
    /// `generate:BYTES`: so many random bytes in hex, made once and kept in a 0600 file.
    Generate(usize),
}

impl Reference {
    /// Reads what a policy says.
    ///
    /// # Errors
    /// `invalid_params`, with the four forms.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = |why: String| {
            let failure = Failure::new(ErrorKind::InvalidParams, why);
            Err(failure.hint("file:/path, env:NAME, command:PROGRAM ARGUMENTS or generate:BYTES (8 to 1024)"))
        };
        match text.split_once(':') {
            Some(("file", path)) if path.starts_with('/') => Ok(Self::File(path.into())),
            Some(("file", _)) => wrong("the path behind file: does not begin with '/'".into()),
            Some(("env", name)) if !name.is_empty() && !name.contains(['=', '\0']) => Ok(Self::Env(name.into())),
            Some(("command", line)) => match split(line) {
                Ok(argv) if argv.first().is_some_and(|program| !program.is_empty()) => Ok(Self::Command(argv)),
                Ok(_) => wrong("no program stands behind command:".into()),
                Err(why) => wrong(format!("the line behind command: {why}")),
            },
            Some(("generate", bytes)) => match bytes.parse() {
                Ok(bytes) if GENERATED.contains(&bytes) => Ok(Self::Generate(bytes)),
                Ok(_) | Err(_) => wrong(format!("generate:{bytes} names no number of bytes")),
            },
            Some(_) | None => wrong("it is no reference".into()),
        }
    }

    /// For people. Of a command only the program: its arguments can be telling.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => format!("file:{}", path.display()),
            Self::Env(name) => format!("env:{name}"),
            Self::Command(argv) => format!("command:{}", argv.first().map_or("", String::as_str)),
            Self::Generate(bytes) => format!("generate:{bytes}"),
        }
    }

    /// The value, where it can be had without anything being run or made.
    pub(super) fn at_rest(&self, unit: &UnitName, name: &str, secrets: &Path) -> Option<Zeroizing<Vec<u8>>> {
        let value = match self {
            Self::File(path) => read_file(path).ok(),
            Self::Env(variable) => std::env::var_os(variable).map(std::os::unix::ffi::OsStringExt::into_vec),
            Self::Command(_) => None,
            Self::Generate(_) => read_file(&secrets.join(generated_name(unit, name))).ok(),
        };
        value.map(Zeroizing::new)
    }

    /// The value, now.
    pub(super) async fn read(
        &self,
        unit: &UnitName,
        name: &str,
        secrets: &Path,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let value = match self {
            Self::File(path) => {
                let path = path.clone();
                let read = tokio::task::spawn_blocking(move || read_file(&path)).await;
                read.map_err(|e| e.to_string()).and_then(|read| read)
            }
            Self::Env(variable) => match std::env::var_os(variable) {
                Some(value) => Ok(std::os::unix::ffi::OsStringExt::into_vec(value)),
                None => Err("the daemon's environment does not have it".into()),
            },
            Self::Command(argv) => ask(argv).await,
            Self::Generate(bytes) => {
                let made = secret::once(secrets, &generated_name(unit, name), *bytes)?;
                Ok(made.reveal().as_bytes().to_vec())
            }
        };
        match value.map(Zeroizing::new) {
            Ok(value) if value.is_empty() => Err(self.unread(name, "it is empty")),
            Ok(value) => Ok(value),
            Err(why) => Err(self.unread(name, &why)),
        }
    }

    fn unread(&self, name: &str, why: &str) -> Failure {
        let failure = Failure::new(
            ErrorKind::Precondition,
            format!("the secret {name} cannot be had from {}: {why}", self.name()),
        );
        failure.hint(match self {
            Self::File(path) => format!("put the value into {}, readable by Wharf's user alone", path.display()),
            Self::Env(variable) => format!("start the daemon with {variable} in its environment"),
            Self::Command(_) => "run it by hand, as Wharf's user, to see why".into(),
            Self::Generate(_) => "see docs/secrets.md".into(),
        })
    }
}

/// The file that keeps a generated value. Neither part can hold a colon.
pub(super) fn generated_name(unit: &UnitName, name: &str) -> String {
    format!("{unit}:{name}")
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    // A pipe without a writer would hold up its reader.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(|e| e.to_string())?;
    let found = file.metadata().map_err(|e| e.to_string())?;
    if !found.is_file() || found.len() > MOST_BYTES {
        return Err("it is no plain file of at most 64 KiB".into());
    }
    let mut value = Vec::with_capacity(found.len() as usize);
    file.take(MOST_BYTES).read_to_end(&mut value).map_err(|e| e.to_string())?;
    Ok(value)
}

/// What the program writes. What it says on stderr is not repeated: it could be telling.
async fn ask(argv: &[String]) -> Result<Vec<u8>, String> {
    let (program, args) = argv.split_first().ok_or("there is no program")?;
    let path = which::first(program).ok_or("there is no such program")?;
    let mut output =
        Tool::new(path).args(args.iter().cloned()).limit(ASK_TIME).output().await.map_err(|f| f.message)?;
    output.stderr.zeroize();
    let mut value = Zeroizing::new(std::mem::take(&mut output.stdout));
    if output.code != 0 {
        return Err(format!("it ended with code {}", output.code));
    }
    if value.len() as u64 > MOST_BYTES {
        return Err("it wrote more than 64 KiB".into());
    }
    // What is no UTF-8 was replaced already: it would be another value.
    if value.contains('\u{FFFD}') {
        return Err("what it wrote is no text".into());
    }
    if value.ends_with('\n') {
        let end = value.len() - 1;
        value.truncate(end);
    }
    Ok(value.as_bytes().to_vec())
}

/// Words as a shell would split them: quotes and backslashes, and nothing else of a shell.
fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let (mut words, mut word, mut chars) = (vec![], None::<String>, line.chars());
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => words.extend(word.take()),
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err("has quotes that are not closed"),
                        Some(end) if end == c => break,
                        Some('\\') if c == '"' => match chars.next() {
                            None => return Err("has quotes that are not closed"),
                            Some(plain @ ('"' | '\\' | '$' | '`')) => word.push(plain),
                            Some(other) => word.extend(['\\', other]),
                        },
                        Some(plain) => word.push(plain),
                    }
                }
            }
            '\\' => word.get_or_insert_default().push(chars.next().ok_or("ends with a backslash")?),
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_as_a_shell_does_it() {
        let of = |line: &str| split(line).unwrap();
        assert_eq!(of("pass show  db/main"), ["pass", "show", "db/main"]);
        assert_eq!(of(r#"a 'b c' "d \"e\" \x" f\ g '' h'i'j"#), ["a", "b c", "d \"e\" \\x", "f g", "", "hij"]);
        assert_eq!(of("a $HOME | b;c"), ["a", "$HOME", "|", "b;c"], "no shell");
        assert!(split("a 'b").is_err() && split("a \\").is_err());
    }

    #[test]
    fn what_is_no_reference_is_refused_with_the_forms() {
        for bad in
            ["file:relative", "env:", "command:", "command:''", "generate:x", "generate:4", "gopher:x", "plain", ""]
        {
            let failure = Reference::parse(bad).expect_err(bad);
            assert!(failure.hint.unwrap().contains("generate:BYTES"), "{bad}");
        }
        assert_eq!(Reference::parse("generate:32").unwrap(), Reference::Generate(32));
        assert_eq!(Reference::parse("file:/a b").unwrap(), Reference::File("/a b".into()));
    }
}

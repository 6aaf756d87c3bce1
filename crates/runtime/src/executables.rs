//! The folder of services that are executables of their own: which files are in it, whether they may be trusted, and
//! what they say of themselves.
//!
//! It runs nothing that somebody else could have written, and waits for none longer than its limit. It refuses to know
//! what an answer means to Wharf.

mod stage;
mod trust;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use wharf_model::{ErrorKind, Failure};
use wharf_services::{Card, Output, Verb};

pub(crate) use stage::Stage;
pub use trust::sound;

use crate::{environment, tool::Tool};

/// No folder has more files that are asked.
const MOST: usize = 256;
/// So many are asked at a time.
const AT_ONCE: usize = 8;
/// Of what one wrote to stderr, so many lines go to the daemon's log.
const LOG_LINES: usize = 100;

/// A file that cannot be a service as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// The file, or the folder.
    pub path: PathBuf,
    /// What is wrong: a sentence that begins with the path.
    pub message: String,
    /// The next thing to do.
    pub hint: String,
}

impl Unusable {
    /// A file and what is wrong with it.
    pub fn new(path: &Path, what: impl std::fmt::Display, hint: impl Into<String>) -> Self {
        Self { path: path.to_owned(), message: format!("{}: {what}", path.display()), hint: hint.into() }
    }
}

impl From<Unusable> for Failure {
    fn from(unusable: Unusable) -> Self {
        Self::new(ErrorKind::Permission, unusable.message).hint(unusable.hint)
    }
}

/// A file that said what it is.
#[derive(Debug)]
pub struct Asked {
    /// The file.
    pub path: PathBuf,
    /// Its answer.
    pub card: Card,
}

/// What is in a folder.
#[derive(Debug, Default)]
pub struct Folder {
    /// Files that may be asked, by path.
    pub files: Vec<PathBuf>,
    /// Those that may not.
    pub unusable: Vec<Unusable>,
}

/// The files of the folder. Hidden ones, those that begin with `_` and folders are not services: they may hold what
/// services share.
pub fn list(folder: &Path) -> Folder {
    let mut found = Folder::default();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return found,
        Err(e) => {
            found.unusable.push(Unusable::new(folder, e, "let the user that Wharf runs as read it"));
            return found;
        }
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| {
        !path.is_dir() && !path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(['.', '_']))
    });
    paths.sort();
    for path in paths.drain(paths.len().min(MOST)..) {
        let what = format!("there are more than {MOST} files in its folder");
        found.unusable.push(Unusable::new(&path, what, "move what is no service away, or into a folder below"));
    }
    for path in paths {
        match sound(&path) {
            Ok(()) => found.files.push(path),
            Err(unusable) => found.unusable.push(unusable),
        }
    }
    found
}

/// Asks each file what it is. One that hangs or talks nonsense is named, and the others are heard all the same.
pub async fn ask(files: Vec<PathBuf>) -> (Vec<Asked>, Vec<Unusable>) {
    let answers = stream::iter(files).map(|path| async move { (facts(&path).await, path) });
    let answers: Vec<_> = answers.buffered(AT_ONCE).collect().await;
    let (mut asked, mut unusable) = (vec![], vec![]);
    for (answer, path) in answers {
        match answer {
            Ok(card) => asked.push(Asked { path, card }),
            Err(why) => unusable.push(why),
        }
    }
    (asked, unusable)
}

async fn facts(path: &Path) -> Result<Card, Unusable> {
    let by_hand = || format!("see what it says: echo '{}' | {} facts", Card::request(), path.display());
    let folder = path.parent().unwrap_or(Path::new("/"));
    let output = Tool {
        program: path.to_owned(),
        args: vec![Verb::Facts.word().into()],
        env: Some(environment::of_nobody(folder)),
        cwd: Some(folder.to_owned()),
        limit: Duration::from_millis(Verb::Facts.limit_ms()),
        stdin: Card::request(),
        ..Tool::default()
    }
    .output()
    .await
    .map_err(|failure| Unusable::new(path, failure.message, by_hand()))?;
    log(&path.display().to_string(), Verb::Facts.word(), &output.stderr);
    let Output { stderr, .. } = &output;
    Card::from_answer(path, &output).map_err(|why| {
        let last = stderr.lines().rev().find(|line| !line.trim().is_empty());
        let last = last.map_or_else(String::new, |line| format!("; its last line: {}", line.trim()));
        Unusable::new(path, format!("asked for its facts, {why}{last}"), by_hand())
    })
}

/// What was written to stderr, line by line.
pub fn log(who: &str, verb: &str, text: &str) {
    for line in text.lines().take(LOG_LINES) {
        tracing::info!("{who} {verb}: {}", line.chars().take(500).collect::<String>());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn put(dir: &Path, name: &str, mode: u32, text: &str) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[tokio::test]
    async fn each_file_that_is_no_service_is_named_and_the_rest_is_heard() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        put(at, "good.sh", 0o755, "#!/bin/sh\nread -r request; echo \"{\\\"summary\\\": \\\"$1\\\"}\"\n");
        put(at, "plain.txt", 0o644, "hello");
        put(at, "open", 0o777, "#!/bin/sh\ntouch open-was-run\n");
        put(at, "nonsense", 0o700, "#!/bin/sh\necho I am a service; echo oh >&2\n");
        put(at, "broken", 0o700, "no program at all");
        put(at, ".hidden", 0o777, "");
        put(at, "_shared", 0o644, "");
        fs::create_dir(at.join("lib")).unwrap();
        let folder = list(at);
        let (asked, mut unusable) = ask(folder.files).await;
        unusable.extend(folder.unusable);
        assert_eq!(asked.len(), 1);
        assert_eq!((asked[0].card.service(), asked[0].card.summary.as_str()), ("good", "facts"));
        unusable.sort_by(|a, b| a.path.cmp(&b.path));
        let names: Vec<&str> = unusable.iter().map(|u| u.path.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["broken", "nonsense", "open", "plain.txt"]);
        assert!(unusable[1].message.contains("I am a service") && unusable[1].message.contains("last line: oh"));
        assert!(unusable[2].message.contains("others can write"), "{unusable:?}");
        assert!(unusable[3].message.contains("not executable"), "{unusable:?}");
        assert!(unusable.iter().all(|u| u.message.contains(u.path.to_str().unwrap()) && !u.hint.is_empty()));
        assert!(!at.join("open-was-run").exists(), "what others can write is never run");
    }

    #[test]
    fn a_folder_that_is_not_there_is_empty() {
        let folder = list(Path::new("/nowhere/services"));
        assert!(folder.files.is_empty() && folder.unusable.is_empty());
    }
}

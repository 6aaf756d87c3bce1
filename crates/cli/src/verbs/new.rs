//! `wharf new`: a crate of a user's own, which is Wharf with the services that they write.
//!
//! It owns the template (`templates/new`) and what stands in it for Wharf itself. A folder that has something in it is
//! never written to.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

use clap::ValueHint;
use serde_json::json;
use wharf_model::{ErrorKind, Failure};

use crate::{
    Exit,
    session::Session,
    trouble::{Outcome, Trouble},
};

/// Make a crate for services of your own: Wharf's library, one sample service, its test
///
/// What it builds is `wharf` with your services in it. docs/adding/service.md says how one is written, and
/// docs/adding/executable.md how to do it in another language.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf new my-services && cd my-services && cargo test
  wharf new ~/src/my-services --wharf ~/src/wharf")]
pub(crate) struct New {
    /// The folder to make; its last part is the crate's name
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folder: PathBuf,
    /// Wharf's source tree. Usually the one that this `wharf` was built from, where it is there, else the version
    #[arg(long, value_name = "DIR", env = "WHARF_SOURCE", hide_env = true, value_hint = ValueHint::DirPath)]
    wharf: Option<PathBuf>,
}

/// Each file of the template: where it goes, and its text.
const FILES: [(&str, &str); 7] = [
    ("Cargo.toml", include_str!("../../templates/new/Cargo.toml.in")),
    (".gitignore", include_str!("../../templates/new/gitignore")),
    ("README.md", include_str!("../../templates/new/README.md.in")),
    ("src/main.rs", include_str!("../../templates/new/src/main.rs.in")),
    ("src/lib.rs", include_str!("../../templates/new/src/lib.rs.in")),
    ("src/services.rs", include_str!("../../templates/new/src/services.rs.in")),
    ("src/services/greeter.rs", include_str!("../../templates/new/src/services/greeter.rs.in")),
];

/// What the crate gets Wharf from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// A source tree of this machine.
    Tree(PathBuf),
    /// The registry.
    Version(&'static str),
}

impl New {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let folder = std::path::absolute(&self.folder)?;
        let name = folder.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        sound(&name)?;
        empty(&folder)?;
        let origin = origin(self.wharf.as_deref())?;
        write(&folder, &name, &origin)?;
        let from = match &origin {
            Origin::Tree(tree) => tree.display().to_string(),
            Origin::Version(version) => format!("version {version}"),
        };
        if session.json {
            let files: Vec<&str> = FILES.iter().map(|(path, _)| *path).collect();
            session.say_json(&json!({ "path": folder, "name": name, "wharf": from, "files": files }).to_string())?;
        } else {
            session.say(&said(&self.folder, &from))?;
        }
        Ok(Exit::Done)
    }
}

fn said(folder: &Path, from: &str) -> String {
    format!(
        "made {folder}, with Wharf from {from}

  cd {folder}
  cargo test                      what its service would do, without doing it
  cargo run -- up --detach        start the daemon, with the service in it
  cargo run -- start greeter

A service is one file in src/services/ and two lines in src/services.rs.",
        folder = folder.display()
    )
}

/// What cargo takes as the name of a crate, and what does not stand in the way of Wharf's own.
fn sound(name: &str) -> Result<(), Failure> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_lowercase());
    let rest = bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'));
    let taken = ["wharf", "core", "std", "alloc", "test", "proc-macro", "proc_macro", "serde", "schemars", "tokio"];
    if first && rest && name.len() <= 64 && !taken.contains(&name) && !KEYWORDS.contains(&name) {
        return Ok(());
    }
    Err(Failure::new(ErrorKind::InvalidParams, format!("{name:?} is no name for a crate"))
        .hint("a-z, 0-9, '-' and '_', with a letter at its front, and no word of Rust: wharf new my-services"))
}

/// Words that no crate can be called by.
const KEYWORDS: [&str; 45] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "try", "type", "unsafe", "use",
];

fn empty(folder: &Path) -> Result<(), Failure> {
    let taken = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_some(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => false,
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => true,
        Err(e) => return Err(Failure::from(e).while_doing(format_args!("look into {}", folder.display()))),
    };
    match taken {
        false => Ok(()),
        true => Err(Failure::new(ErrorKind::Conflict, format!("{} is there already", folder.display()))
            .hint("name another folder; this one is left as it is")),
    }
}

/// A tree that somebody named, else the one that this program was built from, else this version.
fn origin(named: Option<&Path>) -> Result<Origin, Failure> {
    if let Some(named) = named {
        return tree(named).map(Origin::Tree).ok_or_else(|| {
            Failure::new(ErrorKind::Precondition, format!("{} is not Wharf's source tree", named.display()))
                .hint("name the folder that has crates/cli/Cargo.toml in it")
        });
    }
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    Ok(tree(&own).map_or(Origin::Version(env!("CARGO_PKG_VERSION")), Origin::Tree))
}

/// The top of a source tree of Wharf, if it is one.
fn tree(folder: &Path) -> Option<PathBuf> {
    let top = fs::canonicalize(folder).ok()?;
    let text = fs::read_to_string(top.join("crates/cli/Cargo.toml")).ok()?;
    text.contains("name = \"wharf\"").then_some(top)
}

fn write(folder: &Path, name: &str, origin: &Origin) -> Result<(), Trouble> {
    let dependency = match origin {
        Origin::Tree(top) => {
            let path = top.join("crates/cli").display().to_string();
            format!("{{ path = {} }}", json!(path))
        }
        Origin::Version(version) => json!(version).to_string(),
    };
    let ident = name.replace('-', "_");
    for (path, text) in FILES {
        let text = text.replace("@WHARF@", &dependency).replace("@NAME@", name).replace("@IDENT@", &ident);
        put(&folder.join(path), &text)?;
    }
    // The versions that this Wharf was tried with, and no network is needed where it was built.
    if let Origin::Tree(top) = origin
        && let Ok(lock) = fs::read_to_string(top.join("Cargo.lock"))
    {
        put(&folder.join("Cargo.lock"), &lock)?;
    }
    Ok(())
}

fn put(path: &Path, text: &str) -> Result<(), Failure> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent)
        .and_then(|()| fs::write(path, text))
        .map_err(|e| Failure::from(e).while_doing(format_args!("write {}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_or_the_compiler_would_refuse_is_refused_first() {
        for good in ["my-services", "a", "x2_y"] {
            assert!(sound(good).is_ok(), "{good}");
        }
        for bad in ["", "2x", "wharf", "match", "My", "a b", "a/b", "ä", "..", &"x".repeat(65)] {
            assert!(sound(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_folder_with_something_in_it_is_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        assert!(empty(&dir.path().join("new")).is_ok() && empty(dir.path()).is_ok());
        fs::write(dir.path().join("mine"), "").unwrap();
        for taken in [dir.path().to_owned(), dir.path().join("mine")] {
            assert_eq!(empty(&taken).unwrap_err().kind, ErrorKind::Conflict);
        }
    }

    #[test]
    fn wharf_comes_from_the_tree_or_by_its_version() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(origin(Some(dir.path())).unwrap_err().kind, ErrorKind::Precondition);
        let Origin::Tree(top) = origin(None).unwrap() else { panic!("this test runs in the tree") };
        assert!(top.join("crates/cli").is_dir());
        write(&dir.path().join("a"), "my-services", &Origin::Version("9.9.9")).unwrap();
        let toml = fs::read_to_string(dir.path().join("a/Cargo.toml")).unwrap();
        assert!(toml.contains("wharf = \"9.9.9\"") && toml.contains("name = \"my-services\""), "{toml}");
        assert!(!dir.path().join("a/Cargo.lock").exists());
        write(&dir.path().join("b"), "my-services", &Origin::Tree(top)).unwrap();
        let main = fs::read_to_string(dir.path().join("b/src/main.rs")).unwrap();
        assert!(main.contains("my_services::services::catalogue()") && dir.path().join("b/Cargo.lock").exists());
        for (path, _) in FILES {
            let text = fs::read_to_string(dir.path().join("b").join(path)).unwrap();
            assert!(!text.contains("@NAME@") && !text.contains("@WHARF@") && !text.contains("@IDENT@"), "{path}");
        }
    }
}

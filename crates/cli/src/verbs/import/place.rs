//! Where written services go: into a crate of `wharf new`, with the lines that make them known, or into a folder.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use wharf_import::Written;
use wharf_model::{ErrorKind, Failure};

/// Why they cannot go there.
#[derive(Debug)]
pub(super) struct Misplaced(pub(super) Failure);

/// The line in a crate's list of services after which others stand.
const CATALOGUE: &str = "Catalogue::built_in()";

/// A place for services.
#[derive(Debug)]
pub(super) enum Place {
    /// A crate: its folder.
    Crate(PathBuf),
    /// Any other folder.
    Folder(PathBuf),
}

fn list_of(folder: &Path) -> PathBuf {
    folder.join("src/services.rs")
}

fn is_crate(folder: &Path) -> bool {
    fs::read_to_string(list_of(folder)).is_ok_and(|text| text.contains(CATALOGUE))
}

impl Place {
    /// The named folder, else the crate that this is typed in.
    pub(super) fn find(named: Option<&Path>) -> Result<Self, Misplaced> {
        let whole = |path: &Path| std::path::absolute(path).map_err(|e| Misplaced(e.into()));
        match named {
            Some(named) if is_crate(named) => Ok(Self::Crate(whole(named)?)),
            Some(named) => Ok(Self::Folder(whole(named)?)),
            None => {
                let here = whole(Path::new("."))?;
                match here.ancestors().find(|folder| is_crate(folder)) {
                    Some(found) => Ok(Self::Crate(found.to_owned())),
                    None => Err(Misplaced(
                        Failure::new(ErrorKind::Precondition, "there is no crate of services here")
                            .hint("make one and name it: wharf new my-services, then --out my-services"),
                    )),
                }
            }
        }
    }

    fn files(&self) -> PathBuf {
        match self {
            Self::Crate(folder) => folder.join("src/services"),
            Self::Folder(folder) => folder.clone(),
        }
    }

    /// Writes all or, where one is there already, none.
    pub(super) fn write(&self, written: &[Written], force: bool) -> Result<Vec<PathBuf>, Misplaced> {
        let folder = self.files();
        let paths: Vec<PathBuf> = written.iter().map(|file| folder.join(format!("{}.rs", file.module))).collect();
        let there: Vec<String> = paths.iter().filter(|p| p.exists()).map(|p| p.display().to_string()).collect();
        if !there.is_empty() && !force {
            return Err(Misplaced(
                Failure::new(ErrorKind::Conflict, format!("there is a file already: {}", there.join(", "))).hint(
                    "look at what it says; --force writes over it, --out takes another folder. Nothing was written",
                ),
            ));
        }
        let unwritten = |path: &Path, e: std::io::Error| {
            Misplaced(Failure::from(e).while_doing(format_args!("write {}", path.display())))
        };
        fs::create_dir_all(&folder).map_err(|e| unwritten(&folder, e))?;
        for (file, path) in written.iter().zip(&paths) {
            fs::write(path, &file.text).map_err(|e| unwritten(path, e))?;
        }
        if let Self::Crate(top) = self {
            let list = list_of(top);
            let text = fs::read_to_string(&list).map_err(|e| unwritten(&list, e))?;
            let listed = listed(&text, written);
            if listed != text {
                fs::write(&list, listed).map_err(|e| unwritten(&list, e))?;
            }
        }
        format(&paths);
        Ok(paths)
    }

    /// What comes next.
    pub(super) fn next_steps(&self, written: &[Written], first: &str) -> String {
        match self {
            Self::Crate(folder) => format!(
                "\nLook at what was written, then:\n  cd {}\n  cargo run -- up --detach        or, where one runs: cargo run -- daemon --replace --detach\n  cargo run -- start {first}",
                folder.display()
            ),
            Self::Folder(_) => {
                let lines: Vec<String> = written
                    .iter()
                    .map(|file| format!("  mod {0};   and   .with({0}::{1})", file.module, file.type_name))
                    .collect();
                format!("\nMake them known in your crate's list of services:\n{}", lines.join("\n"))
            }
        }
    }
}

/// The list of a crate with these in it. What is in it already is left as it is.
fn listed(text: &str, written: &[Written]) -> String {
    let mut text = text.to_owned();
    for file in written {
        let module = format!("mod {};", file.module);
        if !text.lines().any(|line| line.trim().trim_start_matches("pub ") == module) {
            let is_place =
                |line: &str| line.starts_with("mod ") || line.starts_with("pub mod ") || line.starts_with("use ");
            let at = text.lines().take_while(|line| !is_place(line)).map(|line| line.len() + 1).sum::<usize>();
            text.insert_str(at.min(text.len()), &format!("{module}\n"));
        }
        let with = format!(".with({}::{})", file.module, file.type_name);
        if !text.contains(&with) {
            text = text.replacen(CATALOGUE, &format!("{CATALOGUE}\n        {with}"), 1);
        }
    }
    text
}

/// As the machine's rustfmt has it; without one they are as they were written.
fn format(paths: &[PathBuf]) {
    let quiet = || Stdio::null();
    // Whether it worked does not matter: the text is the same.
    let _ = Command::new("rustfmt").args(["--edition", "2024"]).args(paths).stdout(quiet()).stderr(quiet()).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(module: &str, type_name: &str) -> Written {
        Written { service: module.into(), module: module.into(), type_name: type_name.into(), text: "// x\n".into() }
    }

    #[test]
    fn services_are_added_to_the_list_once() {
        let list = include_str!("../../../templates/new/src/services.rs.in");
        let both = [written("web", "Web"), written("db", "Db")];
        let once = listed(list, &both);
        assert!(once.contains("\nmod db;\nmod web;\nmod greeter;\n"), "{once}");
        assert!(
            once.contains(
                "Catalogue::built_in()\n        .with(db::Db)\n        .with(web::Web)\n        .with(greeter::Greeter)"
            ),
            "{once}"
        );
        assert_eq!(listed(&once, &both), once);
    }

    #[test]
    fn nothing_is_written_over_and_nothing_by_half() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::find(Some(dir.path())).unwrap();
        fs::write(dir.path().join("db.rs"), "mine").unwrap();
        let both = [written("web", "Web"), written("db", "Db")];
        let Misplaced(failure) = place.write(&both, false).unwrap_err();
        assert!(failure.message.contains("db.rs") && failure.kind == ErrorKind::Conflict);
        assert!(!dir.path().join("web.rs").exists());
        assert_eq!(place.write(&both, true).unwrap().len(), 2);
        assert_ne!(fs::read_to_string(dir.path().join("db.rs")).unwrap(), "mine");
    }
}

//! Reads what another supervisor was told (a Procfile, a process-compose file, a pm2 ecosystem, supervisord's sections,
//! a systemd unit) and writes the service, in Rust, that does the same under Wharf.
//!
//! ```text
//!  text ── procfile, process_compose, pm2, supervisord, systemd ──> Program ── code ──> a file of Rust
//!                                                                      └──> notes: what has no counterpart
//! ```
//!
//! It owns what each word of those files means, and what it is here. It is given texts and gives texts: it refuses to
//! know the disk, the machine, and what becomes of a file that it wrote.

mod code;
mod kind;
mod names;
mod pm2;
mod process_compose;
mod procfile;
mod program;
mod shell;
mod supervisord;
mod systemd;
mod value;

use wharf_model::{ErrorKind, Failure};

pub use code::{Written, write};
pub use kind::Kind;
pub use program::{Note, Program};

/// A file that is to be read, and what of its surroundings it means.
#[derive(Debug, Clone, Default)]
pub struct File<'a> {
    /// Its name without its folder.
    pub name: &'a str,
    /// What is in it; a JavaScript file of pm2 as the JSON that it comes to.
    pub text: &'a str,
    /// The folder that it lies in, whole: what paths in it begin at.
    pub folder: &'a str,
    /// Files that belong to it, in their order: drop-ins and timers of a unit.
    pub beside: Vec<(String, String)>,
    /// There is a file `.env` in its folder.
    pub has_dot_env: bool,
}

/// What a file comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Imported {
    /// The services, in the file's order.
    pub services: Vec<Program>,
    /// What is said of the file as a whole and has no counterpart.
    pub notes: Vec<Note>,
}

/// Reads files that belong together: services of one may need those of another.
///
/// # Errors
/// `invalid_params` where one is not of its kind, or names no program.
pub fn import(files: &[(Kind, File<'_>)]) -> Result<Imported, Failure> {
    let mut all = Imported { services: vec![], notes: vec![] };
    for (kind, file) in files {
        match one(*kind, file) {
            Ok(imported) => {
                all.services.extend(imported.services);
                all.notes.extend(imported.notes);
            }
            // One of several: the others are read all the same.
            Err(failure) if files.len() > 1 => all.notes.push(Note { service: None, text: failure.message }),
            Err(failure) => return Err(failure),
        }
    }
    if all.services.is_empty() {
        return Err(Failure::new(ErrorKind::InvalidParams, "none of the files names a program to run")
            .hint("name one of them alone, and what is wrong with it is said")
            .causes(all.notes.into_iter().map(|note| note.text)));
    }
    all.services.iter_mut().for_each(Program::settle);
    names::settle(&mut all.services);
    all.notes.dedup();
    Ok(all)
}

fn one(kind: Kind, file: &File<'_>) -> Result<Imported, Failure> {
    let mut imported = match kind {
        Kind::Procfile => procfile::read(file),
        Kind::ProcessCompose => process_compose::read(file),
        Kind::Pm2 => pm2::read(file),
        Kind::Supervisord => supervisord::read(file),
        Kind::Systemd => systemd::read(file),
    }?;
    let (runs, idle): (Vec<_>, Vec<_>) = imported.services.drain(..).partition(|program| !program.argv.is_empty());
    imported.services = runs;
    let left_out = |program: Program| {
        let text = format!("{} was left out: it names no command", program.from);
        Note { service: Some(program.called), text }
    };
    imported.notes.extend(idle.into_iter().map(left_out));
    if imported.services.is_empty() {
        return Err(Failure::new(ErrorKind::InvalidParams, format!("{} names no program to run", file.name))
            .hint(kind.shape())
            .causes(imported.notes.into_iter().map(|note| note.text)));
    }
    Ok(imported)
}

/// A failure that names the file and what is wrong with it.
fn wrong(file: &File<'_>, kind: Kind, what: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorKind::InvalidParams, format!("could not read {} as {}: {what}", file.name, kind.said()))
        .hint(kind.shape())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit<'a>(name: &'a str, text: &'a str) -> (Kind, File<'a>) {
        (Kind::Systemd, File { name, text, folder: "/", ..File::default() })
    }

    #[test]
    fn of_several_files_those_that_can_be_read_are_read() {
        let good = "[Unit]\nRequires=b.service\n[Service]\nExecStart=/a\n";
        let files =
            [unit("a.service", good), unit("x.service", "[Unit]\n"), unit("b.service", "[Service]\nExecStart=/b\n")];
        let imported = import(&files).unwrap();
        assert_eq!(imported.services.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(imported.services[0].needs[0].name, "b");
        assert!(imported.notes[0].text.contains("x.service"), "{:?}", imported.notes);
        assert!(import(&files[1..2]).is_err());
    }

    #[test]
    fn what_names_no_command_is_left_out() {
        let text = "processes:\n  a: {}\n  b: {command: ./b}\n";
        let imported = import(&[(Kind::ProcessCompose, File { name: "x", text, ..File::default() })]).unwrap();
        assert_eq!((imported.services.len(), imported.services[0].name.as_str()), (1, "b"));
        assert!(imported.notes.iter().any(|note| note.text.contains("`a`")), "{:?}", imported.notes);
        let none = import(&[unit("a.service", "[Service]\nType=oneshot\n")]).unwrap_err();
        assert!(none.hint.unwrap().contains("ExecStart"));
    }
}

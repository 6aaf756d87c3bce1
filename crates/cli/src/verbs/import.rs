//! `wharf import`: files of other supervisors become services in Rust.
//!
//! It owns where such files are found and where what comes of them goes. What they mean is the business of the crate
//! `wharf-import`.

mod place;
mod sources;

use std::path::{Path, PathBuf};

use clap::ValueHint;
use serde_json::json;
use wharf_import::{Imported, Kind, Note, Written};

use self::place::Place;
use crate::{
    Exit,
    session::Session,
    trouble::{Outcome, Trouble},
};

/// Turn a Procfile, a process-compose file, a pm2 ecosystem, supervisord's sections or a systemd unit into services
///
/// Each program becomes a file of Rust in a crate that `wharf new` made, and does there what it did before. What has no
/// counterpart is said, and stands in the file. Nothing is started, and nothing of the other supervisor is touched.
/// docs/migration.md has the whole way.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf import Procfile                                    in a crate that `wharf new` made
  wharf import ~/app/ecosystem.config.js --out my-services
  wharf import /etc/systemd/system/web.service             its drop-ins and its timer too
  wharf import services.conf --kind supervisord --json")]
pub(crate) struct Import {
    /// The files, or a folder with units of systemd
    #[arg(value_name = "FILE", required = true, value_hint = ValueHint::AnyPath)]
    files: Vec<PathBuf>,
    /// What they are, where their names and contents do not say
    #[arg(long, value_name = "KIND", value_parser = Kind::ALL.map(Kind::word))]
    kind: Option<String>,
    /// Where they go: a crate of `wharf new`, or any folder. Usually the crate that this is typed in
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    out: Option<PathBuf>,
    /// Write over files that are there
    #[arg(long)]
    force: bool,
}

impl Import {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let kind = self.kind.as_deref().and_then(Kind::of_word);
        let mut given = vec![];
        for path in &self.files {
            given.extend(sources::read(path, kind)?);
        }
        let files: Vec<_> = given.iter().map(sources::Given::as_file).collect();
        let mut imported = wharf_import::import(&files)?;
        note_taken_names(session, &mut imported);
        let written: Vec<Written> = imported.services.iter().map(wharf_import::write).collect();
        let place = Place::find(self.out.as_deref())?;
        let paths = place.write(&written, self.force)?;
        if session.json {
            session.say_json(&report(&imported, &written, &paths).to_string())?;
        } else {
            session.say(&said(&imported, &written, &paths, &place))?;
        }
        Ok(Exit::Done)
    }
}

/// What ships with Wharf gives way to what is imported, and that is said.
fn note_taken_names(session: &Session, imported: &mut Imported) {
    for program in &mut imported.services {
        if session.catalogue.get(&program.name).is_some() {
            program.notes.push(format!(
                "Wharf has a service {0} of its own; in your crate this one takes its place",
                program.name
            ));
        }
    }
}

fn report(imported: &Imported, written: &[Written], paths: &[PathBuf]) -> serde_json::Value {
    let of_service = |((program, file), path): ((&wharf_import::Program, &Written), &PathBuf)| {
        json!({
            "name": program.name, "instances": program.instances, "from": program.from, "path": path,
            "module": file.module, "type": file.type_name, "notes": program.notes,
        })
    };
    let services: Vec<_> = imported.services.iter().zip(written).zip(paths).map(of_service).collect();
    let notes: Vec<&str> = imported.notes.iter().map(|note: &Note| note.text.as_str()).collect();
    json!({ "services": services, "notes": notes })
}

fn said(imported: &Imported, written: &[Written], paths: &[PathBuf], place: &Place) -> String {
    let mut text = String::new();
    for (program, path) in imported.services.iter().zip(paths) {
        text.push_str(&format!("{}: {}, from {}\n", shown(path), program.name, program.from));
        for note in &program.notes {
            text.push_str(&format!("  note: {note}\n"));
        }
    }
    for note in &imported.notes {
        text.push_str(&format!("note: {}\n", note.text));
    }
    let first = imported.services.first().map_or("NAME", |program| program.name.as_str());
    text + &place.next_steps(written, first)
}

/// From here, where that is shorter.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

impl From<place::Misplaced> for Trouble {
    fn from(misplaced: place::Misplaced) -> Self {
        Self::Failure(misplaced.0)
    }
}

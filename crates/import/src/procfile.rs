//! A Procfile: `name: command`, a line each, read as foreman reads it.

use crate::{File, Imported, Kind, Note, Program, shell, wrong};

/// foreman's first port, and the distance of one program's from the next one's.
const FIRST_PORT: u16 = 5000;
const PORT_STEP: u16 = 100;

/// Reads one.
pub(crate) fn read(file: &File<'_>) -> Result<Imported, wharf_model::Failure> {
    let (mut services, mut notes) = (vec![], vec![]);
    for (n, line) in file.text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let entry = line.split_once(':').map(|(name, command)| (name.trim(), command.trim()));
        let Some((name, command)) = entry.filter(|(name, command)| is_name(name) && !command.is_empty()) else {
            notes.push(Note { service: None, text: format!("line {} is no `name: command` and was left out", n + 1) });
            continue;
        };
        let index = u16::try_from(services.len()).map_err(|_| wrong(file, Kind::Procfile, "it is too long"))?;
        services.push(program(file, name, command, index));
    }
    if services.len() > 1 {
        let text = "foreman ends all programs when one of them ends; Wharf starts that one again and leaves the others";
        notes.push(Note { service: None, text: text.into() });
    }
    Ok(Imported { services, notes })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

fn program(file: &File<'_>, name: &str, command: &str, index: u16) -> Program {
    let mut program = Program::new(name, format!("the line `{name}` of {}", file.name));
    program.summary = format!("{name} of {}", file.name);
    program.cwd = Some(file.folder.into());
    shell::command(&mut program, command);
    if file.has_dot_env {
        let path = crate::value::whole(file.folder, ".env").into();
        program.env_file = Some(crate::program::EnvFile { path, is_optional: true });
    }
    let wants_port = name == "web" || shell::variables(command).iter().any(|variable| variable == "PORT");
    if wants_port {
        program.add_port("main", FIRST_PORT.saturating_add(index.saturating_mul(PORT_STEP)), 0, Some("PORT"));
    }
    if name == "release" {
        program.policy.job = true;
        program
            .note("Heroku runs it once before each release; here it is a job: start it by hand, or let others need it");
    }
    shell::note_variables(&mut program, command);
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_service_with_foremans_port() {
        let text = "# ours\nweb: bundle exec puma -p $PORT\nworker: RAILS_ENV=production bundle exec sidekiq -q 'a b'\n\nnonsense\nrelease: ./migrate\n";
        let file = File { name: "Procfile", text, folder: "/srv/app", ..File::default() };
        let imported = read(&file).unwrap();
        let [web, worker, release] = &imported.services[..] else { panic!("{imported:?}") };
        assert_eq!((web.ports[0].number, web.ports[0].told_by.as_deref()), (5000, Some("PORT")));
        assert_eq!(web.argv[2].plain().as_deref(), Some("exec bundle exec puma -p $PORT"));
        assert!(web.notes.is_empty() && worker.ports.is_empty(), "{:?}", web.notes);
        assert_eq!(worker.argv.len(), 5);
        assert_eq!(worker.value("RAILS_ENV").as_deref(), Some("production"));
        assert_eq!(worker.cwd.as_ref().unwrap().plain().as_deref(), Some("/srv/app"));
        assert!(release.policy.job);
        assert!(imported.notes[0].text.contains("line 5"));
    }
}

//! What things are called: by the file, by Wharf, by Rust.

use std::collections::BTreeSet;

use crate::Program;

/// Words of Rust: no module can be called so.
const KEYWORDS: [&str; 51] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Words that the written file has for itself.
const TAKEN: [&str; 16] = [
    "With",
    "Self",
    "Service",
    "Context",
    "Params",
    "Ports",
    "Run",
    "Result",
    "Wanted",
    "Facts",
    "Health",
    "Installed",
    "Policy",
    "Signal",
    "Value",
    "String",
];

/// A service's name from any name: `Web_1.service` is `web_1.service`, `Mail Worker` is `mail-worker`.
pub(crate) fn service(called: &str) -> String {
    let sound = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') => c,
        _ => '-',
    };
    let name: String = called.trim().chars().map(sound).collect();
    let name: String = name.trim_start_matches(['.', '_', '-']).chars().take(63).collect();
    match name.as_str() {
        "" => "program".into(),
        // A name with a meaning of its own.
        "command" => "command-1".into(),
        _ => name,
    }
}

/// An instance's name from any name.
pub(crate) fn instance(called: &str) -> String {
    let name = service(called);
    if name == "command-1" { "command".into() } else { name }
}

/// The module that a service is written into.
pub(crate) fn module(service: &str) -> String {
    let name: String = service.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let name = if name.starts_with(|c: char| c.is_ascii_digit()) { format!("s{name}") } else { name };
    if KEYWORDS.contains(&name.as_str()) || ["services", "greeter"].contains(&name.as_str()) {
        return format!("{name}_service");
    }
    name
}

/// The type that a service is.
pub(crate) fn type_name(service: &str) -> String {
    let words = service.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let upper = |word: &str| {
        let (first, rest) = word.split_at(1);
        first.to_ascii_uppercase() + rest
    };
    let name: String = words.map(upper).collect();
    let name = if name.starts_with(|c: char| c.is_ascii_digit()) { format!("S{name}") } else { name };
    if name.is_empty() || TAKEN.contains(&name.as_str()) { format!("{name}Service") } else { name }
}

/// No two services of a file have one name, and none needs what is not in it.
pub(crate) fn settle(services: &mut [Program]) {
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for program in services.iter_mut() {
        let (first, mut n) = (program.name.clone(), 2);
        // Two names can come to one module, too.
        while taken.contains(&module(&program.name)) {
            program.name = format!("{first}-{n}");
            n += 1;
        }
        taken.insert(module(&program.name));
        for note in &mut program.notes {
            *note = note.replace(&format!("`wharf logs {first}`"), &format!("`wharf logs {}`", program.name));
        }
        if program.name != program.called {
            program.note(format!("the file calls it {:?}; its name here is {}", program.called, program.name));
        }
    }
    let units: Vec<(String, Vec<String>)> = services.iter().map(|p| (p.called.clone(), unit_names(p))).collect();
    for program in services.iter_mut() {
        program.needs.retain(|need| need.name != program.called);
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            program.needs.drain(..).partition(|need| units.iter().any(|(called, _)| *called == need.name));
        for need in elsewhere {
            let how = if need.soft { "starts after" } else { "needs" };
            program.note(format!(
                "it {how} {:?}, which is not in this file; where that is a unit of Wharf too, name it in `needs`",
                need.name
            ));
        }
        let names_of = |need: &crate::program::Needed| {
            let found = units.iter().find(|(called, _)| *called == need.name);
            found.map(|(_, names)| names.clone()).unwrap_or_default()
        };
        for need in here {
            for name in names_of(&need) {
                let known = program.needs.iter_mut().find(|other| other.name == name);
                match known {
                    Some(other) => other.soft &= need.soft,
                    None => program.needs.push(crate::program::Needed { name, soft: need.soft }),
                }
            }
        }
    }
}

fn unit_names(program: &Program) -> Vec<String> {
    match program.instances.is_empty() {
        true => vec![program.name.clone()],
        false => program.instances.iter().map(|instance| format!("{}@{instance}", program.name)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::Needed;

    #[test]
    fn every_name_becomes_one_that_can_be_had() {
        for (called, service_name, module_name, type_of) in [
            ("web", "web", "web", "Web"),
            ("Mail Worker", "mail-worker", "mail_worker", "MailWorker"),
            ("type", "type", "type_service", "Type"),
            ("3d-view", "3d-view", "s3d_view", "S3dView"),
            ("_x", "x", "x", "X"),
            ("...", "program", "program", "Program"),
            ("command", "command-1", "command_1", "Command1"),
            ("run", "run", "run", "RunService"),
            ("a.b_c", "a.b_c", "a_b_c", "ABC"),
            ("bücher", "b-cher", "b_cher", "BCher"),
        ] {
            let name = service(called);
            assert_eq!(
                (name.as_str(), module(&name).as_str(), type_name(&name).as_str()),
                (service_name, module_name, type_of)
            );
        }
    }

    #[test]
    fn two_names_that_come_to_one_are_told_apart_and_needs_follow() {
        let mut programs: Vec<Program> =
            ["a_b", "a-b", "user"].map(|called| Program::new(called, String::new())).into();
        programs[1].instances = vec!["0".into(), "1".into()];
        let need = |name: &str, soft| Needed { name: name.into(), soft };
        programs[2].needs = vec![need("a-b", true), need("a_b", false), need("postgres", false), need("user", false)];
        settle(&mut programs);
        assert_eq!((programs[0].name.as_str(), programs[1].name.as_str()), ("a_b", "a-b-2"));
        let needs = [need("a-b-2@0", true), need("a-b-2@1", true), need("a_b", false)];
        assert_eq!(programs[2].needs, needs);
        assert!(programs[2].notes[0].contains("postgres"), "{:?}", programs[2].notes);
    }
}

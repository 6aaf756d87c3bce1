//! One manifest, from its file to its fields.
//!
//! It owns how a file of somebody else's is opened: it is never waited for, and never read further
//! than its limit.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::OFlags;
use serde_json::{Map, Value};
use wharf_model::Manifest;

use super::{Fault, yaml};

/// No manifest is larger.
const LARGEST: u64 = 1024 * 1024;

/// A manifest that can be used: its name, its fields, how large its text is.
#[derive(Debug)]
pub(super) struct Sound {
    pub(super) name: String,
    pub(super) fields: Map<String, Value>,
    pub(super) bytes: usize,
}

/// Reads it. `None`: there is no such file.
pub(super) fn read(path: &Path) -> Option<Result<Sound, Fault>> {
    let text = match text(path) {
        // A link that leads nowhere is there, and its file is not.
        Err(e) if e.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => return None,
        Err(e) if e.kind() == io::ErrorKind::NotADirectory => return None,
        Err(e) => return Some(Err(unreadable(path, &e))),
        Ok(text) => text,
    };
    Some(text.and_then(|text| checked(path, &text)))
}

fn text(path: &Path) -> io::Result<Result<String, Fault>> {
    // A pipe would be waited for, and a terminal would become ours.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        let text = format!("could not read {}: it is no plain file", path.display());
        return Ok(Err(Fault::new(path, text, "a manifest is a file of text; move this away")));
    }
    let mut bytes = vec![];
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        let text = format!("could not read {}: it is larger than 1 MiB", path.display());
        return Ok(Err(Fault::new(path, text, "a manifest says what a service is; keep its data in other files")));
    }
    Ok(String::from_utf8(bytes).map_err(|_| {
        let text = format!("could not read {}: it is not UTF-8", path.display());
        Fault::new(path, text, "write it as UTF-8: `iconv -t UTF-8`")
    }))
}

fn unreadable(path: &Path, e: &io::Error) -> Fault {
    let hint = match e.kind() {
        io::ErrorKind::PermissionDenied => "let the user that Wharf runs as read it, or leave its folder out",
        _ if path.symlink_metadata().is_ok_and(|found| found.is_symlink()) => {
            "it is a link that leads nowhere: correct it"
        }
        _ => "look at it with `ls -l`",
    };
    Fault::new(path, format!("could not read {}: {e}", path.display()), hint)
}

fn checked(path: &Path, text: &str) -> Result<Sound, Fault> {
    let wrong = |what: &str, hint: &str| Fault::new(path, format!("could not take {}: {what}", path.display()), hint);
    let fields = match yaml::read(text) {
        Err(fault) => return Err(wrong(&fault.what, fault.hint)),
        Ok(Value::Object(fields)) => fields,
        Ok(Value::Null) => return Err(wrong("it is empty", "it needs at least `name: NAME`")),
        Ok(_) => return Err(wrong("it is no mapping of fields", "begin it with `name: NAME`")),
    };
    let whole = Value::Object(fields);
    let known = serde_path_to_error::deserialize::<_, Manifest>(&whole).map_err(|e| {
        let at = e.path().to_string();
        let at = if at == "." { String::new() } else { format!("{at}: ") };
        wrong(&format!("{at}{}", e.inner()), "docs/discovery.md has every field that has a meaning")
    })?;
    let Value::Object(fields) = whole else {
        return Err(wrong("it is no mapping of fields", "begin it with `name: NAME`"));
    };
    Ok(Sound { name: known.name, fields, bytes: text.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("service.yaml");
        fs::write(&path, text).unwrap();
        let fault = read(&path).unwrap().unwrap_err();
        assert!(fault.message.contains(path.to_str().unwrap()) && !fault.hint.is_empty(), "{fault:?}");
        fault.message
    }

    #[test]
    fn a_fault_names_the_file_the_field_and_what_it_should_be() {
        for (text, says) in [
            ("", "it is empty"),
            ("# nothing\n", "it is empty"),
            ("- name\n", "no mapping"),
            ("gpu_required: true\n", "missing field `name`"),
            ("name: a\nport: http\n", "port: a port is a number from 1 to 65535, not \"http\""),
            ("name: a\ndependencies:\n- service: b\n- service: [c]\n", "dependencies[1].service: "),
            (
                "name: a\nmcp: {tools: [{name: t, parameters: [{type: x}]}]}\n",
                "mcp.tools[0].parameters[0]: missing field `name`",
            ),
        ] {
            let message = refused(text);
            assert!(message.contains(says), "{says}: {message}");
        }
    }

    #[test]
    fn a_file_that_is_no_text_is_refused_without_being_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert!(read(&at("absent")).is_none());
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        fs::create_dir(at("folder")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("endless")).unwrap();
        fs::write(at("large"), vec![b'#'; LARGEST as usize + 1]).unwrap();
        fs::write(at("latin"), [b'a', 0xe9]).unwrap();
        for (name, says) in [
            ("pipe", "no plain file"),
            ("folder", "no plain file"),
            ("endless", "no plain file"),
            ("large", "larger than 1 MiB"),
            ("latin", "not UTF-8"),
        ] {
            let fault = read(&at(name)).unwrap().unwrap_err();
            assert!(fault.message.contains(says), "{name}: {fault:?}");
        }
    }
}

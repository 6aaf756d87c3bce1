//! Random values that are made once in an installation and kept in 0600 files.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use wharf_model::{ErrorKind, Failure};
use wharf_services::Secret;

use crate::redact::redactor;

/// The value in `dir/name`; made there first where nobody did before.
pub(crate) fn once(dir: &Path, name: &str, bytes: usize) -> Result<Secret, Failure> {
    let sound = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@' | b':');
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(sound) {
        return Err(Failure::new(ErrorKind::Internal, format!("{name:?} cannot be the name of a secret")));
    }
    let file = dir.join(name);
    if !file.exists() {
        make(dir, &file, name, bytes).map_err(|e| unkept(&file, &e))?;
    }
    let text = fs::read_to_string(&file).map_err(|e| unkept(&file, &e))?;
    match text.trim() {
        "" => Err(Failure::new(ErrorKind::Storage, format!("the secret in {} is empty", file.display()))
            .hint("put the old value back; or remove the file, and a new value is made")),
        value => {
            redactor().learn(value.as_bytes());
            Ok(Secret::new(value.to_owned(), file))
        }
    }
}

/// A whole file appears under its name or none does, and the first of two that try at once wins.
fn make(dir: &Path, file: &Path, name: &str, bytes: usize) -> io::Result<()> {
    let mut value = vec![0; bytes];
    fill(&mut value)?;
    let mut mark = [0; 8];
    fill(&mut mark)?;
    let draft = dir.join(format!(".{name}.{}", hex(&mark)));
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).and_then(|mut f| {
        f.write_all(hex(&value).as_bytes())?;
        f.sync_all()
    });
    let linked = match written.and_then(|()| fs::hard_link(&draft, file)) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    let removed = fs::remove_file(&draft);
    linked?;
    removed?;
    File::open(dir)?.sync_all()
}

fn unkept(file: &Path, e: &io::Error) -> Failure {
    let mut failure = Failure::from(io::Error::from(e.kind()));
    failure.message = format!("could not keep the secret in {}: {e}", file.display());
    failure
}

/// So many random bytes, in hex: a token that nobody guesses.
pub fn random_hex(bytes: usize) -> io::Result<String> {
    let mut random = vec![0; bytes];
    fill(&mut random)?;
    Ok(hex(&random))
}

/// Random bytes.
pub(crate) fn fill(bytes: &mut [u8]) -> io::Result<()> {
    File::open("/dev/urandom")?.read_exact(bytes)
}

/// Lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn eight_that_try_at_once_get_one_value() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        let values: Vec<String> = std::thread::scope(|scope| {
            let all: Vec<_> =
                (0..8).map(|_| scope.spawn(|| once(path, "key", 32).unwrap().reveal().to_owned())).collect();
            all.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert!(values.iter().all(|v| *v == values[0] && v.len() == 64));
        assert_eq!(fs::metadata(path.join("key")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn a_name_stays_in_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["", "..", "a/b", ".x"] {
            assert!(once(dir.path(), bad, 8).is_err());
        }
    }
}

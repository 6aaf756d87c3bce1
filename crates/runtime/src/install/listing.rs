//! The list of a version's files with their digests, as `sha256sum -c` reads it.
//!
//! It is written when a version is placed and compared by `wharf verify`. Links and folders are not in it.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Write},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use super::receipt::digest_of;

/// Its name in a version's folder.
pub(super) const NAME: &str = "files.sha256";

/// What the comparison of a folder with its list found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    /// As they were placed.
    pub same: u64,
    /// What is wrong with which file.
    pub wrong: Vec<String>,
}

/// Writes the list of all files below `tree` and answers how many there are.
pub(super) fn write(tree: &Path) -> io::Result<u64> {
    let mut out = BufWriter::new(File::create(tree.join(NAME))?);
    let mut count = 0;
    walk(tree, Path::new(""), &mut |path, sha256| {
        count += 1;
        writeln_file(&mut out, path, sha256)
    })?;
    out.flush()?;
    Ok(count)
}

/// Each file below `tree`, folder by folder, names in order; memory holds one folder at a time.
fn walk(tree: &Path, folder: &Path, each: &mut dyn FnMut(&Path, &str) -> io::Result<()>) -> io::Result<()> {
    let mut entries: Vec<_> = fs::read_dir(tree.join(folder))?.collect::<io::Result<_>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = folder.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(tree, &path, each)?;
        } else if kind.is_file() && path != Path::new(NAME) {
            each(&path, &digest_of(&tree.join(&path))?.0)?;
        }
    }
    Ok(())
}

/// A name with a line end or a backslash is written as `sha256sum` writes it.
fn writeln_file(out: &mut impl Write, path: &Path, sha256: &str) -> io::Result<()> {
    let name = path.as_os_str().as_bytes();
    let is_plain = !name.iter().any(|b| matches!(b, b'\n' | b'\r' | b'\\'));
    if !is_plain {
        out.write_all(b"\\")?;
    }
    write!(out, "{sha256}  ")?;
    for byte in name {
        match byte {
            b'\n' => out.write_all(b"\\n")?,
            b'\r' => out.write_all(b"\\r")?,
            b'\\' => out.write_all(b"\\\\")?,
            other => out.write_all(&[*other])?,
        }
    }
    out.write_all(b"\n")
}

/// A line of the list: path and digest.
fn parse(line: &[u8]) -> Option<(PathBuf, String)> {
    let (escaped, line) = line.strip_prefix(b"\\").map_or((false, line), |rest| (true, rest));
    let (sha256, name) = line.split_at_checked(64)?;
    let name = name.strip_prefix(b"  ")?;
    let mut path = Vec::with_capacity(name.len());
    let mut bytes = name.iter();
    while let Some(byte) = bytes.next() {
        path.push(match (escaped, byte) {
            (true, b'\\') => match bytes.next()? {
                b'n' => b'\n',
                b'r' => b'\r',
                other => *other,
            },
            (_, other) => *other,
        });
    }
    Some((PathBuf::from(std::ffi::OsString::from_vec(path)), String::from_utf8(sha256.to_vec()).ok()?))
}

/// Compares a folder with its list. Files that came later are no matter: Python writes some.
pub(super) fn compare(folder: &Path) -> io::Result<Compared> {
    let mut found = Compared::default();
    let mut list = BufReader::new(File::open(folder.join(NAME))?);
    let mut line = vec![];
    loop {
        line.clear();
        if list.read_until(b'\n', &mut line)? == 0 {
            return Ok(found);
        }
        let Some((path, sha256)) = parse(line.strip_suffix(b"\n").unwrap_or(&line)) else {
            found.wrong.push(format!("{NAME} has a line that is none: {}", String::from_utf8_lossy(&line).trim_end()));
            continue;
        };
        match digest_of(&folder.join(&path)) {
            Ok((now, _)) if now == sha256 => found.same += 1,
            Ok((now, _)) => found.wrong.push(format!("{}: sha256 is {now} and was {sha256}", path.display())),
            Err(e) => found.wrong.push(format!("{}: {e}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_listed_and_a_change_of_any_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path();
        fs::create_dir_all(tree.join("lib/deep")).unwrap();
        for (name, text) in [("run", "#!/bin/sh\n"), ("lib/a\nb", "x"), ("lib/deep/c\\d", ""), ("lib/é", "é")] {
            fs::write(tree.join(name), text).unwrap();
        }
        std::os::unix::fs::symlink("run", tree.join("link")).unwrap();
        assert_eq!(write(tree).unwrap(), 4);
        assert_eq!(compare(tree).unwrap(), Compared { same: 4, wrong: vec![] });
        // What `sha256sum` itself says of it.
        if let Some(sha256sum) = crate::which::first("sha256sum") {
            let said = std::process::Command::new(sha256sum).args(["-c", NAME]).current_dir(tree).output().unwrap();
            assert!(said.status.success(), "{said:?}");
        }
        fs::write(tree.join("lib/deep/c\\d"), "changed").unwrap();
        fs::remove_file(tree.join("lib/é")).unwrap();
        fs::write(tree.join("later"), "").unwrap();
        let found = compare(tree).unwrap();
        assert_eq!((found.same, found.wrong.len()), (2, 2), "{found:?}");
        assert!(found.wrong[0].starts_with("lib/deep/c\\d: sha256 is "), "{found:?}");
    }
}

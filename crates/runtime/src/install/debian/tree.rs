//! What Debian packages left in a folder, made harmless.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Component, Path},
};

use wharf_model::Failure;

use crate::install::place::unplaced;

/// Takes away what a service's files should not have: setuid bits, devices, and links that lead out of the tree.
pub fn disarm(tree: &Path, folder: &Path) -> Result<(), Failure> {
    for entry in fs::read_dir(folder).map_err(|e| unplaced(folder, e))? {
        let path = entry?.path();
        let found = fs::symlink_metadata(&path)?;
        let kind = found.file_type();
        let mode = found.permissions().mode();
        if kind.is_symlink() {
            if leads_out(tree, &path, &fs::read_link(&path)?) {
                fs::remove_file(&path)?;
            }
        } else if kind.is_dir() {
            if mode & 0o7000 != 0 || mode & 0o755 != 0o755 {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            }
            disarm(tree, &path)?;
        } else if !kind.is_file() {
            fs::remove_file(&path)?;
        } else if mode & 0o7000 != 0 || mode & 0o444 != 0o444 {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode & 0o777 | 0o444))?;
        }
    }
    Ok(())
}

fn leads_out(tree: &Path, link: &Path, target: &Path) -> bool {
    let start = link.parent().and_then(|p| p.strip_prefix(tree).ok()).map_or(0, |p| p.components().count());
    let mut depth = start.cast_signed();
    for part in target.components() {
        match part {
            Component::RootDir | Component::Prefix(_) => return true,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// T41, as far as a signed archive could do it.
    #[test]
    fn what_could_harm_is_taken_away() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("usr/bin")).unwrap();
        fs::write(tree.join("usr/bin/su"), "x").unwrap();
        fs::set_permissions(tree.join("usr/bin/su"), fs::Permissions::from_mode(0o4755)).unwrap();
        symlink("/etc/passwd", tree.join("usr/bin/abs")).unwrap();
        symlink("../../../etc", tree.join("usr/bin/out")).unwrap();
        symlink("../bin/su", tree.join("usr/bin/in")).unwrap();
        disarm(&tree, &tree).unwrap();
        assert_eq!(fs::metadata(tree.join("usr/bin/su")).unwrap().permissions().mode() & 0o7777, 0o755);
        let is = |name: &str| fs::symlink_metadata(tree.join("usr/bin").join(name)).is_ok();
        assert!(is("in") && !is("abs") && !is("out"));
    }
}

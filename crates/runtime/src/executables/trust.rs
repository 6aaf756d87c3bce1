//! Whether a file may be run as code of Wharf: nobody but root and Wharf's own user could have written it, or put
//! another one in its place.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use super::Unusable;

/// Write for the group and for all others.
const OTHERS_WRITE: u32 = 0o022;
/// In such a folder only the owner of a file can remove it.
const STICKY: u32 = 0o1000;

/// The file is executable and safe, and so is all that leads to it. Links are followed to what would be run.
pub fn sound(path: &Path) -> Result<(), Unusable> {
    let own = nix::unistd::geteuid().as_raw();
    let real = fs::canonicalize(path).map_err(|e| Unusable::new(path, e, "look at it with `ls -l`"))?;
    let found = fs::metadata(&real).map_err(|e| Unusable::new(path, e, "look at it with `ls -l`"))?;
    if !found.is_file() {
        return Err(Unusable::new(path, "it is no plain file", "a service is an executable file; move this away"));
    }
    if path.to_str().is_none() {
        return Err(Unusable::new(path, "its name is not UTF-8", "give it a plain name"));
    }
    if let Some(fault) = open_to_others(&found, own, false) {
        return Err(Unusable::new(path, &fault.what, fault.hint(&real)));
    }
    // The link's own folder leads to it too.
    let folders = real.ancestors().skip(1).chain(path.parent().into_iter().flat_map(Path::ancestors));
    for folder in folders.filter(|folder| !folder.as_os_str().is_empty()) {
        let found = fs::metadata(folder).map_err(|e| Unusable::new(path, e, "look at it with `ls -ld`"))?;
        if let Some(fault) = open_to_others(&found, own, true) {
            let what = format!("its folder {} is not safe: {}", folder.display(), fault.what);
            return Err(Unusable::new(path, what, fault.hint(folder)));
        }
    }
    if found.mode() & 0o111 == 0 {
        let hint = format!("chmod +x {}; or move it away, if it is no service", path.display());
        return Err(Unusable::new(path, "it is not executable", hint));
    }
    Ok(())
}

struct Open {
    what: String,
    mends: &'static str,
}

impl Open {
    fn hint(&self, path: &Path) -> String {
        format!("{} {}", self.mends, path.display())
    }
}

fn open_to_others(found: &fs::Metadata, own: u32, is_folder: bool) -> Option<Open> {
    if found.uid() != own && found.uid() != 0 {
        let what = format!("it belongs to uid {}, not to the user that Wharf runs as", found.uid());
        return Some(Open { what, mends: "see who put it there, and make it your own: ls -ld" });
    }
    let is_open = found.mode() & OTHERS_WRITE != 0 && !(is_folder && found.mode() & STICKY != 0);
    let what = format!("others can write to it (mode {:o})", found.mode() & 0o7777);
    is_open.then_some(Open { what, mends: "see what is in it, then: chmod go-w" })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn what_others_could_have_written_is_not_run() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("services");
        let file = folder.join("clock");
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "#!/bin/sh\n").unwrap();
        mode(&folder, 0o755);
        mode(&file, 0o700);
        assert_eq!(sound(&file), Ok(()));
        for open in [0o722, 0o702, 0o777] {
            mode(&file, open);
            let fault = sound(&file).unwrap_err();
            assert!(fault.message.contains("others can write") && fault.hint.contains("chmod go-w"), "{fault:?}");
        }
        mode(&file, 0o600);
        assert!(sound(&file).unwrap_err().message.contains("not executable"));
        mode(&file, 0o700);
        // Who can write to the folder can put another file in its place, but for a sticky one.
        mode(&folder, 0o777);
        assert!(sound(&file).unwrap_err().message.contains("folder"));
        mode(&folder, 0o1777);
        assert_eq!(sound(&file), Ok(()));
    }

    #[test]
    fn a_link_is_judged_by_where_it_leads_and_where_it_lies() {
        let dir = tempfile::tempdir().unwrap();
        let (open, safe) = (dir.path().join("open"), dir.path().join("safe"));
        for folder in [&open, &safe] {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("program"), "#!/bin/sh\n").unwrap();
            mode(&folder.join("program"), 0o755);
            mode(folder, 0o755);
        }
        symlink(open.join("program"), safe.join("out")).unwrap();
        symlink(safe.join("program"), open.join("in")).unwrap();
        assert_eq!((sound(&safe.join("out")), sound(&open.join("in"))), (Ok(()), Ok(())));
        mode(&open, 0o777);
        assert!(sound(&safe.join("out")).is_err() && sound(&open.join("in")).is_err());
        symlink("nowhere", safe.join("dangling")).unwrap();
        assert!(sound(&safe.join("dangling")).is_err());
    }

    #[test]
    fn what_belongs_to_another_user_is_not_run() {
        if !nix::unistd::geteuid().is_root() {
            println!("CANNOT BE DONE HERE: to give a file to another user needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clock");
        fs::write(&file, "#!/bin/sh\n").unwrap();
        mode(&file, 0o755);
        std::os::unix::fs::chown(&file, Some(65_534), None).unwrap();
        assert!(sound(&file).unwrap_err().message.contains("belongs to uid 65534"));
    }
}

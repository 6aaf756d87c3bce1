//! The folder of the sockets: made with mode 0700, or exactly that already. It is never repaired
//! silently: whoever opened it to others may have had something put into it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use wharf_model::{ErrorKind, Failure};

/// Makes sure that the folder is there, ours, and closed to all others.
pub(super) fn prepare(folder: &Path) -> Result<(), Failure> {
    match fs::symlink_metadata(folder) {
        Ok(_) => {}
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().mode(0o700).recursive(true).create(folder).map_err(|e| unmade(folder, &e))?;
        }
        Err(e) => return Err(unmade(folder, &e)),
    }
    // Looked at after it was made, too: another process may have been faster.
    let there = fs::symlink_metadata(folder)?;
    let own_uid = rustix::process::geteuid().as_raw();
    judge(folder, &there.file_type(), there.uid(), there.mode(), own_uid)
}

fn unmade(folder: &Path, error: &io::Error) -> Failure {
    let hint = format!("make it: mkdir -p -m 700 {}", folder.display());
    let failure = Failure::from(io::Error::new(error.kind(), error.to_string()));
    failure.while_doing(format_args!("make the folder {}", folder.display())).hint(hint)
}

fn judge(folder: &Path, kind: &fs::FileType, uid: u32, mode: u32, own_uid: u32) -> Result<(), Failure> {
    let name = folder.display();
    let refuse = |message: String, hint: String| Err(Failure::new(ErrorKind::Permission, message).hint(hint));
    if kind.is_symlink() {
        let hint = format!("name the folder itself, or make a real one: rm {name} && mkdir -m 700 {name}");
        return refuse(format!("{name} is a symbolic link"), hint);
    }
    if !kind.is_dir() {
        return refuse(format!("{name} is no folder"), format!("move it away: mv {name} {name}.old"));
    }
    if uid != own_uid {
        let message = format!("{name} belongs to uid {uid}, and Wharf runs as uid {own_uid}");
        return refuse(message, format!("chown {own_uid} {name}"));
    }
    if mode & 0o077 != 0 {
        let message = format!("{name} is open to others (mode {:04o})", mode & 0o7777);
        return refuse(message, format!("chmod 700 {name}"));
    }
    if mode & 0o700 != 0o700 {
        let message = format!("{name} is closed to its owner (mode {:04o})", mode & 0o7777);
        return refuse(message, format!("chmod 700 {name}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t38_a_folder_of_another_user_is_refused_with_the_fix() {
        let kind = fs::metadata("/").unwrap().file_type();
        let failure = judge(Path::new("/run/wharf"), &kind, 33, 0o40700, 1000).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Permission);
        assert_eq!(failure.hint.as_deref(), Some("chown 1000 /run/wharf"));
    }
}

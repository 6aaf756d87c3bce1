//! The users that services run as where Wharf is root.
//!
//! It owns who that is, whether they can reach a path, and whose a folder is.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, lchown},
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Uid, User, geteuid, getgrouplist};
use wharf_model::{ErrorKind, Failure};

/// A user of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its home folder, which may not exist.
    pub home: PathBuf,
}

impl Account {
    /// Whom services run as: `wharf` if there is such a user, else `nobody`. `None` where Wharf is not root.
    pub fn of_services() -> Result<Option<Self>, Failure> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        for name in ["wharf", "nobody"] {
            if let Ok(Some(user)) = User::from_name(name) {
                return Ok(Some(Self::from(user)));
            }
        }
        Err(Failure::new(ErrorKind::Precondition, "there is neither a user wharf nor a user nobody to run services as")
            .hint("make one: useradd --system --no-create-home wharf"))
    }

    /// Whom a policy names, by name or number. `None`: as Wharf itself.
    ///
    /// # Errors
    /// `precondition` where there is no such user, `permission` where Wharf cannot become them.
    pub fn of_policy(named: &str) -> Result<Option<Self>, Failure> {
        let by_number = || named.parse().ok().and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
        let Some(user) = User::from_name(named).ok().flatten().or_else(by_number).map(Self::from) else {
            return Err(Failure::new(ErrorKind::Precondition, format!("there is no user {named:?} to run it as"))
                .hint(format!("make one: useradd --system --no-create-home {named}; or correct policy.run_as")));
        };
        let own = geteuid();
        match (own.is_root(), user.uid == own.as_raw()) {
            (_, true) => Ok(None),
            (true, false) => Ok(Some(user)),
            (false, false) => {
                let us = Self::own().map_or_else(|| format!("uid {own}"), |own| own.name);
                let text =
                    format!("it is to run as {named}, and Wharf, which runs as {us}, cannot become another user");
                Err(Failure::new(ErrorKind::Permission, text)
                    .hint("let root run the daemon (wharf setup), or take the user out: --policy run_as=null"))
            }
        }
    }

    /// Every group that this user is in.
    pub fn groups(&self) -> Vec<u32> {
        let name = std::ffi::CString::new(self.name.as_str()).unwrap_or_default();
        let all = getgrouplist(&name, Gid::from_raw(self.gid)).unwrap_or_default();
        let all: Vec<u32> = all.into_iter().map(Gid::as_raw).collect();
        if all.is_empty() { vec![self.gid] } else { all }
    }

    /// Whom Wharf itself runs as.
    pub fn own() -> Option<Self> {
        User::from_uid(geteuid()).ok().flatten().map(Self::from)
    }

    /// Whether this user can pass all folders that lead to `path`. The failure names the first closed one.
    pub fn can_reach(&self, path: &Path) -> Result<(), Failure> {
        // What a link leads to counts too.
        let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        for folder in real.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
            let Ok(found) = fs::metadata(folder) else { break };
            if !self.has(&found, 0o1) {
                let text = format!(
                    "{} cannot be reached by the user {}: the folder {} is closed to others (mode {:o})",
                    path.display(),
                    self.name,
                    folder.display(),
                    found.mode() & 0o7777
                );
                return Err(Failure::new(ErrorKind::Permission, text).hint(format!(
                    "set WHARF_HOME to a folder outside of it, or open it for passing: chmod o+x {}",
                    folder.display()
                )));
            }
        }
        Ok(())
    }

    /// Whether this user has these rights (4 read, 2 write, 1 execute) by the mode bits.
    pub fn has(&self, found: &fs::Metadata, bits: u32) -> bool {
        let has = |shift: u32| (found.mode() >> shift) & bits == bits;
        match () {
            () if self.uid == 0 => true,
            () if found.uid() == self.uid => has(6),
            // Whose groups they are has to be looked up: only where it makes a difference.
            () if has(3) == has(0) => has(0),
            () if found.gid() == self.gid || self.groups().contains(&found.gid()) => has(3),
            () => has(0),
        }
    }

    /// Gives a folder and everything in it to this user, unless the folder is theirs already.
    pub fn own_tree(&self, folder: &Path) -> Result<(), Failure> {
        let found = fs::symlink_metadata(folder)?;
        if found.uid() == self.uid && found.gid() == self.gid {
            return Ok(());
        }
        self.own_all(folder)
    }

    /// The folder itself comes last: an interrupted walk is repeated, because it is not theirs yet.
    fn own_all(&self, path: &Path) -> Result<(), Failure> {
        if fs::symlink_metadata(path)?.is_dir() {
            for entry in fs::read_dir(path)? {
                self.own_all(&entry?.path())?;
            }
        }
        Ok(lchown(path, Some(self.uid), Some(self.gid))?)
    }

    /// HOME, USER and LOGNAME; where the home folder does not exist, `instead` takes its place.
    pub(crate) fn variables(&self, instead: &Path) -> BTreeMap<String, String> {
        let home = if self.home.is_dir() { &self.home } else { instead };
        BTreeMap::from([
            ("HOME".to_owned(), home.display().to_string()),
            ("USER".to_owned(), self.name.clone()),
            ("LOGNAME".to_owned(), self.name.clone()),
        ])
    }
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw(), home: user.dir }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_policy_names_a_user_by_name_or_number() {
        let own = Account::own().unwrap();
        assert_eq!(Account::of_policy(&own.name).unwrap(), None);
        assert_eq!(Account::of_policy(&own.uid.to_string()).unwrap(), None);
        let unknown = Account::of_policy("no-such-user").unwrap_err();
        assert_eq!(unknown.kind, ErrorKind::Precondition);
        assert!(unknown.message.contains("\"no-such-user\"") && unknown.hint.unwrap().contains("useradd"));
        // Root becomes anybody, anybody else nobody but themselves.
        match Account::of_policy("daemon") {
            Ok(Some(daemon)) => {
                assert!(geteuid().is_root() && daemon.uid == 1 && daemon.groups().contains(&daemon.gid));
            }
            Ok(None) => panic!("we are not the user daemon"),
            Err(failure) => assert!(!geteuid().is_root() && failure.kind == ErrorKind::Permission, "{failure}"),
        }
    }

    #[test]
    fn a_closed_parent_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let closed = dir.path().join("closed");
        let inner = closed.join("inner");
        fs::create_dir_all(&inner).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let other = Account { name: "other".into(), uid: 4_000_001, gid: 4_000_001, home: "/".into() };
        let failure = other.can_reach(&inner.join("x")).unwrap_err();
        assert!(failure.message.contains(&format!("the folder {} is closed", closed.display())), "{failure}");
        assert!(failure.hint.unwrap().contains("WHARF_HOME"));
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o711)).unwrap();
        assert!(other.can_reach(&inner.join("x")).is_ok());
    }

    #[test]
    fn a_folder_of_any_of_its_groups_is_open_to_a_user() {
        let groups = fs::read_to_string("/etc/group").unwrap();
        // Somebody who is in a group beside his own.
        let member = |line: &str| {
            let (rest, members) = line.rsplit_once(':')?;
            let group = rest.rsplit_once(':')?.1.parse::<u32>().ok()?;
            let who = members.split(',').next().filter(|name| !name.is_empty() && *name != "root")?;
            Some((Account::from(User::from_name(who).ok()??), group))
        };
        let Some((who, group)) = groups.lines().find_map(member).filter(|_| geteuid().is_root()) else {
            println!("CANNOT BE DONE HERE: it needs root, and a user of a second group");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let shared = dir.path().join("shared");
        fs::create_dir(&shared).unwrap();
        fs::set_permissions(&shared, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(who.can_reach(&shared.join("x")).is_err());
        lchown(&shared, None, Some(group)).unwrap();
        who.can_reach(&shared.join("x")).unwrap();
    }
}

//! Where the processes of a run listen, whatever its service says of it: addresses, and Unix sockets by
//! /proc/net/unix, whose names are as they were bound.

use std::{
    collections::BTreeSet,
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use wharf_services::Endpoint;

use super::{listeners, who};

/// `SO_ACCEPTCON`: it was told to listen.
const LISTENS: u32 = 0x1_0000;

/// The places.
#[derive(Debug, Default)]
pub struct Listens {
    addresses: Vec<SocketAddr>,
    sockets: Vec<PathBuf>,
}

impl Listens {
    /// Of these processes.
    pub fn of(pids: &[i32]) -> Self {
        Self { addresses: listeners(pids.iter().copied()), sockets: unix_listeners(pids) }
    }

    /// What is asked there reaches it.
    pub fn has(&self, at: &Endpoint) -> bool {
        match at {
            Endpoint::Port(port) => self.addresses.iter().any(|found| found.port() == *port),
            Endpoint::Address(at) => self.addresses.iter().any(|found| found.port() == at.port()),
            Endpoint::Socket(path) => self.sockets.contains(path),
        }
    }
}

impl fmt::Display for Listens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses = self.addresses.iter().map(ToString::to_string);
        let all: Vec<String> = addresses.chain(self.sockets.iter().map(|path| path.display().to_string())).collect();
        f.write_str(&all.join(", "))
    }
}

/// By path; names without a file are left out.
fn unix_listeners(pids: &[i32]) -> Vec<PathBuf> {
    let theirs: BTreeSet<u64> = pids.iter().copied().flat_map(who::sockets_of).collect();
    let text = fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut found: Vec<PathBuf> = text.lines().skip(1).filter_map(|line| parse(line, &theirs)).collect();
    found.sort();
    found.dedup();
    found
}

/// `Num RefCount Protocol Flags Type St Inode Path`; a path may have blanks.
fn parse(line: &str, theirs: &BTreeSet<u64>) -> Option<PathBuf> {
    let mut rest = line;
    let mut field = || {
        let (field, after) = rest.trim_start().split_once(' ')?;
        rest = after;
        Some(field)
    };
    let (_, _, _, flags, _, _, inode) = (field()?, field()?, field()?, field()?, field()?, field()?, field()?);
    let listens = u32::from_str_radix(flags, 16).ok()? & LISTENS != 0;
    let path = Path::new(rest);
    (listens && theirs.contains(&inode.parse().ok()?) && path.is_absolute()).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    #[test]
    fn a_unix_socket_is_found_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("with a blank.sock");
        let _listens = UnixListener::bind(&path).unwrap();
        let _only_bound = UnixDatagram::bind(folder.path().join("other.sock")).unwrap();
        let found = unix_listeners(&[std::process::id().cast_signed()]);
        let here: Vec<_> = found.iter().filter(|found| found.starts_with(folder.path())).collect();
        assert_eq!(here, [&path]);
        let listens = Listens { addresses: vec!["127.0.0.1:80".parse().unwrap()], sockets: vec![path.clone()] };
        assert!(listens.has(&Endpoint::Socket(path)) && listens.has(&Endpoint::Port(80)));
        assert!(!listens.has(&Endpoint::Port(81)) && !listens.has(&Endpoint::Socket("/x.sock".into())));
        assert!(unix_listeners(&[]).is_empty());
    }
}

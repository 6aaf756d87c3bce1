//! Who may do what with leases and devices, and who a holder is: by what the kernel says of the caller.
//!
//! A lease is its user's; root and the daemon's own user may do with it what they like. Devices are theirs alone.

use std::os::unix::fs::MetadataExt;

use wharf_api::Peer;
use wharf_core::arbiter::Lease;
use wharf_model::{ErrorKind, Failure, Holder};
use wharf_sys::pidfd;

/// Longer labels are cut: they are for people.
const LABEL: usize = 64;

fn is_operator(peer: &Peer) -> bool {
    peer.uid == 0 || peer.uid == rustix::process::geteuid().as_raw()
}

/// What concerns all: root and the daemon's own user.
pub fn operator(peer: &Peer, what: &str) -> Result<(), Failure> {
    if is_operator(peer) {
        return Ok(());
    }
    let text = format!("user {} may not {what}", peer.uid);
    Err(Failure::new(ErrorKind::Permission, text).hint("ask root, or the user that the daemon runs as"))
}

/// What concerns one lease: its user, too.
pub fn of_lease(peer: &Peer, lease: &Lease) -> Result<(), Failure> {
    let is_own = lease.unit().is_none() && lease.owner == peer.uid;
    if is_own || is_operator(peer) {
        return Ok(());
    }
    let text = format!("{} is {}'s, and not user {}'s", lease.id, lease.called(), peer.uid);
    Err(Failure::new(ErrorKind::LeaseDenied, text).hint("ask its user, root, or the user that the daemon runs as"))
}

/// The holder of what is acquired: the caller's own process, or another one of its user.
pub fn holder(peer: &Peer, pid: Option<i32>, label: Option<String>) -> Result<Holder, Failure> {
    let pid = pid.unwrap_or(peer.pid);
    let gone = || {
        Failure::new(ErrorKind::Precondition, format!("there is no process {pid} that could hold a lease"))
            .hint("a lease lives as long as its holder: name one that stays, with `pid`")
    };
    let (identity, uid) = if pid == peer.pid {
        let identity = peer.identity.ok_or_else(gone)?;
        pidfd::open_exact(pid, identity).map_err(|_| gone())?;
        (identity, peer.uid)
    } else {
        let opened = pidfd::open(pid).map_err(|_| gone())?;
        let identity = pidfd::identity(&opened, pid).map_err(|_| gone())?;
        let uid = std::fs::metadata(format!("/proc/{pid}")).map_err(|_| gone())?.uid();
        // Asked after the look at its user: it is still the one that was looked at.
        if pidfd::has_exited(&opened) {
            return Err(gone());
        }
        (identity, uid)
    };
    if uid != peer.uid && peer.uid != 0 {
        let text = format!("process {pid} is user {uid}'s, and not user {}'s", peer.uid);
        return Err(Failure::new(ErrorKind::LeaseDenied, text).hint("acquire for a process of your own"));
    }
    if pid <= 1 {
        return Err(gone());
    }
    let label = label.filter(|label| !label.trim().is_empty()).unwrap_or_else(|| program(pid));
    let label = label.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LABEL).collect();
    Ok(Holder::Process { pid, identity, label, uid })
}

/// Whom a plan is for that names nobody. It need not live on.
pub fn planner(peer: &Peer) -> Holder {
    Holder::Process { pid: peer.pid, identity: peer.identity.unwrap_or(0), label: program(peer.pid), uid: peer.uid }
}

fn program(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).map_or_else(|_| "program".into(), |comm| comm.trim().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32) -> Peer {
        let pid = std::process::id().cast_signed();
        let identity = pidfd::open(pid).and_then(|opened| pidfd::identity(opened, pid)).ok();
        Peer { uid, gid: uid, pid, identity }
    }

    #[test]
    fn the_caller_itself_holds_what_it_acquires_and_is_called_by_its_program() {
        let own = std::process::id().cast_signed();
        let Ok(Holder::Process { pid, label, uid, .. }) = holder(&peer(4242), None, None) else { panic!() };
        assert_eq!((pid, uid), (own, 4242));
        assert!(!label.is_empty());
        let Ok(Holder::Process { label, .. }) = holder(&peer(4242), None, Some("a\nb".repeat(99))) else { panic!() };
        assert_eq!(label.len(), LABEL);
        assert!(!label.contains('\n'));
    }

    #[test]
    fn another_users_process_holds_nothing_for_the_caller_and_a_dead_one_nothing_at_all() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().cast_signed();
        let stranger = Peer { uid: 4242, ..peer(4242) };
        assert_eq!(holder(&stranger, Some(pid), None).unwrap_err().kind, ErrorKind::LeaseDenied);
        let own = rustix::process::geteuid().as_raw();
        assert!(holder(&peer(own), Some(pid), None).is_ok());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(holder(&peer(own), Some(pid), None).unwrap_err().kind, ErrorKind::Precondition);
        let gone = Peer { identity: Some(1), ..peer(own) };
        assert_eq!(holder(&gone, None, None).unwrap_err().kind, ErrorKind::Precondition);
    }
}

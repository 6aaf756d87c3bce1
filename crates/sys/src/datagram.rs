//! Datagrams with their sender: the kernel's word on who sent each, and the descriptors that came with it.

use std::{
    io,
    mem::{MaybeUninit, size_of},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

use crate::checked;

/// `SO_PASSPIDFD`, Linux 6.5.
const SO_PASSPIDFD: libc::c_int = 76;
/// `SCM_PIDFD`, Linux 6.5.
const SCM_PIDFD: libc::c_int = 4;
/// Room for credentials, a pidfd and the 253 descriptors that a message can carry at most: what comes
/// last in a full buffer is the pidfd.
const CONTROL_WORDS: usize = 160;

/// Who sent a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sender {
    /// Its pid when it sent. It may be another process's by now.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
}

/// One datagram.
#[derive(Debug)]
pub struct Datagram {
    /// Bytes of the buffer that it fills.
    pub length: usize,
    /// It was longer than the buffer, or its descriptors were more than we may have open.
    pub is_cut: bool,
    /// By its credentials.
    pub sender: Option<Sender>,
    /// The very process that sent it, even if it has ended since; on kernels before 6.5 none.
    pub pidfd: Option<OwnedFd>,
    /// What it passed. All are close-on-exec.
    pub fds: Vec<OwnedFd>,
}

/// From now on each datagram of this socket comes with its sender.
pub fn name_senders(socket: impl AsFd) -> io::Result<()> {
    set(&socket, libc::SO_PASSCRED)?;
    match set(&socket, SO_PASSPIDFD) {
        Err(e) if e.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(()),
        other => other,
    }
}

fn set(socket: impl AsFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the pointer is to an integer of the given size that lives through the call.
    let set = unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, option, (&raw const on).cast(), size) };
    checked(set.into()).map(drop)
}

/// Takes the next datagram; `WouldBlock` where there is none. Never waits.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    let mut control = [0u64; CONTROL_WORDS];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all zeros is a valid msghdr.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    // SAFETY: the header names the buffer and the control space with their true lengths; both outlive the call.
    let length =
        checked(unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut message, flags) } as libc::c_long)?;
    let mut datagram = Datagram {
        length: usize::try_from(length).unwrap_or(0).min(buffer.len()),
        is_cut: message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0,
        sender: None,
        pidfd: None,
        fds: vec![],
    };
    // SAFETY: the kernel has filled the header and the control space that it names.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !next.is_null() {
        // SAFETY: not null, so it points to a whole control message within the control space.
        let (head, data) = unsafe { (*next, libc::CMSG_DATA(next)) };
        // SAFETY: as above; the length is the kernel's own.
        unsafe { take(&mut datagram, head, data) };
        // SAFETY: both come from the same header.
        next = unsafe { libc::CMSG_NXTHDR(&raw const message, next) };
    }
    Ok(datagram)
}

/// # Safety
/// `data` must point to the payload of `head`, as the kernel wrote it, and be taken once.
unsafe fn take(datagram: &mut Datagram, head: libc::cmsghdr, data: *const u8) {
    // SAFETY: CMSG_LEN is plain arithmetic.
    let empty = unsafe { libc::CMSG_LEN(0) } as usize;
    #[allow(clippy::unnecessary_cast, reason = "the width differs between C libraries")]
    let bytes = (head.cmsg_len as usize).saturating_sub(empty);
    let number = |index: usize| {
        // SAFETY: only called for indices whose four bytes lie within `bytes`.
        unsafe { data.cast::<libc::c_int>().add(index).read_unaligned() }
    };
    match (head.cmsg_level, head.cmsg_type) {
        (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
            for index in 0..bytes / size_of::<libc::c_int>() {
                // SAFETY: the kernel has just opened it for us; this is its only owner.
                datagram.fds.push(unsafe { OwnedFd::from_raw_fd(number(index)) });
            }
        }
        (libc::SOL_SOCKET, SCM_PIDFD) if bytes >= size_of::<libc::c_int>() => {
            let fd = number(0);
            if fd >= 0 {
                // SAFETY: as above.
                datagram.pidfd = Some(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        (libc::SOL_SOCKET, libc::SCM_CREDENTIALS) if bytes >= size_of::<libc::ucred>() => {
            // SAFETY: the payload is a whole ucred.
            let who = unsafe { data.cast::<libc::ucred>().read_unaligned() };
            datagram.sender = Some(Sender { pid: who.pid, uid: who.uid });
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        os::unix::net::UnixDatagram,
        process::{Command, Stdio},
    };

    use super::*;
    use crate::pidfd;

    #[test]
    fn a_sender_that_has_ended_is_still_told_by_its_pidfd() {
        let dir = std::env::temp_dir().join(format!("wharf-datagram-{}", std::process::id()));
        let _ = std::fs::remove_file(&dir);
        let socket = UnixDatagram::bind(&dir).unwrap();
        name_senders(&socket).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(receive(&socket, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let script = format!("import socket;s=socket.socket(1,2);s.sendto(b'hello',{:?})", dir.to_str().unwrap());
        let mut child =
            Command::new("/usr/bin/env").args(["python3", "-c", &script]).stdin(Stdio::null()).spawn().unwrap();
        assert!(child.wait().unwrap().success());
        let got = receive(&socket, &mut buffer).unwrap();
        std::fs::remove_file(&dir).unwrap();
        assert_eq!((&buffer[..got.length], got.is_cut), (&b"hello"[..], false));
        assert_eq!(got.sender.unwrap().pid, child.id().cast_signed());
        match &got.pidfd {
            Some(sender) => {
                assert!(pidfd::has_exited(sender));
                match pidfd::cgroup_id(sender) {
                    Some(id) => {
                        assert_eq!(Some(id), pidfd::cgroup_id(pidfd::open(std::process::id().cast_signed()).unwrap()))
                    }
                    None => eprintln!("CANNOT BE DONE HERE: the cgroup of an ended process (Linux 6.15)"),
                }
            }
            None => eprintln!("CANNOT BE DONE HERE: a datagram's pidfd (Linux 6.5)"),
        }
    }

    #[test]
    fn descriptors_come_along_long_ones_are_cut_and_empty_ones_are_messages() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        name_senders(&ours).unwrap();
        theirs.send(b"").unwrap();
        theirs.send(&[b'x'; 100]).unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let pass = [writer.as_fd()];
        crate::socket::send(&theirs, b"FDSTORE=1", &pass).unwrap();
        drop(writer);
        let mut buffer = [0; 16];
        let empty = receive(&ours, &mut buffer).unwrap();
        assert_eq!((empty.length, empty.is_cut), (0, false));
        let long = receive(&ours, &mut buffer).unwrap();
        assert_eq!((long.length, long.is_cut), (16, true));
        let mut passed = receive(&ours, &mut buffer).unwrap().fds;
        assert_eq!(passed.len(), 1);
        let mut passed = std::fs::File::from(passed.remove(0));
        passed.write_all(b"kept").unwrap();
        drop(passed);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "kept");
    }
}

//! A connection that carries words and open files. Every wait has an end.

use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

use rustix::net::{
    self, AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, UCred,
    sockopt::{self, Timeout},
};

use super::words::{DESCRIPTORS, WORD_BYTES, Word};

/// How long the other side may leave its queue full.
const SENT_WITHIN: Duration = Duration::from_secs(5);

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// Why nothing was heard.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unheard {
    /// The other side has ended.
    #[error("the other daemon has ended")]
    Gone,
    /// It says nothing.
    #[error("the other daemon does not answer")]
    Late,
    /// It says what cannot be understood.
    #[error("the other daemon was not understood: {0}")]
    Wrong(String),
}

pub(super) fn socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags | SocketFlags::CLOEXEC, None)?)
}

impl Channel {
    pub(crate) fn new(end: OwnedFd) -> io::Result<Self> {
        sockopt::set_socket_timeout(&end, Timeout::Send, Some(SENT_WITHIN))?;
        Ok(Self(end))
    }

    /// From a listener that does not block: words are waited for all the same.
    pub(super) fn accepted(end: UnixStream) -> io::Result<Self> {
        end.set_nonblocking(false)?;
        Self::new(end.into())
    }

    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        // Non-blocking while it connects: a queue that is full must not hold us up.
        let end = socket(SocketFlags::NONBLOCK)?;
        net::connect(&end, &SocketAddrUnix::new(path)?)?;
        rustix::io::ioctl_fionbio(&end, false)?;
        Self::new(end)
    }

    /// Both ends.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self::new(ours)?, theirs))
    }

    /// Who is at the other end, as the kernel knows it from when it connected.
    pub(super) fn peer(&self) -> io::Result<UCred> {
        Ok(sockopt::socket_peercred(&self.0)?)
    }

    pub(super) fn say(&self, word: &Word, files: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(word)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut beside = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(files)) {
            return Err(io::Error::other("too many open files for one word"));
        }
        let sent = net::sendmsg(&self.0, &[IoSlice::new(&text)], &mut beside, SendFlags::NOSIGNAL)?;
        if sent == text.len() { Ok(()) } else { Err(io::Error::other("a word was cut off")) }
    }

    pub(super) fn hear(&self, patience: Duration) -> Result<(Word, Vec<OwnedFd>), Unheard> {
        let wrong = |what: &dyn std::fmt::Display| Unheard::Wrong(what.to_string());
        // Zero would mean for ever.
        let patience = patience.max(Duration::from_millis(1));
        sockopt::set_socket_timeout(&self.0, Timeout::Recv, Some(patience)).map_err(|e| wrong(&e))?;
        let mut text = vec![0; WORD_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let heard = loop {
            let parts = &mut [IoSliceMut::new(&mut text)];
            match net::recvmsg(&self.0, parts, &mut beside, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Err(Unheard::Late),
                Err(rustix::io::Errno::CONNRESET) => return Err(Unheard::Gone),
                Err(e) => return Err(wrong(&e)),
                Ok(heard) => break heard,
            }
        };
        // Taken out before anything is refused: what is taken out is closed.
        let mut files = vec![];
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(passed) = message {
                files.extend(passed);
            }
        }
        if heard.bytes == 0 {
            return Err(Unheard::Gone);
        }
        if heard.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(wrong(&"a word is too long"));
        }
        let word = serde_json::from_slice(&text[..heard.bytes]).map_err(|e| wrong(&e))?;
        Ok((word, files))
    }

    /// The other side has closed, and nothing that it said is unheard.
    pub(super) fn is_gone(&self) -> bool {
        let mut byte = [0];
        match net::recv(&self.0, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, read)) => read == 0,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            Err(_) => true,
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn words_keep_their_bounds_and_bring_open_files() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::new(theirs).unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"held").unwrap();
        ours.say(&Word::Ready, &[]).unwrap();
        ours.say(&Word::Lock { folder: "/x".into() }, &[file.as_fd()]).unwrap();
        let soon = Duration::from_millis(50);
        assert!(matches!(theirs.hear(soon), Ok((Word::Ready, files)) if files.is_empty()));
        let Ok((Word::Lock { folder }, mut files)) = theirs.hear(soon) else { panic!() };
        let mut passed = std::fs::File::from(files.remove(0));
        passed.rewind().unwrap();
        let mut text = String::new();
        passed.read_to_string(&mut text).unwrap();
        assert_eq!((folder.to_str(), text.as_str()), (Some("/x"), "held"));
        assert!(matches!(theirs.hear(soon), Err(Unheard::Late)) && !theirs.is_gone());
        drop(ours);
        assert!(theirs.is_gone() && matches!(theirs.hear(soon), Err(Unheard::Gone)));
    }

    #[test]
    fn what_is_no_word_is_refused_and_its_files_are_closed() {
        let (ours, theirs) = Channel::pair().unwrap();
        let soon = Duration::from_millis(50);
        for text in [&b"{\"say\":\"reboot\"}"[..], b"not json", &[b' '; WORD_BYTES + 1]] {
            net::send(&theirs, text, SendFlags::NOSIGNAL).unwrap();
            assert!(matches!(ours.hear(soon), Err(Unheard::Wrong(_))));
        }
        assert!(matches!(ours.hear(soon), Err(Unheard::Late)));
    }
}

//! Being told when a file grows, once for each time that it is asked: a busy writer pays for one
//! event, and an idle file costs nothing. Refuses to know what the files are.

use std::{io, mem::MaybeUninit, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags},
    io::Errno,
};

/// Which file, as the kernel names it.
pub type Mark = i32;

/// The kernel's list of files that are waited for.
#[derive(Debug)]
pub struct Watch(OwnedFd);

impl Watch {
    /// An empty list.
    pub fn new() -> io::Result<Self> {
        Ok(Self(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?))
    }

    /// Another descriptor of it: readable while there is something to tell.
    pub fn readable(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// Tells of the next write to this file, and of no other after it.
    pub fn arm(&self, path: &Path) -> io::Result<Mark> {
        Ok(inotify::add_watch(&self.0, path, WatchFlags::MODIFY | WatchFlags::ONESHOT)?)
    }

    /// Not interested any more.
    pub fn disarm(&self, mark: Mark) {
        // One that has fired is gone already.
        let _ = inotify::remove_watch(&self.0, mark);
    }

    /// The files that were written to; `None`: more than the kernel could remember.
    pub fn fired(&self) -> Option<Vec<Mark>> {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = inotify::Reader::new(&self.0, &mut buffer);
        let (mut marks, mut has_all) = (vec![], true);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => has_all = false,
                Ok(event) if event.events().contains(ReadFlags::MODIFY) => marks.push(event.wd()),
                // That a mark is gone is known: it was for once.
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return has_all.then_some(marks),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write};

    #[test]
    fn a_thousand_writes_are_one_event() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("1.log");
        let mut file = fs::File::create(&path).unwrap();
        let watch = Watch::new().unwrap();
        let mark = watch.arm(&path).unwrap();
        assert_eq!(watch.fired(), Some(vec![]));
        (0..1000).for_each(|_| file.write_all(b"x\n").unwrap());
        assert_eq!(watch.fired(), Some(vec![mark]));
        file.write_all(b"x\n").unwrap();
        assert_eq!(watch.fired(), Some(vec![]));
        let mark = watch.arm(&path).unwrap();
        file.write_all(b"x\n").unwrap();
        assert_eq!(watch.fired(), Some(vec![mark]));
        assert!(watch.arm(&dir.path().join("none")).is_err());
    }
}

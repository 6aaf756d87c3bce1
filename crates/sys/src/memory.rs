//! Memory that is given back as a whole, and a heap for a program that has many copies.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::UnsafeCell,
    io,
    ops::{Deref, DerefMut},
    ptr, slice,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Zeroed bytes in a mapping of their own: only touched pages are taken, and dropping it gives them back.
pub struct Mapped {
    start: *mut u8,
    length: usize,
}

impl Mapped {
    /// So many bytes.
    pub fn new(length: usize) -> io::Result<Self> {
        let (rights, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping at a place of the kernel's choice.
        let start = unsafe { libc::mmap(ptr::null_mut(), length, rights, kind, -1, 0) };
        if start == libc::MAP_FAILED {
            Err(io::Error::last_os_error())
        } else {
            Ok(Self { start: start.cast(), length })
        }
    }
}

/// The heap of a small program with one thread: one piece after another, and the last one can be taken
/// back. What does not fit goes to the system's allocator. Unlike that it keeps no lists among the
/// pieces, so that a fork that needs none of them shares or gives back their pages.
pub struct Arena {
    room: UnsafeCell<Room>,
    used: AtomicUsize,
}

const ROOM: usize = 64 * 1024;
const PAGE: usize = 4096;

#[repr(align(4096))]
struct Room(#[allow(dead_code, reason = "reached through pointers only")] [u8; ROOM]);

// SAFETY: pieces are given out by an atomic counter, each to one owner.
unsafe impl Sync for Arena {}

impl Arena {
    /// An empty one, for a `#[global_allocator]`.
    #[allow(clippy::new_without_default, reason = "a static needs a const fn")]
    pub const fn new() -> Self {
        Self { room: UnsafeCell::new(Room([0; ROOM])), used: AtomicUsize::new(0) }
    }

    /// Gives back the pages beyond what is in use, and the stack's below its present depth: for a
    /// process that from here only waits.
    pub fn shed(&self) {
        let here = 0_u8;
        // A page of room below for the calls that follow.
        let depth = ((&raw const here).expose_provenance() - PAGE) & !(PAGE - 1);
        let used = self.used.load(Ordering::Relaxed).next_multiple_of(PAGE);
        let unused = self.room.get().cast::<u8>().wrapping_add(used);
        // SAFETY: the first lies below the stack pointer, where nothing lives in a program of one thread
        // that handles no signal; in the second no piece is given out. The next who come there find zeros.
        unsafe {
            libc::madvise(ptr::with_exposed_provenance_mut(depth - 16 * PAGE), 16 * PAGE, libc::MADV_DONTNEED);
            libc::madvise(unused.cast(), ROOM - used, libc::MADV_DONTNEED);
        }
    }

    /// Where in the room a piece begins, if it is in the room.
    fn offset(&self, piece: *mut u8) -> Option<usize> {
        piece.addr().checked_sub(self.room.get().addr()).filter(|offset| *offset < ROOM)
    }
}

// SAFETY: pieces do not overlap, are aligned (the room is aligned to a page, and no more is promised),
// and stay until they are given back.
unsafe impl GlobalAlloc for Arena {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut start = 0;
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            start = used.next_multiple_of(layout.align());
            start.checked_add(layout.size()).filter(|end| *end <= ROOM && layout.align() <= PAGE)
        });
        match taken {
            Ok(_) => self.room.get().cast::<u8>().wrapping_add(start),
            // SAFETY: the caller's layout is passed on.
            Err(_) => unsafe { System.alloc(layout) },
        }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match self.offset(piece) {
            Some(start) => {
                let end = start + layout.size();
                let _ = self.used.compare_exchange(end, start, Ordering::Relaxed, Ordering::Relaxed);
            }
            // SAFETY: not ours, so it came from there.
            None => unsafe { System.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if let Some(start) = self.offset(piece) {
            let (end, wanted) = (start + layout.size(), start.saturating_add(size));
            let grown =
                wanted <= ROOM && self.used.compare_exchange(end, wanted, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            if grown || size <= layout.size() {
                return piece;
            }
        }
        // SAFETY: as the trait's own: a new piece, the old one's bytes, the old one given back.
        unsafe {
            let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
            if !new.is_null() {
                ptr::copy_nonoverlapping(piece, new, layout.size().min(size));
                self.dealloc(piece, layout);
            }
            new
        }
    }
}

impl Deref for Mapped {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: our own mapping, readable and this long until the drop.
        unsafe { slice::from_raw_parts(self.start, self.length) }
    }
}

impl DerefMut for Mapped {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, writable, and borrowed exclusively through `self`.
        unsafe { slice::from_raw_parts_mut(self.start, self.length) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: our own mapping; nothing borrows from it any more.
        unsafe { libc::munmap(self.start.cast(), self.length) };
    }
}

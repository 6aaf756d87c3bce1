//! A child that borrows its parent's memory until it becomes another program.
//!
//! Like `posix_spawn`: no page table is copied, and the parent stands still until the child has
//! executed a program or ended. What the child writes, the parent reads: no pipe is needed to tell
//! why a start failed.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
};

use crate::checked;

/// Room for the child's steps: paths, a record, the search through PATH. Only touched pages are taken.
const STACK: usize = 128 * 1024;
/// `CLONE_INTO_CGROUP`, Linux 5.7.
const INTO_CGROUP: u64 = 1 << 33;

/// Runs `body` in a child that shares our memory, born in `cgroup` where one is given; the code that
/// it returns is the child's exit code. Comes back with the child's pid once that has executed a
/// program or ended. The caller has one thread and has blocked its signals.
///
/// `Unsupported` where a cgroup is given and the kernel cannot give birth there: the child can then join by itself.
pub fn spawn_sharing<F: FnMut() -> i32>(cgroup: Option<BorrowedFd<'_>>, body: &mut F) -> io::Result<i32> {
    let stack = Stack::new()?;
    let argument = ptr::from_mut(body).cast::<libc::c_void>();
    let pid = match cgroup {
        // SAFETY: the entry belongs to the type behind the argument; both, and the stack, live until
        // the call returns, and the kernel holds us until the child no longer uses our memory.
        Some(cgroup) => unsafe { born_in(cgroup, &stack, enter::<F>, argument) },
        None => {
            let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
            // SAFETY: as above.
            checked(unsafe { libc::clone(enter::<F>, stack.top(), flags, argument) }.into())
        }
    }?;
    Ok(i32::try_from(pid).unwrap_or(i32::MAX))
}

extern "C" fn enter<F: FnMut() -> i32>(argument: *mut libc::c_void) -> libc::c_int {
    // SAFETY: the argument is the `&mut F` of `spawn_sharing`, which is held still while we run.
    let code = unsafe { (*argument.cast::<F>())() };
    // SAFETY: _exit is always sound.
    unsafe { libc::_exit(code) }
}

/// The child's stack, given back when the child no longer needs it.
struct Stack(*mut libc::c_void);

impl Stack {
    fn new() -> io::Result<Self> {
        let (rights, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh mapping at a place of the kernel's choice.
        let base = unsafe { libc::mmap(ptr::null_mut(), STACK, rights, kind | libc::MAP_STACK, -1, 0) };
        if base == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self(base)) }
    }

    /// Its end: stacks grow down. A mapping's end is aligned as every processor wants it.
    fn top(&self) -> *mut libc::c_void {
        self.0.wrapping_byte_add(STACK)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping; the child that used it has another memory by now, or has ended.
        unsafe { libc::munmap(self.0, STACK) };
    }
}

type Entry = extern "C" fn(*mut libc::c_void) -> libc::c_int;

/// # Safety
/// `entry` must be sound to call with `argument` on `stack` while the caller stands still, and never return.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
unsafe fn born_in(
    cgroup: BorrowedFd<'_>,
    stack: &Stack,
    entry: Entry,
    argument: *mut libc::c_void,
) -> io::Result<libc::c_long> {
    // SAFETY: all-zero is valid for the kernel's structure of integers.
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    how.flags = INTO_CGROUP | u64::from((libc::CLONE_VM | libc::CLONE_VFORK).cast_unsigned());
    how.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    how.stack = stack.0.expose_provenance() as u64;
    how.stack_size = STACK as u64;
    how.cgroup = u64::try_from(cgroup.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let result: libc::c_long;
    // SAFETY: the C library has no such call. The parent goes on behind the block; the child begins on
    // its own, aligned stack, calls the entry, which never returns, and touches no register of ours.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw const how,
            in("rsi") size_of::<libc::clone_args>(),
            in("r12") argument,
            in("r13") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x30, xzr",
            "mov x0, x20",
            "blr x21",
            "brk #1",
            "2:",
            inlateout("x0") &raw const how => result,
            in("x1") size_of::<libc::clone_args>(),
            in("x8") libc::SYS_clone3,
            in("x20") argument,
            in("x21") entry,
        );
    }
    if result >= 0 {
        return Ok(result);
    }
    let error = io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(0));
    match error.raw_os_error() {
        // No clone3, no such flag, or a filter that knows neither.
        Some(libc::ENOSYS | libc::EINVAL | libc::E2BIG | libc::EPERM) => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(error),
    }
}

/// # Safety
/// None needed: it does nothing.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
unsafe fn born_in(_: BorrowedFd<'_>, _: &Stack, _: Entry, _: *mut libc::c_void) -> io::Result<libc::c_long> {
    Err(io::ErrorKind::Unsupported.into())
}

//! What a process does to itself and to its children: fork, sessions, signals, limits, users, exec.

use std::{
    ffi::{CStr, CString},
    io, ptr,
};

use crate::{
    checked,
    pidfd::{Ended, ended},
};

/// Which side of a fork this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fork {
    /// The old process; the new one has this pid and stays nameable until we reap it.
    Parent(i32),
    /// The new process.
    Child,
}

/// Forks. The caller has one thread: with more, the child may do almost nothing before exec.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: callers are single-threaded programs (the shim, and tests that exec or _exit at once),
    // so no lock can be left held by a thread that the child does not have.
    match checked(unsafe { libc::fork() }.into())? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(i32::try_from(pid).unwrap_or(i32::MAX))),
    }
}

/// Ends this process at once: no destructors, no buffers, no handlers. For the child of a fork.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: _exit is always sound.
    unsafe { libc::_exit(code) }
}

/// Begins a new session, and leads it and its process group. Fails in a process that leads a group already.
pub fn new_session() -> io::Result<()> {
    rustix::process::setsid()?;
    Ok(())
}

/// Makes this process the parent of every orphan below it.
pub fn adopt_orphans() -> io::Result<()> {
    // SAFETY: the option takes one integer and no pointer.
    checked(unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }.into()).map(drop)
}

/// Whether this process takes orphans.
pub fn adopts_orphans() -> bool {
    let mut flag: libc::c_int = 0;
    // SAFETY: the option writes one int to the pointer, which is valid for it.
    unsafe { libc::prctl(libc::PR_GET_CHILD_SUBREAPER, &raw mut flag, 0, 0, 0) };
    flag != 0
}

/// Waits until any child has ended and reaps it: its pid and how. None when there is no child left.
pub fn wait_any() -> io::Result<Option<(i32, Ended)>> {
    loop {
        let mut status: libc::c_int = 0;
        // SAFETY: the status pointer is valid for one int.
        match checked(unsafe { libc::waitpid(-1, &raw mut status, 0) }.into()) {
            Ok(pid) => match ended(status) {
                Some(how) => return Ok(Some((i32::try_from(pid).unwrap_or(-1), how))),
                None => continue,
            },
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => continue,
            Err(e) if e.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
            Err(e) => return Err(e),
        }
    }
}

/// Gives every signal its default effect and lets all of them in. What is ignored or blocked
/// would else be inherited across exec: Rust programs ignore SIGPIPE.
pub fn reset_signals() {
    // The kernel's own structure, which is longest with four words: no handler, no flags, no mask.
    let default = [0_u64; 4];
    let none = ptr::null_mut::<u64>();
    for signal in 1..=64 {
        // SAFETY: the structure outlives the call and names no code. Asked of the kernel, since the C
        // library refuses the two numbers that it keeps for itself; it needs them with threads only.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), none, size_of::<u64>()) };
    }
    // SAFETY: an all-zero set is valid storage, sigemptyset initialises it, and both outlive the calls.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Ignores a signal.
pub fn ignore_signal(signal: i32) {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Sets the bits that new files do not get.
pub fn set_umask(mask: u32) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
}

/// Sets the soft limit of open files, at most the hard limit.
pub fn limit_open_files(soft: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = Some(maximum.map_or(soft, |hard| soft.min(hard)));
    Ok(setrlimit(Resource::Nofile, Rlimit { current, maximum })?)
}

/// Becomes another user for good: groups, then group, then user, since the last takes the right to the others.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> io::Result<()> {
    // SAFETY: the pointer and the length are of the same slice.
    checked(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }.into())?;
    // SAFETY: integers only.
    checked(unsafe { libc::setresgid(gid, gid, gid) }.into())?;
    // SAFETY: integers only.
    checked(unsafe { libc::setresuid(uid, uid, uid) }.into())?;
    Ok(())
}

/// The user and group that this process acts as.
pub fn acts_as() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// Gives back the memory that this program's own code and constants take in this process. What is
/// needed again comes from the file by itself: for a process that has done its work and now waits.
pub fn shed_code() {
    // All found first, so that little code runs, and comes back, after the first is dropped.
    let [first, second] = own_mappings();
    for (start, length) in [first, second] {
        // SAFETY: the range is one mapping of a file, private and never written (or empty): dropping
        // its pages changes no byte that a later read of them sees.
        unsafe { libc::madvise(ptr::with_exposed_provenance_mut(start), length, libc::MADV_DONTNEED) };
    }
}

/// Start and length of the two mappings of this program that nobody writes: its code, and the
/// constants at the file's beginning. Those further on hold what the start-up code wrote into them.
fn own_mappings() -> [(usize, usize); 2] {
    let mut found = [(0, 0); 2];
    let (Ok(maps), Ok(own)) = (std::fs::read_to_string("/proc/self/maps"), std::env::current_exe()) else {
        return found;
    };
    let Some(own) = own.to_str() else { return found };
    let lines = maps.lines().filter(|line| line.ends_with(own));
    for (place, line) in found.iter_mut().zip(lines.filter_map(never_written)) {
        *place = line;
    }
    found
}

fn never_written(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, rights, offset) = (fields.next()?, fields.next()?, fields.next()?);
    let is_first = offset.bytes().all(|b| b == b'0');
    if rights != "r-xp" && !(rights == "r--p" && is_first) {
        return None;
    }
    let (from, to) = range.split_once('-')?;
    let from = usize::from_str_radix(from, 16).ok()?;
    Some((from, usize::from_str_radix(to, 16).ok()?.checked_sub(from)?))
}

/// A program's arguments or environment, with the pointer table that exec wants.
pub struct Strings {
    owned: Vec<CString>,
    table: Vec<*const libc::c_char>,
}

impl Strings {
    /// Lays the table. The strings stay where they are on the heap, also when this moves.
    pub fn new(owned: Vec<CString>) -> Self {
        let table = owned.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Self { owned, table }
    }

    /// The value after `NAME=`.
    fn value_of(&self, name_and_equals: &[u8]) -> Option<&[u8]> {
        self.owned.iter().find_map(|s| s.to_bytes().strip_prefix(name_and_equals))
    }
}

/// Where a program is looked for when its environment has no PATH.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Turns this process into the program `argv[0]`; returns only the reason why it could not.
///
/// A name with a slash is taken as it is, any other is looked for in the PATH of `envp`. An empty
/// entry of PATH is skipped: it would mean the current folder.
pub fn exec(argv: &Strings, envp: &Strings) -> io::Error {
    let Some(name) = argv.owned.first() else { return io::ErrorKind::InvalidInput.into() };
    if name.to_bytes().contains(&b'/') {
        return exec_file(name, argv, envp);
    }
    let path = envp.value_of(b"PATH=").unwrap_or(DEFAULT_PATH);
    let mut reason = io::Error::from_raw_os_error(libc::ENOENT);
    for dir in path.split(|&b| b == b':').filter(|d| !d.is_empty()) {
        let Ok(file) = CString::new([dir, b"/", name.to_bytes()].concat()) else { continue };
        let error = exec_file(&file, argv, envp);
        match error.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR) => {}
            // There is one, and we may not run it: a later one may do, else this is the reason.
            Some(libc::EACCES) => reason = error,
            _ => return error,
        }
    }
    reason
}

fn exec_file(file: &CStr, argv: &Strings, envp: &Strings) -> io::Error {
    // SAFETY: the file is nul-terminated; both tables end with null and point at live, nul-terminated strings.
    unsafe { libc::execve(file.as_ptr(), argv.table.as_ptr(), envp.table.as_ptr()) };
    io::Error::last_os_error()
}

//! What a process does to itself and to its children: fork, sessions, signals, limits, users, exec.

use std::{
    borrow::Cow,
    ffi::{CStr, CString},
    io, ptr,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

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

/// Forks a program that has one thread and always will have: nothing of the C library's is made ready
/// for the child, so that both share nearly all of their memory.
pub fn fork_alone() -> io::Result<Fork> {
    let none = 0_usize;
    // SAFETY: without a stack and with no shared memory the call is a fork. The C library's locks are
    // free in a single thread, and of what it would do in the child nothing is needed here.
    match checked(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, none, none, none, none) })? {
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(i32::try_from(pid).unwrap_or(i32::MAX))),
    }
}

/// Begins a process group of its own: a signal to the old one does not reach us.
pub fn new_group() -> io::Result<()> {
    Ok(rustix::process::setpgid(None, None)?)
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
    admit_signals();
}

/// Ignores a signal.
pub fn ignore_signal(signal: i32) {
    // SAFETY: SIG_IGN runs no code of ours.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Has children reaped by the kernel, at once. It is inherited by a fork.
pub fn leave_children_unreaped(yes: bool) {
    // SAFETY: neither disposition runs code of ours.
    unsafe { libc::signal(libc::SIGCHLD, if yes { libc::SIG_IGN } else { libc::SIG_DFL }) };
}

/// Lets no signal in but those that nobody can refuse. What comes meanwhile waits.
pub fn block_signals() {
    set_mask(libc::sigfillset);
}

/// Lets every signal in.
pub fn admit_signals() {
    set_mask(libc::sigemptyset);
}

fn set_mask(fill: unsafe extern "C" fn(*mut libc::sigset_t) -> libc::c_int) {
    // SAFETY: an all-zero set is valid storage, `fill` initialises it, and it outlives the calls.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        fill(&raw mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
    }
}

/// Sets the bits that new files do not get.
pub fn set_umask(mask: u32) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
}

/// Sets the soft limit of open files, at most the hard limit.
pub fn limit_open_files(soft: u64) -> io::Result<()> {
    limit_softly(Resource::Nofile, soft)
}

/// Sets the soft limit of a core dump's size in bytes, at most the hard limit. 0: none is written.
pub fn limit_core(bytes: u64) -> io::Result<()> {
    limit_softly(Resource::Core, bytes)
}

/// Sets how much memory this process may have for its data, in bytes, for good.
pub fn limit_data(bytes: u64) -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Data);
    let most = Some(maximum.map_or(bytes, |hard| bytes.min(hard)));
    Ok(setrlimit(Resource::Data, Rlimit { current: most, maximum: most })?)
}

/// Gives back what a caller's shell or unit may have taken: every soft limit but those of open files,
/// core dumps and stacks goes to its hard limit; those to what programs usually find.
pub fn usual_limits() {
    use Resource::{As, Cpu, Data, Fsize, Memlock, Msgqueue, Nproc, Sigpending};
    for resource in [As, Cpu, Data, Fsize, Memlock, Msgqueue, Nproc, Sigpending] {
        let Rlimit { current, maximum } = getrlimit(resource);
        if current != maximum {
            let _ = setrlimit(resource, Rlimit { current: maximum, maximum });
        }
    }
    for (resource, soft) in [(Resource::Nofile, 1024), (Resource::Core, 0), (Resource::Stack, 8 << 20)] {
        let _ = limit_softly(resource, soft);
    }
}

fn limit_softly(resource: Resource, soft: u64) -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(resource);
    let current = Some(maximum.map_or(soft, |hard| soft.min(hard)));
    Ok(setrlimit(resource, Rlimit { current, maximum })?)
}

/// Sets how much this process stands back: -20 to 19.
pub fn set_nice(nice: i32) -> io::Result<()> {
    Ok(rustix::process::setpriority_process(None, nice)?)
}

/// Lets anybody of our user take descriptors from this process, where a security module restricts that
/// to its parents.
pub fn admit_tracers() {
    // SAFETY: integers only. Without the module the option is unknown, which is as good.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, libc::PR_SET_PTRACER_ANY, 0, 0, 0) };
}

/// Names this process, at most 15 bytes: what `ps -o comm` shows.
pub fn set_name(name: &CStr) {
    // SAFETY: the text ends with a zero byte; the kernel copies at most 16.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0) };
}

/// The words after the program's own name, in memory: what `ps` shows of it.
pub struct Title(&'static mut [u8]);

impl Title {
    /// Takes that memory. Once in a program, before it has threads.
    pub fn take() -> Option<Self> {
        unsafe extern "C" {
            // The first argument, as the kernel laid it; the others follow it.
            static program_invocation_name: *mut libc::c_char;
        }
        let mut words = std::env::args_os();
        let skipped = words.next()?.len() + 1;
        let length: usize = words.map(|word| word.len() + 1).sum();
        // SAFETY: the C library set it before main, and nobody sets it again.
        let first = unsafe { program_invocation_name }.cast::<u8>();
        if first.is_null() || length == 0 {
            return None;
        }
        // SAFETY: the kernel lays all arguments one after another, writable, and they stay for good.
        // Nobody else keeps a reference: the standard library copies them when it is asked.
        Some(Self(unsafe { std::slice::from_raw_parts_mut(first.add(skipped), length) }))
    }

    /// Writes other words there, as far as they fit.
    pub fn set(&mut self, words: &[&[u8]]) {
        let all = words.join(&0);
        let (length, last) = (all.len().min(self.0.len().saturating_sub(1)), self.0.len());
        self.0[..length].copy_from_slice(&all[..length]);
        self.0[length..last].fill(0);
    }
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

/// Has a command begin as another user, with exactly these groups: the standard library's own way takes all away.
pub fn start_as(command: &mut std::process::Command, uid: u32, gid: u32, groups: Vec<u32>) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec it makes three system calls and takes no memory and no lock.
    unsafe { command.pre_exec(move || become_user(uid, gid, &groups)) };
}

/// Has a command's process killed when the thread that begins it ends, as it does with the whole process. After
/// `start_as`: a change of the user takes the wish back.
pub fn die_with_us(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt;
    let wish = || {
        // SAFETY: the option takes one integer and no pointer.
        checked(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) }.into()).map(drop)
    };
    // SAFETY: between fork and exec it makes one system call and takes no memory and no lock.
    unsafe { command.pre_exec(wish) };
}

/// The user and group that this process acts as.
pub fn acts_as() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

/// A program's arguments or environment, with the pointer table that exec wants.
pub struct Strings<'a> {
    texts: Vec<Cow<'a, CStr>>,
    table: Vec<*const libc::c_char>,
}

impl Strings<'static> {
    /// Lays the table. The strings stay where they are on the heap, also when this moves.
    pub fn new(owned: Vec<CString>) -> Self {
        Self::laid(owned.into_iter().map(Cow::Owned).collect())
    }
}

impl<'a> Strings<'a> {
    /// The same for strings that lie elsewhere.
    pub fn of(texts: impl IntoIterator<Item = &'a CStr>) -> Self {
        Self::laid(texts.into_iter().map(Cow::Borrowed).collect())
    }

    fn laid(texts: Vec<Cow<'a, CStr>>) -> Self {
        let table = texts.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Self { texts, table }
    }

    /// The value after `NAME=`.
    fn value_of(&self, name_and_equals: &[u8]) -> Option<&[u8]> {
        self.texts.iter().find_map(|s| s.to_bytes().strip_prefix(name_and_equals))
    }
}

/// Where a program is looked for when its environment has no PATH.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Turns this process into the program `argv[0]`; returns only the reason why it could not.
///
/// A name with a slash is taken as it is, any other is looked for in the PATH of `envp`. An empty
/// entry of PATH is skipped: it would mean the current folder.
pub fn exec(argv: &Strings<'_>, envp: &Strings<'_>) -> io::Error {
    let Some(name) = argv.texts.first() else { return io::ErrorKind::InvalidInput.into() };
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

fn exec_file(file: &CStr, argv: &Strings<'_>, envp: &Strings<'_>) -> io::Error {
    // SAFETY: the file is nul-terminated; both tables end with null and point at live, nul-terminated strings.
    unsafe { libc::execve(file.as_ptr(), argv.table.as_ptr(), envp.table.as_ptr()) };
    io::Error::last_os_error()
}

//! Every call against the real kernel. Children are forked only to exec or `_exit` at once.

use std::{
    ffi::CString,
    fs::File,
    io::Read,
    os::fd::{AsFd, AsRawFd},
    process::Command,
};

use crate::{
    clock, files,
    pidfd::{self, Ended},
    process::{self, Fork, Strings},
};

/// Runs `body` in a forked child that ends with the code it returns.
fn in_child(body: impl FnOnce() -> i32) -> Ended {
    match process::fork().unwrap() {
        Fork::Child => process::exit_now(body()),
        Fork::Parent(pid) => {
            let mut status = 0;
            // SAFETY: waits for our own child; the pointer is valid for one int.
            let got = unsafe { libc::waitpid(pid, &raw mut status, 0) };
            assert_eq!(got, pid);
            pidfd::ended(status).unwrap()
        }
    }
}

fn strings(of: &[&str]) -> Strings<'static> {
    Strings::new(of.iter().map(|s| CString::new(*s).unwrap()).collect())
}

fn scratch(name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("wharf-sys-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

#[test]
fn exec_finds_the_program_in_the_childs_own_path() {
    let argv = strings(&["sh", "-c", "test \"$A\" = b && exit 7"]);
    let found = strings(&["A=b", "PATH=/nowhere::/bin:/usr/bin"]);
    assert_eq!(in_child(|| process::exec(&argv, &found).raw_os_error().unwrap()), Ended::Exited(7));
    let lost = strings(&["PATH=/nowhere"]);
    let code = in_child(|| process::exec(&argv, &lost).raw_os_error().unwrap());
    assert_eq!(code, Ended::Exited(libc::ENOENT));
    let forbidden = strings(&["PATH=/etc"]);
    let code = in_child(|| process::exec(&strings(&["passwd"]), &forbidden).raw_os_error().unwrap());
    assert_eq!(code, Ended::Exited(libc::EACCES));
}

#[test]
fn signals_are_as_a_shell_gives_them() {
    // The test harness, as every Rust program, ignores SIGPIPE.
    let ignored = strings(&["sh", "-c", "kill -PIPE $$; exit 3"]);
    let env = strings(&[]);
    let died = in_child(|| {
        process::ignore_signal(libc::SIGPIPE);
        process::reset_signals();
        process::exec(&ignored, &env).raw_os_error().unwrap()
    });
    assert_eq!(died, Ended::Signaled(libc::SIGPIPE));
    let lived = in_child(|| {
        process::ignore_signal(libc::SIGPIPE);
        process::exec(&ignored, &env).raw_os_error().unwrap()
    });
    assert_eq!(lived, Ended::Exited(3));
}

#[test]
fn a_child_takes_a_session_orphans_a_umask_and_limits() {
    let code = in_child(|| {
        process::new_session().unwrap();
        let again = process::new_session().is_err();
        let before = process::adopts_orphans();
        process::adopt_orphans().unwrap();
        process::set_umask(0o027);
        process::limit_open_files(100).unwrap();
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let mask = rustix::process::umask(rustix::fs::Mode::empty()).as_raw_mode();
        let sound = again && !before && process::adopts_orphans() && limit == Some(100) && mask == 0o027;
        i32::from(!sound)
    });
    assert_eq!(code, Ended::Exited(0));
}

#[test]
fn all_children_are_reaped_and_then_there_is_none() {
    let code = in_child(|| {
        for wanted in [4, 5] {
            if process::fork().unwrap() == Fork::Child {
                process::exit_now(wanted);
            }
        }
        let mut seen = vec![];
        while let Some((_, how)) = process::wait_any().unwrap() {
            seen.push(how);
        }
        let both = seen.contains(&Ended::Exited(4)) && seen.contains(&Ended::Exited(5)) && seen.len() == 2;
        i32::from(!both)
    });
    assert_eq!(code, Ended::Exited(0));
}

#[test]
fn another_user_for_good() {
    if process::acts_as().0 != 0 {
        return;
    }
    let code = in_child(|| {
        process::become_user(65_534, 65_533, &[7]).unwrap();
        let back = process::become_user(0, 0, &[]).is_ok();
        i32::from(back || process::acts_as() != (65_534, 65_533))
    });
    assert_eq!(code, Ended::Exited(0));
}

#[test]
fn a_pidfd_names_one_process_and_tells_of_its_end() {
    let mut child = Command::new("sleep").arg("60").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let fd = pidfd::open(pid).unwrap();
    let id = pidfd::identity(&fd, pid).unwrap();
    assert_eq!(pidfd::identity(pidfd::open_exact(pid, id).unwrap(), pid).unwrap(), id);
    assert!(pidfd::open_exact(pid, id + 1).is_err());
    assert!(!pidfd::has_exited(&fd));
    pidfd::signal(&fd, libc::SIGKILL).unwrap();
    child.wait().unwrap();
    assert!(pidfd::has_exited(&fd));
    assert_eq!(pidfd::signal(&fd, libc::SIGKILL).unwrap_err().raw_os_error(), Some(libc::ESRCH));
    // 6.15 and later keep how it ended; earlier kernels say nothing.
    assert!(matches!(pidfd::exit_seen_by_kernel(&fd), None | Some(Ended::Signaled(libc::SIGKILL))));
    assert!(pidfd::open(-1).is_err() && pidfd::open(0).is_err());
}

#[test]
fn a_group_gets_the_signal_together() {
    use std::os::unix::process::CommandExt;
    let mut child = Command::new("sh").args(["-c", "sleep 60 & wait"]).process_group(0).spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    let children = format!("/proc/{pid}/task/{pid}/children");
    let inner: i32 = loop {
        if let Some(inner) = std::fs::read_to_string(&children).unwrap().split_whitespace().next() {
            break inner.parse().unwrap();
        }
        std::thread::yield_now();
    };
    let inner = pidfd::open(inner).unwrap();
    pidfd::signal_group(pidfd::open(pid).unwrap(), libc::SIGTERM).unwrap();
    child.wait().unwrap();
    for _ in 0..2000 {
        if pidfd::has_exited(&inner) {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("the other process of the group still lives");
}

#[test]
fn a_lock_is_held_by_the_open_file() {
    let path = scratch("lock");
    let first = File::create(&path).unwrap();
    assert!(files::lock_exclusive(&first).unwrap());
    let copy = first.try_clone().unwrap();
    drop(first);
    let other = File::open(&path).unwrap();
    assert!(!files::lock_shared(&other).unwrap() && !files::lock_exclusive(&other).unwrap());
    drop(copy);
    assert!(files::lock_shared(&other).unwrap() && files::lock_shared(File::open(&path).unwrap()).unwrap());
    std::fs::remove_file(path).unwrap();
}

#[test]
fn a_name_is_given_once() {
    let (a, b, name) = (scratch("a"), scratch("b"), scratch("name"));
    std::fs::write(&a, "a").unwrap();
    std::fs::write(&b, "b").unwrap();
    files::rename_new(&a, &name).unwrap();
    assert_eq!(files::rename_new(&b, &name).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&name).unwrap(), "a");
    for path in [b, name] {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn descriptors_are_closed_by_exec_unless_kept() {
    let (kept, lost) = (File::open("/dev/null").unwrap(), File::open("/dev/null").unwrap());
    let (kept, lost) = (kept.as_fd(), lost.as_fd());
    let script = format!("test -e /proc/self/fd/{} && test ! -e /proc/self/fd/{}", kept.as_raw_fd(), lost.as_raw_fd());
    let argv = strings(&["sh", "-c", &script]);
    let code = in_child(|| {
        files::close_all_on_exec().unwrap();
        files::keep_across_exec(kept).unwrap();
        process::exec(&argv, &strings(&[])).raw_os_error().unwrap()
    });
    assert_eq!(code, Ended::Exited(0));
}

#[test]
fn a_pipe_becomes_standard_output() {
    let (read, write) = files::pipe().unwrap();
    let argv = strings(&["echo", "hello"]);
    let code = in_child(|| {
        files::become_standard(write.as_fd(), 1).unwrap();
        process::exec(&argv, &strings(&[])).raw_os_error().unwrap()
    });
    drop(write);
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    assert_eq!((code, text.as_str()), (Ended::Exited(0), "hello\n"));
}

#[test]
fn the_clocks_go_on() {
    assert_eq!(clock::boot_id().unwrap().len(), clock::BOOT_ID_LEN);
    assert_eq!(clock::boot_id().unwrap(), clock::boot_id().unwrap());
    assert!(clock::boottime_ms() > 0 && clock::wall_ms() > 1_700_000_000_000);
}

#[test]
fn a_child_that_borrows_our_memory_leaves_its_word_in_it() {
    let code = in_child(|| {
        let mut said = 0;
        let pid = crate::child::spawn_sharing(None, &mut || {
            said = 41;
            7
        });
        let reaped = process::wait_any().unwrap();
        let ended = Some((pid.unwrap(), Ended::Exited(7)));
        i32::from(said != 41 || reaped != ended)
    });
    assert_eq!(code, Ended::Exited(0));
    // And one that becomes a program lets us go on before it ends.
    let argv = strings(&["/bin/sleep", "60"]);
    let code = in_child(|| {
        let pid =
            crate::child::spawn_sharing(None, &mut || process::exec(&argv, &strings(&[])).raw_os_error().unwrap());
        let fd = pidfd::open(pid.unwrap()).unwrap();
        let lives = !pidfd::has_exited(&fd);
        pidfd::signal(&fd, libc::SIGKILL).unwrap();
        i32::from(!lives)
    });
    assert_eq!(code, Ended::Exited(0));
}

#[test]
fn messages_keep_apart_and_carry_descriptors() {
    use std::io::Write;
    let (ours, theirs) = crate::socket::pair().unwrap();
    let (read, write) = files::pipe().unwrap();
    crate::socket::send(&ours, b"one", &[write.as_fd()]).unwrap();
    crate::socket::send(&ours, b"two", &[]).unwrap();
    drop(write);
    let (mut bytes, mut fds) = ([0; 16], vec![]);
    assert_eq!(crate::socket::receive(&theirs, &mut bytes, &mut fds).unwrap(), 3);
    assert_eq!((&bytes[..3], fds.len()), (&b"one"[..], 1));
    File::from(fds.remove(0)).write_all(b"through").unwrap();
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    assert_eq!(text, "through");
    assert_eq!(crate::socket::receive(&theirs, &mut bytes, &mut fds).unwrap(), 3);
    assert_eq!((&bytes[..3], fds.len()), (&b"two"[..], 0));
    // The other side never waits, and learns that nobody is left.
    assert_eq!(crate::socket::receive(&ours, &mut bytes, &mut fds).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(theirs);
    assert_eq!(crate::socket::receive(&ours, &mut bytes, &mut fds).unwrap(), 0);
    assert!(crate::socket::send(&ours, b"x", &[]).is_err());
}

#[test]
fn an_arena_takes_back_its_last_piece_and_lends_beyond_its_room() {
    use std::alloc::{GlobalAlloc, Layout};
    static ARENA: crate::memory::Arena = crate::memory::Arena::new();
    let layout = |size| Layout::from_size_align(size, 16).unwrap();
    // SAFETY: every piece is written within its length and given back once, with its layout.
    unsafe {
        let first = ARENA.alloc(layout(100));
        first.write_bytes(1, 100);
        let grown = ARENA.realloc(first, layout(100), 1000);
        assert_eq!((grown, *grown.add(99)), (first, 1));
        let second = ARENA.alloc(layout(10));
        let moved = ARENA.realloc(grown, layout(1000), 2000);
        assert!(moved > second && *moved.add(99) == 1);
        ARENA.dealloc(moved, layout(2000));
        assert_eq!(ARENA.alloc(layout(2000)), moved);
        let large = ARENA.alloc(layout(1 << 20));
        large.write_bytes(2, 1 << 20);
        ARENA.shed();
        assert_eq!((*moved.add(99), *large.add(1 << 19)), (1, 2));
        let larger = ARENA.realloc(large, layout(1 << 20), 2 << 20);
        assert_eq!(*larger.add(1 << 19), 2);
        ARENA.dealloc(larger, layout(2 << 20));
    }
}

#[test]
fn another_process_lends_a_descriptor() {
    let (read, write) = files::pipe().unwrap();
    let number = write.as_raw_fd();
    let mut child = Command::new("sleep");
    // Kept open in the child on purpose: its number there is its number here.
    files::keep_across_exec(&write).unwrap();
    let mut child = child.arg("60").spawn().unwrap();
    drop(write);
    let pid = pidfd::open(i32::try_from(child.id()).unwrap()).unwrap();
    let lent = pidfd::descriptor_of(&pid, number);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(pidfd::is_reaped(&pid) || pidfd::exit_seen_by_kernel(&pid).is_none());
    let mut lent = File::from(lent.unwrap());
    std::io::Write::write_all(&mut lent, b"x").unwrap();
    drop(lent);
    let mut text = String::new();
    File::from(read).read_to_string(&mut text).unwrap();
    assert_eq!(text, "x");
}

#[test]
fn a_program_that_this_one_becomes_finds_what_was_passed() {
    const NAME: &str = "tests::a_program_that_this_one_becomes_finds_what_was_passed";
    const OUT: &str = "WHARF_SYS_PASSED";
    if let Some(out) = std::env::var_os(OUT) {
        let open = || File::options().append(true).create(true).open(&out).unwrap().into();
        let script = "test \"$LISTEN_PID\" = $$ && echo $LISTEN_FDS $LISTEN_FDNAMES >&3 && echo second >&4";
        let failed = crate::passed::become_with(Command::new("sh").args(["-c", script]), vec![open(), open()], "web");
        panic!("{failed}");
    }
    // A process of its own: what becomes another program runs no test after it.
    let out = scratch("passed");
    let own = std::env::current_exe().unwrap();
    let ended = Command::new(own).args(["--exact", NAME, "--nocapture"]).env(OUT, &out).status().unwrap();
    assert!(ended.success(), "{ended}");
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "2 web:web\nsecond\n");
    std::fs::remove_file(&out).unwrap();
}

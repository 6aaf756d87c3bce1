//! Folders, sockets and locks as a second daemon, or a careless operator, leaves them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use wharf_model::ErrorKind;
use wharf_server::{bind, lock};

use crate::support::eventually;

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[tokio::test]
async fn t38_the_folder_is_made_0700_and_the_socket_0600() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a/b/x.sock");
    let listener = bind(&path).unwrap();
    assert_eq!((mode(path.parent().unwrap()), mode(&path)), (0o700, 0o600));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a temporary name is left");
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn t38_a_folder_that_others_can_enter_is_refused_with_the_fix() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("run");
    fs::create_dir(&folder).unwrap();
    for wrong in [0o755, 0o710, 0o770, 0o701, 0o1777] {
        fs::set_permissions(&folder, Permissions::from_mode(wrong)).unwrap();
        for failure in [bind(folder.join("x.sock")).unwrap_err(), lock(&folder).unwrap_err()] {
            assert_eq!(failure.kind, ErrorKind::Permission);
            assert_eq!(failure.hint.unwrap(), format!("chmod 700 {}", folder.display()));
        }
        assert_eq!(mode(&folder), wrong, "repaired silently");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    bind(folder.join("x.sock")).unwrap();
}

#[tokio::test]
async fn t38_a_folder_of_another_owner_is_refused_with_the_fix() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("run");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, Permissions::from_mode(0o700)).unwrap();
    // Only root can give a folder away; the unit test covers the judgement for everybody else.
    if std::os::unix::fs::chown(&folder, Some(65534), None).is_err() {
        return;
    }
    let failure = bind(folder.join("x.sock")).unwrap_err();
    assert_eq!(failure.kind, ErrorKind::Permission);
    assert!(failure.hint.unwrap().starts_with("chown 0 "));
}

#[tokio::test]
async fn t38_a_link_or_a_file_in_place_of_the_folder_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let real = home.path().join("real");
    fs::create_dir(&real).unwrap();
    fs::set_permissions(&real, Permissions::from_mode(0o700)).unwrap();
    symlink(&real, home.path().join("link")).unwrap();
    fs::write(home.path().join("file"), "").unwrap();
    for name in ["link", "file"] {
        let failure = bind(home.path().join(name).join("x.sock")).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Permission, "{name}");
        assert!(failure.hint.is_some());
    }
}

#[tokio::test]
async fn a_dead_socket_is_replaced_and_a_live_one_or_a_file_is_not() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run/x.sock");
    let listener = bind(&path).unwrap();
    assert_eq!(bind(&path).unwrap_err().kind, ErrorKind::Conflict);
    assert!(path.exists());
    drop(listener);

    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "std leaves its socket");
    drop(bind(&path).unwrap());

    fs::write(&path, "precious").unwrap();
    assert_eq!(bind(&path).unwrap_err().kind, ErrorKind::Precondition);
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[tokio::test]
async fn t07_the_first_ones_late_end_leaves_the_second_ones_socket() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("run/x.sock");
    let first = bind(&path).unwrap();
    fs::rename(&path, home.path().join("run/moved")).unwrap();
    let _second = bind(&path).unwrap();
    drop(first);
    assert!(path.exists());
}

#[tokio::test]
async fn a_path_that_is_too_long_is_named_so() {
    let home = tempfile::tempdir().unwrap();
    let failure = bind(home.path().join("x".repeat(120)).join("x.sock")).unwrap_err();
    assert_eq!(failure.kind, ErrorKind::Precondition);
    assert!(failure.message.contains("107"), "{failure}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn t07_a_second_daemon_is_told_the_pid_of_the_first_and_empties_nothing() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("run");
    let first = lock(&folder).unwrap();
    let text = fs::read_to_string(first.path()).unwrap();
    assert_eq!(text.lines().next(), Some(std::process::id().to_string().as_str()));
    for _ in 0..2 {
        let failure = lock(&folder).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Conflict);
        assert_eq!(failure.message, format!("a Wharf daemon runs already (pid {})", std::process::id()));
        assert_eq!(fs::read_to_string(first.path()).unwrap(), text);
    }
    assert_eq!(mode(first.path()), 0o600);
    drop(first);
    lock(&folder).unwrap();
}

#[test]
fn t07_an_old_longer_pid_is_replaced_whole() {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
    fs::write(home.path().join("daemon.lock"), format!("99999999999999\nold {}\n", "x".repeat(99))).unwrap();
    let lock = lock(home.path()).unwrap();
    let text = fs::read_to_string(lock.path()).unwrap();
    assert_eq!(text.lines().next(), Some(std::process::id().to_string().as_str()));
    assert!(!text.contains("old") && text.lines().count() == 2, "{text}");
    let holder = wharf_server::holder(home.path()).unwrap();
    assert_eq!(holder.pid, std::process::id().cast_signed());
    assert!(holder.identity.is_some());
}

#[test]
fn t07_a_lock_that_a_killed_daemon_left_to_a_process_it_was_making_is_waited_for() {
    let home = tempfile::tempdir().unwrap();
    fs::set_permissions(home.path(), Permissions::from_mode(0o700)).unwrap();
    let mut dead = Command::new("true").spawn().unwrap();
    dead.wait().unwrap();
    let path = home.path().join("daemon.lock");
    fs::write(&path, format!("{}\n", dead.id())).unwrap();
    let script = "flock -n 9; touch $1; sleep 0.3; exec 9>&-; sleep 1000";
    let held = home.path().join("held");
    let mut child =
        Command::new("bash").args(["-c", &format!("exec 9>>$0; {script}")]).arg(&path).arg(&held).spawn().unwrap();
    while !held.exists() {
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    let began = std::time::Instant::now();
    let got = lock(home.path());
    child.kill().unwrap();
    child.wait().unwrap();
    got.unwrap();
    assert!(began.elapsed() > std::time::Duration::from_millis(100), "nobody held it");
}

#[test]
fn t07_children_do_not_inherit_the_lock() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("run");
    let first = lock(&folder).unwrap();
    let mut child = Command::new("sleep").arg("30").spawn().unwrap();
    drop(first);
    // `spawn` may return an instant before the kernel closes the child's files.
    eventually("the lock is free", || lock(&folder).is_ok());
    assert!(child.try_wait().unwrap().is_none(), "it lives on without the lock");
    child.kill().unwrap();
    child.wait().unwrap();
}

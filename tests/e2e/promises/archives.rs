//! P20: hostile archives, from a release to the end. Each is refused whole, and says why.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use serde_json::json;
use tar::{EntryType, Header};
use wharf_tests::{Forge, ReleaseServer, figure, gz};

use crate::source::with_sources;

/// An entry as an attacker writes it: its name goes into the header as it is.
fn entry(out: &mut tar::Builder<Vec<u8>>, name: &str, kind: EntryType, mode: u32, link: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_cksum();
    out.append(&header, content).unwrap();
}

/// What is tried, its archive, and a word of the refusal.
fn corpus(victim: &Path) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    use EntryType::{Block, Char, Fifo, Link, Regular, Symlink};
    let of = |entries: &[(&str, EntryType, u32, &str, &[u8])]| {
        let mut out = tar::Builder::new(vec![]);
        for (name, kind, mode, link, content) in entries {
            entry(&mut out, name, *kind, *mode, link, content);
        }
        gz(&out.into_inner().unwrap())
    };
    let harm = b"harm".as_slice();
    let victim = victim.to_str().unwrap();
    let many: Vec<String> = (0..100_001).map(|n| format!("f{n}")).collect();
    let crowd: Vec<_> = many.iter().map(|name| (name.as_str(), Regular, 0o644, "", b"".as_slice())).collect();
    let deep = format!("{}f", "d/".repeat(40));
    let mut huge = Header::new_gnu();
    huge.set_path("huge").unwrap();
    huge.set_size(3 << 30);
    huge.set_mode(0o644);
    huge.set_cksum();
    vec![
        ("a name that leads up", of(&[("../../../../victim", Regular, 0o644, "", harm)]), "leads out of it"),
        ("a whole path", of(&[(victim, Regular, 0o644, "", harm)]), "leads out of it"),
        ("a link that leads out", of(&[("out", Symlink, 0o777, "../../../..", b"")]), "is a link out of it"),
        ("a link to a whole path", of(&[("out", Symlink, 0o777, victim, b"")]), "is a link out of it"),
        ("a hard link that leads out", of(&[("out", Link, 0o644, victim, b"")]), "leads out of it"),
        (
            "a file through a link",
            of(&[("d", Symlink, 0o777, "e", b""), ("d/victim", Regular, 0o644, "", harm)]),
            "is in it twice",
        ),
        ("setuid", of(&[("thing", Regular, 0o4755, "", harm)]), "setuid"),
        ("setgid", of(&[("thing", Regular, 0o2755, "", harm)]), "setgid"),
        ("a character device", of(&[("null", Char, 0o666, "", b"")]), "a device"),
        ("a block device", of(&[("disk", Block, 0o666, "", b"")]), "a device"),
        ("a pipe", of(&[("pipe", Fifo, 0o666, "", b"")]), "a pipe"),
        (
            "two names in one, but for capital letters",
            of(&[("Thing", Regular, 0o755, "", harm), ("thing", Regular, 0o755, "", harm)]),
            "capital letters alone",
        ),
        ("100,001 entries", of(&crowd), "more than 100000 entries"),
        ("40 folders deep", of(&[(deep.as_str(), Regular, 0o644, "", harm)]), "deeper than 32 folders"),
        ("a file of 3 GiB, as it says", gz(huge.as_bytes()), "more than 2147483648 bytes"),
        ("an archive that is cut", of(&[("thing", Regular, 0o755, "", &[7; 4096])])[..64].to_vec(), "thing.tar.gz"),
    ]
}

fn peak_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let all = entries.flatten().map(|entry| entry.path());
    all.flat_map(|path| if path.is_dir() && !path.is_symlink() { files_below(&path) } else { vec![path] }).collect()
}

#[test]
fn p20_hostile_archives_are_refused_whole_and_touch_nothing_outside() {
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "as it was").unwrap();
    let server = ReleaseServer::start();
    let repo = server.forge(Forge::GitHub, "them", "thing");
    let corpus = corpus(&victim);
    for (at, (_, bytes, _)) in corpus.iter().enumerate() {
        repo.release(&format!("v{at}")).asset("thing.tar.gz", bytes.clone());
    }
    let mut daemon = with_sources().with_env("WHARF_MIRRORS", &server.mirrors());
    daemon.launch();
    let with = json!({ "from": "github", "of": "them/thing", "binaries": ["thing"], "assets": ["thing.tar.gz"] });
    let mut first = None;
    for (at, (what, _, word)) in corpus.iter().enumerate() {
        let version = at.to_string();
        let error = daemon.err("service.install", json!({ "name": "thing", "with": with, "version": version }));
        let said = format!("{} {}", error["message"], error["data"]["causes"]);
        assert!(said.contains(word), "{what}: {said}");
        let store = daemon.home.join("store");
        assert_eq!(files_below(&store.join(".staging")), Vec::<PathBuf>::new(), "{what}: nothing is left of it");
        assert!(!store.join("thing").exists(), "{what}: nothing of it is placed");
        assert_eq!(fs::read_to_string(&victim).unwrap(), "as it was", "{what}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "{what}: nothing is made outside");
        first.get_or_insert_with(|| peak_kib(daemon.pid()));
    }
    let is_set =
        |path: &PathBuf| fs::symlink_metadata(path).is_ok_and(|found| found.permissions().mode() & 0o6000 != 0);
    assert!(!files_below(&daemon.home).iter().any(is_set), "no file is setuid or setgid");
    // A daemon of a debug build is larger than one of a release; what the archives add is not.
    let (first, peak) = (first.unwrap(), peak_kib(daemon.pid()));
    let (refused, added) = (corpus.len(), peak - first);
    assert!(added < 16 << 10, "the daemon grew from {first} KiB to {peak} KiB");
    let text = format!("{refused} hostile archives refused, 0 files outside, 0 setuid; the daemon {added} KiB larger");
    figure("P20", &text);
}

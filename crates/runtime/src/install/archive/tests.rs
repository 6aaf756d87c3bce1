//! T41: honest archives of every kind, hostile ones, and damaged ones.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
};

use proptest::prelude::*;
use tar::{Builder, EntryType, Header};
use zip::{ZipWriter, write::SimpleFileOptions};

use super::*;

/// One entry as a hostile packer would write it: no name is looked at.
#[derive(Debug, Clone)]
struct Item {
    name: Vec<u8>,
    kind: EntryType,
    link: Vec<u8>,
    mode: u32,
    content: Vec<u8>,
}

fn item(name: &str, kind: EntryType, link: &str) -> Item {
    Item { name: name.into(), kind, link: link.into(), mode: 0o644, content: vec![] }
}

fn file(name: &str, text: &str) -> Item {
    Item { content: text.into(), ..item(name, EntryType::Regular, "") }
}

fn tarball(items: &[Item]) -> Vec<u8> {
    let mut out = Builder::new(vec![]);
    for item in items {
        let mut header = Header::new_gnu();
        let old = header.as_old_mut();
        old.name[..item.name.len()].copy_from_slice(&item.name);
        old.linkname[..item.link.len()].copy_from_slice(&item.link);
        header.set_entry_type(item.kind);
        header.set_mode(item.mode);
        header.set_size(item.content.len() as u64);
        header.set_cksum();
        out.append(&header, item.content.as_slice()).unwrap();
    }
    out.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn xz(bytes: &[u8]) -> Vec<u8> {
    let mut out = liblzma::write::XzEncoder::new(vec![], 6);
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn zip(items: &[Item]) -> Vec<u8> {
    let mut out = ZipWriter::new(std::io::Cursor::new(vec![]));
    for item in items {
        let name = String::from_utf8(item.name.clone()).unwrap();
        let options = SimpleFileOptions::default().unix_permissions(item.mode);
        match item.kind {
            EntryType::Directory => out.add_directory(name, options).unwrap(),
            EntryType::Symlink => {
                out.add_symlink(name, String::from_utf8(item.link.clone()).unwrap(), options).unwrap();
            }
            _ => {
                out.start_file(name, options).unwrap();
                out.write_all(&item.content).unwrap();
            }
        }
    }
    out.finish().unwrap().into_inner()
}

fn deb(data: &[u8], name: &str) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, content) in [("debian-binary", b"2.0\n".as_slice()), ("control.tar.gz", b"odd".as_slice()), (name, data)]
    {
        out.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).bytes());
        out.extend(content);
        if content.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

/// A world with something to be hit outside the folder.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("in/tree")).unwrap();
        fs::write(dir.path().join("victim"), "untouched").unwrap();
        fs::write(dir.path().join("in/victim"), "untouched").unwrap();
        Self { dir }
    }

    fn tree(&self) -> PathBuf {
        self.dir.path().join("in/tree")
    }

    fn unpack(&self, bytes: &[u8], limits: Limits) -> Result<(), Failure> {
        let archive = self.dir.path().join("archive");
        fs::write(&archive, bytes).unwrap();
        let done = extract(&archive, &self.tree(), limits);
        self.nothing_outside();
        done
    }

    /// Outside lies what lay there before, unchanged.
    #[track_caller]
    fn nothing_outside(&self) {
        let names = |path: &Path| {
            let mut names: Vec<String> =
                fs::read_dir(path).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names(self.dir.path()), ["archive", "in", "victim"]);
        assert_eq!(names(&self.dir.path().join("in")), ["tree", "victim"]);
        for victim in ["victim", "in/victim"] {
            assert_eq!(fs::read_to_string(self.dir.path().join(victim)).unwrap(), "untouched");
        }
    }
}

/// Why an archive is refused.
#[track_caller]
fn refusal(bytes: &[u8]) -> String {
    let failure = World::new().unpack(bytes, Limits::USUAL).unwrap_err();
    assert_eq!(failure.kind, ErrorKind::InstallFailed, "{failure}");
    assert!(failure.hint.is_some(), "{failure}");
    failure.message
}

fn honest() -> Vec<Item> {
    let mut run = file("./top-1.0/bin/run", "#!/bin/sh\n");
    run.mode = 0o755;
    vec![
        item("./top-1.0/", EntryType::Directory, ""),
        item("./top-1.0/bin/", EntryType::Directory, ""),
        run,
        file("./top-1.0/README", "read me"),
        item("./top-1.0/bin/again", EntryType::Symlink, "run"),
        item("./top-1.0/bin/about", EntryType::Symlink, "../README"),
        item("./top-1.0/bin/hard", EntryType::Link, "./top-1.0/README"),
        item("./top-1.0/", EntryType::Directory, ""),
    ]
}

#[track_caller]
fn is_honest(tree: &Path) {
    let at = |name: &str| tree.join(name);
    assert_eq!(fs::read_to_string(at("bin/run")).unwrap(), "#!/bin/sh\n");
    let mode = |name: &str| fs::metadata(at(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("bin/run"), mode("README"), mode("bin")), (0o755, 0o644, 0o755));
    assert_eq!(fs::read_link(at("bin/again")).unwrap(), Path::new("run"));
    assert_eq!(fs::read_to_string(at("bin/about")).unwrap(), "read me");
}

#[test]
fn every_kind_of_honest_archive_is_unpacked() {
    let items = honest();
    let tar = tarball(&items);
    let zipped: Vec<Item> = items.iter().filter(|i| i.kind != EntryType::Link).take(6).cloned().collect();
    let kinds: [(&str, Vec<u8>); 8] = [
        ("tar", tar.clone()),
        ("tar.gz", gzip(&tar)),
        ("tar.xz", xz(&tar)),
        ("tar.zst", zstd::encode_all(tar.as_slice(), 3).unwrap()),
        ("zip", zip(&zipped)),
        ("deb with xz", deb(&xz(&tar), "data.tar.xz")),
        ("deb with zst", deb(&zstd::encode_all(tar.as_slice(), 3).unwrap(), "data.tar.zst")),
        ("deb", deb(&tar, "data.tar/")),
    ];
    for (kind, bytes) in kinds {
        let world = World::new();
        world.unpack(&bytes, Limits::USUAL).unwrap_or_else(|e| panic!("{kind}: {e}"));
        is_honest(&world.tree().join("top-1.0"));
        let scratch = tempfile::tempdir_in(world.dir.path()).unwrap();
        without_its_only_folder(&world.tree(), scratch.path()).unwrap();
        is_honest(&world.tree());
    }
}

#[test]
fn a_folder_that_says_what_is_in_it_is_kept() {
    let world = World::new();
    world.unpack(&tarball(&[file("bin/run", "x")]), Limits::USUAL).unwrap();
    without_its_only_folder(&world.tree(), world.dir.path()).unwrap();
    assert!(world.tree().join("bin/run").exists());
}

#[test]
fn a_program_that_is_packed_alone_gets_its_name() {
    for packed in [gzip(b"\x7fELF..."), xz(b"\x7fELF..."), zstd::encode_all(b"\x7fELF...".as_slice(), 1).unwrap()] {
        let world = World::new();
        world.unpack(&packed, Limits::USUAL).unwrap();
        name_alone(&world.tree(), "meili").unwrap();
        assert_eq!(fs::read(world.tree().join("meili")).unwrap(), b"\x7fELF...");
    }
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["../victim", "a/../../victim", "/etc/passwd", "a/../b", ".."] {
        let said = refusal(&tarball(&[file(name, "harm")]));
        assert!(said.contains("leads out of it"), "{name}: {said}");
        let said = refusal(&zip(&[file(name, "harm")]));
        assert!(said.contains("leads out of it") || said.contains("no name"), "{name}: {said}");
    }
    assert!(refusal(&zip(&[file("..\\victim", "harm")])).contains("no name of a file"));
}

#[test]
fn links_that_lead_out_are_refused() {
    for target in ["/etc/passwd", "../victim", "../../victim", "x/../../../victim", ".."] {
        for bytes in
            [tarball(&[item("link", EntryType::Symlink, target)]), zip(&[item("link", EntryType::Symlink, target)])]
        {
            let said = refusal(&bytes);
            assert!(said.contains("is a link out of it"), "{target}: {said}");
        }
    }
    let hard = refusal(&tarball(&[item("link", EntryType::Link, "/etc/passwd")]));
    assert!(hard.contains("leads out of it"), "{hard}");
    let hard = refusal(&tarball(&[item("link", EntryType::Link, "not-there")]));
    assert!(hard.contains("which is no file of it"), "{hard}");
}

/// Each link alone stays inside; together they would lead out.
#[test]
fn a_chain_of_links_does_not_lead_out() {
    let said = refusal(&tarball(&[
        item("a/b/", EntryType::Directory, ""),
        item("up", EntryType::Symlink, "a/.."),
        item("out", EntryType::Symlink, "up/../.."),
    ]));
    assert!(said.contains("is a link out of it"), "{said}");
}

#[test]
fn nothing_is_written_through_a_link() {
    // CVE-2025-29787 and its like: a link first, then a file below its name.
    for items in [
        vec![item("d", EntryType::Symlink, "e"), item("e/", EntryType::Directory, ""), file("d/x", "harm")],
        vec![item("d", EntryType::Symlink, "e"), file("d", "harm")],
        vec![file("d", "x"), item("d", EntryType::Symlink, "e")],
        vec![file("d", "x"), file("d/e", "harm")],
    ] {
        let said = refusal(&tarball(&items));
        assert!(said.contains("is in it twice"), "{said}");
    }
}

#[test]
fn a_link_that_lay_there_before_is_not_followed() {
    let world = World::new();
    symlink("..", world.tree().join("d")).unwrap();
    let failure = world.unpack(&tarball(&[file("d/victim", "harm")]), Limits::USUAL).unwrap_err();
    assert!(failure.message.contains("could not place"), "{failure}");
}

#[test]
fn what_is_neither_file_nor_folder_nor_link_is_refused() {
    for (kind, word) in [
        (EntryType::Char, "a device"),
        (EntryType::Block, "a device"),
        (EntryType::Fifo, "a pipe"),
        (EntryType::GNUSparse, "of a kind"),
    ] {
        let said = refusal(&tarball(&[item("x", kind, "")]));
        assert!(said.contains(word), "{said}");
    }
    for mode in [0o4755, 0o2755, 0o6755] {
        let said = refusal(&tarball(&[Item { mode, ..file("su", "x") }]));
        assert!(said.contains("su is setuid or setgid"), "{said}");
    }
}

#[test]
fn a_name_is_given_once_whatever_its_letters() {
    assert!(refusal(&tarball(&[file("a", "1"), file("./a", "2")])).contains("a is in it twice"));
    assert!(refusal(&tarball(&[file("Bin/a", "1"), file("bin/b", "2")])).contains("differ in capital letters alone"));
    assert!(refusal(&zip(&[file("README", "1"), file("readme", "2")])).contains("differ in capital letters alone"));
}

#[test]
fn more_than_the_limits_is_refused() {
    let limits = Limits { entries: 3, bytes: 100, file_bytes: 60, depth: 4 };
    let unpack = |items: &[Item]| World::new().unpack(&gzip(&tarball(items)), limits).map_err(|f| f.message);
    let of = |n: usize| "x".repeat(n);
    assert_eq!(unpack(&[file("a", &of(50)), file("b", &of(50))]), Ok(()));
    assert!(unpack(&[file("a", &of(61))]).unwrap_err().contains("a has more than 60 bytes"));
    let names = ["a", "b", "c"].map(|n| file(n, &of(40)));
    assert!(unpack(&names).unwrap_err().contains("unpacked it has more than 100 bytes"));
    let many = ["a", "b", "c", "d"].map(|n| file(n, ""));
    assert!(unpack(&many).unwrap_err().contains("more than 3 entries"));
    assert!(unpack(&[file("1/2/3/4/5", "")]).unwrap_err().contains("deeper than 4 folders"));
    // A bomb: 64 MiB of zeros in 64 KiB.
    let bomb = gzip(&tarball(&[Item { content: vec![0; 64 << 20], ..file("bomb", "") }]));
    assert!(bomb.len() < 1 << 20);
    assert!(World::new().unpack(&bomb, limits).unwrap_err().message.contains("more than 60 bytes"));
    // Packed alone, nothing says its size beforehand.
    let alone = gzip(&vec![0; 1 << 20]);
    assert!(World::new().unpack(&alone, limits).unwrap_err().message.contains("more than 60 bytes"));
}

/// RUSTSEC-2026-0068: an attribute says another size than the header.
#[test]
fn two_sizes_of_one_file_are_refused_and_long_names_are_read() {
    let record = |name: &str, value: &str| {
        let body = format!(" {name}={value}\n");
        let mut length = body.len() + 1;
        while length != body.len() + length.to_string().len() {
            length = body.len() + length.to_string().len();
        }
        format!("{length}{body}")
    };
    let extended = |text: String, then: Item| {
        tarball(&[Item { content: text.into_bytes(), ..item("pax", EntryType::XHeader, "") }, then])
    };
    assert!(refusal(&extended(record("size", "9999"), file("x", "1"))).contains("two sizes of x"));
    assert!(refusal(&extended(record("path", "../victim"), file("x", "1"))).contains("leads out"));
    assert!(refusal(&extended("17 nonsense".into(), file("x", "1"))).contains("make no sense"));
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(120));
    let world = World::new();
    world.unpack(&extended(record("path", &long), file("x", "1")), Limits::USUAL).unwrap();
    assert_eq!(fs::read_to_string(world.tree().join(&long)).unwrap(), "1");
    let gnu = [
        Item { content: format!("{long}\0").into_bytes(), ..item("././@LongLink", EntryType::GNULongName, "") },
        file("short", "2"),
    ];
    let world = World::new();
    world.unpack(&tarball(&gnu), Limits::USUAL).unwrap();
    assert_eq!(fs::read_to_string(world.tree().join(&long)).unwrap(), "2");
    let endless = [Item { content: vec![b'a'; 70_000], ..item("x", EntryType::GNULongName, "") }, file("short", "2")];
    assert!(refusal(&tarball(&endless)).contains("a name in it has 70000 bytes"));
}

#[test]
fn a_deb_may_have_links_that_lead_out_and_they_are_left_out() {
    let items = [file("./usr/bin/x", "x"), item("./usr/bin/y", EntryType::Symlink, "/etc/alternatives/y")];
    let world = World::new();
    world.unpack(&deb(&xz(&tarball(&items)), "data.tar.xz"), Limits::USUAL).unwrap();
    assert!(world.tree().join("usr/bin/x").exists() && !world.tree().join("usr/bin/y").is_symlink());
    assert!(refusal(&deb(b"", "other.tar")).contains("it has no data.tar"));
}

#[test]
fn a_cut_archive_is_damaged_wherever_it_is_cut() {
    let mut items = honest();
    items.push(Item { content: (0..40_000_u32).flat_map(u32::to_le_bytes).collect(), ..file("big", "") });
    let tar = tarball(&items);
    for whole in [gzip(&tar), xz(&tar), zip(&items[..3]), deb(&xz(&tar), "data.tar.xz")] {
        for part in [3, 5, 9] {
            let cut = &whole[..whole.len() * part / 10];
            let said = refusal(cut);
            assert!(said.contains("cut off or damaged"), "{part}/10: {said}");
        }
    }
    assert!(refusal(b"<html>").contains("no archive that Wharf knows"));
}

fn any_item() -> impl Strategy<Value = Item> {
    let part = prop_oneof![
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just(String::new()),
        Just("/".to_owned()),
        Just("victim".to_owned()),
        "[a-cA-C]{1,2}",
        "\\PC{1,4}",
    ];
    let path = proptest::collection::vec(part, 0..5).prop_map(|parts| {
        let mut path = parts.join("/").into_bytes();
        path.truncate(99);
        path
    });
    let kind = prop_oneof![
        3 => Just(EntryType::Regular),
        2 => Just(EntryType::Directory),
        3 => Just(EntryType::Symlink),
        2 => Just(EntryType::Link),
        1 => Just(EntryType::Char),
        1 => Just(EntryType::GNULongName),
        1 => Just(EntryType::XHeader),
    ];
    let content = proptest::collection::vec(any::<u8>(), 0..40);
    (path.clone(), kind, path, 0..0o10000_u32, content).prop_map(|(name, kind, link, mode, content)| Item {
        name,
        kind,
        link,
        mode,
        content,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever an archive says, nothing outside is touched, and what is inside stays inside when it is followed.
    #[test]
    fn nothing_gets_out(items in proptest::collection::vec(any_item(), 1..8)) {
        let world = World::new();
        let done = world.unpack(&tarball(&items), Limits::USUAL);
        if done.is_ok() {
            all_inside(&world.tree(), &fs::canonicalize(world.tree()).unwrap());
        }
    }

    #[test]
    fn any_bytes_are_an_archive_or_a_failure(head in 0..6_usize, bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let magic: [&[u8]; 6] = [b"\x1f\x8b\x08", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PK\x03\x04", b"!<arch>\ndebian-binary", b""];
        let _ = World::new().unpack(&[magic[head], &bytes].concat(), Limits::USUAL);
    }

    /// A sound archive with some bytes turned over.
    #[test]
    fn a_bent_archive_harms_nobody(kind in 0..4_usize, bends in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let tar = tarball(&honest());
        let mut bytes = match kind {
            0 => tar,
            1 => gzip(&tar),
            2 => zip(&honest()[..4]),
            _ => deb(&gzip(&tar), "data.tar.gz"),
        };
        for (at, byte) in bends {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = World::new().unpack(&bytes, Limits::USUAL);
    }
}

fn all_inside(folder: &Path, root: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let found = fs::symlink_metadata(&path).unwrap();
        if found.is_symlink() {
            if let Ok(real) = fs::canonicalize(&path) {
                assert!(real.starts_with(root), "{} leads to {}", path.display(), real.display());
            }
        } else if found.is_dir() {
            all_inside(&path, root);
        }
        assert_eq!(found.permissions().mode() & 0o6000, 0);
    }
}

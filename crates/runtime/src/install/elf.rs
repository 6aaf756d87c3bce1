//! Whether a file is a program that this machine can run.
//!
//! It reads the header, the segments and the name of the loader, and knows what else is found under a program's
//! name: an error page, an archive, another system's program. It refuses to know where the file came from.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Segments of a program: real ones have a dozen.
const MOST_SEGMENTS: u16 = 256;

const SEGMENT_LOADED: u32 = 1;
const SEGMENT_LOADER: u32 = 3;

/// Why it cannot be run, as the rest of a sentence that begins with its name. `None`: it can.
pub(super) fn unfit(path: &Path) -> Option<String> {
    look(path).unwrap_or_else(|e| Some(format!("cannot be read: {e}")))
}

fn look(path: &Path) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Ok(Some("is no file".into()));
    }
    if found.permissions().mode() & 0o6000 != 0 {
        return Ok(Some("is setuid or setgid, which nothing that is placed may be".into()));
    }
    let mut head = vec![];
    file.by_ref().take(512).read_to_end(&mut head)?;
    if head.starts_with(b"#!") {
        return Ok(None);
    }
    if !head.starts_with(b"\x7fELF") {
        return Ok(Some(what_else(&head)));
    }
    let Some(header) = Header::read(&head) else {
        return Ok(Some("is cut off: not even its header is whole".into()));
    };
    if let Some(wrong) = header.foreign() {
        return Ok(Some(wrong));
    }
    segments(&mut file, found.len(), &header)
}

/// What a file that is no program is, as far as its first bytes say.
fn what_else(head: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(head).trim_start_matches('\u{feff}').trim_start().to_ascii_lowercase();
    let known: [(&[u8], &str); 8] = [
        (b"\x1f\x8b", "a gzip archive"),
        (b"PK\x03\x04", "a zip archive"),
        (b"\xfd7zXZ", "an xz archive"),
        (b"\x28\xb5\x2f\xfd", "a zstd archive"),
        (b"!<arch>", "a Debian package or a library"),
        (b"MZ", "a program for Windows"),
        (b"\xcf\xfa\xed\xfe", "a program for macOS"),
        (b"\xca\xfe\xba\xbe", "a program for macOS"),
    ];
    if head.is_empty() {
        return "is empty".into();
    }
    if text.starts_with("<!doctype") || text.starts_with("<html") || text.starts_with("<?xml") {
        return "is an HTML page and no program: a server or a proxy answered with a page about an error".into();
    }
    if text.starts_with('{') && text.contains("\"message\"") {
        return "is a JSON message and no program: the server answered with an error".into();
    }
    match known.iter().find(|(magic, _)| head.starts_with(magic)) {
        Some((_, what)) => format!("is {what} and no program of this machine"),
        None => "is neither an ELF program nor a script".into(),
    }
}

/// What is read of an ELF header.
struct Header {
    class: u8,
    order: u8,
    kind: u16,
    machine: u16,
    segments_at: u64,
    segment_bytes: u16,
    segments: u16,
}

impl Header {
    fn read(head: &[u8]) -> Option<Self> {
        Some(Self {
            class: *head.get(4)?,
            order: *head.get(5)?,
            kind: u16_at(head, 16)?,
            machine: u16_at(head, 18)?,
            segments_at: u64_at(head, 32)?,
            segment_bytes: u16_at(head, 54)?,
            segments: u16_at(head, 56)?,
        })
    }

    /// Why this machine does not run it.
    fn foreign(&self) -> Option<String> {
        let ours = std::env::consts::ARCH;
        let (number, order) = own_machine();
        if self.class != 2 || self.order != order {
            return Some(format!("is a program for another kind of processor, and this machine is {ours}"));
        }
        if number.is_some_and(|own| own != self.machine) {
            return Some(format!("is a program for {}, and this machine is {ours}", machine(self.machine)));
        }
        // Executable, or position-independent.
        (!matches!(self.kind, 2 | 3)).then(|| "is an object file and no program".into())
    }
}

/// The number of this machine's processor, where it is known, and its byte order.
fn own_machine() -> (Option<u16>, u8) {
    let number = match std::env::consts::ARCH {
        "x86_64" => Some(62),
        "aarch64" => Some(183),
        "riscv64" => Some(243),
        "powerpc64" => Some(21),
        "s390x" => Some(22),
        "loongarch64" => Some(258),
        _ => None,
    };
    (number, if cfg!(target_endian = "big") { 2 } else { 1 })
}

fn machine(number: u16) -> String {
    match number {
        3 => "x86 (32 bits)".into(),
        40 => "arm (32 bits)".into(),
        62 => "x86_64".into(),
        183 => "aarch64".into(),
        243 => "riscv64".into(),
        21 => "powerpc64".into(),
        22 => "s390x".into(),
        258 => "loongarch64".into(),
        other => format!("processor number {other}"),
    }
}

/// The file is as long as its segments say, and its loader is on this machine.
fn segments(file: &mut File, bytes: u64, header: &Header) -> io::Result<Option<String>> {
    let cut_off = || Some("is cut off: it names more than it holds".to_owned());
    if header.segment_bytes < 56 || header.segments > MOST_SEGMENTS {
        return Ok(Some("is damaged: its header makes no sense".into()));
    }
    let mut table = vec![0; usize::from(header.segment_bytes) * usize::from(header.segments)];
    file.seek(SeekFrom::Start(header.segments_at))?;
    if file.read_exact(&mut table).is_err() {
        return Ok(cut_off());
    }
    for segment in table.chunks_exact(header.segment_bytes.into()) {
        let (Some(kind), Some(at), Some(length)) = (u32_at(segment, 0), u64_at(segment, 8), u64_at(segment, 32)) else {
            return Ok(cut_off());
        };
        if matches!(kind, SEGMENT_LOADED | SEGMENT_LOADER) && at.checked_add(length).is_none_or(|end| end > bytes) {
            return Ok(cut_off());
        }
        if kind == SEGMENT_LOADER {
            let mut name = vec![];
            file.seek(SeekFrom::Start(at))?;
            file.by_ref().take(length.min(4096)).read_to_end(&mut name)?;
            let name = String::from_utf8_lossy(name.strip_suffix(b"\0").unwrap_or(&name)).into_owned();
            if !PathBuf::from(&name).is_file() {
                let hint = if name.contains("musl") { "; its publisher may offer a gnu or a static build" } else { "" };
                return Ok(Some(format!("needs the loader {name}, which this machine does not have{hint}")));
            }
        }
    }
    Ok(None)
}

// Only the machine's own byte order is read further, so that these may read in it.
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn says(bytes: &[u8]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prog");
        fs::write(&path, bytes).unwrap();
        unfit(&path)
    }

    fn own() -> Vec<u8> {
        fs::read("/bin/sh").unwrap()
    }

    #[test]
    fn programs_and_scripts_are_fit() {
        assert_eq!(says(&own()), None);
        assert_eq!(says(b"#!/usr/bin/env python3\n"), None);
        assert_eq!(unfit(&std::env::current_exe().unwrap()), None);
    }

    /// HS-70, and T40 as far as a file can show it.
    #[test]
    fn what_is_no_program_of_this_machine_is_named_as_what_it_is() {
        let says = |bytes: &[u8]| says(bytes).unwrap();
        assert!(says(b" \n<!DOCTYPE html><title>404</title>").starts_with("is an HTML page and no program"));
        assert!(says(b"{\"message\": \"Not Found\"}").starts_with("is a JSON message"));
        assert_eq!(says(b""), "is empty");
        assert_eq!(says(b"\x1f\x8b\x08"), "is a gzip archive and no program of this machine");
        assert_eq!(says(b"MZ\x90"), "is a program for Windows and no program of this machine");
        assert_eq!(says(b"hello"), "is neither an ELF program nor a script");
        let mut foreign = own();
        let other: u16 = if cfg!(target_arch = "x86_64") { 183 } else { 62 };
        foreign[18..20].copy_from_slice(&other.to_ne_bytes());
        assert!(says(&foreign).starts_with(&format!("is a program for {}", machine(other))), "{}", says(&foreign));
        let mut narrow = own();
        narrow[4] = 1;
        assert!(says(&narrow).contains("another kind of processor"));
        let whole = own();
        for cut in [20, 64, whole.len() / 2, whole.len() - 4096] {
            let said = super::tests::says(&whole[..cut]);
            assert!(said.as_ref().is_some_and(|s| s.starts_with("is cut off")), "{cut}: {said:?}");
        }
    }

    #[test]
    fn a_loader_that_is_not_there_is_named() {
        let mut program = own();
        let name = b"/lib64/ld-linux-x86-64.so.2\0";
        let Some(at) = program.windows(name.len()).position(|w| w == name) else {
            // Another processor: its loader has another name, and the rule is the same.
            return;
        };
        program[at..at + name.len()].copy_from_slice(b"/lib/ld-musl-x86_64.so.1\0\0\0\0");
        let said = says(&program).unwrap();
        assert!(said.starts_with("needs the loader /lib/ld-musl-x86_64.so.1"), "{said}");
        assert!(said.ends_with("may offer a gnu or a static build"), "{said}");
    }

    #[test]
    fn setuid_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("prog");
        fs::write(&path, own()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4755)).unwrap();
        assert!(unfit(&path).unwrap().starts_with("is setuid"));
    }

    proptest! {
        #[test]
        fn no_bytes_confuse_it(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), is_elf: bool) {
            if is_elf && bytes.len() > 6 {
                bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            }
            let _ = says(&bytes);
        }
    }
}

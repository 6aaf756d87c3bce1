//! Archives: a part of a log, compressed. Refuses to know which part, and when one is made.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// Lines compress about tenfold at the fastest level; more would cost the daemon what it saves the disk.
const LEVEL: i32 = 1;
const BLOCK: usize = 64 << 10;

/// Compresses `[from, to)` of a file into a new one. It is not durable yet.
pub fn write(live: &File, from: u64, to: u64, path: &Path) -> io::Result<File> {
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    let mut encoder = zstd::stream::write::Encoder::new(file, LEVEL)?;
    encoder.include_checksum(true)?;
    let mut block = vec![0; BLOCK];
    let mut at = from;
    while at < to {
        let size = usize::try_from(to - at).unwrap_or(BLOCK).min(BLOCK);
        // The run itself may have truncated it meanwhile: then there is nothing to put away.
        live.read_exact_at(&mut block[..size], at)?;
        io::Write::write_all(&mut encoder, &block[..size])?;
        at += size as u64;
    }
    encoder.finish()
}

/// Reads an archive from its start.
pub struct Unpacked(zstd::stream::read::Decoder<'static, io::BufReader<File>>);

impl Unpacked {
    /// Opens it, and leaves out its first bytes.
    pub fn open(path: &Path, skipped: u64) -> io::Result<Self> {
        let mut decoder = zstd::stream::read::Decoder::new(File::open(path)?)?;
        io::copy(&mut (&mut decoder).take(skipped), &mut io::sink())?;
        Ok(Self(decoder))
    }
}

impl Read for Unpacked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_holds_what_was_put_in_and_tells_when_it_was_spoiled() {
        let dir = tempfile::tempdir().unwrap();
        let (live, path) = (dir.path().join("1.log"), dir.path().join("a"));
        let text: String = (0..100_000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&live, &text).unwrap();
        let size = write(&File::open(&live).unwrap(), 5, 700_000, &path).unwrap().metadata().unwrap().len();
        assert!(size < 250_000, "{size}");
        let mut read = String::new();
        Unpacked::open(&path, 10).unwrap().read_to_string(&mut read).unwrap();
        assert!(read == text[15..700_000]);
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert!(Unpacked::open(&path, 0).unwrap().read_to_end(&mut vec![]).is_err());
    }
}

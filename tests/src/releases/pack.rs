//! Files as publishers pack them.

use std::io::{Cursor, Write};

use sha2::{Digest, Sha256};

/// A real program of this machine: Wharf's own talker, which says and serves what its arguments say.
pub fn stand_in() -> Vec<u8> {
    std::fs::read(crate::beside("wharf-talker")).unwrap()
}

/// In hex.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tar<B: AsRef<[u8]>>(files: &[(&str, B)]) -> Vec<u8> {
    let mut out = tar::Builder::new(vec![]);
    for (path, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.as_ref().len() as u64);
        header.set_mode(0o755);
        header.set_cksum();
        out.append_data(&mut header, path, bytes.as_ref()).unwrap();
    }
    out.into_inner().unwrap()
}

/// A `.tar.gz` or `.tgz` of these paths and contents, all executable.
pub fn tar_gz<B: AsRef<[u8]>>(files: &[(&str, B)]) -> Vec<u8> {
    gz(&tar(files))
}

/// One file, packed with gzip.
pub fn gz(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

/// A `.tar.xz`.
pub fn tar_xz<B: AsRef<[u8]>>(files: &[(&str, B)]) -> Vec<u8> {
    let mut out = liblzma::write::XzEncoder::new(vec![], 1);
    out.write_all(&tar(files)).unwrap();
    out.finish().unwrap()
}

/// A `.tar.zst`.
pub fn tar_zst<B: AsRef<[u8]>>(files: &[(&str, B)]) -> Vec<u8> {
    zstd::encode_all(tar(files).as_slice(), 1).unwrap()
}

/// A `.zip`.
pub fn zip<B: AsRef<[u8]>>(files: &[(&str, B)]) -> Vec<u8> {
    let mut out = zip::ZipWriter::new(Cursor::new(vec![]));
    for (path, bytes) in files {
        out.start_file(*path, zip::write::SimpleFileOptions::default().unix_permissions(0o755)).unwrap();
        out.write_all(bytes.as_ref()).unwrap();
    }
    out.finish().unwrap().into_inner()
}

/// A `.deb` with these files: paths begin with `./usr`.
pub fn deb<B: AsRef<[u8]>>(files: &[(&str, B)]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    let control = tar_gz(&[("./control", "Package: stand-in\n")]);
    for (name, content) in
        [("debian-binary", b"2.0\n".to_vec()), ("control.tar.gz", control), ("data.tar.xz", tar_xz(files))]
    {
        out.extend(format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).bytes());
        out.extend(&content);
        if content.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

//! A Debian package as a file: an `ar` archive whose `data.tar` is unpacked. Its scripts are never run.

use std::{
    fs::File,
    io::{self, BufReader, Read},
};

use wharf_model::Failure;

use super::{
    beneath::Beneath,
    damaged,
    decoded::{self, Packed},
    tarball::{self, LinksOut},
};

const MAGIC: &[u8] = b"!<arch>\n";
const HEADER_BYTES: usize = 60;

/// Unpacks the member `data.tar`.
pub(super) fn extract(file: File, beneath: &mut Beneath) -> Result<(), Failure> {
    let mut from = BufReader::new(file);
    let mut magic = [0; MAGIC.len()];
    from.read_exact(&mut magic).map_err(damaged)?;
    loop {
        let mut header = [0; HEADER_BYTES];
        from.read_exact(&mut header).map_err(|e| damaged(io::Error::new(e.kind(), "it has no data.tar")))?;
        let (name, size) = member(&header).ok_or_else(|| {
            damaged(io::Error::new(io::ErrorKind::InvalidData, "a header of the package makes no sense"))
        })?;
        if name.starts_with("data.tar") {
            return data(Box::new(from.take(size)), beneath);
        }
        // Members begin at even places.
        let skip = size + size % 2;
        let skipped = io::copy(&mut from.by_ref().take(skip), &mut io::sink()).map_err(damaged)?;
        if skipped < skip {
            return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
        }
    }
}

fn data(mut from: Box<dyn Read>, beneath: &mut Beneath) -> Result<(), Failure> {
    let mut head = vec![];
    from.by_ref().take(8).read_to_end(&mut head).map_err(damaged)?;
    let packed = Packed::of(&head);
    let reader = decoded::reader(packed, Box::new(io::Cursor::new(head).chain(from)))?;
    tarball::extract(reader, beneath, LinksOut::LeftOut)
}

/// The name and the size in a member's header.
fn member(header: &[u8; HEADER_BYTES]) -> Option<(String, u64)> {
    let text = |part: &[u8]| std::str::from_utf8(part).ok().map(|t| t.trim_end().to_owned());
    if &header[58..] != b"`\n" {
        return None;
    }
    let name = text(&header[..16])?.trim_end_matches('/').to_owned();
    Some((name, text(&header[48..58])?.parse().ok()?))
}

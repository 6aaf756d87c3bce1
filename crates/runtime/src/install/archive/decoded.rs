//! What is read through one of three decoders, each with a limit of memory.

use std::io::{self, BufReader, Read};

use liblzma::{read::XzDecoder, stream::Stream};
use wharf_model::Failure;

use super::damaged;

/// The largest window that is decoded: xz's highest level needs 65 MiB, zstd's 128.
const WINDOW_LOG: u32 = 27;
const XZ_MEMORY: u64 = 256 << 20;

/// How a stream is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Packed {
    Gzip,
    Xz,
    Zstd,
    Not,
}

impl Packed {
    pub fn of(head: &[u8]) -> Self {
        if head.starts_with(b"\x1f\x8b") {
            Self::Gzip
        } else if head.starts_with(b"\xfd7zXZ\0") {
            Self::Xz
        } else if head.starts_with(b"\x28\xb5\x2f\xfd") {
            Self::Zstd
        } else {
            Self::Not
        }
    }
}

/// Reads what was packed.
pub(super) fn reader(packed: Packed, raw: Box<dyn Read>) -> Result<Box<dyn Read>, Failure> {
    let raw = BufReader::with_capacity(128 * 1024, raw);
    Ok(match packed {
        Packed::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(raw)),
        Packed::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED);
            let stream = stream.map_err(|e| damaged(io::Error::from(e)))?;
            Box::new(XzDecoder::new_stream(raw, stream))
        }
        Packed::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(raw).map_err(damaged)?;
            decoder.window_log_max(WINDOW_LOG).map_err(damaged)?;
            Box::new(decoder)
        }
        Packed::Not => Box::new(raw),
    })
}

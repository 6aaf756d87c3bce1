//! Frames: a version, a length, the payload, a checksum. Whole and sound, or refused.

use std::{ffi::CStr, os::unix::ffi::OsStrExt, path::Path};

/// Why bytes are no frame, or no value of the wanted kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadBytes;

/// Version, then the payload's length.
const HEAD: usize = 5;
const CHECKSUM: usize = 4;

/// Lays values one after another: integers little-endian, texts and lists after their length.
#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn byte(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn int32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn int64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn uint32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn uint64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.length(value.len());
        self.0.extend_from_slice(value);
    }

    pub(crate) fn list<T>(&mut self, values: &[T], each: impl Fn(&mut Self, &T)) {
        self.length(values.len());
        values.iter().for_each(|value| each(self, value));
    }

    pub(crate) fn option<T>(&mut self, value: Option<&T>, some: impl Fn(&mut Self, &T)) {
        self.byte(value.is_some().into());
        if let Some(value) = value {
            some(self, value);
        }
    }

    /// A text with its final zero byte, so that the other side can use it where it lies.
    pub(crate) fn text(&mut self, value: &CStr) {
        self.bytes(value.to_bytes_with_nul());
    }

    pub(crate) fn path(&mut self, value: &Path) {
        self.bytes(value.as_os_str().as_bytes());
    }

    /// What was laid, for where messages are whole by themselves.
    pub(crate) fn plain(self) -> Vec<u8> {
        self.0
    }

    /// The frame around what was laid.
    pub(crate) fn framed(self, version: u8) -> Vec<u8> {
        let mut frame = Self(Vec::with_capacity(HEAD + self.0.len() + CHECKSUM));
        frame.byte(version);
        frame.bytes(&self.0);
        let sum = crc32(&frame.0);
        frame.uint32(sum);
        frame.0
    }

    /// Nothing here is near 4 GiB; what is would be refused by its checksum on the other side.
    fn length(&mut self, length: usize) {
        self.uint32(u32::try_from(length).unwrap_or(u32::MAX));
    }
}

/// Reads values in the order in which they were laid.
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Opens a frame. What follows the frame's end is refused too.
    pub(crate) fn open(frame: &'a [u8], version: u8) -> Result<Self, BadBytes> {
        let (covered, sum) = frame.split_last_chunk::<CHECKSUM>().ok_or(BadBytes)?;
        let mut all = Self(covered);
        if crc32(covered) != u32::from_le_bytes(*sum) || all.byte()? != version {
            return Err(BadBytes);
        }
        let payload = all.bytes()?;
        if all.0.is_empty() { Ok(Self(payload)) } else { Err(BadBytes) }
    }

    /// Reads what stands in no frame.
    pub(crate) fn plain(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    /// All that was not read.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn text(&mut self) -> Result<&'a CStr, BadBytes> {
        CStr::from_bytes_with_nul(self.bytes()?).map_err(|_| BadBytes)
    }

    pub(crate) fn byte(&mut self) -> Result<u8, BadBytes> {
        self.array::<1>().map(|[b]| b)
    }

    pub(crate) fn int32(&mut self) -> Result<i32, BadBytes> {
        self.array().map(i32::from_le_bytes)
    }

    pub(crate) fn int64(&mut self) -> Result<i64, BadBytes> {
        self.array().map(i64::from_le_bytes)
    }

    pub(crate) fn uint32(&mut self) -> Result<u32, BadBytes> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn uint64(&mut self) -> Result<u64, BadBytes> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], BadBytes> {
        let length = self.uint32()? as usize;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(BadBytes)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn list<T>(&mut self, each: impl Fn(&mut Self) -> Result<T, BadBytes>) -> Result<Vec<T>, BadBytes> {
        // Collected without a reservation: the count is only a claim until the values are there.
        let count = self.uint32()?;
        (0..count).map(|_| each(self)).collect()
    }

    pub(crate) fn option<T>(&mut self, some: impl Fn(&mut Self) -> Result<T, BadBytes>) -> Result<Option<T>, BadBytes> {
        match self.byte()? {
            0 => Ok(None),
            1 => some(self).map(Some),
            _ => Err(BadBytes),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadBytes> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(BadBytes)?;
        self.0 = rest;
        Ok(*taken)
    }
}

/// CRC-32 as in zip and PNG, four bits at a time: the frames are small, and so is the table.
pub fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = table();
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        let crc = crc ^ u32::from(*byte);
        let crc = (crc >> 4) ^ TABLE[(crc & 15) as usize];
        (crc >> 4) ^ TABLE[(crc & 15) as usize]
    })
}

const fn table() -> [u32; 16] {
    let mut table = [0; 16];
    let mut n = 0;
    while n < 16 {
        let (mut crc, mut bit) = (n as u32, 0);
        while bit < 4 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[n] = crc;
        n += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_frame_cut_or_changed_anywhere_is_refused() {
        let mut writer = Writer::default();
        writer.bytes(b"hello");
        let frame = writer.framed(1);
        assert_eq!(Reader::open(&frame, 1).unwrap().bytes(), Ok(&b"hello"[..]));
        assert!(Reader::open(&frame, 2).is_err());
        for end in 0..frame.len() {
            assert!(Reader::open(&frame[..end], 1).is_err(), "cut at {end}");
            let mut changed = frame.clone();
            changed[end] ^= 0x10;
            assert!(Reader::open(&changed, 1).is_err(), "changed at {end}");
        }
        let longer = [&frame[..], b"x"].concat();
        assert!(Reader::open(&longer, 1).is_err());
    }
}

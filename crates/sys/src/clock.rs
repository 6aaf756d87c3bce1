//! Which boot this is, and the time since it.

use std::{
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};

/// The length of a boot id in text.
pub const BOOT_ID_LEN: usize = 36;

/// The kernel's random name of this boot. Two equal ids: the machine was not started anew between.
pub fn boot_id() -> io::Result<String> {
    let mut text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// Milliseconds since this boot, suspend included. Never stepped.
pub fn boottime_ms() -> i64 {
    in_ms(ClockId::Boottime)
}

/// Milliseconds since 1970. For display: it can be stepped.
pub fn wall_ms() -> i64 {
    // Through the C library, as std asks it: there a test can put another clock in its place.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

fn in_ms(clock: ClockId) -> i64 {
    let now = clock_gettime(clock);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

//! Fault points: places where a test has this process killed, to see that nothing is lost by it.
//!
//! `WHARF_FAULT=install.renamed` in the environment of a daemon kills it when it gets there. Nothing else is done here.

use std::sync::LazyLock;

/// All of them, in the order of an install. A test kills at each one.
pub const FAULT_POINTS: [&str; 9] = [
    "install.staged",
    "install.downloading",
    "install.unpacking",
    "install.fetched",
    "install.listed",
    "install.synced",
    "install.renamed",
    "install.previous",
    "install.flipped",
];

static ARMED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("WHARF_FAULT").ok());

/// Ends this process here, if it was armed for this point: at once, as a power cut would.
pub(super) fn point(name: &str) {
    if ARMED.as_deref() == Some(name) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

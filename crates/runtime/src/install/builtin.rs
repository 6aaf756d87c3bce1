//! Nothing is fetched: only the plan's own files are written.

use super::Fetched;

/// Wharf's version is the version of what it carries.
pub(super) fn fetch() -> Fetched {
    Fetched::new(env!("CARGO_PKG_VERSION"), "built-in", vec![])
}

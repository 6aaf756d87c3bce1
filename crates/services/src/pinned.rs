//! Versions that a service knows as good, each with the digests of its files.

use wharf_model::{ErrorKind, Failure};

use crate::{Result, Wanted};

/// A version and the sha256 of each of its files, one for each platform.
#[derive(Debug, Clone, Copy)]
pub struct Pinned {
    /// As the publisher writes it.
    pub version: &'static str,
    /// In hex.
    pub sha256: &'static [&'static str],
}

impl Pinned {
    /// The one of this version, if it is known.
    pub fn find<'a>(pinned: &'a [Self], version: &str) -> Option<&'a Self> {
        pinned.iter().find(|p| p.version == version)
    }

    /// The one that is asked for; the first unless one is named.
    pub fn choose<'a>(service: &str, pinned: &'a [Self], want: &Wanted) -> Result<&'a Self> {
        let wanted = match &want.version {
            // A file that somebody names is what it is.
            _ if want.from.is_some() => pinned.first(),
            None => pinned.first(),
            Some(version) => Self::find(pinned, version),
        };
        wanted.ok_or_else(|| {
            let on_offer: Vec<&str> = pinned.iter().map(|p| p.version).collect();
            let version = want.version.as_deref().unwrap_or_default();
            Failure::new(
                ErrorKind::InvalidParams,
                format!("{service} {version} is not a version that this Wharf knows"),
            )
            .hint(format!("on offer: {}", on_offer.join(", ")))
        })
    }
}

//! A context for tests of single parts.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use wharf_model::RunId;
use wharf_services::{Context, Dirs, Recording};

/// A unit with its folders below `dir`, run 1, and hands that only write down.
pub(crate) fn context(dir: &Path, unit: &str) -> Context {
    let dirs = Dirs { data: dir.join("data"), run: dir.join("run"), store: dir.join("store") };
    let hands = Arc::new(Recording::default());
    Context::new(
        unit.parse().unwrap(),
        Some(RunId(1)),
        Arc::default(),
        BTreeMap::new(),
        None,
        dirs,
        Arc::default(),
        hands,
    )
}

//! `store.*`: the versions that lie on the disk, what is newer, and what nobody needs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_model::UnitName;

use crate::{Caller, table::methods};

/// Params of `store.list`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoreListParams {
    /// Only the versions of this service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
}

/// A version that lies in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VersionRow {
    /// The service, or the runtime that services share.
    pub service: String,
    /// As its publisher writes it.
    pub version: String,
    /// sha256 over everything that was fetched, in hex.
    pub digest: String,
    /// Where it came from: `debian`, `pypi`, `npm`, `release`, `file`, `source`.
    pub source: String,
    /// Its folder.
    pub folder: String,
    /// What it takes on the disk, in bytes.
    pub bytes: u64,
    /// When it was placed, in seconds since 1970.
    pub placed_at: f64,
    /// It was placed or chosen last.
    pub is_current: bool,
    /// There is a way back to it.
    pub is_previous: bool,
    /// It is no service, but shared by some.
    pub is_runtime: bool,
    /// The units that have it.
    pub used_by: Vec<UnitName>,
}

/// The result of `store.list`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VersionList {
    /// The versions, by service, the newest of each first.
    pub versions: Vec<VersionRow>,
    /// What they take together, in bytes.
    pub bytes: u64,
}

/// Params of `store.outdated`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutdatedParams {
    /// Only these units; all that are placed unless some are named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<UnitName>,
}

/// Whether a unit has what an upgrade would give it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FreshRow {
    /// The unit.
    pub name: UnitName,
    /// What it has.
    pub installed: String,
    /// What an upgrade would place; null: it could not be looked up.
    pub newest: Option<String>,
    /// They are the same, and what is placed is what was placed; null: it could not be looked up.
    pub is_fresh: Option<bool>,
    /// Why not, or why it could not be looked up.
    pub why: Option<String>,
}

/// The result of `store.outdated`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Freshness {
    /// A row for each unit, in the order in which an upgrade of all takes them: what others need first.
    pub units: Vec<FreshRow>,
}

/// Params of `store.gc`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CollectParams {
    /// Only say what would go.
    #[serde(default)]
    pub dry_run: bool,
}

/// Something that nobody needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GarbageRow {
    /// For people: `redis 7.0.15`, `half an install of redis`.
    pub what: String,
    /// Where it lies, or lay.
    pub path: String,
    /// What it takes, in bytes.
    pub bytes: u64,
}

/// The result of `store.gc`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Collected {
    /// Nothing was removed.
    pub dry_run: bool,
    /// What went, or would go.
    pub garbage: Vec<GarbageRow>,
    /// What that frees, in bytes.
    pub bytes: u64,
}

methods! {
    /// What the engine does for `store.*`.
    trait StoreApi, client StoreClient, dispatch dispatch, schemas schemas;

    /// The versions that lie there, and who has them.
    Read "store.list" store_list(StoreListParams) -> VersionList;
    /// Which units an upgrade would change.
    Read "store.outdated" store_outdated(OutdatedParams) -> Freshness;
    /// Removes what is neither current nor previous and used by nobody, and halves of installs.
    Install "store.gc" store_gc(CollectParams) -> Collected;
}

//! `discovery.*`: folders of this machine that say by a manifest that a service is kept there.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Caller, params::ListParams, table::methods};

methods! {
    /// What the engine does for the namespace `discovery`.
    trait DiscoveryApi, client DiscoveryClient, dispatch dispatch, schemas schemas;

    /// Looks for manifests in folders and those below them.
    Read "discovery.scan" scan(ScanParams) -> ScanReport;
    /// Looks at the services folder anew: its executables are asked what they are, its manifests are read.
    Control "discovery.rescan" rescan(ListParams) -> RescanReport;
}

/// Params of `discovery.scan`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScanParams {
    /// Where to look: whole paths of the machine that the daemon runs on.
    pub folders: Vec<String>,
    /// How many levels below them: 3 unless it is named, 16 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
}

/// A service that is kept in a folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ManifestRow {
    /// Its name, which no other row has.
    pub name: String,
    /// The manifest's file.
    pub path: String,
    /// When it was read: RFC 3339, UTC.
    pub discovered_at: String,
    /// All that the manifest says, with the fields that mean nothing to Wharf.
    pub manifest: Map<String, Value>,
}

/// A manifest or a folder that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScanError {
    /// The file or the folder.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
    /// The next thing to do.
    pub hint: String,
    /// The other file that it is about: the one with the same name.
    pub other_path: Option<String>,
}

/// The result of `discovery.scan`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScanReport {
    /// The manifests that can be used, by name.
    pub manifests: Vec<ManifestRow>,
    /// What is wrong, by path.
    pub errors: Vec<ScanError>,
    /// No limit ended the scan before all was looked at.
    pub complete: bool,
}

/// A service that is an executable of the services folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OwnService {
    /// Its name.
    pub name: String,
    /// Its file.
    pub path: String,
    /// One line for people, as it says it.
    pub summary: String,
}

/// The result of `discovery.rescan`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RescanReport {
    /// The folder that was looked at.
    pub folder: String,
    /// The services in it, by name.
    pub services: Vec<OwnService>,
    /// The manifests in it and below it, by name: each is a unit, `compose@NAME`.
    pub manifests: Vec<ManifestRow>,
    /// Files that are no service as they are.
    pub errors: Vec<ScanError>,
}

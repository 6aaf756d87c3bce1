//! `wharf discover`: the folders of this machine that say that a service is kept there.

use std::{env, path::PathBuf};

use clap::ValueHint;
use wharf_api::{
    ListParams,
    rpc::discovery::{ManifestRow, RescanReport, ScanError, ScanParams, ScanReport},
};
use wharf_model::{ErrorKind, Failure, Manifest};

use crate::{
    Exit, given,
    hosts::plain,
    session::{self, Session},
    table::Table,
    trouble::{Outcome, Trouble},
};

/// Find the services that folders keep: those with a service.yaml
///
/// Nothing is registered or started. The exit code is 8 where a manifest cannot be used; the others are
/// shown all the same. docs/discovery.md has the fields of a manifest.
///
/// With --own, the services folder is looked at anew. Its executables are asked what they are: what is new is a
/// service at once (docs/adding/executable.md). Folders with a service.yaml there, and below links there, are units
/// compose@NAME (docs/compose.md).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf discover
  wharf discover /srv/services --depth 1
  wharf discover --own           a new service of your own is there now
  wharf discover --json | jq '.manifests[].manifest'")]
pub(crate) struct Discover {
    /// Where to look. Usually the folder that this is typed in
    #[arg(value_name = "DIR", value_hint = ValueHint::DirPath)]
    folders: Vec<PathBuf>,
    /// How many levels below them, 16 at most. Usually 3
    #[arg(long, value_name = "LEVELS")]
    depth: Option<u32>,
    /// Look at the services folder (~/.config/wharf/services) anew
    #[arg(long, conflicts_with_all = ["folders", "depth"])]
    own: bool,
}

impl Discover {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        if self.own {
            return own(session);
        }
        let folders = if self.folders.is_empty() { vec![env::current_dir()?] } else { self.folders };
        let params = given::params(&ScanParams { folders: whole(folders)?, depth: self.depth })?;
        let client = session.client.rpc();
        let raw = session.block_on(async { Ok(client.raw("discovery.scan", params).await?) })?;
        let report: ScanReport = session::read(&raw)?;
        session.show::<ScanReport>(&raw, text)?;
        Ok(complain(session, &report.errors))
    }
}

/// Says what is wrong, a file at a time.
fn complain(session: &Session, errors: &[ScanError]) -> Exit {
    for error in errors.iter().filter(|_| !session.json) {
        let failure = Failure::new(ErrorKind::Precondition, plain(&error.message)).hint(plain(&error.hint));
        Trouble::Failure(failure).report(false);
    }
    if errors.is_empty() { Exit::Done } else { Exit::Unwell }
}

fn own(session: &Session) -> Outcome {
    let client = session.client.rpc();
    let raw = session.block_on(async { Ok(client.raw("discovery.rescan", given::params(&ListParams {})?).await?) })?;
    let report: RescanReport = session::read(&raw)?;
    session.show::<RescanReport>(&raw, own_text)?;
    Ok(complain(session, &report.errors))
}

fn own_text(report: &RescanReport) -> String {
    let manifests = (!report.manifests.is_empty()).then(|| rows(&report.manifests));
    if report.services.is_empty() {
        let none = || format!("no service was found in {}", plain(&report.folder));
        return manifests.unwrap_or_else(none);
    }
    let mut table = Table::new(&["NAME", "WHAT", "FILE"]);
    for own in &report.services {
        table.row([plain(&own.name).into(), plain(&own.summary).into(), plain(&own.path).into()]);
    }
    std::iter::once(table.text()).chain(manifests).collect::<Vec<_>>().join("\n\n")
}

/// The daemon has another working folder.
fn whole(folders: Vec<PathBuf>) -> Result<Vec<String>, Trouble> {
    let one = |folder: PathBuf| {
        let whole = std::path::absolute(&folder)?;
        whole.into_os_string().into_string().map_err(|odd| {
            Trouble::Usage(format!("the path {} is not UTF-8; name a folder above it", odd.to_string_lossy()))
        })
    };
    folders.into_iter().map(one).collect()
}

fn text(report: &ScanReport) -> String {
    if report.manifests.is_empty() {
        return "no service.yaml that can be used was found".into();
    }
    rows(&report.manifests)
}

fn rows(manifests: &[ManifestRow]) -> String {
    let mut table = Table::new(&["NAME", "GPU", "VRAM", "PORT", "MANIFEST"]);
    for row in manifests {
        // What the daemon took, this reads too; one of a newer version may have taken more.
        let known: Option<Manifest> = serde_json::from_value(row.manifest.clone().into()).ok();
        let gpu = known.as_ref().is_some_and(|known| known.gpu_required);
        let vram = match known.as_ref().and_then(|known| known.vram_gb) {
            Some(gb) if gpu => format!("{gb} GB"),
            None if gpu => "?".into(),
            Some(_) | None => "-".into(),
        };
        let port = known.and_then(|known| known.port).map_or_else(|| "-".into(), |port| port.to_string());
        let gpu = if gpu { "yes" } else { "-" };
        table.row([plain(&row.name).into(), gpu.into(), vram.into(), port.into(), plain(&row.path).into()]);
    }
    table.text()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_it_needs_and_where_it_is() {
        let row = |name: &str, manifest: serde_json::Value| {
            let path = format!("/srv/{name}/service.yaml");
            serde_json::json!({ "name": name, "path": path, "discovered_at": "2026-11-21T08:00:00Z", "manifest": manifest })
        };
        let report: ScanReport = serde_json::from_value(serde_json::json!({
            "manifests": [
                row("minimal-sd-api", serde_json::json!({ "name": "minimal-sd-api", "gpu_required": true, "vram_gb": 8.0, "port": 8000 })),
                row("service-2", serde_json::json!({ "name": "service-2", "port": 8002 })),
                row("service-3", serde_json::json!({ "name": "service-3", "gpu_required": true, "vram_gb": "?" })),
            ],
            "errors": [], "complete": true,
        }))
        .unwrap();
        insta::assert_snapshot!(anstream::adapter::strip_str(&text(&report)).to_string(), @r"
        NAME            GPU  VRAM  PORT  MANIFEST
        minimal-sd-api  yes  8 GB  8000  /srv/minimal-sd-api/service.yaml
        service-2       -    -     8002  /srv/service-2/service.yaml
        service-3       yes  ?     -     /srv/service-3/service.yaml
        ");
    }
}

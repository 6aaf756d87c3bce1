//! Names for the shell's completion, asked of the daemon. Slower than 50 ms is as good as none.

use std::{ffi::OsStr, path::PathBuf, time::Duration};

use clap_complete::CompletionCandidate;
use serde::de::DeserializeOwned;
use wharf_api::{
    ListRow,
    rpc::gpu::{GpuList, LeaseList},
};
use wharf_client::Client;

use crate::{session, socket};

const LIMIT: Duration = Duration::from_millis(50);

/// The units that begin like this, each with its state.
pub(crate) fn units(begin: &OsStr) -> Vec<CompletionCandidate> {
    let begin = begin.to_string_lossy();
    list()
        .unwrap_or_default()
        .into_iter()
        .filter(|row| row.name.as_str().starts_with(&*begin))
        .map(|row| CompletionCandidate::new(row.name.as_str()).help(Some(row.status.word().into())))
        .collect()
}

/// The leases and requests that begin like this, each with its holder.
pub(crate) fn leases(begin: &OsStr) -> Vec<CompletionCandidate> {
    let begin = begin.to_string_lossy();
    let all: Option<LeaseList> = ask("gpu.leases");
    all.into_iter()
        .flat_map(|list| list.leases)
        .filter(|row| row.lease.to_string().starts_with(&*begin))
        .map(|row| CompletionCandidate::new(row.lease.to_string()).help(Some(row.holder.into())))
        .collect()
}

/// The GPUs that begin like this, each with its name.
pub(crate) fn devices(begin: &OsStr) -> Vec<CompletionCandidate> {
    let begin = begin.to_string_lossy();
    let all: Option<GpuList> = ask("gpu.list");
    all.into_iter()
        .flat_map(|list| list.devices)
        .filter(|row| row.id.0.starts_with(&*begin))
        .map(|row| CompletionCandidate::new(row.id.to_string()).help(Some(row.name.into())))
        .collect()
}

fn list() -> Option<Vec<ListRow>> {
    ask("service.list")
}

fn ask<T: DeserializeOwned>(method: &str) -> Option<T> {
    // The line that is completed is not parsed: a --socket in it is not seen.
    let named = std::env::var_os("WHARF_SOCKET").filter(|v| !v.is_empty()).map(PathBuf::from);
    let client = Client::new(named.unwrap_or_else(socket::default_path));
    let client = if Client::is_of_services(method) { client } else { client.rpc() };
    let runtime = session::runtime().ok()?;
    let raw = runtime.block_on(async { tokio::time::timeout(LIMIT, client.raw(method, serde_json::json!({}))).await });
    serde_json::from_str(raw.ok()?.ok()?.get()).ok()
}

//! The register: from params to an entry, and what is odd about it.

use wharf_api::rpc::port::{PortDeclareParams, PortDeclared};
use wharf_core::ports::{HOST, Ranges};
use wharf_model::{DriftKind, Failure, PortEntry};
use wharf_runtime::{Layout, hosts, ports::Settings};

use super::{desk::Unsaved, look, of_units};
use crate::{engine::Shared, turn};

/// What people call the machine that they sit at.
const LOCALHOST: &str = "localhost";

/// Writes it down, or says what would come of that.
pub fn declare(shared: &Shared, uid: u32, p: PortDeclareParams) -> Result<(PortDeclared, Unsaved), Failure> {
    let settings = Settings::read(&shared.layout.ports_file())?;
    let dry_run = p.dry_run;
    let entry = entry(uid, p, &this_machine(&shared.layout));
    let warnings = warnings(&look::ranges(&settings), &entry);
    let units = of_units(shared, &settings);
    let (replaced, unsaved) = shared.ports.declare(shared, entry.clone(), &units, dry_run)?;
    Ok((PortDeclared { entry, replaced, warnings }, unsaved))
}

fn entry(uid: u32, p: PortDeclareParams, here: &str) -> PortEntry {
    let named = |host: &String| if host == LOCALHOST { here.to_owned() } else { host.clone() };
    let mut hosts: Vec<String> = p.hosts.iter().map(named).collect();
    if hosts.is_empty() {
        hosts.push(here.to_owned());
    }
    let network = p.network.unwrap_or_else(|| HOST.to_owned());
    PortEntry {
        service: p.service,
        port_name: p.port_name,
        port: p.port,
        to: p.to.unwrap_or(p.port),
        speaks: p.speaks,
        is_here: network == HOST && hosts.iter().any(|host| host == here),
        network,
        hosts,
        consumers: p.consumers,
        bind: p.bind,
        uid,
        declared_at_ms: turn::wall_ms(),
    }
}

/// This machine, as `hosts.toml` calls it, else as the kernel does.
pub fn this_machine(layout: &Layout) -> String {
    let listed = hosts::read(layout).unwrap_or_default();
    let own = listed.into_iter().find(|host| host.access == hosts::Access::Local).map(|host| host.name);
    let own = own.filter(|name| name != hosts::LOCAL);
    own.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

fn warnings(ranges: &Ranges, entry: &PortEntry) -> Vec<String> {
    if !entry.is_here {
        return vec![];
    }
    // What it is for nobody has said.
    let advice = ranges.advise(None, entry.port).into_iter().filter(|lint| lint.kind != DriftKind::PortOutsideRange);
    advice.map(|lint| format!("{}: {}", lint.kind, lint.text)).collect()
}

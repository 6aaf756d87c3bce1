//! What the daemon says of itself: `rpc.health`, `GET /health`, the well-known card, the machine.

use std::path::Path;

use serde_json::{Value, value::RawValue};
use wharf_api::{DaemonHealth, Machine};
use wharf_model::Phase;

use crate::engine::Engine;

impl Engine {
    /// The daemon itself, for `GET /health`, `rpc.health` and the well-known card.
    pub fn daemon(&self) -> DaemonHealth {
        let world = self.world();
        let running = world.values().filter(|u| matches!(u.phase(), Phase::Running | Phase::Degraded)).count();
        DaemonHealth {
            status: "healthy".into(),
            service: "wharf".into(),
            version: env!("CARGO_PKG_VERSION").into(),
            pid: std::process::id(),
            uptime_ms: self.shared.born.elapsed().as_millis() as u64,
            units: world.len() as u32,
            units_running: running as u32,
            containment: self.shared.launcher.tier().to_string(),
            problems: vec![],
            machine: machine(),
        }
    }

    /// The body of `GET /health`.
    pub fn health_body(&self) -> Box<RawValue> {
        let daemon = self.daemon();
        raw(&serde_json::json!({
            "status": daemon.status, "service": daemon.service, "version": daemon.version,
            "pid": daemon.pid, "uptime_ms": daemon.uptime_ms,
        }))
    }

    /// The body of `GET /.well-known/heroservice.json` on service.sock.
    pub fn card(&self) -> Box<RawValue> {
        let what = "Installs, starts, watches, stops and upgrades the services of this machine";
        card("wharf_service_manager", "Wharf service manager", what, &self.shared.layout.service_sock())
    }

    /// The same on rpc.sock, whose document is another one: whoever lists services finds two.
    pub fn rpc_card(&self) -> Box<RawValue> {
        let what = "Tells what happens on this machine and why, and hands out its GPUs and ports";
        card("wharf_machine", "Wharf, the machine", what, &self.shared.layout.rpc_sock())
    }
}

fn card(id: &str, title: &str, what: &str, socket: &Path) -> Box<RawValue> {
    raw(&serde_json::json!({
        "service_id": id,
        "name": "wharf",
        "title": title,
        "description": what,
        "version": env!("CARGO_PKG_VERSION"),
        "protocol": "openrpc",
        "transport": "http+unix",
        "socket": socket,
        "rpc": "/rpc",
        "openrpc": "/openrpc.json",
        "health": "/health",
    }))
}

fn raw(value: &Value) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap_or_else(|_| RawValue::NULL.to_owned())
}

fn machine() -> Machine {
    use sysinfo::{MemoryRefreshKind, System};
    let system = System::new().map(|mut system| {
        system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
        (system.total_memory(), system.available_memory())
    });
    let (memory_total_bytes, memory_available_bytes) = system.unwrap_or_default();
    Machine {
        hostname: System::host_name().ok(),
        kernel: System::kernel_version().ok(),
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        memory_total_bytes,
        memory_available_bytes,
        load_1: System::load_average().map_or(0.0, |load| load.one),
    }
}

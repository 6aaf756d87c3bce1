//! What the daemon says of itself: `rpc.health`, `GET /health`, the well-known card, the machine.

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

    /// The body of `GET /.well-known/heroservice.json`.
    pub fn card(&self) -> Box<RawValue> {
        raw(&serde_json::json!({
            "service_id": "wharf_service_manager",
            "name": "wharf",
            "title": "Wharf service manager",
            "description": "Installs, starts, watches, stops and upgrades the services of this machine",
            "version": env!("CARGO_PKG_VERSION"),
            "protocol": "openrpc",
            "transport": "http+unix",
            "socket": self.shared.layout.service_sock(),
            "rpc": "/rpc",
            "openrpc": "/openrpc.json",
            "health": "/health",
        }))
    }
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

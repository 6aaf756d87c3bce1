//! What a service's own code tells of it when nothing is done: which version it would place, how it asks for health.
//!
//! It owns the words for that, and the list of what was seen to work. It refuses to know whether any of it is there.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use serde_json::json;
use wharf_model::{Facts, Policy, Requirement, Vendor, Verified};

use crate::{Crate, Deed, Endpoint, InstallPlan, Probe, Recording, Service, Source, Wanted};

/// Written by `cargo xtask catalogue`, which tries what it writes.
const VERIFIED: &str = include_str!("catalogue/verified.json");

/// By the services' names. What cannot be read was changed by hand, and then nothing counts as seen; a test finds it.
static SEEN: LazyLock<BTreeMap<String, Verified>> =
    LazyLock::new(|| serde_json::from_str(VERIFIED).unwrap_or_default());

/// The facts, with all that can be told without doing anything.
pub async fn described(service: &dyn Service) -> Facts {
    let mut facts = service.facts();
    let hands = Arc::new(Recording::default());
    // One that cannot do without parameters tells less.
    let cx = hands.context(service, json!({})).ok();
    if let Some(cx) = &cx {
        let mut before = cx.clone();
        before.run = None;
        let _ = service.install(&before, &Wanted::default()).await;
        facts.version = hands.deeds().iter().find_map(placed).map(|plan| version(&plan.source));
        let _ = service.health(cx).await;
        let asked = hands.deeds().iter().rev().find_map(probe).map(|probe| words(probe, &cx.ports));
        facts.health = Some(asked.unwrap_or_else(|| "its process lives".into()));
    }
    if service.is_tool() {
        facts.health = None;
    }
    if !service.needs_install() {
        facts.version = Some(env!("CARGO_PKG_VERSION").into());
    }
    facts.gpu = gpu(service);
    facts.needs = service.policy(&json!({})).requires.iter().filter(|r| r.is_of_machine()).map(need).collect();
    facts.verified = SEEN.get(&facts.name).cloned();
    facts
}

/// What was seen to work, by the services' names.
pub fn verified() -> &'static BTreeMap<String, Verified> {
    &SEEN
}

fn placed(deed: &Deed) -> Option<&InstallPlan> {
    if let Deed::Place(plan) = deed { Some(plan) } else { None }
}

fn probe(deed: &Deed) -> Option<&Probe> {
    if let Deed::Probe(probe) = deed { Some(probe) } else { None }
}

fn version(source: &Source) -> String {
    let newest = || "the newest".to_owned();
    match source {
        Source::Wheel { version, .. }
        | Source::Venv { version, .. }
        | Source::Cargo(Crate::Registry { version, .. }) => version.clone(),
        Source::Npm(npm) => npm.version.clone(),
        Source::Release(release) => release.version.clone().unwrap_or_else(newest),
        Source::File { version, .. } => version.clone().unwrap_or_else(newest),
        Source::Debian { .. } => "the machine's Debian's".into(),
        Source::BuiltIn => env!("CARGO_PKG_VERSION").into(),
        Source::Cargo(Crate::Tree(_)) => "as it lies there".into(),
        Source::Cargo(Crate::Git { rev, .. }) => rev.clone().unwrap_or_else(newest),
    }
}

/// A question in words: `GET /health on main`.
fn words(probe: &Probe, ports: &BTreeMap<String, u16>) -> String {
    let at = |endpoint: &Endpoint| match endpoint {
        Endpoint::Port(number) => place(*number, ports),
        Endpoint::Address(address) => place(address.port(), ports),
        Endpoint::Socket(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    };
    let several =
        |parts: &[Probe], with: &str| parts.iter().map(|part| words(part, ports)).collect::<Vec<_>>().join(with);
    match probe {
        Probe::Process => "its process lives".into(),
        Probe::Http(http) => {
            let says: Vec<String> = http.json.iter().map(|(at, value)| format!("{at} is {value}")).collect();
            let says = if says.is_empty() { String::new() } else { format!(": {}", says.join(", ")) };
            format!("{} {} on {}{says}", http.method, http.path, at(&http.at))
        }
        Probe::Connect(endpoint) => format!("a connection to {}", at(endpoint)),
        Probe::Exchange { at: endpoint, send, .. } if send.starts_with(&[0x10]) => {
            format!("MQTT CONNECT on {}", at(endpoint))
        }
        Probe::Exchange { at: endpoint, send, expect } => {
            format!("{} on {}: {expect}", String::from_utf8_lossy(send).trim(), at(endpoint))
        }
        Probe::Exec(command) => format!("{} ends with code 0", command.program),
        Probe::LogLine(pattern) => format!("its log has said {pattern}"),
        Probe::All(parts) => several(parts, ", and "),
        Probe::Any(parts) => several(parts, ", or "),
    }
}

fn place(number: u16, ports: &BTreeMap<String, u16>) -> String {
    let named = ports.iter().find(|(_, port)| **port == number).map(|(name, _)| name.clone());
    named.unwrap_or_else(|| number.to_string())
}

fn gpu(service: &dyn Service) -> Option<String> {
    let Policy { gpu, requires, .. } = service.policy(&json!({}));
    let maker = requires.iter().find_map(|requirement| match requirement {
        Requirement::Gpu(vendor) => Some(vendor),
        Requirement::Device(_)
        | Requirement::File(_)
        | Requirement::Env(_)
        | Requirement::Program(_)
        | Requirement::Version { .. }
        | Requirement::Display
        | Requirement::System(_) => None,
    });
    let of = maker.map_or_else(|| "any".to_owned(), |vendor| maker_of(*vendor).to_owned());
    let can_take = service.params().schema().pointer("/properties/vram").is_some();
    match gpu {
        Some(gpu) => {
            Some(gpu.need.vram_bytes.map_or_else(|| format!("{of}, alone"), |bytes| format!("{of}, {bytes} bytes")))
        }
        None => can_take.then(|| "where `vram` says so".into()),
    }
}

/// As people write it.
pub fn maker_of(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::Nvidia => "NVIDIA",
        Vendor::Amd => "AMD",
        Vendor::Intel => "Intel",
        Vendor::Simulated => "gpus.toml",
    }
}

fn need(requirement: &Requirement) -> String {
    match requirement {
        Requirement::Display => "a display".into(),
        Requirement::Gpu(vendor) => format!("a GPU of {}", maker_of(*vendor)),
        Requirement::System(system) => system.clone(),
        Requirement::Device(path) => format!("the device {}", path.display()),
        Requirement::File(path) => path.display().to_string(),
        Requirement::Env(name) => format!("the variable {name}"),
        Requirement::Program(program) | Requirement::Version { program, .. } => program.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Catalogue;

    async fn of(name: &str) -> Facts {
        described(&**Catalogue::built_in().get(name).unwrap()).await
    }

    #[tokio::test]
    async fn a_service_tells_by_its_own_code_how_it_is_asked() {
        for (name, health) in [
            ("redis", "PING on main: +PONG"),
            ("mosquitto", "MQTT CONNECT on main"),
            ("caddy", "GET /config/ on admin, and a connection to http"),
            ("postgres", "pg_isready ends with code 0"),
            ("nats", "GET /healthz on monitor: /status is \"ok\""),
        ] {
            assert_eq!(of(name).await.health.as_deref(), Some(health), "{name}");
        }
        assert_eq!(of("caddy").await.version.as_deref(), Some("2.11.7"));
        assert_eq!(of("mosquitto-clients").await.health, None);
    }

    #[tokio::test]
    async fn what_a_machine_must_have_is_told() {
        let vllm = of("vllm").await;
        assert_eq!(vllm.gpu.as_deref(), Some("NVIDIA, alone"));
        assert_eq!(vllm.needs, ["linux-x86_64", "a GPU of NVIDIA"], "LM-125");
        assert_eq!(of("llama").await.gpu.as_deref(), Some("where `vram` says so"));
        assert_eq!(of("redis").await.gpu, None);
    }

    /// HS-138: what is written down was written by the task that tries it, of services that there are.
    #[test]
    fn the_list_of_what_was_seen_is_readable() {
        let read: BTreeMap<String, Verified> = serde_json::from_str(VERIFIED).unwrap();
        for (name, seen) in read {
            assert!(Catalogue::built_in().get(&name).is_some(), "{name} is no service");
            assert!(seen.date.len() == 10 && !seen.how.is_empty(), "{name}");
        }
    }
}

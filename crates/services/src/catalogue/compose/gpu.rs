//! Which services of a compose file get a GPU, and whether the manifest agrees (decision: only those that say so do).
//!
//! Nothing is changed: who gets a device is the compose file's to say.

use serde_json::Value;
use wharf_model::Manifest;

use crate::Check;

/// What `config` printed.
pub(super) fn read(text: &str) -> Result<Value, String> {
    serde_saphyr::from_str(text).map_err(|e| format!("what compose makes of it cannot be read: {e}"))
}

/// Compares the manifest's gpu_required with the compose file.
pub(super) fn agrees(manifest: &Manifest, file: &Value) -> Check {
    let services = file.get("services").and_then(Value::as_object);
    let with: Vec<String> = services
        .into_iter()
        .flatten()
        .filter_map(|(name, service)| given(service).map(|by| format!("{name} ({by})")))
        .collect();
    let name = &manifest.name;
    let (ok, detail) = match (manifest.gpu_required, with.is_empty()) {
        (true, false) => (true, format!("gpu_required, and given to {}", with.join(", "))),
        (false, true) => (true, "none is required, and none is given".to_owned()),
        (true, true) => (
            false,
            format!(
                "{name} says gpu_required, and its compose file gives none of its services a GPU: add a reservation of devices"
            ),
        ),
        (false, false) => (
            false,
            format!(
                "its compose file gives a GPU to {}, and {name} does not say gpu_required: others may be given the same",
                with.join(", ")
            ),
        ),
    };
    Check::new("GPU", ok, detail)
}

/// By which of its fields a service gets a GPU.
fn given(service: &Value) -> Option<&'static str> {
    let reserved = service.pointer("/deploy/resources/reservations/devices").and_then(Value::as_array);
    let is_gpu = |device: &Value| {
        let words = device.get("capabilities").and_then(Value::as_array).into_iter().flatten();
        let says_gpu = words.filter_map(Value::as_str).any(|word| word == "gpu");
        says_gpu || device.get("driver").and_then(Value::as_str) == Some("nvidia")
    };
    if reserved.is_some_and(|all| all.iter().any(is_gpu)) {
        return Some("deploy.resources.reservations.devices");
    }
    let says = |field: &str| service.get(field).is_some_and(|value| !matches!(value, Value::Null | Value::Bool(false)));
    if says("gpus") {
        return Some("gpus");
    }
    if service.get("runtime").and_then(Value::as_str) == Some("nvidia") {
        return Some("runtime: nvidia");
    }
    let devices = service.get("devices").and_then(Value::as_array).into_iter().flatten();
    let path = |device: &Value| device.as_str().or_else(|| device.get("source")?.as_str()).map(str::to_owned);
    let is_device = |path: String| {
        ["/dev/nvidia", "/dev/dri", "/dev/kfd", "/dev/dxg"].iter().any(|gpu| path.starts_with(gpu))
            || path.contains("/gpu=")
    };
    devices.filter_map(path).any(is_device).then_some("devices")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::json;

    use super::*;

    /// SN-58, SN-59, decision C16.
    #[test]
    fn a_gpu_that_is_given_and_not_said_or_said_and_not_given_is_told() {
        let reserved = "services:\n  web: {image: x}\n  model:\n    image: y\n    deploy:\n      resources:\n        reservations:\n          devices:\n          - {driver: nvidia, count: 1, capabilities: [gpu]}\n";
        let ways = [
            (reserved, "model (deploy.resources.reservations.devices)"),
            ("services: {m: {image: x, gpus: all}}\n", "m (gpus)"),
            ("services: {m: {image: x, runtime: nvidia}}\n", "m (runtime: nvidia)"),
            ("services: {m: {image: x, devices: [\"/dev/nvidia0:/dev/nvidia0\"]}}\n", "m (devices)"),
            ("services: {m: {image: x, devices: [{source: /dev/dri, target: /dev/dri}]}}\n", "m (devices)"),
            ("services: {m: {image: x, devices: [nvidia.com/gpu=all]}}\n", "m (devices)"),
        ];
        let manifest = |gpu: bool| Manifest::deserialize(json!({"name": "sd", "gpu_required": gpu})).unwrap();
        for (text, named) in ways {
            let file = read(text).unwrap();
            let (said, unsaid) = (agrees(&manifest(true), &file), agrees(&manifest(false), &file));
            assert!(said.ok && !unsaid.ok, "{text}: {said:?} {unsaid:?}");
            assert!(said.detail.contains(named) && unsaid.detail.contains(named), "{named}: {said:?} {unsaid:?}");
        }
        let none =
            read("services: {web: {image: x, devices: [/dev/ttyUSB0], deploy: {resources: {limits: {cpus: '1'}}}}}\n")
                .unwrap();
        assert!(agrees(&manifest(false), &none).ok);
        assert!(!agrees(&manifest(true), &none).ok);
        assert!(agrees(&manifest(false), &Value::Null).ok);
        assert!(read("a: [").is_err());
    }
}

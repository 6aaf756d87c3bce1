//! Params of `gpu.*`. Unknown fields are refused, in a request too: a misspelled size would else mean a whole device.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;
use wharf_model::{DeviceId, GpuNeed, GpuRequest, LeaseId, UnitName};

/// No params.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GpuListParams {}

/// Params of `gpu.list`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DevicesParams {
    /// Measure first, and wait so long at most for it; 0: answer at once with what was measured last.
    #[serde(default)]
    pub fresh_within_ms: u64,
}

/// Params of `gpu.plan`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanParams {
    /// What would be asked for. Without it `unit` must be named: then what its policy asks for.
    #[serde(default, deserialize_with = "some_request", skip_serializing_if = "Option::is_none")]
    pub request: Option<GpuRequest>,
    /// The unit that it would be for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitName>,
}

/// Params of `gpu.acquire`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcquireParams {
    /// What is needed, and by which rules.
    #[serde(deserialize_with = "request")]
    pub request: GpuRequest,
    /// The holder: a process of the caller's user. The caller itself unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// What people and the ledger call it; its program's name unless it is named. What is learned of a holder is
    /// kept by this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The same key is the same request: asked again, it is answered with the same lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<String>,
    /// How long its turn is waited for; 0: not at all; none: for as long as it takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// How long the lease lasts without `gpu.renew`; none: as long as its holder lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// Only say what would come of it.
    #[serde(default)]
    pub dry_run: bool,
}

/// A lease that the caller holds, and the number of its grant.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldParams {
    /// Which.
    pub lease: LeaseId,
    /// The number of the grant, as it was answered: with another one nothing happens.
    pub epoch: u64,
}

/// Params of `gpu.busy`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BusyParams {
    /// Which.
    pub lease: LeaseId,
    /// The number of the grant, as it was answered.
    pub epoch: u64,
    /// On how many requests it works.
    #[serde(default = "one")]
    pub requests: u32,
}

/// Params of `gpu.update`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateParams {
    /// Which.
    pub lease: LeaseId,
    /// The number of the grant, as it was answered.
    pub epoch: u64,
    /// Memory on each of its devices from now on.
    pub vram_bytes: u64,
}

/// Params of `gpu.revoke`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeParams {
    /// Which.
    pub lease: LeaseId,
    /// Also where it is pinned, or works.
    #[serde(default)]
    pub force: bool,
    /// From being asked to leave to SIGKILL; what its request says unless it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_ms: Option<u64>,
}

/// A lease or a request.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaseParams {
    /// Which.
    pub lease: LeaseId,
}

/// Params of `gpu.leases`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeasesParams {
    /// Only those of this unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitName>,
    /// Only those on this device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
}

/// Params of `gpu.processes`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessesParams {
    /// Only those on this device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
}

/// Params of `gpu.reserve`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReserveParams {
    /// Which device.
    pub device: DeviceId,
    /// How much is kept free; 0: nothing. Where programs without a lease have more, that counts.
    pub keep_bytes: u64,
}

/// What a device is to be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceUse {
    /// As usual.
    Usual,
    /// What runs goes on, nothing new comes.
    NoNew,
    /// What runs is asked to leave, nothing new comes.
    Drain,
}

/// Params of `gpu.taint`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaintParams {
    /// Which device.
    pub device: DeviceId,
    /// What it is to be used for from now on.
    pub effect: DeviceUse,
    /// Why, for those who are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Params of `gpu.pin`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PinParams {
    /// Which.
    pub lease: LeaseId,
    /// For how long; 0: it is as any other again.
    pub for_ms: u64,
}

/// Params of `gpu.explain`: one of both.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainParams {
    /// A lease or a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    /// A unit: the lease that it has, waits for, or would ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitName>,
}

/// Params of `gpu.warmup`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WarmupParams {
    /// The unit.
    pub unit: UnitName,
    /// Whoever holds what it needs is stopped first.
    #[serde(default)]
    pub force: bool,
}

/// Params of `gpu.drain`: one of the first three.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainParams {
    /// A unit: the lease that it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitName>,
    /// A lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseId>,
    /// A device: all who have leases there; nothing new comes until `gpu.taint` says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<DeviceId>,
    /// Also who is pinned, or works.
    #[serde(default)]
    pub force: bool,
    /// Why, for those who are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long their memory is waited for before the answer; 0: not at all.
    #[serde(default)]
    pub wait_ms: u64,
}

fn one() -> u32 {
    1
}

fn request<'de, D: Deserializer<'de>>(from: D) -> Result<GpuRequest, D::Error> {
    strict(Value::deserialize(from)?).map_err(D::Error::custom)
}

fn some_request<'de, D: Deserializer<'de>>(from: D) -> Result<Option<GpuRequest>, D::Error> {
    Option::<Value>::deserialize(from)?.map(strict).transpose().map_err(D::Error::custom)
}

/// Its fields, and no others.
fn strict(given: Value) -> Result<GpuRequest, String> {
    let fields = |schema: schemars::Schema| -> BTreeSet<String> {
        schema.get("properties").and_then(Value::as_object).into_iter().flat_map(|all| all.keys().cloned()).collect()
    };
    let unknown = |value: &Value, known: &BTreeSet<String>| {
        let name = value.as_object()?.keys().find(|name| !known.contains(*name))?;
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        Some(format!("unknown field `{name}`, expected one of {}", known.join(", ")))
    };
    let need = fields(schemars::schema_for!(GpuNeed));
    let whole = fields(schemars::schema_for!(GpuRequest)).into_iter().chain(need.iter().cloned()).collect();
    let inner = given.get("alternatives").and_then(Value::as_array).into_iter().flatten();
    match unknown(&given, &whole).or_else(|| inner.filter_map(|value| unknown(value, &need)).next()) {
        Some(fault) => Err(fault),
        None => serde_json::from_value(given).map_err(|e| e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_misspelled_size_is_refused_and_does_not_mean_a_whole_device() {
        let read = |request: Value| serde_json::from_value::<AcquireParams>(json!({ "request": request }));
        assert_eq!(read(json!({ "vram_bytes": 5 })).unwrap().request.need.vram_bytes, Some(5));
        assert!(read(json!({})).unwrap().request.need.is_alone());
        for wrong in [json!({ "vram": 5 }), json!({ "alternatives": [{ "vram": 5 }] }), json!({ "priority": "vip" })] {
            let fault = read(wrong.clone()).unwrap_err().to_string();
            assert!(fault.contains("expected one of"), "{wrong}: {fault}");
        }
        assert!(serde_json::from_value::<PlanParams>(json!({ "request": { "vram": 5 } })).is_err());
        assert!(serde_json::from_value::<PlanParams>(json!({ "request": null })).unwrap().request.is_none());
    }
}

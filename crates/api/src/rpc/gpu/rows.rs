//! Results of `gpu.*`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use wharf_model::{
    Blocker, DeviceId, DeviceKind, Enforced, Failure, ForeignProcess, GpuRequest, Holder, LeaseId, LeaseState,
    LimitsBackend, MakeRoom, Plan, Preempt, Priority, ProcessKind, Remedy, RunId, Share, Taint, UnitName, Vendor,
};

/// What a lease counts for on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ChargeRow {
    /// Which lease.
    pub lease: LeaseId,
    /// Whose, for people.
    pub holder: String,
    /// Where it stands.
    pub state: LeaseState,
    /// What was asked for, or all that there was where the device is had alone.
    pub declared_bytes: u64,
    /// What its holder was last seen to have; null: the driver does not say.
    pub measured_bytes: Option<u64>,
    /// What it counts for.
    pub charge_bytes: u64,
}

/// A device, and what is made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceRow {
    /// Its full UUID, or the name in gpus.toml.
    pub id: DeviceId,
    /// Who made it.
    pub vendor: Vendor,
    /// What it is sold as.
    pub name: String,
    /// A whole one, or a part.
    pub kind: DeviceKind,
    /// Of a part: the whole.
    pub parent: Option<DeviceId>,
    /// Its place in the driver's list, for people only: it is another one after a reboot.
    pub index: u32,
    /// Its PCI address.
    pub pci: Option<String>,
    /// The memory node of the machine that it is near to.
    pub numa_node: Option<u32>,
    /// Devices with the same number reach each other by NVLink or the like.
    pub island: Option<u32>,
    /// All its memory.
    pub total_bytes: u64,
    /// What is not free, as the driver says; null: it does not say.
    pub used_bytes: Option<u64>,
    /// What could be handed out if nobody were there.
    pub capacity_bytes: u64,
    /// What can be handed out now.
    pub headroom_bytes: u64,
    /// What all leases there count for.
    pub charged_bytes: u64,
    /// What those without a lease have.
    pub foreign_bytes: u64,
    /// Of that, what belongs to no process that the driver names.
    pub unattributed_bytes: u64,
    /// What is kept free by hand.
    pub kept_bytes: u64,
    /// What each lease there counts for.
    pub charges: Vec<ChargeRow>,
    /// Those without a lease.
    pub foreign: Vec<ForeignProcess>,
    /// What speaks against it.
    pub taints: Vec<Taint>,
    /// By what memory could be limited for one cgroup.
    pub limits_backend: LimitsBackend,
    /// Its memory is the machine's own.
    pub unified: bool,
    /// The driver says who has how much.
    pub tells_apart: bool,
    /// How long ago it was measured, in milliseconds.
    pub measured_age_ms: u64,
    /// It was measured too long ago: nothing new is handed out.
    pub stale: bool,
}

/// The result of `gpu.list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GpuList {
    /// The devices, by id.
    pub devices: Vec<DeviceRow>,
    /// How many requests wait.
    pub waiting: u32,
    /// Where the figures are from: `nvml 580.65`, `amdgpu`, `gpus.toml`.
    pub sources: Vec<String>,
    /// What could not be asked, and why.
    pub problems: Vec<String>,
    /// Moves with every change.
    pub state_version: u64,
}

/// A lease, or a request for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseRow {
    /// Its number.
    pub lease: LeaseId,
    /// The number of its grant; 0 until it was granted.
    pub epoch: u64,
    /// Whose, for people.
    pub holder: String,
    /// Whose.
    pub held_by: Holder,
    /// The user that asked for it.
    pub owner_uid: u32,
    /// By which its asker finds it again.
    pub client_key: Option<String>,
    /// Where it stands.
    pub state: LeaseState,
    /// For how long it has stood there.
    pub in_state_ms: u64,
    /// Its parts, once they are chosen.
    pub devices: Vec<Share>,
    /// Which of the needs was met: 0 is the first.
    pub alternative: u32,
    /// How soon it was its turn.
    pub priority: Priority,
    /// How much it matters, 0 to 100.
    pub importance: u8,
    /// Whom it might make leave.
    pub preempt: Preempt,
    /// It may be asked to leave itself.
    pub evictable: bool,
    /// How long ago it was asked for.
    pub asked_ago_ms: u64,
    /// How long ago it was granted.
    pub granted_ago_ms: Option<u64>,
    /// When it expires unless it is renewed; null: it lasts as long as its holder.
    pub expires_in_ms: Option<u64>,
    /// For how long nobody makes it leave.
    pub pinned_for_ms: Option<u64>,
    /// When its holder is killed.
    pub killed_in_ms: Option<u64>,
    /// For which lease it was asked to make room.
    pub leaves_for: Option<LeaseId>,
    /// What its holder was asked to do, and has not done yet.
    pub asked_to_yield: Option<YieldWish>,
    /// Of a request: the parked lease that wants its memory back.
    pub wakes: Option<LeaseId>,
    /// On how many requests its holder works, as it says itself; null: it does not say.
    pub busy: Option<u32>,
    /// Why it waits, in one sentence.
    pub why: Option<String>,
    /// By what its holder is kept to what was declared; else it is watched.
    pub enforced: Enforced,
}

/// The result of `gpu.acquire`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Acquired {
    /// The lease; null with `dry_run`.
    pub lease: Option<LeaseRow>,
    /// What the holder's environment needs, so that it finds its devices and no others.
    pub env: BTreeMap<String, String>,
    /// With `dry_run`: what would come of it.
    pub plan: Option<Plan>,
    /// Moves with every change.
    pub state_version: u64,
}

/// What `gpu.acquire` says while it waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GpuProgress {
    /// The request.
    pub lease: LeaseId,
    /// Where it stands.
    pub state: LeaseState,
    /// Its place in the queue: 1 is the head; null: it waits no more.
    pub position: Option<u32>,
    /// Why it waits.
    pub why: Option<String>,
    /// How long it may take still, as far as is known.
    pub est_ms: Option<u64>,
    /// How long it has waited.
    pub waited_ms: u64,
}

/// Somebody wants a holder to make room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct YieldWish {
    /// How: by a stop, unless it said that less is enough.
    pub r#do: MakeRoom,
    /// What it may keep on each device then; null: nothing.
    pub to_bytes: Option<u64>,
    /// For whom; null: by hand.
    pub by: Option<String>,
    /// Of a stop: it is killed then. Of anything milder: it is asked to stop then.
    pub within_ms: u64,
}

/// The result of `gpu.renew`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Renewed {
    /// Which.
    pub lease: LeaseId,
    /// When it expires unless it is renewed again; null: it lasts as long as its holder.
    pub expires_in_ms: Option<u64>,
    /// Its holder is asked to make room.
    pub asked_to_yield: Option<YieldWish>,
    /// Moves with every change.
    pub state_version: u64,
}

/// A lease after something was done with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseAck {
    /// Which.
    pub lease: LeaseId,
    /// Where it stands now.
    pub state: LeaseState,
    /// Moves with every change.
    pub state_version: u64,
}

/// A device after something was done with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceAck {
    /// Which.
    pub device: DeviceId,
    /// What can be handed out there now.
    pub headroom_bytes: u64,
    /// What is kept free there by hand.
    pub kept_bytes: u64,
    /// What speaks against it.
    pub taints: Vec<Taint>,
    /// Moves with every change.
    pub state_version: u64,
}

/// The result of `gpu.leases`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseList {
    /// The leases, oldest first; requests that wait among them.
    pub leases: Vec<LeaseRow>,
    /// Moves with every change.
    pub state_version: u64,
}

/// A request that waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct QueueRow {
    /// Its turn: 1 is the next.
    pub position: u32,
    /// The request.
    pub lease: LeaseId,
    /// Who waits.
    pub holder: String,
    /// It waits for its turn, or for devices that are being emptied for it.
    pub state: LeaseState,
    /// What it needs, in words.
    pub wants: String,
    /// How soon it is its turn.
    pub priority: Priority,
    /// How long it has waited.
    pub waited_ms: u64,
    /// When it is given up; null: never.
    pub gives_up_in_ms: Option<u64>,
    /// How often a later request was met on devices that this one waits for.
    pub passed_over: u32,
    /// How long it may take still, as far as is known.
    pub est_ms: Option<u64>,
    /// Why it waits, with what would help.
    pub why: Option<Failure>,
}

/// The result of `gpu.queue`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GpuQueue {
    /// Who waits, the next first.
    pub waiting: Vec<QueueRow>,
    /// Moves with every change.
    pub state_version: u64,
}

/// Whose a process on a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Whose {
    /// A lease's.
    Lease,
    /// A unit's that has no lease.
    Unit,
    /// Somebody's that never asked.
    Foreign,
    /// The same, and it was said by hand to be baseline: it is no news.
    Ignored,
    /// The driver lists it, and it lives no more.
    Ghost,
}

/// A process that has memory on a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessRow {
    /// Where.
    pub device: DeviceId,
    /// The process.
    pub pid: i32,
    /// Its program.
    pub program: Option<String>,
    /// Whose it is: the user.
    pub uid: Option<u32>,
    /// What it holds; null: the driver does not say.
    pub used_bytes: Option<u64>,
    /// What it does there.
    pub kind: ProcessKind,
    /// Whose it is.
    pub whose: Whose,
    /// The lease that it counts for.
    pub lease: Option<LeaseId>,
    /// The unit by its cgroup.
    pub unit: Option<UnitName>,
    /// The run of that unit.
    pub run: Option<RunId>,
    /// What else it belongs to: a container, a systemd unit.
    pub belongs_to: Option<String>,
}

/// The result of `gpu.processes`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProcessList {
    /// The processes, by device.
    pub processes: Vec<ProcessRow>,
    /// Devices whose driver does not say who is there.
    pub silent: Vec<DeviceId>,
    /// Moves with every change.
    pub state_version: u64,
}

/// By which figures a holder is weighed against others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ValueTerms {
    /// What loading it again takes: measured, or as its request says.
    pub reload_ms: u64,
    /// It was measured.
    pub reload_is_measured: bool,
    /// Uses an hour of late, in thousandths. What is expected of it is made of these and of how long ago the last was.
    pub uses_an_hour_milli: u64,
    /// Uses to be expected an hour, in millionths.
    pub expected_uses_micro: u64,
    /// What is left of what loading it has cost, in milliseconds: a use restores it, others' going takes from it.
    pub credit_ms: u64,
    /// How much it matters, 0 to 100.
    pub importance: u8,
    /// The same as it counts, in sixtieths: 10 more than that; 0 where nobody has renewed its lease.
    pub weight: u64,
    /// What its going would cost, `(reload_ms * expected_uses_micro / 1000000 + credit_ms) * weight / 60`, each
    /// division cut off: who is worth least is sent away first.
    pub value: u64,
}

/// The result of `gpu.explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GpuExplanation {
    /// The lease or the request; null: the unit has none.
    pub lease: Option<LeaseRow>,
    /// What was, or would be, asked for.
    pub request: GpuRequest,
    /// Why it stands as it does, in sentences.
    pub explain: Vec<String>,
    /// The devices that it cannot have now, and why.
    pub blockers: Vec<Blocker>,
    /// What would help.
    pub remedies: Vec<Remedy>,
    /// Who waits for it to leave.
    pub awaited_by: Vec<LeaseId>,
    /// What it is worth, while it has devices.
    pub value: Option<ValueTerms>,
    /// Moves with every change.
    pub state_version: u64,
}

/// What was learned of a holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CalibrationRow {
    /// The unit, or `program:LABEL`.
    pub holder: String,
    /// How often it was seen to load.
    pub loads: u64,
    /// How long loading takes; null: never timed.
    pub load_ms: Option<u64>,
    /// Uses an hour of late, in thousandths.
    pub uses_an_hour_milli: u64,
    /// The most that it was seen to take on one device; null: never seen.
    pub high_water_bytes: Option<u64>,
    /// What it declares now; null: nothing, or it has no lease and is no unit.
    pub declared_bytes: Option<u64>,
    /// What it had better declare: what it was seen to take, and a twentieth more; null: what it declares will do.
    pub suggested_bytes: Option<u64>,
    /// Why, for people.
    pub advice: Option<String>,
}

/// The result of `gpu.calibrate`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Calibration {
    /// The holders, by name.
    pub holders: Vec<CalibrationRow>,
    /// Moves with every change.
    pub state_version: u64,
}

/// The result of `gpu.warmup`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Warmed {
    /// The unit.
    pub unit: UnitName,
    /// Its lease.
    pub lease: LeaseRow,
    /// How long it took until it was ready; 0: it was before.
    pub took_ms: u64,
    /// Moves with every change.
    pub state_version: u64,
}

/// The result of `gpu.drain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Drained {
    /// The leases whose holders were asked to leave.
    pub asked: Vec<LeaseId>,
    /// Of these, those whose memory is not back yet.
    pub left: Vec<LeaseId>,
    /// Moves with every change.
    pub state_version: u64,
}

/// What a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientKind {
    /// A unit of this Wharf whose policy asks for a GPU.
    Unit,
    /// A program outside that asked for one.
    Program,
}

/// A client of the arbiter: what it is known to need, and what it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GpuClientRow {
    /// The unit, or the program's label.
    pub client: String,
    /// What it is.
    pub kind: ClientKind,
    /// The user; null: the unit's own.
    pub uid: Option<u32>,
    /// What it asks for: its profile; null: it has no lease now, and is no unit.
    pub profile: Option<GpuRequest>,
    /// Its leases.
    pub leases: Vec<LeaseId>,
    /// Its requests that wait.
    pub waiting: Vec<LeaseId>,
    /// What its leases count for together.
    pub charged_bytes: u64,
    /// Uses an hour of late, in thousandths.
    pub uses_an_hour_milli: u64,
}

/// The result of `gpu.clients`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GpuClientList {
    /// The clients, by name.
    pub clients: Vec<GpuClientRow>,
    /// Moves with every change.
    pub state_version: u64,
}

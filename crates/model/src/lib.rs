//! The words of Wharf as types: what a unit, a run, an exit, a failure is.
//!
//! Everything else in the house speaks these types. This crate owns names, states and
//! shapes; it refuses to know how any of them come about: no IO, no clock, no decisions.

mod device;
mod exit;
mod facts;
mod failure;
mod gpu;
mod health;
mod install;
mod log_level;
mod manifest;
mod names;
mod operation;
mod plan;
mod policy;
mod port;
mod state;
mod vram;

pub use device::{
    Device, DeviceId, DeviceKind, DeviceProcess, Inventory, LimitsBackend, ProcessKind, Taint, TaintEffect, Vendor,
};
pub use exit::{EndReason, Exit, GivenUp, Signal};
pub use facts::{Facts, PortFact, Protocol, Speaks, Verified};
pub use failure::{ErrorKind, Failure};
pub use gpu::{
    GpuNeed, GpuRequest, Holder, LeaseId, LeaseState, MakeRoom, Preempt, Priority, Share,
    environment as gpu_environment,
};
pub use health::{Health, Verdict};
pub use install::{Installed, Placed, Progress};
pub use log_level::LogLevel;
pub use manifest::{Dependency, Manifest, Mcp, McpParameter, McpTool, Resources, Scheduling};
pub use names::{BadName, OpId, RunId, UnitName};
pub use operation::{OpKind, OpOutcome, Operation};
pub use plan::{Blocker, BlockingLease, ForeignProcess, Plan, PlanStep, Remedy, size};
pub use policy::{Limits, LogPolicy, Need, OnDemand, OnExit, Policy, Preset, Requirement, Restart, SecretRef};
pub use port::{
    Drift, DriftKind, FoundBy, Handoff, Occupant, PortEntry, PortKind, PortLeaseId, PortRange, Reach, is_loopback,
};
pub use state::{Phase, Want};
pub use vram::{Enforced, VramCap, VramLimit};

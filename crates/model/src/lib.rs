//! The words of Wharf as types: what a unit, a run, an exit, a failure is.
//!
//! Everything else in the house speaks these types. This crate owns names, states and
//! shapes; it refuses to know how any of them come about: no IO, no clock, no decisions.

mod exit;
mod facts;
mod failure;
mod health;
mod install;
mod log_level;
mod names;
mod operation;
mod policy;
mod state;

pub use exit::{EndReason, Exit, GivenUp, Signal};
pub use facts::{Facts, PortFact, Protocol};
pub use failure::{ErrorKind, Failure};
pub use health::{Health, Verdict};
pub use install::{Installed, Placed, Progress};
pub use log_level::LogLevel;
pub use names::{BadName, OpId, RunId, UnitName};
pub use operation::{OpKind, OpOutcome, Operation};
pub use policy::{Limits, LogPolicy, Need, OnDemand, OnExit, Policy, Preset, Requirement, Restart, SecretRef};
pub use state::{Phase, Want};

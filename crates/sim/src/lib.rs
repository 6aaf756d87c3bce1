//! The core in a simulated world: processes, run folders, clocks, a database, callers, and faults.
//!
//! ```text
//!   seed ─> Fate ─> Deed ─> World ─> Event ─> Core::step ─> Effects ─> World (commit, acts, answers)
//!                                      │                        │
//!                                      └───────> Judge <────────┘   what must hold after every step
//! ```
//!
//! Everything comes from one number: no clock, no threads, no other chance. A daemon can die between
//! any two effects of a step. What breaks a rule is a list of deeds, which is made shorter and kept.
//! docs/simulation.md says how to use it.

pub mod account;
pub mod boot;
pub mod calm;
pub mod cards;
pub mod chance;
pub mod counts;
pub mod crowd;
pub mod daemon;
pub mod deed;
pub mod generate;
pub mod hands;
pub mod journal;
pub mod judge;
pub mod leases;
pub mod machine;
pub mod play;
pub mod scenario;
pub mod scripts;
pub mod shrink;
pub mod told;
pub mod trace;
pub mod world;

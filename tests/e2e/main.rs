//! End to end: the real daemon, over the real socket, with real programs.

mod chaos;
mod envelope;
mod events;
mod faults;
mod health;
mod house;
mod journeys;
mod logs;
mod policy;
mod replace;
mod setup;
mod source;
mod surface;
mod traps;

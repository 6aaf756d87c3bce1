//! End to end: the real daemon, over the real socket, with real programs.

mod chaos;
mod envelope;
mod faults;
mod house;
mod journeys;
mod source;
mod surface;
mod traps;

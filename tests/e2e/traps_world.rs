//! Faults of what lies around Wharf, each tried on the real daemon.

mod containers;
mod folders;
mod hosts;

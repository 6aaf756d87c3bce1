//! End to end: the real daemon, over the real socket, with real programs.

mod chaos;
mod doctor;
mod envelope;
mod events;
mod faults;
mod front;
mod gpu;
mod gpu_devices;
mod health;
mod house;
mod journeys;
mod llama;
mod logs;
mod policy;
mod ports;
mod promises;
mod records;
mod replace;
mod secrets;
mod setup;
mod source;
mod surface;
mod traps;
mod traps_world;

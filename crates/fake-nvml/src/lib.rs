//! A stand-in for libnvidia-ml.so: devices and processes that a file describes, and every fault that a real
//! driver has. For tests and demos on machines without a GPU.
//!
//! Owns the file (`state`, `file`), and the calls that users of NVML (`calls`) and of CUDA (`cuda`) make of it.
//! It refuses to know Wharf. The library is `libnvidia_ml_fake.so`; the same crate, linked, reads and writes the file.
//!
//! The file's path is in the variable `WHARF_FAKE_NVML`.

mod calls;
mod cuda;
mod file;
mod state;

use std::path::PathBuf;

pub use file::{VARIABLE, boot_ms, edit, read, start_ticks, write};
pub use state::{Device, Kind, Limit, Part, Process, State};

/// Where cargo has put the library, beside the program that asks.
///
/// # Panics
/// Where it was not built: `cargo build -p wharf-fake-nvml`.
pub fn library() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    let near = own.ancestors().skip(1).take(2).flat_map(|dir| [dir.join("deps"), dir.to_owned()]);
    let found = near.map(|dir| dir.join("libnvidia_ml_fake.so")).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("libnvidia_ml_fake.so is not beside {}", own.display()))
}

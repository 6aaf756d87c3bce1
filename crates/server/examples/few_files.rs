//! The server with forty file descriptors: what `tests/fd_exhaustion.rs` runs and tries.

#[path = "../tests/support/mod.rs"]
mod support;

use nix::sys::resource::{Resource, setrlimit};
use support::House;

fn main() {
    setrlimit(Resource::RLIMIT_NOFILE, 40, 40).unwrap();
    let house = House::new();
    println!("at {}", house.path.display());
    // Until the parent closes its end.
    _ = std::io::stdin().lines().next();
}

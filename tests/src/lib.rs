//! What the end-to-end tests share: a real daemon in a folder of its own, callers of every kind,
//! and the document that all traffic is held against.

mod browser;
pub mod chaos;
mod conform;
mod daemon;
mod docker;
mod gpu;
pub mod gpu_check;
mod ground;
mod http;
mod promise;
mod releases;

pub use browser::Browser;
pub use conform::Document;
pub use daemon::{Daemon, Said, beside, wharf_binary};
pub use docker::{Docker, said};
pub use gpu::{FakeGpus, fake_engine};
pub use ground::{alive, eventually, free_port, free_ports, listens, parent_of, processes_with, root, signal};
pub use http::{Reply, exchange, get, post, request};
pub use promise::{cannot, figure};
pub use releases::{
    Fault, Forge, Published, ReleaseServer, Repo, Seen, deb, gz, sha256, stand_in, tar_gz, tar_xz, tar_zst, zip,
};

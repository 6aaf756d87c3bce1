//! A machine with GPUs that are none: the stand-in driver for one daemon, and the program that plays an engine.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use nvidia_ml_fake as driver;

use crate::{Daemon, beside};

/// The stand-in driver's file of one test.
#[derive(Debug, Clone)]
pub struct FakeGpus {
    path: PathBuf,
}

impl FakeGpus {
    /// Devices of these UUIDs and bytes, in a file in this folder.
    ///
    /// # Panics
    /// Where the file cannot be written.
    pub fn new(folder: &Path, devices: &[(&str, u64)]) -> Self {
        // Engines of other users change it too.
        let folder = folder.join("driver");
        fs::create_dir_all(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        let gpus = Self { path: folder.join("driver.json") };
        gpus.edit(|state| {
            state.devices = devices.iter().map(|(uuid, bytes)| driver::Device::new(uuid, *bytes)).collect()
        });
        gpus
    }

    /// What the daemon, and every engine, has to be told.
    pub fn env(&self) -> [(String, String); 2] {
        let library = driver::library().display().to_string();
        [("WHARF_NVML_LIB".into(), library), (driver::VARIABLE.into(), self.path.display().to_string())]
    }

    /// A daemon that is to be launched, with these devices of 8 GiB.
    pub fn daemon(uuids: &[&str]) -> (Daemon, Self) {
        let daemon = Daemon::prepare();
        let devices: Vec<(&str, u64)> = uuids.iter().map(|uuid| (*uuid, 8 << 30)).collect();
        let gpus = Self::new(&daemon.home, &devices);
        let with = |daemon: Daemon, (name, value): &(String, String)| daemon.with_env(name, value);
        (gpus.env().iter().fold(daemon, with), gpus)
    }

    /// A program that plays an engine on these devices. It is the caller's to end.
    pub fn engine(&self, args: &[&str]) -> Command {
        let mut engine = Command::new(fake_engine());
        engine.args(args).envs(self.env()).env_remove("PORT");
        engine
    }

    /// Changes what the driver does.
    ///
    /// # Panics
    /// Where the file cannot be written.
    pub fn edit<T>(&self, change: impl FnOnce(&mut driver::State) -> T) -> T {
        driver::edit(&self.path, change).unwrap()
    }

    /// What is taken of a device now, in bytes.
    pub fn taken(&self, uuid: &str) -> u64 {
        self.edit(|state| {
            state.bury(driver::boot_ms(), |pid, ticks| driver::start_ticks(pid) == Some(ticks));
            state.taken(uuid, driver::boot_ms())
        })
    }
}

/// The program that plays an engine; `src/bin/wharf-fake-engine.rs` says what it can do.
pub fn fake_engine() -> PathBuf {
    beside("wharf-fake-engine")
}

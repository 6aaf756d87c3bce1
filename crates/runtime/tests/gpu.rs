//! Devices as they are measured: the real wrapper of NVML, in the real process, over a stand-in library that has
//! every fault of a driver; and devices that a file declares.

#[path = "gpu/faults.rs"]
mod faults;
#[path = "gpu/holders.rs"]
mod holders;
#[path = "gpu/hung.rs"]
mod hung;
#[path = "gpu/sources.rs"]
mod sources;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use nvidia_ml_fake as driver;
use wharf_model::{Device, DeviceProcess, Inventory};
use wharf_runtime::gpu::{Eye, Ground, Pids, Program, Runs};

const GIB: u64 = 1 << 30;
const FIRST: &str = "GPU-00000000-0000-0000-0000-00000000000a";
const SECOND: &str = "GPU-00000000-0000-0000-0000-00000000000b";

/// A machine of its own for one test: the driver's state, and where to look.
struct Stage {
    dir: tempfile::TempDir,
    children: Vec<Child>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Stage {
    /// Two devices of 8 GiB.
    fn new() -> Self {
        let stage = Self { dir: tempfile::tempdir().unwrap(), children: vec![] };
        stage.edit(|state| {
            state.driver = Some("580.65.06".into());
            state.devices = vec![driver::Device::new(FIRST, 8 * GIB), driver::Device::new(SECOND, 8 * GIB)];
        });
        stage
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn edit<T>(&self, change: impl FnOnce(&mut driver::State) -> T) -> T {
        driver::edit(&self.path("driver.json"), change).unwrap()
    }

    /// Where nothing hangs nobody waits for this deadline, also on a busy machine.
    fn ground(&self) -> Ground {
        Ground {
            program: Program {
                argv: vec![env!("CARGO_BIN_EXE_wharf-gpu-probe").into()],
                env: vec![(driver::VARIABLE.into(), self.path("driver.json").into())],
                deadline: Duration::from_secs(20),
            },
            nvml: Some(driver::library()),
            root: "/".into(),
            simulated: self.path("gpus.toml"),
            held: self.path("held"),
            runs: Runs::default(),
            pids: Pids::FindOut,
        }
    }

    fn eye(&self) -> Eye {
        Eye::new(self.ground())
    }

    /// A process that lives until the test ends, or until it is told to.
    fn program(&mut self) -> i32 {
        let child = Command::new("sleep").arg("600").spawn().unwrap();
        let pid = child.id().cast_signed();
        self.children.push(child);
        pid
    }

    fn end(&mut self, pid: i32) {
        let child = self.children.iter_mut().find(|child| child.id().cast_signed() == pid).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// A process has so much of a device, as the driver sees it.
    fn holds(&self, pid: i32, device: &str, bytes: u64) {
        self.edit(|state| state.processes.push(holding(pid, device, bytes)));
    }
}

fn holding(pid: i32, device: &str, bytes: u64) -> driver::Process {
    let start_ticks = driver::start_ticks(pid).unwrap_or(0);
    driver::Process { pid, start_ticks, device: device.into(), bytes, ..driver::Process::default() }
}

/// The device of this UUID, which is there.
fn device<'a>(inventory: &'a Inventory, uuid: &str) -> &'a Device {
    let found = inventory.devices.iter().find(|device| &*device.id.0 == uuid);
    found.unwrap_or_else(|| panic!("{uuid} is not in {inventory:#?}"))
}

/// The process of this pid that the device lists.
fn process(device: &Device, pid: i32) -> DeviceProcess {
    let found = device.processes.iter().flatten().find(|process| process.pid == pid);
    found.unwrap_or_else(|| panic!("{pid} is not on {device:#?}")).clone()
}

fn used(inventory: &Inventory, uuid: &str) -> u64 {
    device(inventory, uuid).used_bytes.unwrap()
}

/// A look that had nothing to complain of.
async fn clean(eye: &Eye) -> Inventory {
    let inventory = eye.refresh().await;
    assert_eq!(inventory.problems, [""; 0], "{inventory:#?}");
    Inventory::clone(&inventory)
}

/// The library without this function, as an older driver has it.
fn library_without(symbol: &str, place: &Path) -> PathBuf {
    let mut bytes = fs::read(driver::library()).unwrap();
    let name = format!("{symbol}\0");
    let at: Vec<usize> =
        bytes.windows(name.len()).enumerate().filter(|(_, w)| *w == name.as_bytes()).map(|w| w.0).collect();
    assert!(!at.is_empty(), "{symbol} is in the library");
    for start in at {
        bytes[start] = b'x';
    }
    fs::write(place, bytes).unwrap();
    place.to_owned()
}

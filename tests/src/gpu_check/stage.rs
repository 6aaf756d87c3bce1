//! The machine under check: its first whole device, looked at as the daemon does, and processes that take its memory.

use std::{
    io::{BufRead, BufReader, Write},
    os::fd::OwnedFd,
    process::{Child, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use wharf_model::{Device, DeviceKind, Inventory, Vendor};
use wharf_runtime::{
    Layout,
    gpu::{Eye, Ground},
};
use wharf_sys::pidfd;

/// What every check has.
pub struct Stage {
    runtime: tokio::runtime::Runtime,
    eye: Eye,
    /// The device whose memory is taken.
    pub uuid: String,
    /// Fewer rounds.
    pub is_short: bool,
    /// Why no memory can be taken, where that is so.
    no_cuda: Option<String>,
    _dir: tempfile::TempDir,
}

/// A process that takes memory. It is killed with the value.
pub struct Part {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Stage {
    pub fn open(is_short: bool) -> Result<Self, String> {
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.map_err(|e| e.to_string())?;
        let mut ground = Ground::of_machine(&Layout::below(dir.path()), "check");
        // The first answer may take as long as the driver takes to start its devices.
        ground.program.deadline = Duration::from_secs(10);
        let eye = Eye::new(ground);
        if !eye.has_sources() {
            return Err("no driver of a GPU is loaded and no device is declared".into());
        }
        let found = runtime.block_on(eye.refresh());
        let is_whole = |device: &&Device| device.vendor == Vendor::Nvidia && device.kind == DeviceKind::Gpu;
        let Some(device) = found.devices.iter().find(is_whole) else {
            return Err(format!("there is no device of NVIDIA's: {}", found.problems.join("; ")));
        };
        if found.devices.iter().any(|part| part.parent.as_ref() == Some(&device.id)) {
            return Err("the device is cut into instances (MIG)".into());
        }
        let uuid = device.id.to_string();
        // In a process of its own: a context here would be in every figure.
        let seen = Self::say(&["count"], &[("CUDA_VISIBLE_DEVICES", &uuid)])?;
        let no_cuda = (seen != "devices 1").then(|| format!("CUDA says {seen:?}"));
        Ok(Self { runtime, eye, uuid, is_short, no_cuda, _dir: dir })
    }

    /// What stands above the report.
    pub fn machine(&self) -> String {
        let found = self.look();
        let device = self.device(&found);
        let kernel = rustix::system::uname();
        let problems = if found.problems.is_empty() { "none".to_owned() } else { found.problems.join("; ") };
        format!(
            "| what | |\n| --- | --- |\n| device | {} `{}` |\n| driver | {} |\n| kernel | {} |\n| memory | {} |\n\
             | limits for cgroups (R615) | {:?} |\n| NUMA node | {:?} |\n| unified, keeps memory | {}, {} |\n\
             | taints | {:?} |\n| problems | {problems} |\n",
            device.name,
            device.id,
            found.sources.join(", "),
            kernel.release().to_string_lossy(),
            super::gib(device.total_bytes),
            device.limits,
            device.numa_node,
            device.unified,
            device.keeps_memory,
            device.taints,
        )
    }

    /// Fails where no memory can be taken.
    pub fn needs_cuda(&self) -> Result<(), String> {
        self.no_cuda.clone().map_or(Ok(()), Err)
    }

    pub fn look(&self) -> Inventory {
        Inventory::clone(&*self.runtime.block_on(self.eye.refresh()))
    }

    /// The pid of the process that asks the driver.
    pub fn asker(&self) -> Option<u32> {
        self.runtime.block_on(self.eye.asker_pid())
    }

    pub fn device<'a>(&self, found: &'a Inventory) -> &'a Device {
        let device = found.devices.iter().find(|device| *device.id.0 == *self.uuid);
        device.unwrap_or_else(|| panic!("the device is gone: {:?}", found.problems))
    }

    /// What is used now, in bytes.
    pub fn used(&self) -> u64 {
        self.device(&self.look()).used_bytes.unwrap_or(0)
    }

    /// Until what is used has not changed for a while, in bytes. Where others work on the device, not for ever.
    pub fn settled(&self) -> u64 {
        let (began, mut last, mut since) = (Instant::now(), self.used(), Instant::now());
        while since.elapsed() < Duration::from_millis(500) && began.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
            let now = self.used();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
        last
    }

    /// A process that does this.
    pub fn start(&self, words: &[&str]) -> Result<Part, String> {
        let mut command = Self::command(words, &[("CUDA_VISIBLE_DEVICES", &self.uuid)])?;
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
        let out = BufReader::new(child.stdout.take().ok_or("it has no output")?);
        Ok(Part { child, out })
    }

    /// What a process says that ends by itself.
    pub fn say(words: &[&str], env: &[(&str, &str)]) -> Result<String, String> {
        let out = Self::command(words, env)?.output().map_err(|e| e.to_string())?;
        Ok(String::from_utf8_lossy(&out.stdout).trim().to_owned())
    }

    fn command(words: &[&str], env: &[(&str, &str)]) -> Result<Command, String> {
        let mut command = Command::new(std::env::current_exe().map_err(|e| e.to_string())?);
        command.args(words).envs(env.iter().copied()).stderr(Stdio::inherit());
        Ok(command)
    }
}

impl Part {
    pub fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Its next line, as words.
    pub fn line(&mut self) -> Result<Vec<String>, String> {
        let mut line = String::new();
        self.out.read_line(&mut line).map_err(|e| e.to_string())?;
        if line.is_empty() {
            return Err("a process that was to take memory has ended; see above".into());
        }
        Ok(line.split_whitespace().map(str::to_owned).collect())
    }

    /// A number of its line.
    pub fn numbers(&mut self) -> Result<Vec<u64>, String> {
        Ok(self.line()?.iter().filter_map(|word| word.parse().ok()).collect())
    }

    pub fn say(&mut self, line: &str) -> Result<(), String> {
        let stdin = self.child.stdin.as_mut().ok_or("it has no input")?;
        stdin.write_all(line.as_bytes()).map_err(|e| e.to_string())
    }

    /// Sends a signal by descriptor, and has the descriptor to watch its end by.
    pub fn signal(&self, signal: i32) -> Result<OwnedFd, String> {
        let process = pidfd::open(self.pid()).map_err(|e| e.to_string())?;
        pidfd::signal(&process, signal).map_err(|e| e.to_string())?;
        Ok(process)
    }
}

//! NVIDIA's driver, asked through NVML. Any call here may take for ever: it runs in a process of its own.
//!
//! Owns the calls and their order. It refuses to judge what they say.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::Path,
};

use nvml_wrapper::{
    Device, EventSet, Nvml,
    bitmasks::event::EventTypes,
    enums::{
        device::{SampleValue, UsedGpuMemory},
        event::XidError,
    },
    error::NvmlError,
    struct_wrappers::device::ProcessInfo,
    structs::device::FieldId,
    sys_exports::field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
};
use wharf_sys::{library, nvml as sys};

use super::reading::{Body, Card, Fault, FaultClass, Limit, Listed, Memory, Reading, Said};

/// Where the library lies on machines whose loader does not know it: WSL, NixOS, managed Kubernetes.
const PLACES: [&str; 5] = [
    "libnvidia-ml.so.1",
    "/usr/lib/wsl/lib/libnvidia-ml.so.1",
    "/run/opengl-driver/lib/libnvidia-ml.so.1",
    "/usr/local/nvidia/lib64/libnvidia-ml.so.1",
    "/usr/lib64/nvidia/libnvidia-ml.so.1",
];

/// `MIG enabled`.
const IS_CUT: u32 = 1;
/// No device has more links.
const LINKS: u32 = 18;
/// A list that grew between the count and the fetch is fetched again so many times.
const FETCHES: usize = 4;

/// The library, open.
pub struct Library {
    nvml: Nvml,
    path: OsString,
}

impl Library {
    /// Opens the named library, or the first of the usual ones.
    pub fn open(named: Option<&OsStr>) -> Result<Self, Said> {
        let usual = PLACES.iter().map(OsStr::new);
        let places: Vec<&OsStr> = named.map_or_else(|| usual.collect(), |path| vec![path]);
        let mut missing = vec![];
        for path in places {
            match Nvml::builder().lib_path(path).init() {
                Ok(nvml) => return Ok(Self { nvml, path: path.to_owned() }),
                Err(NvmlError::LibloadingError(e)) => missing.push(e.to_string()),
                Err(e) => return Err(Said::Refused(fault(&e))),
            }
        }
        Err(Said::NoLibrary(missing.swap_remove(0)))
    }

    /// Everything that can be asked from here on.
    pub fn session(&self) -> Session<'_> {
        let path = Path::new(&self.path);
        Session {
            nvml: &self.nvml,
            events: register(&self.nvml),
            xids: BTreeMap::new(),
            links: BTreeMap::new(),
            library: &self.path,
            is_stand_in: library::loaded_has(path, c"wharf_fake_nvml"),
            has_limits: library::loaded_has(path, c"nvmlDeviceGetMemoryLimits_v1"),
        }
    }
}

/// What is remembered between questions.
pub struct Session<'nvml> {
    nvml: &'nvml Nvml,
    events: Option<EventSet<'nvml>>,
    /// By UUID.
    xids: BTreeMap<String, u64>,
    /// By UUID. Links are where they are.
    links: BTreeMap<String, Vec<String>>,
    library: &'nvml OsStr,
    is_stand_in: bool,
    has_limits: bool,
}

/// Asks to be told of grave errors, of each device that can tell.
fn register(nvml: &Nvml) -> Option<EventSet<'_>> {
    let mut set = nvml.create_event_set().ok()?;
    for index in 0..nvml.device_count().ok()? {
        let Ok(device) = nvml.device_by_index(index) else { continue };
        let can = device.supported_event_types().is_ok_and(|types| types.contains(EventTypes::CRITICAL_XID_ERROR));
        if can {
            // One that fails takes the set with it.
            set = device.register_events(EventTypes::CRITICAL_XID_ERROR, set).ok()?;
        }
    }
    Some(set)
}

impl Session<'_> {
    /// Asks everything of every device.
    pub fn read(&mut self) -> Result<Reading, Fault> {
        self.hear();
        let count = self.nvml.device_count().map_err(|e| fault(&e))?;
        let driver = self.nvml.sys_driver_version().unwrap_or_default();
        let (is_stand_in, has_limits) = (self.is_stand_in, self.has_limits);
        let mut reading = Reading { driver, is_stand_in, has_limits, ..Reading::default() };
        for index in 0..count {
            let nvml = self.nvml;
            match nvml.device_by_index(index).and_then(|device| self.card(index, &device)) {
                Ok(card) => reading.cards.push(card),
                Err(e) => reading.silent.push((index, fault(&e))),
            }
        }
        Ok(reading)
    }

    /// Sets what a cgroup may have of a device.
    pub fn limit(&self, limit: &Limit) -> Result<(), Fault> {
        let path = Path::new(self.library);
        sys::set_memory_limits(path, &limit.uuid, &limit.cgroup, limit.soft, limit.hard).map_err(|code| {
            let class = if sys::means_unknown(code) { FaultClass::NotSupported } else { FaultClass::Other };
            let what = match code {
                4 => "that takes root".to_owned(),
                code => format!("the driver says {code}"),
            };
            Fault { class, text: what }
        })
    }

    /// Takes what errors were told since the last time. It waits for none.
    fn hear(&mut self) {
        let Some(events) = &self.events else { return };
        // Bounded: errors that come faster than they are read must not keep us here.
        for _ in 0..64 {
            let Ok(event) = events.wait(0) else { return };
            if let (Some(XidError::Value(xid)), Ok(uuid)) = (event.event_data, event.device.uuid()) {
                self.xids.insert(uuid, xid);
            }
        }
    }

    fn card(&mut self, index: u32, device: &Device<'_>) -> Result<Card, NvmlError> {
        let body = body(device)?;
        let is_cut = device.mig_mode().is_ok_and(|mode| mode.current == IS_CUT);
        let peers = self.links.entry(body.uuid.clone()).or_insert_with(|| peers(device)).clone();
        Ok(Card {
            index,
            pci: device.pci_info().ok().map(|pci| pci.bus_id),
            is_cut,
            parts: if is_cut { parts(device) } else { vec![] },
            // A device without a node of its own says -1, if it says anything.
            own_node: device.numa_node_id().ok().filter(|node| i32::try_from(*node).is_ok()),
            recovery: recovery(device),
            xid: self.xids.get(&body.uuid).copied(),
            peers,
            body,
        })
    }
}

fn body(device: &Device<'_>) -> Result<Body, NvmlError> {
    let memory = device.memory_info().map(|m| Memory { total: m.total, free: m.free, reserved: m.reserved });
    Ok(Body {
        uuid: device.uuid()?,
        name: device.name().unwrap_or_default(),
        memory: memory.map_err(|e| fault(&e)),
        compute: listed(|| device.running_compute_processes()),
        graphics: listed(|| device.running_graphics_processes()),
        mps: listed(|| device.mps_running_compute_processes()),
    })
}

/// The instances of a device that is cut up. Their handles are asked for anew each time: they die with their instance.
fn parts(device: &Device<'_>) -> Vec<Body> {
    let most = device.mig_device_count().unwrap_or(0);
    (0..most).filter_map(|index| body(&device.mig_device_by_index(index).ok()?).ok()).collect()
}

fn listed(fetch: impl Fn() -> Result<Vec<ProcessInfo>, NvmlError>) -> Result<Vec<Listed>, Fault> {
    let mut last = fetch();
    for _ in 1..FETCHES {
        match last {
            Err(NvmlError::InsufficientSize(_)) => last = fetch(),
            Ok(_) | Err(_) => break,
        }
    }
    let used = |process: &ProcessInfo| match process.used_gpu_memory {
        UsedGpuMemory::Used(bytes) => Some(bytes),
        UsedGpuMemory::Unavailable => None,
    };
    let all = last.map_err(|e| fault(&e))?;
    Ok(all.iter().map(|process| Listed { pid: process.pid, used: used(process) }).collect())
}

fn recovery(device: &Device<'_>) -> Option<u32> {
    let asked = device.field_values_for(&[FieldId(NVML_FI_DEV_GET_GPU_RECOVERY_ACTION)]).ok()?;
    match asked.into_iter().next()?.ok()?.value.ok()? {
        SampleValue::U32(action) => Some(action),
        SampleValue::U64(action) => u32::try_from(action).ok(),
        SampleValue::I64(action) => u32::try_from(action).ok(),
        SampleValue::F64(_) => None,
    }
}

/// Where the active links lead. The first link that is none ends the asking: a card without NVLink has none at all.
fn peers(device: &Device<'_>) -> Vec<String> {
    let mut found = vec![];
    for link in 0..LINKS {
        let link = device.link_wrapper_for(link);
        match link.is_active() {
            Ok(true) => found.extend(link.remote_pci_info().ok().map(|pci| pci.bus_id)),
            Ok(false) => {}
            Err(_) => break,
        }
    }
    found
}

fn fault(e: &NvmlError) -> Fault {
    let class = match e {
        NvmlError::GpuLost => FaultClass::Lost,
        NvmlError::ResetRequired => FaultClass::ResetRequired,
        NvmlError::NotSupported | NvmlError::FunctionNotFound | NvmlError::FailedToLoadSymbol(_) => {
            FaultClass::NotSupported
        }
        NvmlError::NoPermission => FaultClass::NoPermission,
        _ => FaultClass::Other,
    };
    Fault { class, text: e.to_string() }
}

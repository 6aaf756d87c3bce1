//! The functions of NVML that its users call, answered from the file.
//!
//! Owns the C side. Each is as in nvml.h; a null pointer where there must be none is an invalid argument.
#![allow(unsafe_code, reason = "a C library's stand-in speaks C")]
#![allow(non_snake_case, clippy::missing_safety_doc, reason = "the names and the rules are those of nvml.h")]

mod health;
mod limits;
mod lists;
mod shape;

use std::{
    ffi::{c_char, c_uint, c_ulonglong, c_void},
    process,
    sync::Mutex,
    thread,
    time::Duration,
};

use crate::{
    State,
    file::{boot_ms, edit, named, start_ticks},
};

type Return = c_uint;
/// A device or a part: the address of its place in `HANDLES`, as a number and never followed.
type Handle = *mut c_void;

const SUCCESS: Return = 0;
const INVALID_ARGUMENT: Return = 2;
const NOT_SUPPORTED: Return = 3;
const NOT_FOUND: Return = 6;
const INSUFFICIENT_SIZE: Return = 7;
const TIMEOUT: Return = 10;
const GPU_IS_LOST: Return = 15;
const UNKNOWN: Return = 999;

/// UUIDs by handle: a handle is a place here, plus one.
static HANDLES: Mutex<Vec<String>> = Mutex::new(vec![]);

#[repr(C)]
pub struct MemoryV1 {
    total: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

#[repr(C)]
pub struct MemoryV2 {
    version: c_uint,
    total: c_ulonglong,
    reserved: c_ulonglong,
    free: c_ulonglong,
    used: c_ulonglong,
}

#[repr(C)]
pub struct PciInfo {
    bus_id_legacy: [u8; 16],
    domain: c_uint,
    bus: c_uint,
    device: c_uint,
    device_id: c_uint,
    sub_system_id: c_uint,
    bus_id: [u8; 32],
}

/// Tells a reader that the numbers of processes are whatever the file says.
#[unsafe(no_mangle)]
pub extern "C" fn wharf_fake_nvml() {}

/// The state for a call of this name, unless the file wants a fault of it.
fn state(name: &str) -> Result<State, Return> {
    let path = named().ok_or(UNKNOWN)?;
    let bury = |state: &mut State| {
        state.bury(boot_ms(), |pid, ticks| start_ticks(pid) == Some(ticks));
        state.clone()
    };
    let state = edit(&path, bury).map_err(|_| UNKNOWN)?;
    if state.crash.contains(name) {
        // As a driver's bug ends its caller.
        process::abort();
    }
    while state.hang.contains(name) {
        thread::sleep(Duration::from_secs(3600));
    }
    match state.errors.get(name) {
        Some(code) => Err(*code),
        None => Ok(state),
    }
}

/// Does it, as a return code.
fn answer(work: impl FnOnce() -> Result<(), Return>) -> Return {
    work().err().unwrap_or(SUCCESS)
}

fn handle(uuid: &str) -> Handle {
    let mut handles = HANDLES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let at = handles.iter().position(|known| known == uuid).unwrap_or_else(|| {
        handles.push(uuid.to_owned());
        handles.len() - 1
    });
    std::ptr::without_provenance_mut(at + 1)
}

fn uuid(handle: Handle) -> Result<String, Return> {
    let handles = HANDLES.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    handle.addr().checked_sub(1).and_then(|at| handles.get(at).cloned()).ok_or(INVALID_ARGUMENT)
}

/// The device that a handle means, or whose part it means, by its place; and the UUID that was meant.
fn find(state: &State, handle: Handle) -> Result<(usize, String), Return> {
    let uuid = uuid(handle)?;
    let has = |device: &crate::Device| device.uuid == uuid || device.parts.iter().any(|part| part.uuid == uuid);
    let at = state.devices.iter().position(has).ok_or(NOT_FOUND)?;
    if state.devices[at].lost { Err(GPU_IS_LOST) } else { Ok((at, uuid)) }
}

/// All and free of a device or a part.
fn full(state: &State, at: usize, uuid: &str) -> Result<(u64, u64, u64), Return> {
    let (device, now) = (&state.devices[at], boot_ms());
    if device.unified {
        return Err(NOT_SUPPORTED);
    }
    if let Some(part) = device.parts.iter().find(|part| part.uuid == uuid) {
        return Ok((part.total, part.total.saturating_sub(state.taken(uuid, now)), 0));
    }
    let uuids = device.parts.iter().map(|part| part.uuid.as_str()).chain([uuid]);
    let taken = uuids.fold(device.reserved.saturating_add(device.unattributed), |sum, uuid| {
        sum.saturating_add(state.taken(uuid, now))
    });
    Ok((device.total, device.total.saturating_sub(taken), device.reserved))
}

/// # Safety
/// `text` is null or has room for `length` bytes.
unsafe fn put_text(text: *mut c_char, length: c_uint, value: &str) -> Result<(), Return> {
    let length = usize::try_from(length).unwrap_or(0);
    if text.is_null() || value.len() >= length {
        return Err(if text.is_null() { INVALID_ARGUMENT } else { INSUFFICIENT_SIZE });
    }
    // SAFETY: the room is the caller's, and enough for the bytes and the nul.
    unsafe {
        std::ptr::copy_nonoverlapping(value.as_ptr(), text.cast(), value.len());
        *text.add(value.len()) = 0;
    }
    Ok(())
}

fn pci(at: usize) -> PciInfo {
    let bus = c_uint::try_from(at).unwrap_or(0) + 1;
    let mut info = PciInfo {
        bus_id_legacy: [0; 16],
        domain: 0,
        bus,
        device: 0,
        device_id: 0x2335_10de,
        sub_system_id: 0,
        bus_id: [0; 32],
    };
    for (to, from) in info.bus_id.iter_mut().zip(format!("00000000:{bus:02X}:00.0").bytes()) {
        *to = from;
    }
    info
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlInit_v2() -> Return {
    answer(|| state("nvmlInit_v2").map(drop))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlShutdown() -> Return {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlSystemGetDriverVersion(text: *mut c_char, length: c_uint) -> Return {
    answer(|| {
        let state = state("nvmlSystemGetDriverVersion")?;
        // SAFETY: as the caller promises.
        unsafe { put_text(text, length, state.driver.as_deref().unwrap_or("999.0")) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetCount_v2(count: Option<&mut c_uint>) -> Return {
    answer(|| {
        let devices = state("nvmlDeviceGetCount_v2")?.devices.len();
        *count.ok_or(INVALID_ARGUMENT)? = c_uint::try_from(devices).unwrap_or(0);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: Option<&mut Handle>) -> Return {
    answer(|| {
        let state = state("nvmlDeviceGetHandleByIndex_v2")?;
        let found = state.devices.get(usize::try_from(index).unwrap_or(usize::MAX)).ok_or(INVALID_ARGUMENT)?;
        if found.lost {
            return Err(GPU_IS_LOST);
        }
        *device.ok_or(INVALID_ARGUMENT)? = handle(&found.uuid);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetUUID(device: Handle, text: *mut c_char, length: c_uint) -> Return {
    answer(|| {
        let (_, uuid) = find(&state("nvmlDeviceGetUUID")?, device)?;
        // SAFETY: as the caller promises.
        unsafe { put_text(text, length, &uuid) }
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetName(device: Handle, text: *mut c_char, length: c_uint) -> Return {
    answer(|| {
        find(&state("nvmlDeviceGetName")?, device)?;
        // SAFETY: as the caller promises.
        unsafe { put_text(text, length, "NVIDIA Stand-in") }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetPciInfo_v3(device: Handle, info: Option<&mut PciInfo>) -> Return {
    answer(|| {
        let (at, _) = find(&state("nvmlDeviceGetPciInfo_v3")?, device)?;
        *info.ok_or(INVALID_ARGUMENT)? = pci(at);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMemoryInfo(device: Handle, memory: Option<&mut MemoryV1>) -> Return {
    answer(|| {
        let state = state("nvmlDeviceGetMemoryInfo")?;
        let (at, uuid) = find(&state, device)?;
        let (total, free, _) = full(&state, at, &uuid)?;
        *memory.ok_or(INVALID_ARGUMENT)? = MemoryV1 { total, free, used: total - free };
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMemoryInfo_v2(device: Handle, memory: Option<&mut MemoryV2>) -> Return {
    answer(|| {
        let state = state("nvmlDeviceGetMemoryInfo_v2")?;
        let memory = memory.ok_or(INVALID_ARGUMENT)?;
        if usize::try_from(memory.version).ok() != Some(size_of::<MemoryV2>() | 2 << 24) {
            return Err(INVALID_ARGUMENT);
        }
        let (at, uuid) = find(&state, device)?;
        let (total, free, reserved) = full(&state, at, &uuid)?;
        // As an A100 does: what is reserved is neither free nor used.
        let used = total.saturating_sub(free).saturating_sub(reserved);
        *memory = MemoryV2 { version: memory.version, total, reserved, free, used };
        Ok(())
    })
}

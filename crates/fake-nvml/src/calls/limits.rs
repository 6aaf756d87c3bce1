//! Limits of device memory for cgroups, as R615 has them.
#![allow(unsafe_code, reason = "a C library's stand-in speaks C")]
#![allow(non_snake_case, clippy::missing_safety_doc, reason = "the names and the rules are those of nvml.h")]

use std::ffi::{CStr, c_char, c_ulonglong};

use super::{Handle, INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, Return, answer, find, handle, state};
use crate::{
    Limit, State,
    file::{edit, named},
};

#[repr(C)]
pub struct SetLimits {
    name_space: *const c_char,
    soft: c_ulonglong,
    hard: c_ulonglong,
}

#[repr(C)]
pub struct GetLimits {
    name_space: *const c_char,
    soft: c_ulonglong,
    hard: c_ulonglong,
    used: c_ulonglong,
}

/// # Safety
/// `text` is null, or ends with a nul.
unsafe fn read(text: *const c_char) -> Result<String, Return> {
    if text.is_null() {
        return Err(INVALID_ARGUMENT);
    }
    // SAFETY: as the caller promises.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(str::to_owned).map_err(|_| INVALID_ARGUMENT)
}

/// A whole device: parts have none.
fn known(state: &State, device: Handle) -> Result<String, Return> {
    let (at, uuid) = find(state, device)?;
    if state.devices[at].parts.is_empty() { Ok(uuid) } else { Err(NOT_SUPPORTED) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: Option<&mut Handle>) -> Return {
    answer(|| {
        let state = state("nvmlDeviceGetHandleByUUID")?;
        // SAFETY: as the caller promises.
        let uuid = unsafe { read(uuid) }?;
        let found = state.devices.iter().find(|device| device.uuid == uuid).ok_or(NOT_FOUND)?;
        *device.ok_or(INVALID_ARGUMENT)? = handle(&found.uuid);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceSetMemoryLimits_v1(device: Handle, limits: Option<&SetLimits>) -> Return {
    answer(|| {
        let uuid = known(&state("nvmlDeviceSetMemoryLimits_v1")?, device)?;
        let limits = limits.ok_or(INVALID_ARGUMENT)?;
        // SAFETY: as the caller promises.
        let cgroup = unsafe { read(limits.name_space) }?;
        let (soft, hard) = (limits.soft, limits.hard);
        let path = named().ok_or(NOT_FOUND)?;
        let set = |state: &mut State| {
            state.limits.retain(|limit| limit.device != uuid || limit.cgroup != cgroup);
            state.limits.push(Limit { device: uuid.clone(), cgroup: cgroup.clone(), soft, hard });
        };
        edit(&path, set).map_err(|_| NOT_FOUND)
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMemoryLimits_v1(device: Handle, limits: Option<&mut GetLimits>) -> Return {
    answer(|| {
        let state = state("nvmlDeviceGetMemoryLimits_v1")?;
        let uuid = known(&state, device)?;
        let limits = limits.ok_or(INVALID_ARGUMENT)?;
        // SAFETY: as the caller promises.
        let cgroup = unsafe { read(limits.name_space) }?;
        let set = state.limits.iter().find(|limit| limit.device == uuid && limit.cgroup == cgroup);
        (limits.soft, limits.hard) = set.map_or((0, u64::MAX), |set| (set.soft, set.hard));
        limits.used = 0;
        Ok(())
    })
}

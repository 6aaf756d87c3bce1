//! Who has memory on a device.
#![allow(unsafe_code, reason = "a C library's stand-in speaks C")]
#![allow(non_snake_case, clippy::missing_safety_doc, reason = "the names and the rules are those of nvml.h")]

use std::ffi::{c_uint, c_ulonglong};

use super::{Handle, INSUFFICIENT_SIZE, INVALID_ARGUMENT, Return, answer, find, state};
use crate::{
    Kind,
    file::{boot_ms, edit, named},
};

/// `NVML_VALUE_NOT_AVAILABLE` of 64 bits.
const NOT_AVAILABLE: c_ulonglong = c_ulonglong::MAX;

#[repr(C)]
pub struct ProcessInfo {
    pid: c_uint,
    used: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// # Safety
/// `infos` is null or has room for `count` entries.
unsafe fn list(name: &str, kind: Kind, device: Handle, count: *mut c_uint, infos: *mut ProcessInfo) -> Return {
    answer(|| {
        let state = state(name)?;
        let (_, uuid) = find(&state, device)?;
        if count.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        // SAFETY: not null, and the caller's.
        let room = unsafe { *count };
        let found = state.listed(&uuid, kind, boot_ms());
        // SAFETY: as above.
        unsafe { *count = c_uint::try_from(found.len()).unwrap_or(0) };
        let grows = !infos.is_null() && state.growing_lists > 0;
        if grows {
            let _ =
                named().map(|path| edit(&path, |state| state.growing_lists = state.growing_lists.saturating_sub(1)));
        }
        if grows || usize::try_from(room).unwrap_or(0) < found.len() {
            return Err(INSUFFICIENT_SIZE);
        }
        for (at, process) in found.iter().enumerate().filter(|_| !infos.is_null()) {
            let info = ProcessInfo {
                pid: process.pid.cast_unsigned(),
                used: if process.not_available { NOT_AVAILABLE } else { process.bytes },
                gpu_instance: c_uint::MAX,
                compute_instance: c_uint::MAX,
            };
            // SAFETY: there is room for all that were found.
            unsafe { infos.add(at).write(info) };
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetComputeRunningProcesses_v3(
    device: Handle,
    count: *mut c_uint,
    infos: *mut ProcessInfo,
) -> Return {
    // SAFETY: as the caller promises.
    unsafe { list("nvmlDeviceGetComputeRunningProcesses_v3", Kind::Compute, device, count, infos) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetGraphicsRunningProcesses_v3(
    device: Handle,
    count: *mut c_uint,
    infos: *mut ProcessInfo,
) -> Return {
    // SAFETY: as the caller promises.
    unsafe { list("nvmlDeviceGetGraphicsRunningProcesses_v3", Kind::Graphics, device, count, infos) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetMPSComputeRunningProcesses_v3(
    device: Handle,
    count: *mut c_uint,
    infos: *mut ProcessInfo,
) -> Return {
    // SAFETY: as the caller promises.
    unsafe { list("nvmlDeviceGetMPSComputeRunningProcesses_v3", Kind::Mps, device, count, infos) }
}

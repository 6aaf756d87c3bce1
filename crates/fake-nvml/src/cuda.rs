//! The functions of CUDA's driver that a program needs to take memory, over the same file.
//!
//! Owns the C side. With a link named libcuda.so.1 to this library, the check of a machine can be tried without one.
#![allow(unsafe_code, reason = "a C library's stand-in speaks C")]
#![allow(non_snake_case, clippy::missing_safety_doc, reason = "the names and the rules are those of cuda.h")]

use std::{
    env,
    ffi::{c_char, c_int, c_uint, c_void},
    process,
};

use crate::{
    Kind, Process, State,
    file::{boot_ms, edit, named, read, start_ticks},
};

type Return = c_int;

const SUCCESS: Return = 0;
const INVALID_VALUE: Return = 1;
const OUT_OF_MEMORY: Return = 2;
const NO_DEVICE: Return = 100;
const NOT_FOUND: Return = 500;
/// What a context costs by itself, in bytes.
const CONTEXT: u64 = 500 << 20;

/// The UUIDs that this process is shown: full names only, and none after a wrong one.
fn shown(state: &State) -> Vec<String> {
    let all = state.devices.iter().map(|device| device.uuid.clone());
    match env::var("CUDA_VISIBLE_DEVICES") {
        Ok(names) => names
            .split(',')
            .map(str::to_owned)
            .take_while(|name| state.devices.iter().any(|device| device.uuid == *name))
            .collect(),
        Err(_) => all.collect(),
    }
}

/// Changes what this process has of its first device.
fn change(more: u64) -> Result<(), Return> {
    let path = named().ok_or(NO_DEVICE)?;
    let pid = process::id().cast_signed();
    let take = |state: &mut State| {
        let uuid = shown(state).into_iter().next().ok_or(NO_DEVICE)?;
        state.bury(boot_ms(), |pid, ticks| start_ticks(pid) == Some(ticks));
        let device = state.devices.iter().find(|device| device.uuid == uuid).ok_or(NO_DEVICE)?;
        let taken = state.taken(&uuid, boot_ms()) + device.reserved + device.unattributed;
        if more > device.total.saturating_sub(taken) {
            return Err(OUT_OF_MEMORY);
        }
        let own = state.processes.iter_mut().find(|p| p.pid == pid && p.device == uuid && p.gone_ms.is_none());
        match own {
            Some(own) => own.bytes += more,
            None => state.processes.push(Process {
                pid,
                start_ticks: start_ticks(pid).unwrap_or(0),
                device: uuid,
                bytes: more,
                kind: Kind::Compute,
                ..Process::default()
            }),
        }
        Ok(())
    };
    edit(&path, take).map_err(|_| NO_DEVICE)?
}

fn answer(work: impl FnOnce() -> Result<(), Return>) -> Return {
    work().err().unwrap_or(SUCCESS)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(_: c_uint) -> Return {
    answer(|| {
        let state = named().and_then(|path| read(&path).ok()).ok_or(NO_DEVICE)?;
        if shown(&state).is_empty() { Err(NO_DEVICE) } else { Ok(()) }
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGetCount(count: Option<&mut c_int>) -> Return {
    answer(|| {
        let state = named().and_then(|path| read(&path).ok()).ok_or(NO_DEVICE)?;
        *count.ok_or(INVALID_VALUE)? = c_int::try_from(shown(&state).len()).unwrap_or(0);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDeviceGet(device: Option<&mut c_int>, ordinal: c_int) -> Return {
    answer(|| {
        *device.ok_or(INVALID_VALUE)? = ordinal;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuDevicePrimaryCtxRetain(context: Option<&mut *mut c_void>, _: c_int) -> Return {
    answer(|| {
        change(CONTEXT)?;
        *context.ok_or(INVALID_VALUE)? = std::ptr::without_provenance_mut(1);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSetCurrent(_: *mut c_void) -> Return {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemAlloc_v2(address: Option<&mut u64>, bytes: usize) -> Return {
    answer(|| {
        change(bytes as u64)?;
        *address.ok_or(INVALID_VALUE)? = 1 << 20;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemGetInfo_v2(free: Option<&mut usize>, all: Option<&mut usize>) -> Return {
    answer(|| {
        let state = named().and_then(|path| read(&path).ok()).ok_or(NO_DEVICE)?;
        let uuid = shown(&state).into_iter().next().ok_or(NO_DEVICE)?;
        let device = state.devices.iter().find(|device| device.uuid == uuid).ok_or(NO_DEVICE)?;
        let taken = state.taken(&uuid, boot_ms()) + device.reserved + device.unattributed;
        let number = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        *free.ok_or(INVALID_VALUE)? = number(device.total.saturating_sub(taken));
        *all.ok_or(INVALID_VALUE)? = number(device.total);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuGetErrorName(code: Return, name: Option<&mut *const c_char>) -> Return {
    answer(|| {
        *name.ok_or(INVALID_VALUE)? = match code {
            OUT_OF_MEMORY => c"CUDA_ERROR_OUT_OF_MEMORY".as_ptr(),
            NO_DEVICE => c"CUDA_ERROR_NO_DEVICE".as_ptr(),
            _ => c"CUDA_ERROR_UNKNOWN".as_ptr(),
        };
        Ok(())
    })
}

/// Moves all that a process has, but for a rest, to a place that is no device; or back.
fn moved(pid: c_int, off: bool) -> Return {
    answer(|| {
        let path = named().ok_or(NO_DEVICE)?;
        let work = |state: &mut State| {
            let own = state.processes.iter_mut().find(|p| p.pid == pid && p.gone_ms.is_none()).ok_or(NOT_FOUND)?;
            let away = own.device.strip_prefix("off ").map(str::to_owned);
            own.device = match (off, away) {
                (true, None) => format!("off {}", own.device),
                (false, Some(back)) => back,
                (true, Some(_)) | (false, None) => return Err(INVALID_VALUE),
            };
            Ok(())
        };
        edit(&path, work).map_err(|_| NO_DEVICE)?
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCheckpointProcessLock(_: c_int, _: *mut c_void) -> Return {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCheckpointProcessCheckpoint(pid: c_int, _: *mut c_void) -> Return {
    moved(pid, true)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCheckpointProcessRestore(pid: c_int, _: *mut c_void) -> Return {
    moved(pid, false)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCheckpointProcessUnlock(_: c_int, _: *mut c_void) -> Return {
    SUCCESS
}

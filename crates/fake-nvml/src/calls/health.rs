//! Advice, errors, and limits.
#![allow(unsafe_code, reason = "a C library's stand-in speaks C")]
#![allow(non_snake_case, clippy::missing_safety_doc, reason = "the names and the rules are those of nvml.h")]

use std::ffi::{c_int, c_uint, c_ulonglong};

use super::{Handle, INVALID_ARGUMENT, NOT_SUPPORTED, Return, SUCCESS, TIMEOUT, answer, find, handle, state};
use crate::{
    State,
    file::{edit, named},
};

/// `nvmlEventTypeXidCriticalError`.
const XID: c_ulonglong = 8;
/// `NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`.
const RECOVERY: c_uint = 230;

#[repr(C)]
pub struct FieldValue {
    field: c_uint,
    scope: c_uint,
    timestamp: i64,
    latency: i64,
    kind: c_uint,
    outcome: Return,
    value: c_ulonglong,
}

#[repr(C)]
pub struct EventData {
    device: Handle,
    kind: c_ulonglong,
    data: c_ulonglong,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

/// # Safety
/// `values` is null or has `count` entries.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nvmlDeviceGetFieldValues(device: Handle, count: c_int, values: *mut FieldValue) -> Return {
    answer(|| {
        let state = state("nvmlDeviceGetFieldValues")?;
        let (at, _) = find(&state, device)?;
        if values.is_null() {
            return Err(INVALID_ARGUMENT);
        }
        for place in 0..usize::try_from(count).unwrap_or(0) {
            // SAFETY: the caller promises so many entries.
            let value = unsafe { &mut *values.add(place) };
            value.outcome = if value.field == RECOVERY { SUCCESS } else { NOT_SUPPORTED };
            // An unsigned int.
            (value.kind, value.value) = (1, c_ulonglong::from(state.devices[at].recovery));
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetCreate(set: Option<&mut Handle>) -> Return {
    answer(|| {
        state("nvmlEventSetCreate")?;
        *set.ok_or(INVALID_ARGUMENT)? = std::ptr::without_provenance_mut(1);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetFree(_: Handle) -> Return {
    SUCCESS
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetSupportedEventTypes(device: Handle, types: Option<&mut c_ulonglong>) -> Return {
    answer(|| {
        find(&state("nvmlDeviceGetSupportedEventTypes")?, device)?;
        *types.ok_or(INVALID_ARGUMENT)? = XID;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceRegisterEvents(device: Handle, _: c_ulonglong, _: Handle) -> Return {
    answer(|| find(&state("nvmlDeviceRegisterEvents")?, device).map(drop))
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlEventSetWait_v2(_: Handle, data: Option<&mut EventData>, _: c_uint) -> Return {
    answer(|| {
        let state = state("nvmlEventSetWait_v2")?;
        let told = state.devices.iter().find_map(|device| Some((device.uuid.clone(), device.xid?)));
        let (uuid, xid) = told.ok_or(TIMEOUT)?;
        let once = |state: &mut State| state.devices.iter_mut().filter(|d| d.uuid == uuid).for_each(|d| d.xid = None);
        named().map(|path| edit(&path, once));
        *data.ok_or(INVALID_ARGUMENT)? =
            EventData { device: handle(&uuid), kind: XID, data: xid, gpu_instance: 0, compute_instance: 0 };
        Ok(())
    })
}

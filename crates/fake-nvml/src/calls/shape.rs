//! How devices are cut up, and how they reach each other.
#![allow(unsafe_code, reason = "a C library's stand-in speaks C")]
#![allow(non_snake_case, clippy::missing_safety_doc, reason = "the names and the rules are those of nvml.h")]

use std::ffi::c_uint;

use super::{Handle, INVALID_ARGUMENT, NOT_FOUND, NOT_SUPPORTED, PciInfo, Return, answer, find, handle, pci, state};

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMigMode(
    device: Handle,
    current: Option<&mut c_uint>,
    pending: Option<&mut c_uint>,
) -> Return {
    answer(|| {
        let state = state("nvmlDeviceGetMigMode")?;
        let (at, _) = find(&state, device)?;
        let mode = c_uint::from(!state.devices[at].parts.is_empty());
        *current.ok_or(INVALID_ARGUMENT)? = mode;
        *pending.ok_or(INVALID_ARGUMENT)? = mode;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMaxMigDeviceCount(device: Handle, count: Option<&mut c_uint>) -> Return {
    answer(|| {
        find(&state("nvmlDeviceGetMaxMigDeviceCount")?, device)?;
        *count.ok_or(INVALID_ARGUMENT)? = 7;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetMigDeviceHandleByIndex(
    device: Handle,
    index: c_uint,
    part: Option<&mut Handle>,
) -> Return {
    answer(|| {
        let state = state("nvmlDeviceGetMigDeviceHandleByIndex")?;
        let (at, _) = find(&state, device)?;
        let found = state.devices[at].parts.get(usize::try_from(index).unwrap_or(usize::MAX)).ok_or(NOT_FOUND)?;
        *part.ok_or(INVALID_ARGUMENT)? = handle(&found.uuid);
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetNumaNodeId(device: Handle, node: Option<&mut c_uint>) -> Return {
    answer(|| {
        let state = state("nvmlDeviceGetNumaNodeId")?;
        let (at, _) = find(&state, device)?;
        *node.ok_or(INVALID_ARGUMENT)? = state.devices[at].node.ok_or(NOT_SUPPORTED)?;
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetNvLinkState(device: Handle, link: c_uint, active: Option<&mut c_uint>) -> Return {
    answer(|| {
        let state = state("nvmlDeviceGetNvLinkState")?;
        let (at, _) = find(&state, device)?;
        let links = &state.devices[at].links;
        if links.is_empty() {
            return Err(NOT_SUPPORTED);
        }
        *active.ok_or(INVALID_ARGUMENT)? = c_uint::from(usize::try_from(link).is_ok_and(|link| link < links.len()));
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "C" fn nvmlDeviceGetNvLinkRemotePciInfo_v2(
    device: Handle,
    link: c_uint,
    info: Option<&mut PciInfo>,
) -> Return {
    answer(|| {
        let state = state("nvmlDeviceGetNvLinkRemotePciInfo_v2")?;
        let (at, _) = find(&state, device)?;
        let links = &state.devices[at].links;
        let remote = usize::try_from(link).ok().and_then(|link| links.get(link)).ok_or(INVALID_ARGUMENT)?;
        *info.ok_or(INVALID_ARGUMENT)? = pci(usize::try_from(*remote).unwrap_or(0));
        Ok(())
    })
}

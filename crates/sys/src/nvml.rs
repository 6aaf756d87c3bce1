//! What NVML can do that its wrapper does not know: limits of device memory for cgroups (R615).
//!
//! The shapes are those of nvml.h: `nvmlSetMemoryLimits_v1_t` is a path and two numbers, without a version. Calls may
//! take for ever, as every call of that library: they belong into a process of their own.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_ulonglong, c_void},
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr,
};

/// No limit: `NVML_DEVICE_MEMORY_LIMIT_MAX`.
pub const NO_LIMIT: u64 = u64::MAX;
/// `NVML_ERROR_INVALID_ARGUMENT`: also of a text that is none.
const INVALID_ARGUMENT: c_int = 2;
/// `NVML_ERROR_NOT_SUPPORTED`.
const NOT_SUPPORTED: c_int = 3;
/// `NVML_ERROR_FUNCTION_NOT_FOUND`: also where the library is too old.
const FUNCTION_NOT_FOUND: c_int = 13;

#[repr(C)]
struct SetLimits {
    name_space: *const c_char,
    soft: c_ulonglong,
    hard: c_ulonglong,
}

type ByUuid = unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> c_int;
type Set = unsafe extern "C" fn(*mut c_void, *const SetLimits) -> c_int;

/// What the processes of a cgroup may have of a device, in bytes: soft, hard. `library` was loaded by this name, and
/// `nvmlInit` was called.
///
/// # Errors
/// NVML's code.
pub fn set_memory_limits(library: &Path, uuid: &str, cgroup: &Path, soft: u64, hard: u64) -> Result<(), i32> {
    let library = Loaded::find(library)?;
    let (device, name) = (library.device(uuid)?, text(cgroup.as_os_str().as_bytes())?);
    let set = library.symbol(c"nvmlDeviceSetMemoryLimits_v1")?;
    // SAFETY: nvmlReturn_t nvmlDeviceSetMemoryLimits_v1(nvmlDevice_t, nvmlSetMemoryLimits_v1_t *).
    let set: Set = unsafe { std::mem::transmute(set) };
    let limits = SetLimits { name_space: name.as_ptr(), soft, hard };
    // SAFETY: the handle is NVML's own, the struct and the text live until the call is over.
    done(unsafe { set(device, &limits) })
}

/// The code means that there are no such limits here, and not that a call went wrong.
pub fn means_unknown(code: i32) -> bool {
    matches!(code, NOT_SUPPORTED | FUNCTION_NOT_FOUND)
}

fn done(code: c_int) -> Result<(), i32> {
    if code == 0 { Ok(()) } else { Err(code) }
}

fn text(bytes: &[u8]) -> Result<CString, i32> {
    CString::new(bytes).map_err(|_| INVALID_ARGUMENT)
}

/// A library that is loaded, held once more.
struct Loaded(*mut c_void);

impl Loaded {
    fn find(library: &Path) -> Result<Self, i32> {
        let name = text(library.as_os_str().as_bytes())?;
        // SAFETY: the name is nul-terminated. With NOLOAD nothing is loaded and no code of the library runs.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_LAZY) };
        if handle.is_null() { Err(FUNCTION_NOT_FOUND) } else { Ok(Self(handle)) }
    }

    fn symbol(&self, name: &CStr) -> Result<*mut c_void, i32> {
        // SAFETY: the handle is open, the name nul-terminated.
        let found = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        if found.is_null() { Err(FUNCTION_NOT_FOUND) } else { Ok(found) }
    }

    fn device(&self, uuid: &str) -> Result<*mut c_void, i32> {
        let by_uuid = self.symbol(c"nvmlDeviceGetHandleByUUID")?;
        // SAFETY: nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *, nvmlDevice_t *).
        let by_uuid: ByUuid = unsafe { std::mem::transmute(by_uuid) };
        let (uuid, mut device) = (text(uuid.as_bytes())?, ptr::null_mut());
        // SAFETY: both pointers are valid until the call is over.
        done(unsafe { by_uuid(uuid.as_ptr(), &mut device) })?;
        Ok(device)
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: our own handle, which held the library once more.
        unsafe { libc::dlclose(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_loaded_or_is_another_one_knows_no_limits() {
        for library in ["libnvidia-ml.so.1", "libc.so.6"] {
            let code = set_memory_limits(Path::new(library), "GPU-1", Path::new("/sys/fs/cgroup/x"), 0, 1).unwrap_err();
            assert!(means_unknown(code), "{library}: {code}");
        }
        assert!(!means_unknown(4), "no permission");
    }
}

//! What a library that is loaded already can do.

use std::{
    ffi::{CStr, CString},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// Whether the library that was loaded by this name or path has this symbol. One that is not loaded has none.
pub fn loaded_has(library: &Path, symbol: &CStr) -> bool {
    let Ok(name) = CString::new(library.as_os_str().as_bytes()) else { return false };
    // SAFETY: the name is nul-terminated. With NOLOAD nothing is loaded and no code of the library runs.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_LAZY) };
    if handle.is_null() {
        return false;
    }
    // SAFETY: the handle is open, the symbol nul-terminated; the address is only compared.
    let found = unsafe { !libc::dlsym(handle, symbol.as_ptr()).is_null() };
    // SAFETY: our own handle, which held the library once more.
    unsafe { libc::dlclose(handle) };
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_are_found_only_in_what_is_loaded() {
        let libc = Path::new("libc.so.6");
        assert!(loaded_has(libc, c"malloc"));
        assert!(!loaded_has(libc, c"nvmlInit_v2"));
        assert!(!loaded_has(Path::new("libnvidia-ml.so.1"), c"nvmlInit_v2"));
    }
}

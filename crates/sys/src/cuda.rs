//! CUDA's driver, as far as a check of a machine needs it: contexts, allocations, checkpoints. No toolkit is needed.

use std::{
    ffi::{CStr, c_char, c_int, c_uint, c_void},
    fmt, ptr,
};

/// A call that failed: its name and CUDA's code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CudaError {
    /// The function.
    pub call: &'static str,
    /// `CUresult`; 0: the library or the function is not there.
    pub code: c_int,
    /// CUDA's name for it, or the loader's words.
    pub text: String,
}

impl fmt::Display for CudaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.call, self.text, self.code)
    }
}

impl std::error::Error for CudaError {}

/// `CUDA_ERROR_OUT_OF_MEMORY`.
pub const OUT_OF_MEMORY: c_int = 2;

/// Where the library lies, also on machines whose loader does not know it.
const PLACES: [&CStr; 3] = [c"libcuda.so.1", c"/usr/local/nvidia/lib64/libcuda.so.1", c"/usr/lib/wsl/lib/libcuda.so.1"];

/// One step of taking a process off its devices and bringing it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Its calls wait.
    Lock,
    /// Its device memory goes to the machine's.
    Checkpoint,
    /// It comes back.
    Restore,
    /// Its calls go on.
    Unlock,
}

/// The library, open and initialised. It stays loaded until the process ends, as CUDA wants it.
pub struct Cuda {
    library: *mut c_void,
}

impl Cuda {
    /// Loads libcuda.so.1 and initialises it, which opens the devices that `CUDA_VISIBLE_DEVICES` leaves.
    pub fn open() -> Result<Self, CudaError> {
        let load = |place: &&CStr| {
            // SAFETY: the name is nul-terminated; the library's own initialisers run, as in every CUDA program.
            let library = unsafe { libc::dlopen(place.as_ptr(), libc::RTLD_NOW) };
            (!library.is_null()).then_some(library)
        };
        let missing = || CudaError { call: "dlopen", code: 0, text: "libcuda.so.1 is not there".into() };
        let library = PLACES.iter().find_map(load).ok_or_else(missing)?;
        let cuda = Self { library };
        let init = cuda.find("cuInit", c"cuInit")?;
        // SAFETY: CUresult cuInit(unsigned int).
        let init: extern "C" fn(c_uint) -> c_int = unsafe { std::mem::transmute(init) };
        cuda.checked("cuInit", init(0))?;
        Ok(cuda)
    }

    /// How many devices it sees.
    pub fn devices(&self) -> Result<i32, CudaError> {
        let count = self.find("cuDeviceGetCount", c"cuDeviceGetCount")?;
        // SAFETY: CUresult cuDeviceGetCount(int *).
        let count: extern "C" fn(&mut c_int) -> c_int = unsafe { std::mem::transmute(count) };
        let mut devices = 0;
        self.checked("cuDeviceGetCount", count(&mut devices))?;
        Ok(devices)
    }

    /// Makes the context of the first device and works in it from now on.
    pub fn enter_first(&self) -> Result<(), CudaError> {
        let get = self.find("cuDeviceGet", c"cuDeviceGet")?;
        let retain = self.find("cuDevicePrimaryCtxRetain", c"cuDevicePrimaryCtxRetain")?;
        let set = self.find("cuCtxSetCurrent", c"cuCtxSetCurrent")?;
        // SAFETY: CUresult cuDeviceGet(CUdevice *, int); CUdevice is an int.
        let get: extern "C" fn(&mut c_int, c_int) -> c_int = unsafe { std::mem::transmute(get) };
        // SAFETY: CUresult cuDevicePrimaryCtxRetain(CUcontext *, CUdevice); CUcontext is a pointer.
        let retain: extern "C" fn(&mut *mut c_void, c_int) -> c_int = unsafe { std::mem::transmute(retain) };
        // SAFETY: CUresult cuCtxSetCurrent(CUcontext).
        let set: extern "C" fn(*mut c_void) -> c_int = unsafe { std::mem::transmute(set) };
        let (mut device, mut context) = (0, ptr::null_mut());
        self.checked("cuDeviceGet", get(&mut device, 0))?;
        self.checked("cuDevicePrimaryCtxRetain", retain(&mut context, device))?;
        self.checked("cuCtxSetCurrent", set(context))
    }

    /// Takes so many bytes of the device, until the process ends.
    pub fn take(&self, bytes: usize) -> Result<(), CudaError> {
        let allocate = self.find("cuMemAlloc", c"cuMemAlloc_v2")?;
        // SAFETY: CUresult cuMemAlloc_v2(CUdeviceptr *, size_t); CUdeviceptr is 64 bits wide.
        let allocate: extern "C" fn(&mut u64, usize) -> c_int = unsafe { std::mem::transmute(allocate) };
        let mut address = 0;
        self.checked("cuMemAlloc", allocate(&mut address, bytes))
    }

    /// Free and all bytes of the device, as CUDA tells them.
    pub fn memory(&self) -> Result<(u64, u64), CudaError> {
        let info = self.find("cuMemGetInfo", c"cuMemGetInfo_v2")?;
        // SAFETY: CUresult cuMemGetInfo_v2(size_t *, size_t *).
        let info: extern "C" fn(&mut usize, &mut usize) -> c_int = unsafe { std::mem::transmute(info) };
        let (mut free, mut all) = (0, 0);
        self.checked("cuMemGetInfo", info(&mut free, &mut all))?;
        Ok((free as u64, all as u64))
    }

    /// One step with another process of this user. Driver 570 and newer.
    pub fn checkpoint(&self, pid: i32, step: Step) -> Result<(), CudaError> {
        let (call, symbol) = match step {
            Step::Lock => ("cuCheckpointProcessLock", c"cuCheckpointProcessLock"),
            Step::Checkpoint => ("cuCheckpointProcessCheckpoint", c"cuCheckpointProcessCheckpoint"),
            Step::Restore => ("cuCheckpointProcessRestore", c"cuCheckpointProcessRestore"),
            Step::Unlock => ("cuCheckpointProcessUnlock", c"cuCheckpointProcessUnlock"),
        };
        let function = self.find(call, symbol)?;
        // SAFETY: CUresult f(int pid, args *); the arguments of all four are structures of 64 bytes, in which
        // zero means the default. That of the lock begins with its limit in milliseconds.
        let function: extern "C" fn(c_int, &mut [u64; 8]) -> c_int = unsafe { std::mem::transmute(function) };
        let mut args = [0; 8];
        if step == Step::Lock {
            args[0] = 30_000;
        }
        self.checked(call, function(pid, &mut args))
    }

    fn find(&self, call: &'static str, symbol: &CStr) -> Result<*mut c_void, CudaError> {
        // SAFETY: the handle is open and the name nul-terminated.
        let found = unsafe { libc::dlsym(self.library, symbol.as_ptr()) };
        if found.is_null() {
            return Err(CudaError { call, code: 0, text: "this driver does not have it".into() });
        }
        Ok(found)
    }

    fn checked(&self, call: &'static str, code: c_int) -> Result<(), CudaError> {
        if code == 0 {
            return Ok(());
        }
        let text = self.name_of(code).unwrap_or_else(|| "an error without a name".to_owned());
        Err(CudaError { call, code, text })
    }

    fn name_of(&self, code: c_int) -> Option<String> {
        let name = self.find("cuGetErrorName", c"cuGetErrorName").ok()?;
        // SAFETY: CUresult cuGetErrorName(CUresult, const char **).
        let name: extern "C" fn(c_int, &mut *const c_char) -> c_int = unsafe { std::mem::transmute(name) };
        let mut text = ptr::null();
        if name(code, &mut text) != 0 || text.is_null() {
            return None;
        }
        // SAFETY: a string of the library's own, nul-terminated, for ever.
        Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_cuda_says_so() {
        match Cuda::open() {
            Ok(cuda) => assert!(cuda.devices().is_ok()),
            Err(e) => assert!(!e.text.is_empty(), "{e}"),
        }
    }
}

//! The processes that the checks watch: each takes memory as a CUDA program does, through the driver alone.
//!
//! Owns what they write: words and numbers, a line each.

use std::time::{Duration, Instant};

use wharf_sys::cuda::{Cuda, OUT_OF_MEMORY, Step};

/// Takes so many bytes, writes `ready CONTEXT_MS ALLOCATION_MS` and waits for its end.
pub fn hold(bytes: &str) -> Result<(), String> {
    let bytes: usize = bytes.parse().map_err(|e| format!("{bytes}: {e}"))?;
    let began = Instant::now();
    let cuda = entered()?;
    let (context, began) = (began.elapsed(), Instant::now());
    if bytes > 0 {
        cuda.take(bytes).map_err(|e| e.to_string())?;
    }
    println!("ready {} {}", context.as_millis(), began.elapsed().as_millis());
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Takes all that can be had, writes `filled BYTES FREE_BEFORE FREE_AFTER` as CUDA tells them, and waits for its end.
pub fn fill() -> Result<(), String> {
    let cuda = entered()?;
    let (before, _) = cuda.memory().map_err(|e| e.to_string())?;
    let mut taken = 0_u64;
    for piece in [1_usize << 30, 64 << 20, 2 << 20] {
        loop {
            match cuda.take(piece) {
                Ok(()) => taken += piece as u64,
                Err(e) if e.code == OUT_OF_MEMORY => break,
                Err(e) => return Err(e.to_string()),
            }
        }
    }
    let (after, _) = cuda.memory().map_err(|e| e.to_string())?;
    println!("filled {taken} {before} {after}");
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Writes `devices N`, or `refused TEXT`.
pub fn count() -> Result<(), String> {
    match Cuda::open().and_then(|cuda| cuda.devices()) {
        Ok(devices) => println!("devices {devices}"),
        Err(e) => println!("refused {e}"),
    }
    Ok(())
}

/// Takes a process off its devices, and brings it back when a line was read; writes `MS` after each of lock, checkpoint,
/// restore and unlock.
pub fn checkpoint(pid: &str) -> Result<(), String> {
    let pid: i32 = pid.parse().map_err(|e| format!("{pid}: {e}"))?;
    let cuda = Cuda::open().map_err(|e| e.to_string())?;
    for step in [Step::Lock, Step::Checkpoint, Step::Restore, Step::Unlock] {
        if step == Step::Restore {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map_err(|e| e.to_string())?;
        }
        let began = Instant::now();
        cuda.checkpoint(pid, step).map_err(|e| e.to_string())?;
        println!("{}", began.elapsed().as_millis());
    }
    Ok(())
}

fn entered() -> Result<Cuda, String> {
    let cuda = Cuda::open().map_err(|e| e.to_string())?;
    cuda.enter_first().map_err(|e| e.to_string())?;
    Ok(cuda)
}

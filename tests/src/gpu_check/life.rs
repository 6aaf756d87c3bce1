//! Checks of what happens over time: deaths, starts, checkpoints, and what programs are shown.

use std::{
    fmt::Write as _,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use wharf_sys::pidfd;

use super::{Found, Stage, gib, spread};

const GIB: u64 = 1 << 30;
const KILL: i32 = 9;
const TERM: i32 = 15;
/// Memory that is not back by then is told as such.
const PATIENCE: Duration = Duration::from_secs(30);

/// 3: from a signal to the end, to the list, to the memory.
pub fn deaths(stage: &Stage) -> Found {
    stage.needs_cuda()?;
    let mut text =
        String::from("| what | from, to | least ms | half | 99 % | most |\n| --- | --- | --- | --- | --- | --- |\n");
    let total = stage.device(&stage.look()).total_bytes;
    let rounds = |many: usize| if stage.is_short { many.div_ceil(6) } else { many };
    for (bytes, signal, name, rounds) in [
        (20 * GIB, KILL, "20 GiB, SIGKILL", rounds(30)),
        (20 * GIB, TERM, "20 GiB, SIGTERM", rounds(10)),
        (100 * GIB, KILL, "100 GiB, SIGKILL", rounds(6)),
    ] {
        if bytes + 4 * GIB > total {
            let _ = writeln!(text, "| {name} | the device is smaller | | | | |");
            continue;
        }
        let (mut ends, mut lists, mut frees) = (vec![], vec![], vec![]);
        for _ in 0..rounds {
            let (end, list, free) = death(stage, bytes, signal)?;
            ends.push(end);
            lists.push(list);
            frees.push(free);
        }
        for (what, figures) in
            [("signal, descriptor wakes", ends), ("wake, off the list", lists), ("wake, memory back", frees)]
        {
            let _ = writeln!(text, "| {name} ×{rounds} | {what} | {} |", spread(figures));
        }
    }
    Ok(text)
}

/// One: milliseconds from the signal to the wake, from there to the list's end and to the memory's.
fn death(stage: &Stage, bytes: u64, signal: i32) -> Result<(f64, f64, f64), String> {
    let before = stage.settled();
    let mut part = stage.start(&["hold", &bytes.to_string()])?;
    part.line()?;
    let pid = part.pid();
    let began = Instant::now();
    let process = part.signal(signal)?;
    while !pidfd::has_exited(&process) {
        std::thread::sleep(Duration::from_micros(200));
    }
    let woke = Instant::now();
    let mut listed = None;
    while woke.elapsed() < PATIENCE {
        let found = stage.look();
        let device = stage.device(&found);
        let is_listed = device.processes.iter().flatten().any(|process| process.pid == pid);
        let now = woke.elapsed().as_secs_f64() * 1000.0;
        if !is_listed {
            listed.get_or_insert(now);
        }
        if device.used_bytes.unwrap_or(u64::MAX) <= before + GIB / 16 {
            return Ok(((woke - began).as_secs_f64() * 1000.0, listed.unwrap_or(f64::NAN), now));
        }
    }
    Err(format!("memory did not come back within {} s", PATIENCE.as_secs()))
}

/// 6: what CUDA shows for a full name, a short one, a wrong one.
pub fn names(stage: &Stage) -> Found {
    stage.needs_cuda()?;
    let uuid = stage.uuid.clone();
    let prefix: String = uuid.chars().take(12).collect();
    let wrong = format!("{}ffff", uuid.chars().take(uuid.len().saturating_sub(4)).collect::<String>());
    let mut text = String::from("| CUDA_VISIBLE_DEVICES | CUDA shows |\n| --- | --- |\n");
    for (name, value) in [
        ("the full UUID", uuid.clone()),
        ("its first 12 characters", prefix),
        ("a wrong UUID", wrong.clone()),
        ("a wrong one, then the right one", format!("{wrong},{uuid}")),
        ("the right one, then a wrong one", format!("{uuid},{wrong}")),
        ("nothing", String::new()),
    ] {
        let shown = Stage::say(&["count"], &[("CUDA_VISIBLE_DEVICES", &value)])?;
        let _ = writeln!(text, "| {name} | {shown} |");
    }
    Ok(text)
}

/// 8: a process is taken off the device and brought back.
pub fn checkpoint(stage: &Stage) -> Found {
    stage.needs_cuda()?;
    let before = stage.settled();
    let total = stage.device(&stage.look()).total_bytes;
    let bytes = (20 * GIB).min(total / 4);
    let mut held = stage.start(&["hold", &bytes.to_string()])?;
    held.line()?;
    let (loaded, memory) = (stage.settled(), resident(held.pid()));
    let mut by = stage.start(&["checkpoint", &held.pid().to_string()])?;
    let (lock, off) = (by.numbers()?, by.numbers()?);
    let (rest, grown) = (stage.settled(), resident(held.pid()));
    by.say("go on\n")?;
    let (back, unlock) = (by.numbers()?, by.numbers()?);
    let again = stage.settled();
    let ms = |numbers: Vec<u64>| numbers.first().copied().unwrap_or(0);
    Ok(format!(
        "| step with {} | ms |\n| --- | --- |\n| lock | {} |\n| checkpoint | {} |\n| restore | {} |\n| unlock | {} |\n\n\
         - device: {} with it, {} while it is off (**rest {}**), {} afterwards\n- its memory in the machine: {} before, {} while \
         it is off\n",
        gib(bytes),
        ms(lock),
        ms(off),
        ms(back),
        ms(unlock),
        gib(loaded),
        gib(rest),
        gib(rest.saturating_sub(before)),
        gib(again),
        gib(memory),
        gib(grown),
    ))
}

/// 9: two that load at once, beside one alone.
pub fn two_at_once(stage: &Stage) -> Found {
    stage.needs_cuda()?;
    let bytes = (20 * GIB).min(stage.device(&stage.look()).total_bytes / 4).to_string();
    let mut text = String::from("| who | context ms | allocation ms | until ready ms |\n| --- | --- | --- | --- |\n");
    for (who, count) in [("one alone", 1), ("two at once", 2)] {
        stage.settled();
        let began = Instant::now();
        let parts: Result<Vec<_>, _> = (0..count).map(|_| stage.start(&["hold", &bytes])).collect();
        for mut part in parts? {
            let times = part.numbers()?;
            let (context, allocation) = (times.first().unwrap_or(&0), times.get(1).unwrap_or(&0));
            let _ = writeln!(text, "| {who} | {context} | {allocation} | {} |", began.elapsed().as_millis());
        }
    }
    Ok(text)
}

/// 11: what PyTorch keeps when a tensor is dropped.
pub fn framework(stage: &Stage) -> Found {
    stage.needs_cuda()?;
    let script = "
import torch
def told():
    free, total = torch.cuda.mem_get_info()
    return (total - free) >> 20
start = told()
x = torch.empty(4 << 30, dtype=torch.uint8, device='cuda')
full = told()
del x
dropped = told()
torch.cuda.empty_cache()
print(torch.__version__, start, full, dropped, told())
";
    let mut python = Command::new("python3");
    let out = python.args(["-c", script]).env("CUDA_VISIBLE_DEVICES", &stage.uuid).output();
    let out = out.map_err(|e| format!("python3 could not be run: {e}"))?;
    let said = String::from_utf8_lossy(&out.stdout);
    let words: Vec<&str> = said.split_whitespace().collect();
    let [version, start, full, dropped, emptied] = words.as_slice() else {
        let why = String::from_utf8_lossy(&out.stderr);
        return Err(format!("PyTorch is not there: {}", why.lines().last().unwrap_or("it said nothing")));
    };
    Ok(format!(
        "PyTorch {version}, the device's used memory in MiB: {start} at first, {full} with a tensor of 4096, {dropped} when it \
         is dropped, {emptied} after `empty_cache`.\n"
    ))
}

/// What a process has of the machine's memory, in bytes.
fn resident(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok()).map_or(0, |kib| kib << 10)
}

//! Checks of figures: what they mean, whose they are, what they cost.

use std::{
    fmt::Write as _,
    fs,
    process::Command,
    time::{Duration, Instant},
};

use super::{Found, Stage, gib, spread};

const GIB: u64 = 1 << 30;
/// What /proc counts processor time in, on every machine.
const MS_PER_TICK: f64 = 10.0;

/// 1: `used` of the driver's two versions, beside total less free.
pub fn fields(stage: &Stage) -> Found {
    let found = stage.look();
    let device = stage.device(&found);
    let (used, reserved) = (device.used_bytes.unwrap_or(0), device.reserved_bytes);
    let mut text = format!(
        "- NVML (v2): total {}, total less free {}, reserved {}\n- Wharf takes total less free for used: what is \
         reserved is {} of it.\n",
        gib(device.total_bytes),
        gib(used),
        gib(reserved),
        if used >= reserved { "a part" } else { "**no part**" },
    );
    let query = "memory.total,memory.used,memory.free,memory.reserved";
    let mut smi = Command::new("nvidia-smi");
    smi.args(["-i", &stage.uuid, &format!("--query-gpu={query}"), "--format=csv,noheader"]);
    match smi.output() {
        Ok(out) => {
            let _ = writeln!(text, "- `nvidia-smi` ({query}): {}", String::from_utf8_lossy(&out.stdout).trim());
        }
        Err(e) => {
            let _ = writeln!(text, "- `nvidia-smi` could not be asked: {e}");
        }
    }
    Ok(text)
}

/// 2: what a program costs above what it asked for.
pub fn declared(stage: &Stage) -> Found {
    stage.needs_cuda()?;
    let before = stage.settled();
    let mut text = String::from("| asked for | it is listed with | device used more | context | allocation |\n");
    text.push_str("| --- | --- | --- | --- | --- |\n");
    for asked in [0, GIB, 8 * GIB] {
        let mut part = stage.start(&["hold", &asked.to_string()])?;
        let times = part.numbers()?;
        let after = stage.settled();
        let found = stage.look();
        let own = stage.device(&found).processes.iter().flatten().find(|process| process.pid == part.pid());
        let listed = own.map_or("it is not listed".to_owned(), |own| own.used_bytes.map_or("N/A".into(), gib));
        let (context, allocation) = (times.first().unwrap_or(&0), times.get(1).unwrap_or(&0));
        let more = gib(after.saturating_sub(before));
        let _ = writeln!(text, "| {} | {listed} | {more} | {context} ms | {allocation} ms |", gib(asked));
        drop(part);
        stage.settled();
    }
    let found = stage.look();
    let device = stage.device(&found);
    let named: u64 = device.processes.iter().flatten().filter_map(|process| process.used_bytes).sum();
    let rest = device.used_bytes.unwrap_or(0).saturating_sub(named);
    let _ = writeln!(text, "\nWith none of ours: used {}, of which nobody is charged {}.", gib(before), gib(rest));
    Ok(text)
}

/// 4: the safety margin.
pub fn fill(stage: &Stage) -> Found {
    stage.needs_cuda()?;
    let before = stage.settled();
    let total = stage.device(&stage.look()).total_bytes;
    let mut part = stage.start(&["fill"])?;
    let told = part.numbers()?;
    let [taken, cuda_before, cuda_after] = told.as_slice() else { return Err(format!("it said {told:?}")) };
    let found = stage.look();
    let left = total.saturating_sub(stage.device(&found).used_bytes.unwrap_or(0));
    drop(part);
    stage.settled();
    let free = total.saturating_sub(before);
    Ok(format!(
        "- free before, by NVML {}; with a context, by CUDA {}\n- taken, in pieces of 1 GiB, 64 MiB and 2 MiB: {}\n\
         - left, by NVML {}, by CUDA {}\n- **free less taken: {}** (context and what cannot be had)\n",
        gib(free),
        gib(*cuda_before),
        gib(*taken),
        gib(left),
        gib(*cuda_after),
        gib(free.saturating_sub(*taken)),
    ))
}

/// 5: whether a child of ours is listed with the number that we know.
pub fn numbers(stage: &Stage) -> Found {
    let link = fs::read_link("/proc/self/ns/pid").map_or_else(|e| e.to_string(), |link| link.display().to_string());
    let mut text = format!("- our PID namespace: `{link}` (the machine's first is `pid:[4026531836]`)\n");
    stage.needs_cuda()?;
    let mut part = stage.start(&["hold", &GIB.to_string()])?;
    part.line()?;
    let found = stage.look();
    let Some(all) = &stage.device(&found).processes else {
        let _ = writeln!(text, "- processes are not told: {}", found.problems.join("; "));
        return Ok(text);
    };
    let pids: Vec<String> = all.iter().map(|process| process.pid.to_string()).collect();
    match all.iter().find(|process| process.pid == part.pid()) {
        Some(own) => {
            let parent = own.parents.first().map(|(pid, _)| *pid);
            let is_ours = parent == i32::try_from(std::process::id()).ok();
            let identity = own.identity.map_or("none".into(), |identity| identity.to_string());
            let _ = writeln!(text, "- our child {} is listed: identity {identity}, parent ours: {is_ours}", own.pid);
        }
        None => {
            let _ = writeln!(text, "- **our child {} is not listed**, but {}", part.pid(), pids.join(", "));
        }
    }
    Ok(text)
}

/// 7: latency, and what four looks a second cost.
pub fn price(stage: &Stage) -> Found {
    let rounds = if stage.is_short { 50 } else { 400 };
    let mut times = vec![];
    let ticks = || cpu_ticks(stage.asker()?);
    let before = ticks();
    for _ in 0..rounds {
        let began = Instant::now();
        stage.look();
        times.push(began.elapsed().as_secs_f64() * 1000.0);
        std::thread::sleep(Duration::from_millis(5));
    }
    let spent = ticks().zip(before).map(|(after, before)| after.saturating_sub(before));
    #[allow(clippy::cast_precision_loss, reason = "a figure for people")]
    let cpu = spent.map(|ticks| ticks as f64 * MS_PER_TICK / f64::from(rounds));
    let cpu =
        cpu.map_or("not known".to_owned(), |ms| format!("{ms:.2} ms a look, {:.2} % of a core at 4 Hz", ms * 0.4));
    Ok(format!(
        "| a whole look, {rounds} times | least | half | 99 % | most |\n| --- | --- | --- | --- | --- |\n\
         | ms | {} |\n\nProcessor of the process that asks: {cpu}.\n",
        spread(times)
    ))
}

/// User and system time of a process.
fn cpu_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

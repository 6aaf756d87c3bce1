//! A program that plays an engine: it takes device memory, loads for a while, answers on a port, and ends as
//! it is told to. For tests and demos of GPUs without a GPU.
//!
//! Where it takes memory: in the file of the stand-in driver (`WHARF_FAKE_NVML`), else in the folder of
//! simulated devices (`WHARF_SIMULATED_FOLDER`). Which device: `--device`, else each of `WHARF_GPU_DEVICES`.
//!
//! ```text
//! --bytes N           on each device; half at once, the rest when it has loaded
//! --device UUID       instead of those of the environment
//! --load-ms N         loading takes this long
//! --port N            then GET answers on 127.0.0.1; PORT where it is not given. POST /hold/BYTES has so much from
//!                     then on, POST /sleep/BYTES too, and GET answers 503 until POST /wake
//! --grow N:MS         N bytes more, MS after it got ready
//! --on-term slow:MS   SIGTERM ends it after MS; `ignore`: never. Else at once
//! --fork              a helper process takes the memory, hears no SIGTERM, and outlives us
//! --leaks             its memory does not come back (stand-in driver)
//! --hidden            the driver does not tell what it has (stand-in driver)
//! --graphics          it draws (stand-in driver)
//! ```
//!
//! It writes `loading`, `ready`, `grown`, `terminating` to standard output. Where the device has too little left it
//! writes `out of memory` and ends with 42, as a real engine fails.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use nvidia_ml_fake as driver;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::sleep,
};

/// What an engine ends with when memory is short.
const OUT_OF_MEMORY: u8 = 42;

#[derive(Debug, Clone, Default)]
struct Options {
    bytes: u64,
    devices: Vec<String>,
    load_ms: u64,
    port: Option<u16>,
    grow: Option<(u64, u64)>,
    on_term: OnTerm,
    forks: bool,
    leaks: bool,
    hidden: bool,
    graphics: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum OnTerm {
    #[default]
    Now,
    After(u64),
    Never,
}

/// Where memory is taken.
enum Ground {
    Driver(PathBuf),
    Folder(PathBuf),
}

fn main() -> ExitCode {
    let played = options().and_then(|options| {
        let ground = ground()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(play(options, ground))
    });
    played.unwrap_or_else(|e| {
        println!("{e}");
        ExitCode::from(if e.kind() == io::ErrorKind::OutOfMemory { OUT_OF_MEMORY } else { 2 })
    })
}

fn options() -> io::Result<Options> {
    let mut options = Options { port: number_of("PORT"), ..Options::default() };
    let mut args = env::args().skip(1);
    let wrong = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("not understood: {text}"));
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| wrong(&arg));
        let number = |text: &str| text.parse::<u64>().map_err(|_| wrong(text));
        match arg.as_str() {
            "--bytes" => options.bytes = number(&value()?)?,
            "--device" => options.devices.push(value()?),
            "--load-ms" => options.load_ms = number(&value()?)?,
            "--port" => options.port = Some(value()?.parse().map_err(|_| wrong("--port"))?),
            "--grow" => {
                let text = value()?;
                let (bytes, after) = text.split_once(':').ok_or_else(|| wrong(&text))?;
                options.grow = Some((number(bytes)?, number(after)?));
            }
            "--on-term" => {
                options.on_term = match value()?.split_once(':') {
                    Some(("slow", ms)) => OnTerm::After(number(ms)?),
                    _ => OnTerm::Never,
                };
            }
            "--fork" => options.forks = true,
            "--leaks" => options.leaks = true,
            "--hidden" => options.hidden = true,
            "--graphics" => options.graphics = true,
            other => return Err(wrong(other)),
        }
    }
    if options.devices.is_empty() {
        let named = env::var("WHARF_GPU_DEVICES").unwrap_or_default();
        options.devices = named.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect();
    }
    Ok(options)
}

fn number_of(variable: &str) -> Option<u16> {
    env::var(variable).ok()?.parse().ok()
}

fn ground() -> io::Result<Ground> {
    let named = |variable: &str| env::var_os(variable).map(PathBuf::from);
    let ground = named(driver::VARIABLE).map(Ground::Driver);
    ground.or_else(|| named("WHARF_SIMULATED_FOLDER").map(Ground::Folder)).ok_or_else(|| {
        let text = format!("set {} or WHARF_SIMULATED_FOLDER", driver::VARIABLE);
        io::Error::new(io::ErrorKind::NotFound, text)
    })
}

async fn play(options: Options, ground: Ground) -> io::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let work = async {
        println!("loading");
        if options.forks {
            helper()?;
        } else {
            hold(&ground, &options, options.bytes / 2)?;
        }
        sleep(Duration::from_millis(options.load_ms)).await;
        if !options.forks {
            hold(&ground, &options, options.bytes)?;
        }
        let listener = match options.port {
            Some(port) => Some(TcpListener::bind(("127.0.0.1", port)).await?),
            None => None,
        };
        println!("ready");
        tokio::join!(grow(&ground, &options), answer(listener, &ground, &options)).0
    };
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done.map(|()| ExitCode::SUCCESS),
            _ = terminate.recv() => match options.on_term {
                OnTerm::Never => {}
                OnTerm::Now => return Ok(ExitCode::SUCCESS),
                OnTerm::After(ms) => {
                    println!("terminating");
                    sleep(Duration::from_millis(ms)).await;
                    return Ok(ExitCode::SUCCESS);
                }
            },
        }
    }
}

/// A process like us that holds what we would, and that nobody's SIGTERM ends.
fn helper() -> io::Result<()> {
    let args = env::args().skip(1).filter(|arg| arg != "--fork");
    let mut command = Command::new(env::current_exe()?);
    command.args(args).args(["--on-term", "ignore"]).env_remove("PORT").stdin(Stdio::null()).stdout(Stdio::null());
    command.spawn().map(drop)
}

async fn grow(ground: &Ground, options: &Options) -> io::Result<()> {
    if let Some((more, after)) = options.grow {
        sleep(Duration::from_millis(after)).await;
        hold(ground, options, options.bytes + more)?;
        println!("grown");
    }
    std::future::pending().await
}

async fn answer(listener: Option<TcpListener>, ground: &Ground, options: &Options) {
    let Some(listener) = listener else { return std::future::pending().await };
    let mut asleep = false;
    loop {
        let Ok((mut socket, _)) = listener.accept().await else { continue };
        let mut asked = [0; 4096];
        // One that connects and says nothing holds up the others for a moment only.
        let read = tokio::time::timeout(Duration::from_secs(1), socket.read(&mut asked)).await;
        let Ok(Ok(count)) = read else { continue };
        let line = String::from_utf8_lossy(&asked[..count]).into_owned();
        let path = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let bytes = |prefix: &str| path.strip_prefix(prefix).and_then(|bytes| bytes.parse().ok());
        let (had, wanted) = (asleep, bytes("/hold/").or_else(|| bytes("/sleep/")));
        asleep = path.starts_with("/sleep/") || asleep && path != "/wake";
        let wanted = wanted.or_else(|| (path == "/wake").then_some(options.bytes));
        let held = wanted.is_none_or(|bytes| hold(ground, options, bytes).is_ok());
        let status = if !held {
            "507 Out Of Memory"
        } else if had && asleep {
            "503 Asleep"
        } else {
            "200 OK"
        };
        let body = json!({"pid": std::process::id()}).to_string();
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
        let _ = socket.write_all((head + &body).as_bytes()).await;
    }
}

/// Has these bytes on each device from now on.
fn hold(ground: &Ground, options: &Options, bytes: u64) -> io::Result<()> {
    let pid = std::process::id().cast_signed();
    let start_ticks = driver::start_ticks(pid).unwrap_or(0);
    match ground {
        Ground::Driver(path) => driver::edit(path, |state| take(state, options, pid, start_ticks, bytes))?,
        Ground::Folder(folder) => {
            let devices: BTreeMap<&String, u64> = options.devices.iter().map(|device| (device, bytes)).collect();
            write_whole(folder, pid, &json!({"start_ticks": start_ticks, "devices": devices}).to_string())
        }
    }
}

fn take(state: &mut driver::State, options: &Options, pid: i32, start_ticks: u64, bytes: u64) -> io::Result<()> {
    state.bury(driver::boot_ms(), |pid, ticks| driver::start_ticks(pid) == Some(ticks));
    for device in &options.devices {
        state.processes.retain(|p| p.pid != pid || p.device != *device || p.gone_ms.is_some());
        let total = state.devices.iter().find_map(|known| {
            let part = known.parts.iter().find(|part| part.uuid == *device).map(|part| part.total);
            let whole = known.total.saturating_sub(known.reserved).saturating_sub(known.unattributed);
            part.or_else(|| (known.uuid == *device).then_some(whole))
        });
        let left = total.unwrap_or(0).saturating_sub(state.taken(device, driver::boot_ms()));
        if bytes > left {
            let text = format!("out of memory: {bytes} bytes wanted on {device}, {left} are left");
            return Err(io::Error::new(io::ErrorKind::OutOfMemory, text));
        }
        state.processes.push(driver::Process {
            pid,
            start_ticks,
            device: device.clone(),
            bytes,
            not_available: options.hidden,
            kind: if options.graphics { driver::Kind::Graphics } else { driver::Kind::Compute },
            leaks: options.leaks,
            gone_ms: None,
        });
    }
    Ok(())
}

fn write_whole(folder: &Path, pid: i32, text: &str) -> io::Result<()> {
    let draft = folder.join(format!(".{pid}"));
    fs::write(&draft, text)?;
    fs::rename(draft, folder.join(pid.to_string()))
}

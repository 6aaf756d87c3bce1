//! One launch: the shim, its spec, and what came of it.

use std::{
    ffi::CString,
    io,
    os::unix::ffi::OsStrExt,
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    time::sleep,
};
use wharf_model::{ErrorKind, Failure};
use wharf_shim::{ExitRecord, Outcome, Spec, Stage, ends};

use super::{RunPlan, Shared, containment, folder::RunFolder, live::LiveRun};

/// A start takes a few milliseconds; a disk that makes it wait this long is the failure.
const LIMIT: Duration = Duration::from_secs(20);
/// New files are readable by all and writable by their owner.
const UMASK: u32 = 0o022;
/// The usual soft limit of open files: `select` cannot go beyond it, and who can raises it.
const OPEN_FILES: u64 = 1024;
const ENOENT: i32 = 2;
const ENOEXEC: i32 = 8;
const EACCES: i32 = 13;

/// Starts the run of a plan. What fails leaves neither a process nor a folder.
pub async fn start(shared: &Shared, plan: &RunPlan) -> Result<LiveRun, Failure> {
    let folder = shared.folder(&plan.unit, plan.run);
    let spec = spec(shared, plan, &folder)?;
    folder.make().map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::new(ErrorKind::Conflict, format!("run {} of {} was launched before", plan.run, plan.unit))
        }
        _ => Failure::from(e).while_doing(format_args!("make {}", folder.path().display())),
    })?;
    let started = in_folder(shared, plan, &folder, &spec).await;
    if started.is_err() {
        shared.forget(&plan.unit, plan.run).await;
    }
    started
}

async fn in_folder(shared: &Shared, plan: &RunPlan, folder: &RunFolder, spec: &Spec) -> Result<LiveRun, Failure> {
    if let Some(cgroup) = &spec.cgroup {
        containment::make(cgroup).map_err(|e| Failure::from(e).while_doing("make the run's cgroup"))?;
    }
    let mut shim = spawn(shared, plan)?;
    let outcome = match tell(&mut shim, spec).await {
        Ok(()) => await_exec(&mut shim, folder).await,
        Err(e) => Came::Silent(e),
    };
    match outcome {
        Came::Running => {
            let start = folder.start().ok_or_else(|| Failure::new(ErrorKind::Internal, "the start record is gone"))?;
            reap(shim);
            Ok(LiveRun::open(plan.unit.clone(), plan.run, folder.clone(), start))
        }
        Came::Failed(exit) => {
            // It ends by itself; nothing of the run lives.
            let _ = shim.wait().await;
            Err(could_not_begin(plan, exit))
        }
        Came::ShimEnded(status) => Err(shim_ended(folder, status)),
        Came::Silent(why) => {
            abandon(shim, plan, folder).await;
            Err(Failure::new(ErrorKind::Internal, format!("the shim did not start the program: {why}")))
        }
    }
}

/// What a launch came to.
enum Came {
    Running,
    Failed(ExitRecord),
    ShimEnded(ExitStatus),
    Silent(io::Error),
}

fn spec(shared: &Shared, plan: &RunPlan, folder: &RunFolder) -> Result<Spec, Failure> {
    let unsound = |what: &str| Failure::new(ErrorKind::InvalidParams, format!("{what} cannot be given to a program"));
    let text = |s: &str| CString::new(s).map_err(|_| unsound("a text with a zero byte"));
    if plan.argv.first().is_none_or(String::is_empty) {
        return Err(unsound("an empty command"));
    }
    let variable = |(name, value): &(String, String)| {
        if name.is_empty() || name.contains('=') {
            return Err(unsound(&format!("the variable name {name:?}")));
        }
        text(&format!("{name}={value}"))
    };
    // Without root there is one user to be: being it already needs no step.
    let (uid, gid) = wharf_sys::process::acts_as();
    let other = plan.run_as.as_ref().filter(|user| uid == 0 || (user.uid, user.gid) != (uid, gid));
    Ok(Spec {
        run_dir: folder.path().to_path_buf(),
        argv: plan.argv.iter().map(|s| text(s)).collect::<Result<_, _>>()?,
        env: plan.env.iter().map(variable).collect::<Result<_, _>>()?,
        cwd: CString::new(plan.cwd.as_os_str().as_bytes()).map_err(|_| unsound("a folder with a zero byte"))?,
        log: plan.log.clone(),
        run_as: other.map(|u| wharf_shim::RunAs { uid: u.uid, gid: u.gid, groups: u.groups.clone() }),
        umask: UMASK,
        cgroup: shared.cgroup(&plan.unit, plan.run),
        open_files: OPEN_FILES,
    })
}

/// The unit and the run are arguments only for who reads `ps`.
fn spawn(shared: &Shared, plan: &RunPlan) -> Result<Child, Failure> {
    let mut command = Command::new(&shared.shim);
    command.args([plan.unit.as_str(), &plan.run.to_string()]).env_clear().current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    containment::spawn_placed(|| command.spawn()).map_err(|e| {
        let hint = match e.kind() {
            io::ErrorKind::PermissionDenied => "its file system may be mounted noexec: set WHARF_HOME to another one",
            _ => "the machine may be out of processes or memory",
        };
        Failure::from(e).while_doing(format_args!("run the shim {}", shared.shim.display())).hint(hint)
    })
}

async fn tell(shim: &mut Child, spec: &Spec) -> io::Result<()> {
    let mut pipe = shim.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    match pipe.write_all(&spec.encode()).await {
        // It ended before it had read all: its exit code says why.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Looks every millisecond at first: from here to exec it is two or three of them.
async fn await_exec(shim: &mut Child, folder: &RunFolder) -> Came {
    let began = Instant::now();
    loop {
        // Asked first: what a shim that has ended has not written, it will not write.
        let ended = match shim.try_wait() {
            Ok(ended) => ended,
            Err(e) => return Came::Silent(e),
        };
        // `running` before `exit`: a program that ended at once did begin.
        if folder.is_running_marked() {
            return Came::Running;
        }
        if let Some(exit) = folder.exit() {
            return match exit.outcome {
                Outcome::StartFailed(..) => Came::Failed(exit),
                Outcome::Exited(_) | Outcome::Signaled(_) => Came::Running,
            };
        }
        match ended {
            Some(status) => return Came::ShimEnded(status),
            None if began.elapsed() > LIMIT => return Came::Silent(io::ErrorKind::TimedOut.into()),
            None => {}
        }
        sleep(Duration::from_millis(if began.elapsed().as_millis() < 100 { 1 } else { 10 })).await;
    }
}

/// The shim is our child as long as this daemon lives: it must not stay a zombie.
fn reap(mut shim: Child) {
    tokio::spawn(async move {
        let _ = shim.wait().await;
    });
}

/// Ends a shim that does not answer, and what it may have begun.
async fn abandon(mut shim: Child, plan: &RunPlan, folder: &RunFolder) {
    // Void first: then no program begins behind our back. With the shim dead the gate shuts.
    let began = !folder.make_void().unwrap_or(false);
    let _ = shim.start_kill();
    let _ = shim.wait().await;
    if let (true, Some(start)) = (began, folder.start()) {
        let run = LiveRun::open(plan.unit.clone(), plan.run, folder.clone(), start);
        run.kill_all();
        let _ = tokio::time::timeout(Duration::from_secs(5), run.emptied()).await;
    }
}

fn shim_ended(folder: &RunFolder, status: ExitStatus) -> Failure {
    match status.code().and_then(|code| u8::try_from(code).ok()) {
        Some(ends::NO_RECORD) => {
            Failure::new(ErrorKind::Storage, format!("{} could not be written", folder.path().display()))
                .hint("see whether the disk is full (`df -h`) or read-only")
        }
        Some(ends::NOT_OURS) => Failure::new(ErrorKind::Conflict, "the run is held by another shim, or was given up"),
        _ => Failure::new(ErrorKind::Internal, format!("the shim ended before the program began ({status})")),
    }
}

fn could_not_begin(plan: &RunPlan, exit: ExitRecord) -> Failure {
    let Outcome::StartFailed(stage, errno) = exit.outcome else {
        return Failure::new(ErrorKind::Internal, "a program that began was taken for one that did not");
    };
    let program = plan.argv.first().map_or("", String::as_str);
    let cwd = plan.cwd.display();
    let who = plan.run_as.as_ref().map_or_else(|| "the daemon's user".into(), |u| format!("user {}", u.uid));
    let reason = io::Error::from_raw_os_error(errno);
    use ErrorKind::{Permission, Precondition, ServiceFailed, Storage};
    let (kind, message, hint) = match (stage, errno) {
        (Stage::Exec, ENOENT) => missing_program(plan, program),
        (Stage::Exec, EACCES) => (
            Precondition,
            format!("{who} may not execute {program}"),
            "make it executable (`chmod +x`), and every folder above it accessible to that user".into(),
        ),
        (Stage::Exec, ENOEXEC) => (
            Precondition,
            format!("{program} is no program for this machine"),
            "a script begins with `#!` and its interpreter; a binary is built for this processor".into(),
        ),
        (Stage::Chdir, ENOENT) => {
            (Precondition, format!("its folder {cwd} is missing"), format!("make it: `mkdir -p {cwd}`"))
        }
        (Stage::Chdir, EACCES) => (
            Precondition,
            format!("{who} may not enter {cwd}"),
            "give that user the right to enter it and every folder above it (`namei -l` shows them)".into(),
        ),
        (Stage::Setuid, _) => (
            Permission,
            format!("it could not become {who}: {reason}"),
            "run the daemon as root, or let the service run as the daemon's user".into(),
        ),
        (Stage::Log, _) => (
            Storage,
            format!("its log {} could not be opened: {reason}", plan.log.display()),
            "its folder must be there and writable, and the log a plain file".into(),
        ),
        (Stage::Exec | Stage::Chdir | Stage::Cgroup | Stage::Fork, _) => (
            ServiceFailed,
            format!("{program} could not begin ({}: {reason})", stage.word()),
            "the machine may be out of processes, descriptors or memory".into(),
        ),
    };
    Failure::new(kind, message).hint(hint).cause(format_args!("{}: {reason} (errno {errno})", stage.word()))
}

fn missing_program(plan: &RunPlan, program: &str) -> (ErrorKind, String, String) {
    if !program.contains('/') {
        let path = plan.env.iter().find(|(name, _)| name == "PATH").map_or("the default", |(_, path)| path);
        let hint = "install it, or name it by its full path".into();
        return (ErrorKind::Precondition, format!("the program {program} was not found in PATH ({path})"), hint);
    }
    if plan.cwd.join(program).exists() {
        let hint = "`head -1` shows a script's interpreter, `ldd` a binary's loader: install it".into();
        return (ErrorKind::Precondition, format!("{program} is there, its interpreter is not"), hint);
    }
    (ErrorKind::Precondition, format!("the program {program} is missing"), "install the service again".into())
}

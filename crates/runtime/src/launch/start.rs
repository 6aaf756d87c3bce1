//! One launch: the run's folder and groups, its spec, and what came of it.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, time::timeout};
use wharf_model::{ErrorKind, Failure};
use wharf_shim::{Began, Outcome, Spec, Stage, StartRecord, ends};

use super::{
    RunPlan, Shared, containment,
    folder::RunFolder,
    limits,
    line::{Answer, Ending, Line},
    live::{LiveRun, Parts},
};

/// A start takes less than a millisecond; a disk that makes it wait this long is the failure.
const LIMIT: Duration = Duration::from_secs(20);
/// An answer that has not come by now may have been lost: the run's folder is looked at.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// A launcher that is killed before it has begun is replaced this often, for one start.
const TRIES: usize = 3;
const ENOENT: i32 = 2;
const ENOEXEC: i32 = 8;
const EACCES: i32 = 13;

/// Starts the run of a plan. What fails, or is `given_up` before it has begun, leaves neither a process
/// nor a folder, and cannot begin later.
pub async fn start(shared: &Shared, plan: &RunPlan, given_up: impl Future<Output = ()>) -> Result<LiveRun, Failure> {
    let mut given_up = pin!(given_up);
    let folder = shared.folder(&plan.unit, plan.run);
    let mut spec = spec(shared, plan, &folder)?;
    for _ in 0..TRIES {
        make_folder(plan, &folder)?;
        let started = in_folder(shared, plan, &folder, &mut spec, given_up.as_mut()).await;
        if !matches!(started, Ok(Some(_))) {
            // Where no shim ever was, there is no record of them.
            limits::remove(&spec.limit_groups);
            shared.forget(&plan.unit, plan.run).await;
        }
        if let Some(settled) = started.transpose() {
            return settled;
        }
    }
    Err(Failure::new(ErrorKind::Internal, "the launcher was killed again and again")
        .hint("see what kills `wharf-shim launcher` (`dmesg`, the audit log), and try again"))
}

fn make_folder(plan: &RunPlan, folder: &RunFolder) -> Result<(), Failure> {
    folder.make().map_err(|e| match e.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::new(ErrorKind::Conflict, format!("run {} of {} was launched before", plan.run, plan.unit))
        }
        _ => Failure::from(e).while_doing(format_args!("make {}", folder.path().display())),
    })
}

/// One try. None: the launcher died before it had begun, and cannot begin this any more.
async fn in_folder(
    shared: &Shared,
    plan: &RunPlan,
    folder: &RunFolder,
    spec: &mut Spec,
    given_up: Pin<&mut impl Future<Output = ()>>,
) -> Result<Option<LiveRun>, Failure> {
    if let Some(cgroup) = &spec.cgroup {
        containment::make(cgroup).map_err(|e| Failure::from(e).while_doing("make the run's cgroup"))?;
    }
    let set = shared.means.set(&plan.limits, spec.cgroup.as_deref(), &shared.group_name(&plan.unit, plan.run))?;
    (spec.limit_groups, spec.data_bytes) = (set.groups, set.data_bytes);
    super::vram::set(&plan.vram, spec.cgroup.as_deref(), &shared.group_name(&plan.unit, plan.run))
        .map_err(no_vram_limit)?;
    // Marked before it begins: a kill in its first moment counts.
    let oom = shared.oom.mark();
    let open = async |ending: Option<Arc<Ending>>, start: StartRecord| {
        let (unit, run, folder, notify) = (plan.unit.clone(), plan.run, folder.clone(), plan.notify.clone());
        LiveRun::open(Parts { unit, run, folder, ending, notify, oom }, start).await
    };
    let line = shared.line().map_err(|e| no_launcher(shared, e))?;
    let fds: Vec<BorrowedFd<'_>> =
        plan.notify.iter().chain(plan.listen_fds.iter().map(|(_, fd)| fd)).map(|fd| fd.as_fd()).collect();
    let bytes = spec.encode();
    let answered = async {
        match line.ask(&bytes, &fds).await {
            Ok((answer, ending)) => await_answer(&line, answer, folder).await.map(|answer| (answer, Some(ending))),
            Err(_) => {
                line.close();
                Some((Answer::Cut, None))
            }
        }
    };
    let answered = tokio::select! {
        answered = answered => answered.ok_or_else(silent),
        () = given_up => Err(unwanted(plan)),
    };
    let begun = match answered {
        Ok((Answer::Began(began), ending)) => return Ok(Some(open(ending, record(shared, spec, plan, began)).await)),
        Ok((Answer::Failed(stage, errno), _)) => return Err(could_not_begin(plan, stage, errno)),
        // A shim of a killed launcher may have been late, and first: the folder is ours, so is what began in it.
        Ok((Answer::Refused(ends::NOT_OURS), _)) => after_cut(folder).map_err(|_| refused(folder, ends::NOT_OURS))?,
        Ok((Answer::Refused(code), _)) => return Err(refused(folder, code)),
        Ok((Answer::Cut, _)) => after_cut(folder)?,
        Err(why) => {
            // It is ended here, with what it may have begun: a failure means that nothing of it lives.
            if let Ok(Some(start)) = after_cut(folder) {
                let begun = open(None, start).await;
                begun.kill_all();
                begun.emptied().await;
            }
            return Err(why);
        }
    };
    match begun {
        Some(start) => Ok(Some(open(None, start).await)),
        None => Ok(None),
    }
}

/// What became of the request; none where nothing is heard for too long.
async fn await_answer(line: &Line, mut answer: oneshot::Receiver<Answer>, folder: &RunFolder) -> Option<Answer> {
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        match timeout(ANSWER_TIME, &mut answer).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(_)) => return Some(Answer::Cut),
            Err(_) => line.nudge(),
        }
        // News are lost where thousands of them lie unread: a stopped daemon.
        if let Some(Outcome::StartFailed(stage, errno)) = folder.exit().map(|exit| exit.outcome) {
            return Some(Answer::Failed(stage, errno));
        }
        if folder.is_running_marked() {
            return Some(Answer::Cut);
        }
    }
    None
}

/// Without an answer the folder tells: a run that is recorded is there; else its name is taken, so
/// that a shim that comes late gives up.
fn after_cut(folder: &RunFolder) -> Result<Option<StartRecord>, Failure> {
    match folder.make_void() {
        Ok(true) => Ok(None),
        _ => match folder.start() {
            Some(start) => Ok(Some(start)),
            None => Err(Failure::new(ErrorKind::Internal, "the start record is gone")),
        },
    }
}

fn silent() -> Failure {
    let limit = LIMIT.as_secs();
    Failure::new(ErrorKind::Timeout, format!("the shim did not start the program within {limit} s"))
        .hint("see whether the disk hangs (`dmesg`), or whether `wharf-shim` was stopped")
}

fn unwanted(plan: &RunPlan) -> Failure {
    Failure::new(ErrorKind::Conflict, format!("run {} of {} was given up before it had begun", plan.run, plan.unit))
}

/// What the shim has written down, without reading it.
fn record(shared: &Shared, spec: &Spec, plan: &RunPlan, began: Began) -> StartRecord {
    StartRecord {
        boot_id: shared.boot_id.clone(),
        shim_pid: began.shim_pid,
        shim_id: began.shim_id,
        pid: began.pid,
        pid_id: began.pid_id,
        wall_ms: began.wall_ms,
        boottime_ms: began.boottime_ms,
        cgroup: spec.cgroup.clone(),
        limit_groups: spec.limit_groups.clone(),
        // The number is the shim's to know; who has launched the run has the socket itself.
        notify_fd: plan.notify.is_some().then_some(-1),
    }
}

fn spec(shared: &Shared, plan: &RunPlan, folder: &RunFolder) -> Result<Spec, Failure> {
    let unsound = |what: &str| Failure::new(ErrorKind::InvalidParams, format!("{what} cannot be given to a program"));
    let text = |s: &str| CString::new(s).map_err(|_| unsound("a text with a zero byte"));
    let path =
        |p: &std::path::Path| CString::new(p.as_os_str().as_bytes()).map_err(|_| unsound("a folder with a zero byte"));
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
    let limits = &plan.limits;
    let umask = limits.umask.as_deref().map(|octal| {
        u32::from_str_radix(octal, 8)
            .ok()
            .filter(|mask| *mask <= 0o777)
            .ok_or_else(|| unsound(&format!("the umask {octal:?}")).hint("give it in octal, like \"027\""))
    });
    Ok(Spec {
        title: vec![text(plan.unit.as_str())?, text(&plan.run.to_string())?],
        run_dir: path(folder.path())?,
        argv: plan.argv.iter().map(|s| text(s)).collect::<Result<_, _>>()?,
        env: plan.env.iter().map(variable).collect::<Result<_, _>>()?,
        cwd: path(&plan.cwd)?,
        log: plan.log.clone(),
        pipe: plan.pipe,
        run_as: other.map(|u| wharf_shim::RunAs { uid: u.uid, gid: u.gid, groups: u.groups.clone() }),
        umask: umask.transpose()?,
        cgroup: shared.cgroup(&plan.unit, plan.run),
        limit_groups: vec![],
        open_files: limits.open_files,
        core_bytes: limits.core_bytes,
        data_bytes: None,
        nice: limits.nice.map(i32::from),
        oom_score_adj: limits.oom_score_adj.unwrap_or(0).into(),
        has_notify: plan.notify.is_some(),
        listen_names: plan.listen_fds.iter().map(|(name, _)| text(name)).collect::<Result<_, _>>()?,
    })
}

fn no_vram_limit(e: io::Error) -> Failure {
    Failure::new(ErrorKind::Precondition, format!("its GPU memory could not be limited: {e}"))
        .hint("start it without: --policy gpu.limit=none")
}

fn no_launcher(shared: &Shared, e: io::Error) -> Failure {
    let hint = match e.kind() {
        io::ErrorKind::PermissionDenied => "its file system may be mounted noexec: set WHARF_HOME to another one",
        _ => "the machine may be out of processes or memory",
    };
    Failure::from(e).while_doing(format_args!("run the launcher {}", shared.shim.display())).hint(hint)
}

fn refused(folder: &RunFolder, code: u8) -> Failure {
    match code {
        ends::NO_RECORD => {
            Failure::new(ErrorKind::Storage, format!("{} could not be written", folder.path().display()))
                .hint("see whether the disk is full (`df -h`) or read-only")
        }
        ends::NOT_OURS => Failure::new(ErrorKind::Conflict, "the run is held by another shim, or was given up"),
        _ => Failure::new(ErrorKind::Internal, format!("the shim did not understand the request (code {code})")),
    }
}

fn could_not_begin(plan: &RunPlan, stage: Stage, errno: i32) -> Failure {
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

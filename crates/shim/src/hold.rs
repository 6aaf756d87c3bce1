//! One run from its request to the end of its last process.

use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    os::unix::fs::{FileExt, OpenOptionsExt},
};

use wharf_shim::{Began, ExitRecord, News, Outcome, Request, SpecView, Stage, ends};
use wharf_sys::{
    child::spawn_sharing,
    clock, files,
    memory::Mapped,
    pidfd,
    process::{self, Title},
};

use crate::{
    child::{Failure, Steps},
    folder::Folder,
    launcher::Settled,
    pump::Pump,
};

/// What stays open while the run lives.
struct Held {
    folder: Folder,
    main: i32,
    pump: Option<Pump>,
    /// Kept, never read: what the service sends while no daemon lives waits in it.
    _notify: Option<OwnedFd>,
}

/// Begins the run and holds it. The request is given back to the system as soon as the program runs.
pub fn hold(settled: &Settled, title: Option<&mut Title>, buffer: Mapped, length: usize, mut fds: Vec<OwnedFd>) {
    process::leave_children_unreaped(false);
    // The launcher leads a session without a terminal, which is ours too.
    let _ = process::new_group();
    // Without it orphans go to init: the lock and the cgroup still tell of them.
    let _ = process::adopt_orphans();
    let Ok(request) = Request::decode(&buffer[..length]) else { return };
    let token = request.token;
    let outside = if request.spec.is_none() { read_outside(&mut fds).ok() } else { None };
    let spec = request.spec.or(outside.as_deref()).map(SpecView::decode);
    let Some(Ok(spec)) = spec else { return settled.tell(token, News::Refused(ends::NO_SPEC)) };
    if let Some(title) = title {
        title.set(&spec.title.iter().map(|word| word.to_bytes()).collect::<Vec<_>>());
    }
    let begun = begin(settled, &spec, fds);
    drop(spec);
    drop((buffer, outside));
    match begun {
        Ok((held, began)) => {
            settled.tell(token, News::Began(began));
            // From here it waits, for days.
            crate::HEAP.shed();
            held.reap(settled, token);
        }
        Err(news) => settled.tell(token, news),
    }
}

/// A spec too long for a message.
fn read_outside(fds: &mut Vec<OwnedFd>) -> io::Result<Mapped> {
    if fds.is_empty() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let file = File::from(fds.remove(0));
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    let mut bytes = Mapped::new(length)?;
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Starts the program; else the news to tell, with nothing of the run left, its lock included.
fn begin(settled: &Settled, spec: &SpecView<'_>, mut fds: Vec<OwnedFd>) -> Result<(Held, Began), News> {
    let folder = Folder::enter(spec.run_dir).map_err(News::Refused)?;
    let notify = (spec.has_notify && !fds.is_empty()).then(|| fds.remove(0));
    if notify.is_some() {
        process::admit_tracers();
    }
    match start(settled, spec, &folder, notify.as_ref(), &fds) {
        Ok((began, pump)) => {
            folder.mark_running();
            Ok((Held { folder, main: began.pid, pump, _notify: notify }, began))
        }
        Err(Failure::At(stage, errno)) => {
            publish(&folder, Outcome::StartFailed(stage, errno));
            Err(News::Failed(stage, errno))
        }
        // Nobody must think that it ran: there is no record of ours.
        Err(Failure::Refused(code)) => Err(News::Refused(code)),
    }
}

fn start(
    settled: &Settled,
    spec: &SpecView<'_>,
    folder: &Folder,
    notify: Option<&OwnedFd>,
    listen: &[OwnedFd],
) -> Result<(Began, Option<Pump>), Failure> {
    let at = |stage| move |e: io::Error| Failure::At(stage, e.raw_os_error().unwrap_or(0));
    let log = open_log(spec).map_err(at(Stage::Log))?;
    let (output, pump) = if spec.pipe {
        let (read, write) = files::pipe_of(spec.run_as.as_ref().map(|u| (u.uid, u.gid))).map_err(at(Stage::Log))?;
        (write, Some(Pump::start(read, log).map_err(at(Stage::Fork))?))
    } else {
        (log.into(), None)
    };
    let own_pid = std::process::id().cast_signed();
    let own_id = pidfd::open(own_pid).and_then(|fd| pidfd::identity(fd, own_pid)).map_err(at(Stage::Fork))?;
    let cgroup = spec.cgroup.map(open_folder).transpose().map_err(at(Stage::Cgroup))?;
    let notify_fd = notify.map(AsRawFd::as_raw_fd);
    let mut steps = Steps::new(settled, spec, folder, &output, listen, (own_pid, own_id), notify_fd);

    let born = match &cgroup {
        None => spawn_sharing(None, &mut || steps.take()),
        Some(dir) => match spawn_sharing(Some(dir.as_fd()), &mut || steps.take()) {
            Err(e) if e.kind() == io::ErrorKind::Unsupported => {
                steps.joins_by_itself = true;
                spawn_sharing(None, &mut || steps.take())
            }
            Err(e) => return Err(at(Stage::Cgroup)(e)),
            born => born,
        },
    };
    born.map_err(at(Stage::Fork))?;
    match (steps.failure, steps.began) {
        (Some(failure), _) => Err(failure),
        (None, Some(began)) => Ok((began, pump)),
        // Killed before it had written anything down: no program ran.
        (None, None) => Err(Failure::At(Stage::Fork, 0)),
    }
}

/// Opened while we may still write where the service may not.
fn open_log(spec: &SpecView<'_>) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600).custom_flags(files::NOT_ELSEWHERE);
    let log = options.open(spec.log)?;
    if let (Some(user), false) = (&spec.run_as, spec.pipe) {
        // So that the service can open its own standard output again. Without the right to
        // give it away the step to the other user fails next, and says so.
        let _ = files::give_to(&log, user.uid, user.gid);
    }
    Ok(log)
}

fn open_folder(path: &std::path::Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(files::FOLDER).open(path)
}

impl Held {
    /// Reaps until no process of the run is left; writes down the end of the main one.
    fn reap(mut self, settled: &Settled, token: u64) {
        while let Ok(Some((pid, how))) = process::wait_any() {
            if pid == self.main {
                let outcome = match how {
                    pidfd::Ended::Exited(code) => Outcome::Exited(code),
                    pidfd::Ended::Signaled(signal) => Outcome::Signaled(signal),
                };
                publish(&self.folder, outcome);
                settled.tell(token, News::Ended(outcome));
                // From here the pid may come again, as an orphan of this same run.
                self.main = 0;
            }
            if let Some(pump) = &mut self.pump {
                pump.after_a_death(pid, how);
            }
        }
    }
}

fn publish(folder: &Folder, outcome: Outcome) {
    folder.publish_exit(&ExitRecord { outcome, wall_ms: clock::wall_ms(), boottime_ms: clock::boottime_ms() });
}

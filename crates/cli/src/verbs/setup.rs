//! `wharf setup`: what keeps the daemon running on this machine, written once and taken back whole.

mod cron;
mod files;
mod units;

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;
use wharf_model::{ErrorKind, Failure};
use wharf_runtime::Layout;

use self::{
    files::{State, Written},
    units::{Scope, Site},
};
use crate::{
    Exit,
    session::Session,
    trouble::{Outcome, Trouble},
};

/// Keep the daemon running: at boot, after a crash, after an upgrade
///
/// Writes a systemd service and a socket, for this user or for the system; without systemd two lines of a
/// crontab. What it wrote, it can take back; what somebody changed, it shows and leaves as it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  wharf setup --print            what would be written
  wharf setup --start            write it, and let systemd start it
  sudo wharf setup --system
  wharf setup --remove           take back what was written")]
pub(crate) struct Setup {
    /// For this user alone: what root does not do without it
    #[arg(long, conflicts_with = "system")]
    user: bool,
    /// For the system, as root
    #[arg(long)]
    system: bool,
    /// Print it and write nothing
    #[arg(long)]
    print: bool,
    /// Two lines of a crontab in place of systemd's units
    #[arg(long)]
    no_systemd: bool,
    /// Let it take effect now: systemd starts the daemon, which takes over from one that runs
    #[arg(long, conflicts_with_all = ["print", "remove"])]
    start: bool,
    /// Write over what somebody changed
    #[arg(long)]
    force: bool,
    /// Take back what was written
    #[arg(long)]
    remove: bool,
}

impl Setup {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        let is_root = nix::unistd::geteuid().is_root();
        let scope = if self.system || (is_root && !self.user) { Scope::System } else { Scope::User };
        if scope == Scope::System && !is_root && !self.print {
            return Err(Failure::new(ErrorKind::Permission, "only root can set up the system's daemon")
                .hint("`sudo wharf setup --system`, or `wharf setup --user` for a daemon of your own")
                .into());
        }
        let site = self.site(session, scope)?;
        if self.no_systemd {
            return self.with_cron(session, &site);
        }
        if !has_systemd() && !self.print && !self.remove {
            return Err(Failure::new(ErrorKind::Precondition, "systemd does not run this machine")
                .hint("`wharf setup --no-systemd` uses cron; docs/running.md has lines for other supervisors")
                .into());
        }
        self.with_systemd(session, &site)
    }

    fn site(&self, session: &Session, scope: Scope) -> Result<Site, Trouble> {
        let layout = Layout::from_env();
        let binary = env::current_exe()?;
        let socket = match &session.named_socket {
            Some(path) => std::path::absolute(path)?,
            None => layout.service_sock(),
        };
        let folder = unit_folder(scope)?;
        let version = systemd_version();
        Ok(Site::new(
            scope,
            binary,
            folder,
            socket,
            session.named_socket.is_some(),
            |name| env::var(name).ok(),
            version,
        ))
    }

    fn with_systemd(&self, session: &Session, site: &Site) -> Outcome {
        let texts = site.files();
        let next = if self.remove { site.commands_to_remove() } else { site.commands_to_start() };
        if self.print {
            for (path, text) in &texts {
                session.say(&format!("# {}\n{}", path.display(), files::sealed(text)))?;
            }
            return Ok(Exit::Done);
        }
        let mut said = Said { next, notes: site.notes(), ..Said::default() };
        if self.remove {
            // While the units are known: what is removed cannot be disabled.
            self.tell_systemd(&site.commands_before_removal(), &mut said);
            for (path, _) in &texts {
                said.files.push(files::remove(path, self.force)?);
            }
            said.notes.clear();
        } else {
            for (path, text) in &texts {
                said.files.push(files::write(path, text, self.force)?);
            }
        }
        if said.files.iter().any(|file| file.state == State::Differs) {
            said.next.clear();
            return said.tell(session).map(|()| Exit::Conflict);
        }
        if self.start || self.remove {
            let commands = std::mem::take(&mut said.next);
            self.run_all(&commands)?;
            said.ran.extend(commands);
        }
        said.tell(session).map(|()| Exit::Done)
    }

    fn with_cron(&self, session: &Session, site: &Site) -> Outcome {
        let text = cron::lines(site);
        if self.print {
            session.say(&text)?;
            return Ok(Exit::Done);
        }
        let state = cron::install(if self.remove { None } else { Some(&text) })?;
        let mut said = Said::default();
        said.files.push(Written { path: "crontab".into(), state, diff: String::new() });
        if !self.remove {
            said.notes.push("cron starts the daemon at boot, and within a minute after its end".into());
            if self.start {
                let health = crate::detach::start(session)?;
                said.notes.push(format!("the daemon runs (pid {})", health.pid));
            }
        }
        said.tell(session).map(|()| Exit::Done)
    }

    /// What need not succeed: the units may be unknown to it.
    fn tell_systemd(&self, commands: &[Vec<String>], said: &mut Said) {
        for words in commands {
            let output = Command::new(&words[0]).args(&words[1..]).output();
            if output.is_ok_and(|o| o.status.success()) {
                said.ran.push(words.clone());
            }
        }
    }

    fn run_all(&self, commands: &[Vec<String>]) -> Result<(), Trouble> {
        for words in commands {
            let doing = || format!("run `{}`", words.join(" "));
            let output = Command::new(&words[0]).args(&words[1..]).output();
            let output = output.map_err(|e| Failure::from(e).while_doing(doing()))?;
            if !output.status.success() {
                let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                let failure = Failure::new(ErrorKind::Internal, format!("it ended with {}", output.status));
                let hint =
                    "`journalctl -u wharf` has what the daemon said (with --user for a user's); the files are written";
                return Err(failure.while_doing(doing()).cause(why).hint(hint).into());
            }
        }
        Ok(())
    }
}

/// What was done, and what is left to do.
#[derive(Default)]
struct Said {
    files: Vec<Written>,
    ran: Vec<Vec<String>>,
    next: Vec<Vec<String>>,
    notes: Vec<String>,
}

impl Said {
    fn tell(&self, session: &Session) -> Result<(), Trouble> {
        let lines = |commands: &[Vec<String>]| commands.iter().map(|words| words.join(" ")).collect::<Vec<_>>();
        if session.json {
            let files: Vec<_> = self
                .files
                .iter()
                .map(|file| json!({ "path": file.path, "state": file.state.word(), "diff": file.diff }))
                .collect();
            let shown =
                json!({ "files": files, "ran": lines(&self.ran), "next": lines(&self.next), "notes": self.notes });
            return session.say_json(&shown.to_string());
        }
        let mut text = String::new();
        for file in &self.files {
            text.push_str(&format!("{:<10} {}\n{}", file.state.word(), file.path.display(), file.diff));
        }
        for command in lines(&self.ran) {
            text.push_str(&format!("ran        {command}\n"));
        }
        if self.files.iter().any(|file| file.state == State::Differs) {
            text.push_str(
                "somebody changed that; it is left as it is. `--force` writes over it (own lines belong into\n",
            );
            text.push_str("`systemctl edit wharf.service`, which setup never touches)\n");
        }
        if !self.next.is_empty() {
            text.push_str("next:\n");
            for command in lines(&self.next) {
                text.push_str(&format!("  {command}\n"));
            }
        }
        for note in &self.notes {
            text.push_str(&format!("{note}\n"));
        }
        session.say(&text)
    }
}

/// Whether systemd is pid 1, as sd_booted(3) has it.
fn has_systemd() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// `systemd 252 (252.39-1)`; without it the oldest that the units are written for.
fn systemd_version() -> u32 {
    let output = Command::new("systemctl").arg("--version").output();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.split_ascii_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(0)
}

fn unit_folder(scope: Scope) -> Result<PathBuf, Failure> {
    if scope == Scope::System {
        return Ok("/etc/systemd/system".into());
    }
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    config.map(|config| config.join("systemd/user")).ok_or_else(|| {
        Failure::new(ErrorKind::Precondition, "this user has no home folder").hint("set HOME, or XDG_CONFIG_HOME")
    })
}

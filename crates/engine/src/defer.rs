//! Other supervisors: a service that one of them runs is not run twice.

use std::{fs, path::Path};

use wharf_model::{ErrorKind, Failure};
use wharf_services::Context;

/// Who else may run a unit, as its policy writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Other<'a> {
    /// `systemd:UNIT`: the machine's systemd.
    System(&'a str),
    /// `systemd-user:UNIT`: the user's.
    User(&'a str),
    /// `pid_file:PATH`: whoever writes its process there.
    PidFile(&'a Path),
}

impl<'a> Other<'a> {
    /// From the policy's text.
    pub fn parse(text: &'a str) -> Option<Self> {
        match text.split_once(':')? {
            (_, "") => None,
            ("systemd", unit) => Some(Self::System(unit)),
            ("systemd-user", unit) => Some(Self::User(unit)),
            ("pid_file", path) => Some(Self::PidFile(Path::new(path))),
            _ => None,
        }
    }
}

/// Refuses a start while another supervisor runs the service.
pub async fn to_others(cx: &Context) -> Result<(), Failure> {
    let Some(other) = cx.policy.defer.as_deref().and_then(Other::parse) else { return Ok(()) };
    let running = match other {
        Other::System(unit) => is_active(cx, &["is-active", unit]).await.then(|| {
            let text = format!("systemd runs it already, as {unit}");
            (text, format!("systemctl disable --now {unit} hands it over: Wharf starts it then"))
        }),
        Other::User(unit) => is_active(cx, &["--user", "is-active", unit]).await.then(|| {
            let text = format!("systemd runs it already for this user, as {unit}");
            (text, format!("systemctl --user disable --now {unit} hands it over: Wharf starts it then"))
        }),
        Other::PidFile(path) => living(path).map(|pid| {
            let text = format!("another supervisor runs it already: pid {pid} of {}", path.display());
            (text, "stop it there: Wharf starts it then".to_owned())
        }),
    };
    match running {
        Some((text, hint)) => Err(Failure::new(ErrorKind::Precondition, text).hint(hint).about(&cx.unit)),
        None => Ok(()),
    }
}

/// Where there is no systemctl, systemd runs nothing.
async fn is_active(cx: &Context, args: &[&str]) -> bool {
    let asked = cx.run("systemctl").args(args).limit_ms(5_000).output().await;
    asked.is_ok_and(|out| out.code == 0)
}

fn living(path: &Path) -> Option<i32> {
    let pid: i32 = fs::read_to_string(path).ok()?.trim().parse().ok().filter(|pid| *pid > 1)?;
    Path::new(&format!("/proc/{pid}")).exists().then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_kinds_are_understood_and_nothing_else() {
        assert_eq!(Other::parse("systemd:redis-server.service"), Some(Other::System("redis-server.service")));
        assert_eq!(Other::parse("systemd-user:web.service"), Some(Other::User("web.service")));
        assert_eq!(Other::parse("pid_file:/run/x.pid"), Some(Other::PidFile(Path::new("/run/x.pid"))));
        for text in ["", "systemd", "systemd:", "launchd:x", "/run/x.pid"] {
            assert_eq!(Other::parse(text), None, "{text}");
        }
    }
}

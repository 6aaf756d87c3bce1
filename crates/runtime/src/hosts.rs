//! The other machines that somebody looks at from here: `hosts.toml`.
//!
//! It owns the file and what may stand in it. It refuses to know how a host is asked.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use wharf_model::{ErrorKind, Failure};

use crate::Layout;

/// The name of this machine, unless the file gives it another one.
pub const LOCAL: &str = "local";

/// No hosts file is larger.
const LARGEST: u64 = 1024 * 1024;

/// How a host is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// It is this machine.
    Local,
    /// By a daemon's socket that lies on this machine (forwarded, or mounted).
    Socket(PathBuf),
    /// By ssh.
    Ssh(Ssh),
}

/// A way to a host by ssh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ssh {
    /// `user@host`, an alias of ssh's own configuration, or `ssh://user@host:port`.
    pub destination: String,
    /// The program there.
    pub wharf: String,
    /// The daemon's socket there, where it is not the usual one.
    pub socket: Option<PathBuf>,
}

/// A machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// What it is called here.
    pub name: String,
    /// How it is asked.
    pub access: Access,
    /// How long an answer is waited for, where the file says.
    pub deadline: Option<Duration>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    /// Whether this machine is among them where none of them is called local.
    #[serde(default = "yes")]
    this_machine: bool,
    #[serde(default)]
    hosts: BTreeMap<String, Entry>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    #[serde(default)]
    local: bool,
    #[serde(default)]
    socket: Option<PathBuf>,
    #[serde(default)]
    ssh: Option<String>,
    #[serde(default)]
    wharf: Option<String>,
    #[serde(default)]
    timeout_s: Option<f64>,
}

/// All hosts of an installation: this machine first, the others by name.
pub fn read(layout: &Layout) -> Result<Vec<Host>, Failure> {
    let path = layout.hosts_file();
    let text = match text(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let message = format!("there is no hosts file {}", path.display());
            return Err(Failure::new(ErrorKind::Precondition, message).hint(
                "write one: `[hosts.NAME]`, and below it `ssh = \"user@host\"` or `socket = \"/path\"` (docs/hosts.md)",
            ));
        }
        Err(e) => return Err(Failure::from(e).while_doing(format_args!("read {}", path.display()))),
    };
    parse(&text).map_err(|failure| failure.while_doing(format_args!("read {}", path.display())))
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(LARGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(text) }
}

fn parse(text: &str) -> Result<Vec<Host>, Failure> {
    let book: Book = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let message = format!("line {line}: {}", e.message().replace('\n', ", "));
        Failure::new(ErrorKind::InvalidParams, message).hint("docs/hosts.md has all that may stand there")
    })?;
    let mut hosts = vec![];
    for (name, entry) in book.hosts {
        let host = entry.host(&name).map_err(|what| {
            Failure::new(ErrorKind::InvalidParams, format!("[hosts.{name}] {what}")).hint(
                "a host has one of `ssh = \"user@host\"`, `socket = \"/path\"` and `local = true` (docs/hosts.md)",
            )
        })?;
        hosts.push(host);
    }
    let of_here: Vec<&str> = hosts.iter().filter(|h| h.access == Access::Local).map(|h| h.name.as_str()).collect();
    if let [one, another, ..] = of_here[..] {
        let message = format!("{one} and {another} both are this machine");
        return Err(Failure::new(ErrorKind::InvalidParams, message).hint("take `local = true` out of one of them"));
    }
    if of_here.is_empty() && book.this_machine {
        hosts.push(Host { name: LOCAL.into(), access: Access::Local, deadline: None });
    }
    hosts.sort_by_key(|host| (host.access != Access::Local, host.name.clone()));
    Ok(hosts)
}

impl Entry {
    fn host(self, name: &str) -> Result<Host, String> {
        let sound = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > 63 || name.starts_with(['-', '.']) || !name.bytes().all(sound) {
            return Err("is no name: use letters, digits, '.', '_' and '-', at most 63".into());
        }
        let access = match (self.local, self.ssh, self.socket) {
            (true, None, None) => Access::Local,
            (false, None, Some(socket)) => Access::Socket(whole("socket", socket)?),
            (false, Some(destination), socket) => Access::Ssh(Ssh {
                destination: destination_of(destination)?,
                wharf: self.wharf.clone().unwrap_or_else(|| "wharf".into()),
                socket: socket.map(|path| whole("socket", path)).transpose()?,
            }),
            (false, None, None) => return Err("does not say how it is asked".into()),
            (true, _, _) => return Err("is this machine, and has another way to it".into()),
        };
        if self.wharf.is_some() && !matches!(access, Access::Ssh(_)) {
            return Err("has `wharf`, the program there, without `ssh`".into());
        }
        if name == LOCAL && access != Access::Local {
            return Err("is the name of this machine".into());
        }
        let deadline = |s| Duration::try_from_secs_f64(s).ok().filter(|d| !d.is_zero() && d.as_secs() <= 600);
        let deadline = self.timeout_s.map(|s| deadline(s).ok_or("timeout_s is more than 0 and at most 600 seconds"));
        let deadline = deadline.transpose()?;
        Ok(Host { name: name.into(), access, deadline })
    }
}

fn whole(field: &str, path: PathBuf) -> Result<PathBuf, String> {
    if path.is_absolute() { Ok(path) } else { Err(format!("{field}: {} does not begin with /", path.display())) }
}

/// What begins with a dash would be an option of ssh's.
fn destination_of(text: String) -> Result<String, String> {
    let odd = text.is_empty() || text.starts_with('-') || text.chars().any(|c| c.is_whitespace() || c.is_control());
    if odd { Err(format!("ssh: {text:?} is no destination")) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_comes_first_and_every_host_has_one_way_to_it() {
        let hosts = parse(
            "[hosts.plum]\nssh = \"plum-voyager\"\nwharf = \"/opt/wharf\"\nsocket = \"/srv/w/service.sock\"\n\
             [hosts.apricot]\nlocal = true\n\
             [hosts.black]\nsocket = \"/run/black/service.sock\"\ntimeout_s = 0.5\n",
        )
        .unwrap();
        assert_eq!(hosts.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), ["apricot", "black", "plum"]);
        assert_eq!((hosts[0].deadline, hosts[1].deadline), (None, Some(Duration::from_millis(500))));
        let ssh = Ssh {
            destination: "plum-voyager".into(),
            wharf: "/opt/wharf".into(),
            socket: Some("/srv/w/service.sock".into()),
        };
        assert_eq!(hosts[2].access, Access::Ssh(ssh));
    }

    #[test]
    fn this_machine_is_among_them_unless_it_is_left_out() {
        let names = |text| parse(text).unwrap().into_iter().map(|h| h.name).collect::<Vec<_>>();
        assert_eq!(names("[hosts.b]\nssh = \"b\"\n"), ["local", "b"]);
        assert_eq!(names("this_machine = false\n[hosts.b]\nssh = \"b\"\n"), ["b"]);
        assert_eq!(names(""), ["local"]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_place() {
        for (text, says) in [
            ("[hosts.a]\n", "[hosts.a] does not say how"),
            ("[hosts.a]\nssh = \"-oProxyCommand=x\"\n", "is no destination"),
            ("[hosts.a]\nssh = \"a b\"\n", "is no destination"),
            ("[hosts.a]\nsocket = \"s.sock\"\n", "does not begin with /"),
            ("[hosts.\"a b\"]\nssh = \"a\"\n", "is no name"),
            ("[hosts.local]\nssh = \"a\"\n", "the name of this machine"),
            ("[hosts.a]\nlocal = true\nssh = \"a\"\n", "has another way"),
            ("[hosts.a]\nlocal = true\n[hosts.b]\nlocal = true\n", "a and b both"),
            ("[hosts.a]\nssh = \"a\"\ntimeout_s = 0\n", "timeout_s"),
            ("[hosts.a]\nsocket = \"/s\"\nwharf = \"/w\"\n", "without `ssh`"),
            ("\n[hosts.a]\nshh = \"a\"\n", "line 3: unknown field `shh`"),
            ("[hosts.a\n", "line 1"),
        ] {
            let refused = parse(text).unwrap_err();
            assert!(refused.message.contains(says) && refused.hint.is_some(), "{text}: {refused:?}");
        }
    }
}

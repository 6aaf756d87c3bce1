//! The texts of the units, and the commands around them. No IO: everything that they depend on is given.

use std::path::{Path, PathBuf};

/// Whose daemon it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// Of one user, by that user's systemd.
    User,
    /// Of the machine.
    System,
}

/// What the units depend on.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub(super) scope: Scope,
    pub(super) binary: PathBuf,
    folder: PathBuf,
    sockets: Vec<PathBuf>,
    /// The service socket, where it was named on the command line.
    named_socket: Option<PathBuf>,
    /// Variables that say where everything lies.
    pub(super) variables: Vec<(String, String)>,
    user: String,
    systemd: u32,
}

/// From which version on systemd puts the daemon into a subgroup of its own.
const HAS_SUBGROUP: u32 = 254;

/// What chooses the folders of an installation; a service manager has not the variables of a shell.
const PLACES: [&str; 4] = ["WHARF_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"];

impl Site {
    pub(super) fn new(
        scope: Scope,
        binary: PathBuf,
        folder: PathBuf,
        service: PathBuf,
        is_named: bool,
        var: impl Fn(&str) -> Option<String>,
        systemd: u32,
    ) -> Self {
        let set = |name: &str| Some((name.to_owned(), var(name).filter(|v| !v.is_empty())?));
        let mut variables: Vec<_> = PLACES.into_iter().filter_map(set).collect();
        if scope == Scope::User {
            // What a person's shell finds, their services find.
            variables.extend(set("PATH"));
        }
        let named_socket = is_named.then(|| service.clone());
        let sockets = vec![service.clone(), wharf_client::rpc_socket(&service), wharf_client::admin_socket(&service)];
        let user = var("USER").filter(|user| !user.is_empty()).unwrap_or_else(|| "$USER".into());
        Self { scope, binary, folder, sockets, named_socket, variables, user, systemd }
    }

    /// Each file and its text.
    pub(super) fn files(&self) -> [(PathBuf, String); 2] {
        [(self.folder.join("wharf.service"), self.service()), (self.folder.join("wharf.socket"), self.socket())]
    }

    fn service(&self) -> String {
        let is_system = self.scope == Scope::System;
        let program = quoted(&self.binary.display().to_string());
        let socket =
            self.named_socket.as_ref().map(|path| format!(" --socket {}", quoted(&path.display().to_string())));
        let socket = socket.unwrap_or_default();
        let variables: String = self
            .variables
            .iter()
            .map(|(name, value)| format!("Environment={}\n", in_quotes(&format!("{name}={value}"))))
            .collect();
        let subgroup = if self.systemd >= HAS_SUBGROUP { "DelegateSubgroup=daemon\n" } else { "" };
        let (after, limits, target) = if is_system {
            ("After=network.target local-fs.target\n", "OOMScoreAdjust=-900\nLimitNOFILE=524288\n", "multi-user.target")
        } else {
            ("", "", "default.target")
        };
        let edit = if is_system { "systemctl edit" } else { "systemctl --user edit" };
        format!(
            "# Lines of your own: {edit} wharf.service

[Unit]
Description=Wharf runs the services of this machine
{after}# It is tried for ever: what it watches over must not be left alone.
StartLimitIntervalSec=0

[Service]
Type=notify
# Services live in its cgroup, perhaps as other users: they must not speak for it.
NotifyAccess=main
# From a daemon that was started by hand it takes over.
ExecStart={program}{socket} daemon --replace
# After an upgrade: the new program in the old one's place, and no client is refused.
ExecReload={program}{socket} daemon --replace --detach
Restart=always
RestartSec=100ms
WatchdogSec=30
TimeoutStopSec=15
# Its end is not the end of the services, nor is its cgroup.
KillMode=process
Delegate=yes
{subgroup}OOMPolicy=continue
TasksMax=infinity
{limits}{variables}
[Install]
WantedBy={target}
Also=wharf.socket
"
        )
    }

    fn socket(&self) -> String {
        let listen: String = self.sockets.iter().map(|path| format!("ListenStream={}\n", escaped(path))).collect();
        format!(
            "# While the daemon restarts, systemd listens: nobody is refused.

[Unit]
Description=Sockets of Wharf
StartLimitIntervalSec=0

[Socket]
{listen}SocketMode=0600
DirectoryMode=0700
Backlog=1024
RemoveOnStop=yes
TriggerLimitIntervalSec=0

[Install]
WantedBy=sockets.target
"
        )
    }

    fn systemctl(&self, words: &[&str]) -> Vec<String> {
        let user: &[&str] = if self.scope == Scope::User { &["--user"] } else { &[] };
        ["systemctl"].iter().chain(user).chain(words).map(|word| (*word).to_owned()).collect()
    }

    pub(super) fn commands_to_start(&self) -> Vec<Vec<String>> {
        vec![
            self.systemctl(&["daemon-reload"]),
            self.systemctl(&["enable", "--quiet", "--now", "wharf.socket", "wharf.service"]),
        ]
    }

    pub(super) fn commands_before_removal(&self) -> Vec<Vec<String>> {
        vec![self.systemctl(&["disable", "--quiet", "--now", "wharf.socket", "wharf.service"])]
    }

    pub(super) fn commands_to_remove(&self) -> Vec<Vec<String>> {
        vec![self.systemctl(&["daemon-reload"])]
    }

    /// What a person should know.
    pub(super) fn notes(&self) -> Vec<String> {
        let mut notes = vec![];
        if self.scope == Scope::User {
            let linger = format!("loginctl enable-linger {}", self.user);
            notes.push(format!("so that it runs without a login of yours (at boot, after the last logout): {linger}"));
        }
        let is_passing = ["/tmp/", "/target/debug/", "/target/release/"];
        let binary = self.binary.display().to_string();
        if is_passing.iter().any(|part| binary.contains(part)) {
            notes.push(format!("the units name {binary}: copy it to a lasting place, and set up from there"));
        }
        notes
    }
}

/// A word of a command line: there `$` begins a variable.
fn quoted(word: &str) -> String {
    in_quotes(&word.replace('$', "$$"))
}

/// A word of a unit: `%` begins a specifier, quotes and spaces part words.
fn in_quotes(word: &str) -> String {
    let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
    if word.contains([' ', '\t', '\'', '"', ';']) { format!("\"{word}\"") } else { word }
}

fn escaped(path: &Path) -> String {
    path.display().to_string().replace('%', "%%")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(scope: Scope, vars: &[(&str, &str)], systemd: u32) -> Site {
        let (folder, run) = match scope {
            Scope::System => ("/etc/systemd/system", "/run/wharf/service.sock"),
            Scope::User => ("/home/a/.config/systemd/user", "/run/user/1000/wharf/service.sock"),
        };
        let var = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        Site::new(scope, "/usr/bin/wharf".into(), folder.into(), run.into(), false, var, systemd)
    }

    #[test]
    fn the_units_of_the_system() {
        let [(service_path, service), (_, socket)] = site(Scope::System, &[("PATH", "/x")], 252).files();
        assert_eq!(service_path, Path::new("/etc/systemd/system/wharf.service"));
        insta::assert_snapshot!(service);
        insta::assert_snapshot!(socket);
    }

    #[test]
    fn the_units_of_a_user() {
        let vars = [("PATH", "/home/a/my bin:/bin"), ("WHARF_HOME", "/srv/$100%"), ("USER", "a")];
        let site = site(Scope::User, &vars, 257);
        let [(_, service), (_, socket)] = site.files();
        insta::assert_snapshot!(service);
        insta::assert_snapshot!(socket);
        assert_eq!(site.commands_to_start()[0].join(" "), "systemctl --user daemon-reload");
        assert!(site.notes()[0].ends_with("loginctl enable-linger a"), "{:?}", site.notes());
    }

    #[test]
    fn a_program_that_will_not_last_is_told() {
        let mut site = site(Scope::System, &[], 252);
        assert!(site.notes().is_empty());
        site.binary = "/home/a/wharf/target/debug/wharf".into();
        assert!(site.notes()[0].contains("lasting place"));
    }
}

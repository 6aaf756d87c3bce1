//! Where everything of one installation lies.
//!
//! It owns paths and the modes of folders. It refuses to know what is in them.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use wharf_model::{ErrorKind, Failure, RunId, UnitName};

/// The folders of one installation. Several may live on one machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// For people: by what it was chosen (`WHARF_HOME=/srv/wharf`, `the system's folders`, `the user's folders`).
    pub home: String,
    state: PathBuf,
    store: PathBuf,
    data: PathBuf,
    logs: PathBuf,
    cache: PathBuf,
    secrets: PathBuf,
    /// What people write for Wharf: read, and never written.
    config: PathBuf,
    /// Sockets and the shims' files: open to nobody else.
    run: PathBuf,
    /// Files that services make anew at each start. Beside `run`, since a service's user must pass.
    units: PathBuf,
}

impl Layout {
    /// By `WHARF_HOME`, else the system's folders for root, else the user's (XDG).
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var_os(name).filter(|v| !v.is_empty()), nix::unistd::geteuid().as_raw())
    }

    /// Everything below one folder.
    pub fn below(home: &Path) -> Self {
        Self {
            home: format!("WHARF_HOME={}", home.display()),
            state: home.join("state"),
            store: home.join("store"),
            data: home.join("data"),
            logs: home.join("logs"),
            cache: home.join("cache"),
            secrets: home.join("secrets"),
            config: home.join("config"),
            run: home.join("run"),
            units: home.join("units"),
        }
    }

    fn from_vars(var: impl Fn(&str) -> Option<OsString>, uid: u32) -> Self {
        if let Some(home) = var("WHARF_HOME") {
            let home = PathBuf::from(home);
            return Self::below(&std::path::absolute(&home).unwrap_or(home));
        }
        let xdg = ["XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"];
        if uid == 0 && xdg.iter().all(|name| var(name).is_none()) {
            // /run/user/0 is what any login of root sets: `wharf` in a root shell must find the
            // installation that the system's service made. Another folder was named on purpose.
            let named = var("XDG_RUNTIME_DIR").map(PathBuf::from);
            let named = named.filter(|p| p.is_absolute() && p != Path::new("/run/user/0"));
            return Self::of_system(named.map(|p| p.join("wharf")));
        }
        let home = var("HOME").map_or_else(|| PathBuf::from("/"), PathBuf::from);
        let base = |name: &str, fallback: &str| {
            let named = var(name).map(PathBuf::from).filter(|p| p.is_absolute());
            named.unwrap_or_else(|| home.join(fallback)).join("wharf")
        };
        let (state, data) = (base("XDG_STATE_HOME", ".local/state"), base("XDG_DATA_HOME", ".local/share"));
        let run = user_run(&var, uid);
        Self {
            home: "the user's folders".into(),
            units: if uid == 0 { state.join("units") } else { run.join("units") },
            run,
            store: data.join("store"),
            data: data.join("data"),
            logs: state.join("logs"),
            secrets: state.join("secrets"),
            cache: base("XDG_CACHE_HOME", ".cache"),
            config: base("XDG_CONFIG_HOME", ".config"),
            state,
        }
    }

    fn of_system(run: Option<PathBuf>) -> Self {
        let lib = Path::new("/var/lib/wharf");
        Self {
            home: "the system's folders".into(),
            state: lib.join("state"),
            store: lib.join("store"),
            data: lib.join("data"),
            secrets: lib.join("secrets"),
            logs: "/var/log/wharf".into(),
            cache: "/var/cache/wharf".into(),
            config: "/etc/wharf".into(),
            run: run.unwrap_or_else(|| "/run/wharf".into()),
            units: "/run/wharf-units".into(),
        }
    }

    /// The database.
    pub fn state_db(&self) -> PathBuf {
        self.state.join("wharf.db")
    }

    /// The folder of the database.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Everything that is placed.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// What a unit must not lose.
    pub fn data(&self, unit: &UnitName) -> PathBuf {
        self.data.join(unit.as_str())
    }

    /// A unit's files that are made anew at each start.
    pub fn unit_run(&self, unit: &UnitName) -> PathBuf {
        self.units.join(unit.as_str())
    }

    /// The folder of what units make anew at each start.
    pub fn units(&self) -> &Path {
        &self.units
    }

    /// The socket by which a run's program says how it is.
    pub fn notify(&self, run: RunId) -> PathBuf {
        // No unit is called so.
        self.units.join(".notify").join(run.to_string())
    }

    /// The shims' files.
    pub fn runs(&self) -> PathBuf {
        self.run.join("runs")
    }

    /// The logs of a unit, one file a run.
    pub fn logs(&self, unit: &UnitName) -> PathBuf {
        self.logs.join(unit.as_str())
    }

    /// The logs of all units, a folder each.
    pub fn all_logs(&self) -> &Path {
        &self.logs
    }

    /// The log of one run.
    pub fn log(&self, unit: &UnitName, run: RunId) -> PathBuf {
        self.logs(unit).join(format!("{run}.log"))
    }

    /// What can be fetched or built again.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The 0600 files that keep secrets.
    pub fn secrets(&self) -> &Path {
        &self.secrets
    }

    /// The machines that are looked at from here (docs/hosts.md).
    pub fn hosts_file(&self) -> PathBuf {
        self.config.join("hosts.toml")
    }

    /// Ranges of ports, and what is said of single units' ports (docs/ports.md).
    pub fn ports_file(&self) -> PathBuf {
        self.config.join("ports.toml")
    }

    /// The services that are executables of their own (docs/adding/executable.md).
    pub fn services_dir(&self) -> PathBuf {
        self.config.join("services")
    }

    /// Other addresses for the hosts that releases are fetched from (docs/installing.md).
    pub fn sources_file(&self) -> PathBuf {
        self.config.join("sources.toml")
    }

    /// The folder of the sockets, open to nobody else.
    pub fn sockets(&self) -> PathBuf {
        self.run.clone()
    }

    /// The file that declares simulated devices. People write it; it need not be there.
    pub fn simulated_gpus(&self) -> PathBuf {
        self.config.join("gpus.toml")
    }

    /// The sockets through which programs outside are given their listening sockets, one a lease.
    pub fn hatches(&self) -> PathBuf {
        self.run.join("ports")
    }

    /// The socket of `service.*` and `rpc.*`.
    pub fn service_sock(&self) -> PathBuf {
        self.sockets().join("service.sock")
    }

    /// The socket of `event.*`, `op.*` and the other namespaces.
    pub fn rpc_sock(&self) -> PathBuf {
        self.sockets().join("rpc.sock")
    }

    /// The socket of the page for people.
    pub fn admin_sock(&self) -> PathBuf {
        self.sockets().join("admin.sock")
    }

    /// Where the shim's binary is put. Not below the run folder, which is often mounted noexec.
    pub fn shim_dir(&self) -> PathBuf {
        self.state.join("shim")
    }

    /// Makes all folders. Those that a service's user must pass are open for passing, the others closed.
    pub fn create(&self) -> Result<(), Failure> {
        // The sockets' folder is made and never mended: one that others can enter is refused by its sockets.
        make_new(&self.run, 0o700)?;
        for open in [&self.store, &self.data] {
            make(open, 0o755)?;
        }
        make(&self.units, 0o711)?;
        for closed in [&self.state, &self.logs, &self.secrets, &self.runs(), &self.shim_dir()] {
            make(closed, 0o700)?;
        }
        make(&self.cache, 0o755)
    }

    /// Makes the folders of one unit.
    pub fn create_unit(&self, unit: &UnitName) -> Result<(), Failure> {
        make_new(&self.data(unit), 0o700)?;
        make_new(&self.unit_run(unit), 0o700)?;
        make_new(&self.logs(unit), 0o700)
    }

    /// Removes the sockets in a unit's own run folder, before a run is made: those of a program that was killed would
    /// keep the next one from binding there.
    pub fn clear_sockets(&self, unit: &UnitName) {
        let entries = fs::read_dir(self.unit_run(unit)).into_iter().flatten().flatten();
        for entry in entries.filter(|entry| entry.file_type().is_ok_and(|found| found.is_socket())) {
            if let Err(e) = fs::remove_file(entry.path()) {
                tracing::warn!("an old socket stays: {}: {e}", entry.path().display());
            }
        }
    }
}

fn user_run(var: &impl Fn(&str) -> Option<OsString>, uid: u32) -> PathBuf {
    if let Some(dir) = var("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|p| p.is_absolute()) {
        return dir.join("wharf");
    }
    let usual = PathBuf::from(format!("/run/user/{uid}"));
    if fs::metadata(&usual).is_ok_and(|m| m.is_dir() && m.uid() == uid) {
        return usual.join("wharf");
    }
    let tmp = var("TMPDIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from);
    tmp.join(format!("wharf-{uid}"))
}

/// Makes a folder and what leads to it, and sets the mode of the last one.
fn make(path: &Path, mode: u32) -> Result<(), Failure> {
    make_new(path, mode)?;
    let found = fs::metadata(path).map_err(|e| unmakeable(path, e))?;
    // In a folder that all may write to, another user can have been first.
    if found.uid() != nix::unistd::geteuid().as_raw() {
        let text = format!("{} belongs to uid {}, not to this user", path.display(), found.uid());
        return Err(Failure::new(ErrorKind::Permission, text).hint("set WHARF_HOME to a folder of your own"));
    }
    if found.permissions().mode() & 0o7777 != mode {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(|e| unmakeable(path, e))?;
    }
    Ok(())
}

/// Makes a folder and what leads to it; one that is there is left as it is.
fn make_new(path: &Path, mode: u32) -> Result<(), Failure> {
    if let Some(parent) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(|e| unmakeable(parent, e))?;
    }
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).map_err(|e| unmakeable(path, e))
}

fn unmakeable(path: &Path, e: io::Error) -> Failure {
    let mut failure = Failure::from(e);
    failure.message = format!("could not make the folder {}: {}", path.display(), failure.message);
    if failure.hint.is_none() {
        failure.hint = Some("set WHARF_HOME to a folder that this user may write to".into());
    }
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(vars: &[(&str, &str)], uid: u32) -> Layout {
        Layout::from_vars(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)), uid)
    }

    #[test]
    fn wharf_home_holds_everything() {
        let layout = by(&[("WHARF_HOME", "/srv/w"), ("XDG_DATA_HOME", "/x")], 1000);
        let unit: UnitName = "python-api@vault".parse().unwrap();
        for path in [layout.state_db(), layout.data(&unit), layout.runs(), layout.sockets(), layout.shim_dir()] {
            assert!(path.starts_with("/srv/w"), "{} lies outside", path.display());
        }
        assert_eq!(layout.log(&unit, RunId(7)), Path::new("/srv/w/logs/python-api@vault/7.log"));
    }

    #[test]
    fn root_has_the_systems_folders_and_a_user_has_their_own() {
        let root = by(&[("HOME", "/root"), ("XDG_RUNTIME_DIR", "/run/user/0")], 0);
        assert_eq!(root.service_sock(), Path::new("/run/wharf/service.sock"));
        assert_eq!(root.store(), Path::new("/var/lib/wharf/store"));
        assert_eq!(root.hosts_file(), Path::new("/etc/wharf/hosts.toml"));
        let user = by(&[("HOME", "/home/a"), ("XDG_RUNTIME_DIR", "/run/user/1000")], 1000);
        assert_eq!(user.store(), Path::new("/home/a/.local/share/wharf/store"));
        assert_eq!(user.service_sock(), Path::new("/run/user/1000/wharf/service.sock"));
        assert_eq!(user.hosts_file(), Path::new("/home/a/.config/wharf/hosts.toml"));
        assert_eq!(by(&[("HOME", "/h"), ("TMPDIR", "/t")], 4_000_000).runs(), Path::new("/t/wharf-4000000/runs"));
    }

    #[test]
    fn sockets_and_secrets_are_closed_and_the_store_is_open() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::below(dir.path());
        layout.create().unwrap();
        layout.create().unwrap();
        let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&layout.sockets()), 0o700);
        assert_eq!(mode(layout.secrets()), 0o700);
        assert_eq!(mode(layout.store()), 0o755);
    }
}

//! The parameters of compose, and what follows from a manifest: times, needs, where health is asked, the project's name.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};
use wharf_model::{ErrorKind, Failure, Manifest, Need, UnitName};

use crate::{Context, Result, command::Bound};

/// The file in the unit's folder of made things that keeps the name under which the project was brought up.
pub(super) const PROJECT: &str = "project";
/// From up to healthy, where the manifest does not say.
const HEALTHY_WITHIN_S: f64 = 30.0;
/// No time limit is longer: a day.
const LONGEST_S: f64 = 86_400.0;
/// By the order in which compose looks for them.
const FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];

/// Parameters of compose. A folder that services.toml leads to needs none.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct With {
    /// The folder with `service.yaml` and the compose file. Filled in where services.toml leads to it.
    #[serde(default)]
    folder: Option<PathBuf>,
    /// What `service.yaml` said at the last start. Wharf fills it in.
    #[serde(default)]
    manifest: Option<Map<String, Value>>,
    /// The command that understands compose files: `["docker-compose"]`. Usually the first that there is of `docker compose`, `docker-compose` and `podman compose`.
    #[serde(default)]
    pub(super) compose: Vec<String>,
    /// The container engine: `unix:///run/docker.sock`. Usually DOCKER_HOST of the daemon, else the socket that there is.
    #[serde(default)]
    pub(super) engine: Option<String>,
    /// The compose project's name. Usually what compose itself would take: of `.env`, of the compose file, of the folder.
    #[serde(default)]
    project: Option<String>,
    /// Environment variables for compose, which its file can name.
    #[serde(default)]
    env: BTreeMap<String, String>,
    /// A file of `NAME=value` lines for the same, read at each start.
    #[serde(default)]
    env_file: Option<PathBuf>,
    /// Others may use its GPU beside it, where the manifest says how much it takes.
    #[serde(default)]
    pub(super) share_gpu: bool,
    /// The units that its dependencies mean, where they are not `compose@NAME`: `{"cache": "redis"}`.
    #[serde(default)]
    units: BTreeMap<String, UnitName>,
    /// `up` may take this long, in seconds: it fetches images. Usually 120.
    #[serde(default = "usual_up")]
    pub(super) up_timeout_s: u64,
    /// `down` may take this long, in seconds. Usually 60.
    #[serde(default = "usual_down")]
    pub(super) down_timeout_s: u64,
}

fn usual_up() -> u64 {
    120
}

fn usual_down() -> u64 {
    60
}

impl With {
    /// What was checked before; nothing where it is not.
    pub(super) fn of(with: &Value) -> Self {
        let nothing = || Self {
            folder: None,
            manifest: None,
            compose: vec![],
            engine: None,
            project: None,
            env: BTreeMap::new(),
            env_file: None,
            share_gpu: false,
            units: BTreeMap::new(),
            up_timeout_s: usual_up(),
            down_timeout_s: usual_down(),
        };
        Self::deserialize(with).unwrap_or_else(|_| nothing())
    }

    /// The folder, which a unit has from its first start on.
    pub(super) fn folder(&self, unit: &UnitName) -> Result<&Path> {
        self.folder.as_deref().filter(|folder| folder.is_absolute()).ok_or_else(|| {
            Failure::new(ErrorKind::InvalidParams, format!("{unit} has no folder"))
                .hint(format!(
                    "wharf start {unit} --with folder=/path/to/it, or name the folder above in services.toml"
                ))
                .about(unit)
        })
    }

    /// What the manifest says, where there is one.
    pub(super) fn manifest(&self) -> Result<Option<Manifest>> {
        let Some(fields) = &self.manifest else { return Ok(None) };
        let read = Manifest::deserialize(Value::Object(fields.clone()));
        let wrong = |e| Failure::new(ErrorKind::InvalidParams, format!("with.manifest: {e}"));
        read.map(Some).map_err(|e| wrong(e).hint("docs/discovery.md has every field that has a meaning"))
    }

    /// The variables that compose is given.
    pub(super) fn surround<'a>(&self, mut run: Bound<'a>) -> Bound<'a> {
        for (name, value) in &self.env {
            run = run.env(name, value);
        }
        match &self.env_file {
            Some(file) => run.env_file(file),
            None => run,
        }
    }

    /// From the start to ready: `up`, then what the manifest calls health_timeout.
    pub(super) fn start_timeout_ms(&self, manifest: Option<&Manifest>) -> u64 {
        let healthy_s = manifest.and_then(|manifest| manifest.health_timeout).unwrap_or(HEALTHY_WITHIN_S);
        let healthy_ms = (healthy_s.clamp(0.0, LONGEST_S) * 1_000.0) as u64;
        self.up_timeout_s.saturating_mul(1_000).saturating_add(healthy_ms)
    }

    /// The units that it depends on.
    pub(super) fn needs(&self, manifest: &Manifest) -> Vec<Need> {
        let unit = |name: &str| self.units.get(name).cloned().or_else(|| UnitName::new("compose", Some(name)).ok());
        let need = |d: &wharf_model::Dependency| Some(Need { unit: unit(&d.service)?, soft: !d.required });
        manifest.dependencies.iter().filter_map(need).collect()
    }
}

/// The port of this machine and the path at which a manifest has its health asked; none: by its containers alone.
pub(super) fn health_at(manifest: &Manifest) -> Result<Option<(u16, String)>> {
    let Some(endpoint) = manifest.health_endpoint.as_deref().map(str::trim).filter(|at| !at.is_empty()) else {
        return Ok(None);
    };
    let wrong = |why: &str, hint: &str| {
        let text = format!("health_endpoint {endpoint:?} of {} {why}", manifest.name);
        Err(Failure::new(ErrorKind::InvalidParams, text).hint(hint))
    };
    let slashed = |path: &str| if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    if !endpoint.contains("://") {
        return match manifest.port {
            Some(port) => Ok(Some((port, slashed(endpoint)))),
            None => wrong("is a path, and there is no port", "add `port: NUMBER` to service.yaml, or a whole URL"),
        };
    }
    const LOCAL: &str = "it is asked on this machine, over plain HTTP: http://localhost:PORT/PATH";
    let Some(rest) = endpoint.strip_prefix("http://") else { return wrong("cannot be asked", LOCAL) };
    let (place, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        Some(_) | None => (place, Some(80)),
    };
    match (["localhost", "127.0.0.1", "[::1]", "0.0.0.0"].contains(&host), port) {
        (true, Some(port)) => Ok(Some((port, slashed(path)))),
        (false, _) | (true, None) => wrong("is on another machine", LOCAL),
    }
}

/// The name that the project was brought up by; else the one that it would be brought up by now.
pub(super) fn kept_project(cx: &Context, with: &With) -> Result<String> {
    let kept = cx.hands().text(&cx.run_dir().join(PROJECT)).filter(|name| is_project(name));
    kept.map_or_else(|| project(cx, with), Ok)
}

/// The project's name, as compose itself would find it.
pub(super) fn project(cx: &Context, with: &With) -> Result<String> {
    let folder = with.folder(&cx.unit)?;
    let text = |file: &str| cx.hands().text(&folder.join(file));
    let line = |text: String, before: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(before)?.split(" #").next().map(str::to_owned))?;
        Some(value.trim().trim_matches(['"', '\'']).to_owned()).filter(|value| is_project(value))
    };
    let named = || line(text(".env")?, "COMPOSE_PROJECT_NAME=");
    let in_file = || line(FILES.iter().find_map(|file| text(file))?, "name:");
    let of_folder = || folder.file_name().map(|name| plain(&name.to_string_lossy()));
    let found = with.project.clone().or_else(named).or_else(in_file).or_else(of_folder);
    found.filter(|name| is_project(name)).ok_or_else(|| {
        Failure::new(ErrorKind::InvalidParams, format!("no compose project can be called as {} is", folder.display()))
            .hint(format!("name it: wharf start {} --with project=NAME, of a-z, 0-9, '_' and '-'", cx.unit))
            .about(&cx.unit)
    })
}

/// As compose writes the name of a folder.
fn plain(name: &str) -> String {
    let kept: String = name
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(*c))
        .collect();
    kept.trim_start_matches(['_', '-']).to_owned()
}

fn is_project(name: &str) -> bool {
    !name.is_empty() && plain(name) == name
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn health_is_asked_at_a_path_on_the_port_or_at_a_url_of_this_machine() {
        let at = |manifest: Value| health_at(&Manifest::deserialize(manifest).unwrap());
        let ok = |manifest: Value| at(manifest).unwrap();
        assert_eq!(
            ok(json!({"name": "a", "port": 8000, "health_endpoint": "/health"})),
            Some((8000, "/health".into()))
        );
        assert_eq!(
            ok(json!({"name": "a", "port": 8000, "health_endpoint": "ready?x=1"})),
            Some((8000, "/ready?x=1".into()))
        );
        let url = json!({"name": "a", "port": 1, "health_endpoint": "http://localhost:8188/system_stats"});
        assert_eq!(ok(url), Some((8188, "/system_stats".into())));
        assert_eq!(ok(json!({"name": "a", "health_endpoint": "http://[::1]:90"})), Some((90, "/".into())));
        assert_eq!(ok(json!({"name": "a", "health_endpoint": "http://127.0.0.1/h"})), Some((80, "/h".into())));
        assert_eq!(ok(json!({"name": "a", "port": 8000})), None);
        for (endpoint, says) in [
            ("/health", "there is no port"),
            ("https://localhost/health", "cannot be asked"),
            ("http://example.com:80/health", "another machine"),
            ("http://localhost:x/health", "another machine"),
        ] {
            let failure = at(json!({"name": "a", "health_endpoint": endpoint})).unwrap_err();
            assert!(failure.message.contains(says) && failure.hint.is_some(), "{endpoint}: {failure}");
        }
    }

    #[test]
    fn a_folder_gives_the_name_that_compose_gives() {
        for (folder, name) in
            [("minimal-sd-api", "minimal-sd-api"), ("My Service.v2", "myservicev2"), ("_template", "template")]
        {
            assert_eq!(plain(folder), name);
        }
        assert!(is_project("a_b-1") && !is_project("") && !is_project("-a") && !is_project("A") && !is_project("${X}"));
    }
}

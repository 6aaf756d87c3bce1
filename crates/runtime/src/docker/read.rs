//! Answers of an engine, as values.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde::Deserialize;
use wharf_services::{Container, ContainerState};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    id: String,
    #[serde(default)]
    names: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    state: String,
    #[serde(default)]
    status: String,
    #[serde(default)]
    ports: Option<Vec<Port>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    #[serde(default, rename = "IP")]
    ip: Option<String>,
    #[serde(default)]
    public_port: Option<u16>,
    #[serde(default, rename = "Type")]
    kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    id: String,
}

/// A list of containers.
pub(super) fn containers(body: &[u8]) -> Result<Vec<Container>, serde_json::Error> {
    let rows: Vec<Row> = serde_json::from_slice(body)?;
    let label = |row: &Row, name: &str| row.labels.get(&format!("com.docker.compose.{name}")).cloned();
    let of_project = rows.into_iter().filter(|row| label(row, "oneoff").as_deref() != Some("True"));
    let mut found: Vec<Container> = of_project
        .map(|row| {
            let name = row.names.first().map_or(&*row.id, |name| name.trim_start_matches('/')).to_owned();
            Container {
                service: label(&row, "service").unwrap_or_else(|| name.clone()),
                folder: label(&row, "project.working_dir").map(PathBuf::from),
                state: state(&row.state),
                exit_code: exit_code(&row.status),
                is_well: is_well(&row.status),
                published: row.ports.unwrap_or_default().iter().filter_map(published).collect(),
                id: row.id,
                name,
            }
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The ids of a list.
pub(super) fn ids(body: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    let rows: Vec<Named> = serde_json::from_slice(body)?;
    Ok(rows.into_iter().map(|row| row.id).collect())
}

/// Docker's words, and Podman's.
fn state(word: &str) -> ContainerState {
    match word {
        "running" | "stopping" => ContainerState::Running,
        "paused" => ContainerState::Paused,
        "restarting" => ContainerState::Restarting,
        "created" | "configured" | "initialized" => ContainerState::Created,
        "removing" => ContainerState::Removing,
        "dead" => ContainerState::Dead,
        _ => ContainerState::Exited,
    }
}

/// `Exited (137) 2 seconds ago`, `Restarting (1) 5 seconds ago`.
fn exit_code(status: &str) -> Option<i32> {
    let (word, rest) = status.split_once(" (")?;
    matches!(word, "Exited" | "Restarting").then(|| rest.split(')').next()?.parse().ok()).flatten()
}

/// `Up 5 minutes (healthy)`, `… (unhealthy)`, `… (health: starting)`.
fn is_well(status: &str) -> Option<bool> {
    match status.rsplit_once('(')?.1 {
        "healthy)" => Some(true),
        "unhealthy)" => Some(false),
        _ => None,
    }
}

fn published(port: &Port) -> Option<SocketAddr> {
    let number = port.public_port.filter(|_| port.kind == "tcp")?;
    let ip = port.ip.as_deref().and_then(|ip| ip.parse::<IpAddr>().ok()).unwrap_or(Ipv4Addr::UNSPECIFIED.into());
    Some(SocketAddr::new(ip, number))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn states_codes_health_and_ports_are_read() {
        let label = |service: &str, oneoff: &str| {
            json!({ "com.docker.compose.project": "shop", "com.docker.compose.service": service,
                "com.docker.compose.oneoff": oneoff, "com.docker.compose.project.working_dir": "/srv/shop" })
        };
        let row = |name: &str, state: &str, status: &str, oneoff: &str| {
            json!({ "Id": format!("id-{name}"), "Names": [format!("/shop_{name}_1")], "Labels": label(name, oneoff), "State": state,
                "Status": status, "Ports": [
                    { "IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8123, "Type": "tcp" },
                    { "PrivatePort": 443, "Type": "tcp" }, { "IP": "::1", "PrivatePort": 53, "PublicPort": 53, "Type": "udp" },
                ] })
        };
        let body = json!([
            row("web", "running", "Up 2 hours (healthy)", "False"),
            row("db", "running", "Up 2 hours (unhealthy)", "False"),
            row("init", "exited", "Exited (0) 2 hours ago", "False"),
            row("job", "exited", "Exited (137) 2 seconds ago", "False"),
            row("loop", "restarting", "Restarting (1) 5 seconds ago", "False"),
            row("new", "running", "Up 1 second (health: starting)", "False"),
            row("by-hand", "running", "Up", "True"),
            json!({ "Id": "x", "Names": null, "Labels": {}, "State": "created", "Status": "Created", "Ports": null }),
        ]);
        // Podman leaves names and ports out where there are none.
        let mut rows = body.as_array().unwrap().clone();
        rows[7]["Names"] = json!([]);
        let found = containers(json!(rows).to_string().as_bytes()).unwrap();
        let of = |service: &str| found.iter().find(|c| c.service == service).unwrap();
        assert_eq!(found.len(), 7, "{found:?}");
        assert_eq!((of("web").is_well, of("db").is_well, of("new").is_well), (Some(true), Some(false), None));
        assert_eq!((of("init").exit_code, of("job").exit_code, of("loop").exit_code), (Some(0), Some(137), Some(1)));
        assert_eq!(of("web").folder.as_deref(), Some(std::path::Path::new("/srv/shop")));
        assert_eq!(of("web").published, ["0.0.0.0:8123".parse().unwrap()]);
        assert!(of("loop").lives() && of("web").lives() && !of("job").lives() && !of("x").lives());
        let faults: Vec<String> = found.iter().filter_map(Container::fault).collect();
        assert_eq!(
            faults,
            [
                "the health check of db says unhealthy",
                "job exited with code 137",
                "loop ends again and again",
                "x was never begun"
            ]
        );
    }
}

//! Containers by name, asked of a container engine on this machine: which one a port is published for.
//!
//! A port that Docker publishes is held by its proxy, or by dockerd itself: neither says for whom. It refuses to change
//! anything there.

use std::{
    collections::BTreeMap,
    env,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use wharf_model::Protocol;

/// An engine that does not answer is none.
const WAIT: Duration = Duration::from_secs(1);
/// An answer is cut here.
const MOST_BYTES: u64 = 8 << 20;

/// A container that runs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Container {
    /// 64 hex digits.
    pub id: String,
    names: Vec<String>,
    #[serde(default)]
    ports: Vec<Published>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Published {
    public_port: Option<u16>,
    #[serde(rename = "Type")]
    kind: String,
}

impl Container {
    /// What people call it.
    pub fn name(&self) -> &str {
        self.names.first().map_or(&*self.id, |name| name.trim_start_matches('/'))
    }

    /// Its compose project.
    pub fn project(&self) -> Option<&str> {
        self.labels.get("com.docker.compose.project").map(String::as_str)
    }

    /// Whether a port of the machine leads to it.
    pub fn publishes(&self, protocol: Protocol, port: u16) -> bool {
        self.ports.iter().any(|p| p.public_port == Some(port) && p.kind == protocol.word())
    }
}

/// Programs that hold ports for containers, or are the containers' engine: never ended by us.
pub fn is_engine(command: &str) -> bool {
    const ENGINES: [&str; 14] = [
        "dockerd",
        "docker-proxy",
        "containerd",
        "podman",
        "conmon",
        "rootlessport",
        "rootlesskit",
        "slirp4netns",
        "pasta",
        "crio",
        "kubelet",
        "kube-proxy",
        "k3s",
        "lxd",
    ];
    ENGINES.contains(&command) || command.starts_with("containerd-shim") || command.starts_with("rootlessport")
}

/// The containers that run, by the first engine that answers; none where there is none.
pub fn running() -> Vec<Container> {
    let found = sockets().into_iter().find_map(|socket| ask(&socket).ok());
    found.unwrap_or_default()
}

/// The sockets of engines that there are, the user's own before the machine's.
pub fn sockets() -> Vec<PathBuf> {
    let named = env::var("DOCKER_HOST").ok().and_then(|host| host.strip_prefix("unix://").map(PathBuf::from));
    let own = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let of_user = own.iter().flat_map(|dir| [dir.join("docker.sock"), dir.join("podman/podman.sock")]);
    let of_machine = ["/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock"].map(PathBuf::from);
    named.into_iter().chain(of_user).chain(of_machine).filter(|path| path.exists()).collect()
}

/// HTTP/1.0: the answer has no chunks and ends with the connection.
fn ask(socket: &Path) -> io::Result<Vec<Container>> {
    let mut line = UnixStream::connect(socket)?;
    line.set_read_timeout(Some(WAIT))?;
    line.set_write_timeout(Some(WAIT))?;
    line.write_all(b"GET /containers/json HTTP/1.0\r\nHost: wharf\r\n\r\n")?;
    let mut answer = vec![];
    line.take(MOST_BYTES).read_to_end(&mut answer)?;
    read(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn read(answer: &[u8]) -> Option<Vec<Container>> {
    let text = std::str::from_utf8(answer).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let is_good = head.split(' ').nth(1) == Some("200");
    is_good.then(|| serde_json::from_str(body).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_docker_is_read() {
        let body = r#"[{"Id":"abc","Names":["/web"],"Image":"x","Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8123,
            "Type":"tcp"},{"PrivatePort":443,"Type":"tcp"}],"Labels":{"com.docker.compose.project":"shop"},"State":"running"}]"#;
        let answer = format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}");
        let found = read(answer.as_bytes()).unwrap();
        assert_eq!((found[0].name(), found[0].project()), ("web", Some("shop")));
        assert!(found[0].publishes(Protocol::Tcp, 8123) && !found[0].publishes(Protocol::Udp, 8123));
        assert!(!found[0].publishes(Protocol::Tcp, 80));
        assert_eq!(read(b"HTTP/1.0 500 no\r\n\r\n[]"), None);
        assert!(is_engine("docker-proxy") && is_engine("containerd-shim-runc-v2") && !is_engine("redis-server"));
    }
}

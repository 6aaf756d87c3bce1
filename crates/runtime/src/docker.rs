//! The container engine of this machine, asked over its Unix socket: Docker's API, which Podman speaks too.
//!
//! It owns requests and what their answers mean. It refuses to know units, compose files and when something is asked.

mod read;
mod stream;

use std::{
    env,
    io::ErrorKind as Io,
    path::{Path, PathBuf},
    time::Duration,
};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::UnixStream, time::timeout};
use wharf_model::{ErrorKind, Failure};
use wharf_services::Container;

use crate::ports::engine_sockets;
pub use stream::{Event, Events, Log};

/// An engine that is at work answers within this; it may be starting a container meanwhile.
const WAIT: Duration = Duration::from_secs(10);
/// An answer is no longer.
const MOST_BYTES: usize = 16 << 20;
/// From the polite signal to the kill of a container that is left, in seconds.
const STOP_S: u32 = 10;

/// The label that compose gives to what belongs to a project.
const PROJECT: &str = "com.docker.compose.project";

/// An engine.
#[derive(Debug, Clone)]
pub struct Docker {
    socket: PathBuf,
}

/// The address of the engine that is meant: the named one, else the one of DOCKER_HOST, else the first that there is.
///
/// # Errors
/// `precondition` where there is none, `invalid_params` where it is reached by no Unix socket.
pub fn find(named: Option<&str>, podman: bool) -> Result<String, Failure> {
    let of_daemon = || env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty() && !podman);
    if let Some(address) = named.map(str::to_owned).or_else(of_daemon) {
        let docker = Docker::at(&address)?;
        return docker.socket.exists().then_some(address).ok_or_else(|| docker.missing());
    }
    let sockets = engine_sockets();
    let is_podmans = |path: &Path| path.to_string_lossy().contains("podman");
    let of_its_kind = sockets.iter().find(|path| is_podmans(path) == podman);
    let found = of_its_kind.or(sockets.first()).map(|path| format!("unix://{}", path.display()));
    found.ok_or_else(|| {
        Failure::new(ErrorKind::Precondition, "there is no container engine: no socket of Docker or Podman was found")
            .hint("Debian: apt install docker.io; Podman: systemctl --user enable --now podman.socket")
    })
}

impl Docker {
    /// The engine at `unix:///path`.
    pub fn at(address: &str) -> Result<Self, Failure> {
        match address.strip_prefix("unix://").map(PathBuf::from).filter(|path| path.is_absolute()) {
            Some(socket) => Ok(Self { socket }),
            None => Err(Failure::new(
                ErrorKind::InvalidParams,
                format!("the container engine {address:?} is not reached by a Unix socket"),
            )
            .hint("name one: unix:///run/docker.sock")),
        }
    }

    /// The containers of a compose project, those that have ended among them; not those of `compose run`.
    pub async fn containers(&self, project: &str) -> Result<Vec<Container>, Failure> {
        let filters = filters(&json!({ "label": [format!("{PROJECT}={project}")] }));
        let body = self.whole("GET", &format!("/containers/json?all=1&filters={filters}")).await?;
        read::containers(&body).map_err(|e| self.odd(&e))
    }

    /// The ids of a project's networks.
    pub async fn networks(&self, project: &str) -> Result<Vec<String>, Failure> {
        let filters = filters(&json!({ "label": [format!("{PROJECT}={project}")] }));
        let body = self.whole("GET", &format!("/networks?filters={filters}")).await?;
        read::ids(&body).map_err(|e| self.odd(&e))
    }

    /// Stops a container and removes it. One that is gone already is no failure.
    pub async fn remove(&self, id: &str) -> Result<(), Failure> {
        let patience = WAIT + Duration::from_secs(u64::from(STOP_S));
        // Whether it could be stopped is seen by its removal.
        let _ = self.done("POST", &format!("/containers/{id}/stop?t={STOP_S}"), patience).await;
        self.done("DELETE", &format!("/containers/{id}?force=1"), patience).await
    }

    /// Removes a network. One that is gone already is no failure.
    pub async fn remove_network(&self, id: &str) -> Result<(), Failure> {
        self.done("DELETE", &format!("/networks/{id}"), WAIT).await
    }

    /// What happens to a project's containers from now on.
    pub async fn events(&self, project: &str) -> Result<Events, Failure> {
        let kinds = ["start", "die", "destroy", "pause", "unpause"];
        let wanted = json!({ "type": ["container"], "event": kinds, "label": [format!("{PROJECT}={project}")] });
        let answer = self.ask("GET", &format!("/events?filters={}", filters(&wanted)), WAIT).await?;
        Ok(Events::of(self.good(answer).await?.into_body()))
    }

    /// What a container writes, from this time on (seconds since 1970), until it ends.
    pub async fn log(&self, id: &str, since_s: f64) -> Result<Log, Failure> {
        let about = self.whole("GET", &format!("/containers/{id}/json")).await?;
        let about: Value = serde_json::from_slice(&about).map_err(|e| self.odd(&e))?;
        let is_terminal = about.pointer("/Config/Tty").and_then(Value::as_bool).unwrap_or(false);
        let path = format!("/containers/{id}/logs?follow=1&stdout=1&stderr=1&since={since_s:.6}");
        let answer = self.ask("GET", &path, WAIT).await?;
        Ok(Log::of(self.good(answer).await?.into_body(), is_terminal))
    }

    async fn done(&self, method: &str, path: &str, patience: Duration) -> Result<(), Failure> {
        let answer = self.ask(method, path, patience).await?;
        // It has gone by itself, is stopped, or is being removed.
        if matches!(answer.status().as_u16(), 304 | 404 | 409) { Ok(()) } else { self.good(answer).await.map(drop) }
    }

    async fn whole(&self, method: &str, path: &str) -> Result<Bytes, Failure> {
        let answer = self.ask(method, path, WAIT).await?;
        let body = Limited::new(self.good(answer).await?.into_body(), MOST_BYTES);
        let read = timeout(WAIT, body.collect()).await.map_err(|_| self.silent())?;
        read.map(http_body_util::Collected::to_bytes).map_err(|e| self.odd(&e))
    }

    /// An answer that is none of the good ones becomes a failure with the engine's own words.
    async fn good(&self, answer: Response<Incoming>) -> Result<Response<Incoming>, Failure> {
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = Limited::new(answer.into_body(), 64 * 1024);
        let said =
            timeout(WAIT, body.collect()).await.ok().and_then(Result::ok).map(http_body_util::Collected::to_bytes);
        let said = said.and_then(|body| serde_json::from_slice::<Value>(&body).ok());
        let said =
            said.and_then(|said| said["message"].as_str().map(str::to_owned)).unwrap_or_else(|| status.to_string());
        Err(Failure::new(ErrorKind::ServiceFailed, format!("Docker error: {said}")))
    }

    /// One request on a connection of its own. It ends with the answer's body.
    async fn ask(&self, method: &str, path: &str, patience: Duration) -> Result<Response<Incoming>, Failure> {
        timeout(patience, self.asked(method, path)).await.map_err(|_| self.silent())?
    }

    async fn asked(&self, method: &str, path: &str) -> Result<Response<Incoming>, Failure> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| self.unreached(&e))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.odd(&e))?;
        tokio::spawn(async move { drop(connection.await) });
        let request = Request::builder().method(method).uri(path).header(header::HOST, "docker");
        let request = request.body(Empty::<Bytes>::new()).map_err(|e| self.odd(&e))?;
        sender.send_request(request).await.map_err(|e| self.odd(&e))
    }

    fn missing(&self) -> Failure {
        Failure::new(ErrorKind::Precondition, format!("there is no container engine at {}", self.socket.display()))
            .hint("is it started? `docker info`, `systemctl status docker`")
    }

    fn unreached(&self, e: &std::io::Error) -> Failure {
        match e.kind() {
            Io::NotFound => self.missing(),
            Io::PermissionDenied => {
                let text = format!("this user may not use the container engine at {}", self.socket.display());
                Failure::new(ErrorKind::Permission, text)
                    .hint("`usermod -aG docker USER` gives the right, and with it root's")
            }
            _ => Failure::new(
                ErrorKind::Precondition,
                format!("Docker does not answer at {}: {}", self.socket.display(), e.kind()),
            )
            .hint("is it started? `docker info`, `systemctl status docker`"),
        }
    }

    fn silent(&self) -> Failure {
        Failure::new(ErrorKind::Precondition, format!("Docker does not answer at {}", self.socket.display()))
            .hint("`docker info` says more")
    }

    fn odd(&self, e: &dyn std::fmt::Display) -> Failure {
        Failure::new(
            ErrorKind::Precondition,
            format!("what answers at {} is no container engine: {e}", self.socket.display()),
        )
        .hint("`docker info` says more")
    }
}

/// As a part of a URL.
fn filters(filters: &Value) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    filters
        .to_string()
        .bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_engine_is_reached_by_a_unix_socket_alone() {
        for address in ["tcp://127.0.0.1:2375", "ssh://me@there", "unix://relative", ""] {
            let failure = Docker::at(address).unwrap_err();
            assert!(failure.hint.unwrap().contains("unix:///run/docker.sock"), "{address}");
        }
        let failure = find(Some("unix:///nowhere/docker.sock"), false).unwrap_err();
        assert_eq!(failure.kind, ErrorKind::Precondition);
        assert_eq!(filters(&json!({"label": ["a=b"]})), "%7B%22label%22%3A%5B%22a%3Db%22%5D%7D");
    }

    #[tokio::test]
    async fn who_does_not_answer_or_is_no_engine_is_told_apart_from_one_that_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker.sock");
        let docker = Docker::at(&format!("unix://{}", path.display())).unwrap();
        let told = docker.containers("x").await.unwrap_err();
        assert!(told.message.contains("there is no container engine"), "{told}");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let told = docker.containers("x").await.unwrap_err();
        assert!(told.message.contains("Docker does not answer"), "{told}");
        std::fs::remove_file(&path).unwrap();
        let listener = tokio::net::UnixListener::bind(&path).unwrap();
        tokio::spawn(async move {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            for said in ["SSH-2.0-x\r\n", "HTTP/1.1 500 no\r\nContent-Length: 20\r\n\r\n{\"message\":\"broken\"}"] {
                let mut line = listener.accept().await.unwrap().0;
                assert!(line.read(&mut [0; 4096]).await.unwrap() > 0);
                line.write_all(said.as_bytes()).await.unwrap();
            }
        });
        assert!(docker.containers("x").await.unwrap_err().message.contains("is no container engine"));
        // SN-88.
        let told = docker.containers("x").await.unwrap_err();
        assert_eq!((told.kind, told.message.as_str()), (ErrorKind::ServiceFailed, "Docker error: broken"));
    }
}

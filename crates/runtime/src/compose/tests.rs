//! The follower before an engine that is played.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    sync::{Arc, Mutex},
    time::Instant,
};

use serde_json::{Value, json};

use super::*;

/// What the engine has, and what was asked of it.
#[derive(Default)]
struct State {
    containers: Vec<Value>,
    networks: Vec<Value>,
    asked: Vec<String>,
    /// Lines of events that are open.
    events: Vec<UnixStream>,
}

/// An engine.
struct Engine(Arc<Mutex<State>>);

impl Engine {
    fn at(socket: &Path) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let engine = Self(state.clone());
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            for line in listener.incoming() {
                answer(&state, line.unwrap());
            }
        });
        engine
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.0.lock().unwrap());
    }

    fn tell(&self, event: &str) {
        for line in &mut self.0.lock().unwrap().events {
            write!(line, "{:x}\r\n{event}\n\r\n", event.len() + 1).unwrap();
        }
    }
}

fn answer(state: &Mutex<State>, mut line: UnixStream) {
    let mut head = String::new();
    let mut reader = BufReader::new(line.try_clone().unwrap());
    while reader.read_line(&mut head).unwrap() > 2 {}
    let request = head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned();
    let mut state = state.lock().unwrap();
    state.asked.push(request.split('?').next().unwrap().to_owned());
    let path = request.split_once(' ').unwrap().1.to_owned();
    let body = match path.split('?').next().unwrap() {
        "/events" => {
            write!(line, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
            state.events.push(line);
            return;
        }
        "/containers/json" => json!(state.containers).to_string(),
        "/networks" => json!(state.networks).to_string(),
        of_one => {
            let id = of_one.split('/').nth(2).unwrap().to_owned();
            if request.starts_with("DELETE ") {
                state.containers.retain(|container| container["Id"] != *id);
                state.networks.retain(|network| network["Id"] != *id);
            }
            json!({ "Config": { "Tty": true } }).to_string()
        }
    };
    write!(line, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
}

fn container(service: &str, state: &str, status: &str) -> Value {
    let labels = json!({ "com.docker.compose.service": service });
    json!({ "Id": service, "Names": [format!("/x_{service}_1")], "Labels": labels, "State": state, "Status": status })
}

fn project(dir: &Path, compose: Vec<String>) -> Project {
    Project {
        folder: dir.to_owned(),
        name: "x".into(),
        engine: format!("unix://{}", dir.join("socket").display()),
        compose,
        record: dir.join("containers.json"),
        up_limit: Duration::from_secs(20),
        down_limit: Duration::from_secs(20),
    }
}

async fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_true() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_engine_that_is_away_says_nothing_and_the_last_container_ends_it() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let project = project(dir.path(), vec![]);
    let engine = Engine::at(&socket);
    let pair = vec![container("web", "running", "Up"), container("job", "running", "Up")];
    engine.set(|state| state.containers = pair);
    let docker = Docker::at(&project.engine).unwrap();
    let mut following = Box::pin(follow(&docker, &project, 0.0));
    let mut ended = None;
    tokio::select! {
        end = &mut following => ended = Some(end.code),
        () = until("it listens to events", || engine.0.lock().unwrap().events.len() == 1) => {}
    }
    // One ends badly, the other goes on.
    let looks =
        |engine: &Engine| engine.0.lock().unwrap().asked.iter().filter(|a| a.contains("/containers/json")).count();
    engine.set(|state| state.containers[1] = container("job", "exited", "Exited (3) 1 second ago"));
    // Whoever looks from now on sees it.
    let before = looks(&engine);
    engine.tell(r#"{"Action":"die","Actor":{"Attributes":{"exitCode":"3"}}}"#);
    tokio::select! {
        end = &mut following => ended = Some(end.code),
        () = until("it has looked again", || looks(&engine) > before) => {}
    }
    // The engine goes away, and comes back.
    fs::remove_file(&socket).unwrap();
    engine.set(|state| state.events.clear());
    tokio::select! {
        end = &mut following => ended = Some(end.code),
        () = tokio::time::sleep(Duration::from_millis(1_500)) => {}
    }
    assert_eq!(ended, None, "what an engine does not say is not known");
    let engine = Engine::at(&socket);
    engine.set(|state| state.containers = vec![container("web", "exited", "Exited (0) 1 second ago")]);
    assert_eq!(following.await.code, 3, "the code of the one that ended badly");
}

#[tokio::test]
async fn what_was_removed_by_hand_ends_it_with_the_code_that_was_told() {
    for (event, code) in [(Some(r#"{"Action":"die","Actor":{"Attributes":{"exitCode":"137"}}}"#), 137), (None, 1)] {
        let dir = tempfile::tempdir().unwrap();
        let project = project(dir.path(), vec![]);
        let engine = Engine::at(&dir.path().join("socket"));
        if event.is_some() {
            engine.set(|state| state.containers = vec![container("web", "running", "Up")]);
        }
        let docker = Docker::at(&project.engine).unwrap();
        let mut following = Box::pin(follow(&docker, &project, 0.0));
        let told = async {
            let Some(event) = event else { return std::future::pending().await };
            until("it listens to events", || engine.0.lock().unwrap().events.len() == 1).await;
            engine.tell(event);
            engine.set(|state| state.containers.clear());
            engine.tell(r#"{"Action":"destroy"}"#);
        };
        let ended = tokio::select! {
            end = &mut following => end,
            () = told => following.await,
        };
        assert_eq!(ended.code, code, "{event:?}");
    }
}

/// SN-45, SN-95.
#[tokio::test]
async fn what_down_leaves_is_removed_and_without_compose_all_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("compose");
    fs::write(&script, "#!/bin/sh\necho $PWD $* >> said; echo broken >&2; exit 1\n").unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let engine = Engine::at(&dir.path().join("socket"));
    for compose in [vec![script.display().to_string(), "--ansi=never".into()], vec![]] {
        engine.set(|state| {
            state.containers = vec![container("web", "running", "Up"), container("job", "exited", "Exited (0) now")];
            state.networks = vec![json!({ "Id": "net" })];
            state.asked.clear();
        });
        let project = project(dir.path(), compose);
        let docker = Docker::at(&project.engine).unwrap();
        down(&docker, &project).await.unwrap();
        let asked = engine.0.lock().unwrap().asked.clone();
        let changed: Vec<&str> = asked.iter().filter(|a| !a.starts_with("GET ")).map(String::as_str).collect();
        let wanted = [
            "POST /containers/job/stop",
            "DELETE /containers/job",
            "POST /containers/web/stop",
            "DELETE /containers/web",
        ];
        assert_eq!(changed, [&wanted[..], &["DELETE /networks/net"]].concat());
    }
    let said = fs::read_to_string(dir.path().join("said")).unwrap();
    let folder = dir.path().canonicalize().unwrap();
    assert_eq!(said, format!("{} --ansi=never --project-name x down\n", folder.display()), "in its folder, once");
    engine.set(|state| state.asked.clear());
    take_down_of(&project(dir.path(), vec!["/nowhere".into()])).await.unwrap();
    assert_eq!(engine.0.lock().unwrap().asked.len(), 2, "nothing is there: nothing is run");
}

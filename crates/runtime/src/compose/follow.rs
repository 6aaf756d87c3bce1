//! Following a project: what its containers write, and whether one of them still runs.
//!
//! An engine that does not answer says nothing of its containers: they may live on without it (live-restore), so it is
//! waited for.

use std::{cell::Cell, collections::BTreeMap, io::Write, rc::Rc, time::Duration};

use futures_util::{StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use wharf_model::Failure;
use wharf_services::Container;

use super::{Project, record, say};
use crate::docker::{Docker, Event};

/// Between two tries to reach the engine.
const AGAIN: Duration = Duration::from_secs(1);
/// When all have ended, what they wrote last is waited for.
const LAST_LINES: Duration = Duration::from_secs(1);

/// None of its containers runs any more.
pub(super) struct Ended {
    /// 0 where all ended well, else the code of the last that did not.
    pub(super) code: u8,
}

/// Logs that are being followed, each until its container ends.
struct Logs<'a> {
    docker: &'a Docker,
    project: &'a str,
    since_s: Rc<Cell<f64>>,
    /// By container. False: it has ended, and may begin again.
    open: BTreeMap<String, Rc<Cell<bool>>>,
    reading: FuturesUnordered<LocalBoxFuture<'a, ()>>,
}

impl<'a> Logs<'a> {
    /// Follows those that run and are not followed.
    fn follow(&mut self, found: &[Container]) {
        let is_one = found.len() == 1;
        for container in found.iter().filter(|c| c.lives()) {
            let open = self.open.entry(container.id.clone()).or_default();
            if open.replace(true) {
                continue;
            }
            let (docker, project) = (self.docker, self.project);
            let (id, open) = (container.id.clone(), open.clone());
            let name = if is_one { String::new() } else { format!("{} | ", container.service) };
            let since_s = self.since_s.clone();
            self.reading.push(Box::pin(async move {
                if let Err(failure) = read(docker, &id, &name, &since_s).await
                    && lives(docker, project, &id).await
                {
                    say(format_args!("wharf: {name}its log cannot be read: {}", failure.message));
                }
                open.set(false);
            }));
        }
    }
}

/// Whether it runs in a moment from now: one that is ending has no log any more.
async fn lives(docker: &Docker, project: &str, id: &str) -> bool {
    tokio::time::sleep(AGAIN).await;
    let found = docker.containers(project).await.unwrap_or_default();
    found.iter().any(|container| container.id == id && container.lives())
}

/// Until none of them runs. It is meant to be dropped at any time.
pub(super) async fn follow(docker: &Docker, project: &Project, since_s: f64) -> Ended {
    let since_s = Rc::new(Cell::new(since_s));
    let mut logs =
        Logs { docker, project: &project.name, since_s, open: BTreeMap::new(), reading: FuturesUnordered::new() };
    let mut code = None;
    let mut is_told = false;
    loop {
        match watched(docker, project, &mut logs, &mut code).await {
            Ok(()) => break,
            Err(failure) if !is_told => {
                say(format_args!("wharf: {}; it is waited for", failure.message));
                is_told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(AGAIN).await;
    }
    let _ = tokio::time::timeout(LAST_LINES, async { while logs.reading.next().await.is_some() {} }).await;
    let code = u8::try_from(code.unwrap_or(0).clamp(0, 255)).unwrap_or(1);
    say(format_args!("wharf: none of its containers runs any more"));
    Ended { code }
}

/// Until none of them runs; an error: the engine is away.
async fn watched(
    docker: &Docker,
    project: &Project,
    logs: &mut Logs<'_>,
    code: &mut Option<i32>,
) -> Result<(), Failure> {
    // First the events, then the look: nothing happens in between that is not told.
    let mut events = docker.events(&project.name).await?;
    loop {
        let found = docker.containers(&project.name).await?;
        record::write(&project.record, &found);
        logs.follow(&found);
        if !found.iter().any(Container::lives) {
            let bad = found.iter().filter_map(|c| c.exit_code).find(|code| *code != 0);
            // One that was removed has left its code in the events alone; without either, its end was no good one.
            *code = code.or(bad).or(found.is_empty().then_some(1));
            return Ok(());
        }
        let event = loop {
            tokio::select! {
                event = events.next() => break event,
                Some(()) = logs.reading.next(), if !logs.reading.is_empty() => {}
            }
        };
        let Some(Event { exit_code, .. }) = event else {
            return docker.containers(&project.name).await.map(drop).and(Err(gone()));
        };
        *code = exit_code.filter(|code| *code != 0).or(*code);
    }
}

/// Writes down which containers there are, as they begin. Never done: it is meant to be dropped.
pub(super) async fn note(docker: &Docker, project: &Project) {
    while let Ok(mut events) = docker.events(&project.name).await {
        while let Ok(found) = docker.containers(&project.name).await {
            record::write(&project.record, &found);
            if events.next().await.is_none() {
                break;
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
    std::future::pending().await
}

fn gone() -> Failure {
    Failure::new(wharf_model::ErrorKind::Precondition, "Docker has closed the line")
}

/// Hands on what a container writes. A line is written whole.
async fn read(docker: &Docker, id: &str, name: &str, since_s: &Cell<f64>) -> Result<(), Failure> {
    let mut log = docker.log(id, since_s.get()).await?;
    while let Some(lines) = log.next().await {
        let mut out = Vec::with_capacity(lines.iter().map(|line| line.len() + name.len() + 1).sum());
        for line in lines {
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(&line);
            out.push(b'\n');
        }
        // Where a full disk takes no more lines, the containers go on.
        let _ = std::io::stdout().write_all(&out).and_then(|()| std::io::stdout().flush());
        since_s.set(wharf_sys::clock::wall_ms() as f64 / 1_000.0);
    }
    Ok(())
}

//! `wharf up`: a daemon, a first service, and what to do next.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anstyle::Style;
use serde_json::json;
use wharf_api::{DaemonHealth, ListRow, StartParams, StartReport, Status};
use wharf_client::ClientFailure;
use wharf_model::{ErrorKind, UnitName};

use super::list;
use crate::{
    Exit,
    daemon::{self, DaemonOptions, Ended},
    detach, given,
    progress::Progress,
    session::{self, Session},
    table::{Cell, Table},
    trouble::{Outcome, Trouble},
    words,
};

/// Start the daemon and a first service, and show what to do next
///
/// Without --detach the daemon runs here until Ctrl-C; services go on without it, until `wharf down`.
/// Where a daemon answers already, it is left as it is.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  wharf up --detach\n  wharf up")]
pub(crate) struct Up {
    /// Leave the daemon in the background, and answer when it is ready
    #[arg(short, long)]
    detach: bool,
}

/// The service that shows that all is well.
const FIRST: &str = "hello";

impl Up {
    pub(crate) fn run(self, session: &Session) -> Outcome {
        if let Some(health) = session.block_on(detach::health(session))? {
            session.note(&format!("a daemon runs already (pid {})", health.pid));
            return greet(session, &health);
        }
        if self.detach {
            let health = detach::start(session)?;
            return greet(session, &health);
        }
        foreground(session)
    }
}

/// The daemon in this thread, the client beside it.
fn foreground(session: &Session) -> Outcome {
    let is_over = AtomicBool::new(false);
    let ended = thread::scope(|scope| {
        scope.spawn(|| {
            let health = session.block_on(detach::answering(session, || Ok(is_over.load(Ordering::Relaxed))));
            let greeted = health.and_then(|health| match health {
                Some(health) => greet(session, &health),
                None => Err(detach::late().into()),
            });
            // While the daemon lives, a first service that does not start is only to be told.
            if let Err(trouble) = greeted
                && !is_over.load(Ordering::Relaxed)
            {
                trouble.report(session.json);
            }
        });
        let options = DaemonOptions {
            catalogue: session.catalogue.clone(),
            socket: session.named_socket.clone(),
            ..DaemonOptions::default()
        };
        let ended = daemon::run(&options);
        is_over.store(true, Ordering::Relaxed);
        ended
    });
    let told = match ended? {
        Ended::Replaced => "another daemon has taken over; services go on",
        Ended::Quit | Ended::Succeeded { .. } | Ended::Nobody => {
            "the daemon has ended; services go on, `wharf up` takes them back, `wharf down` ends them"
        }
    };
    session.note(told);
    Ok(Exit::Done)
}

/// Starts the first service, and shows what there is.
fn greet(session: &Session, health: &DaemonHealth) -> Outcome {
    let first = session.block_on(start_first(session))?;
    let exit = match &first {
        First::Runs(_) | First::Unknown => Exit::Done,
        First::Failed(trouble) => trouble.report(session.json),
    };
    session.block_on(async {
        let raw = session.client.raw("service.list", json!({})).await?;
        if session.json {
            let services: serde_json::Value = session::read(&raw)?;
            let shown = json!({ "daemon": health, "socket": session.client.socket(), "services": services });
            return session.say_json(&shown.to_string());
        }
        let rows: Vec<ListRow> = session::read(&raw)?;
        session.say(&overview(session, health, &rows, first.url().await.as_deref()))
    })?;
    Ok(exit)
}

/// What became of the first service.
enum First {
    Runs(Box<Status>),
    Failed(Trouble),
    /// This binary's catalogue has none of that name.
    Unknown,
}

impl First {
    async fn url(&self) -> Option<String> {
        match self {
            Self::Runs(status) => status.port.map(|port| format!("http://127.0.0.1:{port}/")),
            Self::Failed(_) | Self::Unknown => None,
        }
    }
}

async fn start_first(session: &Session) -> Result<First, Trouble> {
    let name: UnitName = FIRST.parse().map_err(|e| Trouble::Usage(format!("{e}")))?;
    let mut params = StartParams { name: name.clone(), reset: false, version: None, with: None, policy: None, force: false, wait: true };
    let mut started = Progress::watched().call(&session.client, "service.start", &name, given::params(&params)?).await;
    if let Err(failure @ ClientFailure::Answered(_)) = &started
        && failure.failure().kind == ErrorKind::PortTaken
    {
        // A newcomer's first command does not end at somebody else's port.
        session.note(&format!("{}; Wharf chooses another port", failure.failure().message));
        params.with = Some(json!({ "ports": { "http": "auto" } }));
        started = Progress::watched().call(&session.client, "service.start", &name, given::params(&params)?).await;
    }
    match started {
        Ok(raw) => session::read::<StartReport>(&raw)?,
        Err(failure @ ClientFailure::Answered(_)) if failure.failure().kind == ErrorKind::NotFound => {
            return Ok(First::Unknown);
        }
        Err(failure) => return Ok(First::Failed(failure.into())),
    };
    let raw = session.client.raw("service.status", json!({ "name": name })).await?;
    Ok(First::Runs(Box::new(session::read(&raw)?)))
}

fn overview(session: &Session, health: &DaemonHealth, rows: &[ListRow], url: Option<&str>) -> String {
    let dim = Style::new().dimmed();
    let mut facts = Table::bare();
    let mut fact = |name: &str, value: String| facts.row([Cell::styled(name, dim), value.into()]);
    fact("daemon", format!("wharf {}, pid {}, up for {}", health.version, health.pid, words::duration(health.uptime_ms)));
    fact("socket", session.client.socket().display().to_string());
    for problem in &health.problems {
        fact("problem", problem.clone());
    }
    let mut next = Table::bare();
    if let Some(url) = url {
        next.row([format!("  curl {url}").into(), Cell::styled("ask the first service", dim)]);
    }
    let wharf = typed();
    for (command, what) in [
        ("status hello", "how it is"),
        ("install redis", "fetch a real server; then: start redis"),
        ("run --name web -- PROGRAM", "run a program of yours as a service"),
        ("down", "stop everything"),
    ] {
        next.row([format!("  {wharf} {command}").into(), Cell::styled(what, dim)]);
    }
    format!("{}\n{}\nTry next:\n{}", list::table(rows).text(), facts.text(), next.text())
}

/// What a person has to type: `wharf` where the PATH has it, else the way to this binary from here.
fn typed() -> String {
    let Ok(me) = std::env::current_exe() else { return "wharf".into() };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).any(|dir| dir.join("wharf").canonicalize().is_ok_and(|p| p == me));
    if in_path {
        return "wharf".into();
    }
    let here = std::env::current_dir().unwrap_or_default();
    me.strip_prefix(&here).unwrap_or(&me).display().to_string()
}

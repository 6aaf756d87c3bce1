//! The daemon: opens the journal, adopts what lives, binds the socket, serves until it is told to end.
//! Services go on when it ends.

use std::{io::IsTerminal, path::PathBuf, sync::Arc, time::Duration};

use tokio::signal::unix::{SignalKind, signal};
use wharf_api::ServiceMethods;
use wharf_engine::{Engine, Settings};
use wharf_model::{ErrorKind, Failure};
use wharf_runtime::Layout;
use wharf_server::{Limits, Server, bind, lock};
use wharf_services::Catalogue;

/// What a daemon is started with.
#[derive(Clone, Default)]
pub struct DaemonOptions {
    /// The services that it knows.
    pub catalogue: Catalogue,
    /// The service socket, where somebody named one; else the layout says.
    pub socket: Option<PathBuf>,
    /// Serve a raw byte echo on this Unix socket too: the floor that `cargo xtask bench` measures beside.
    pub echo_socket: Option<PathBuf>,
}

/// Runs the daemon in this thread until SIGINT or SIGTERM.
pub fn run(options: DaemonOptions) -> Result<(), Failure> {
    listen_to_events();
    // Two workers: one may wait in a probe's system call while the other answers.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(64)
        .enable_all()
        .thread_name("wharf")
        .build()?;
    let ended = runtime.block_on(daemon(options));
    // A probe or a download that hangs does not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(500));
    ended
}

/// Events go to stderr: text, or with `WHARF_LOG_FORMAT=json` a JSON object a line.
fn listen_to_events() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("WHARF_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let events = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
    let as_json = std::env::var("WHARF_LOG_FORMAT").is_ok_and(|f| f == "json");
    // A second daemon in one process (a test) keeps the first one's listener.
    let _ = if as_json { events.json().try_init() } else { events.with_ansi(colours).try_init() };
}

async fn daemon(options: DaemonOptions) -> Result<(), Failure> {
    let DaemonOptions { catalogue, socket, echo_socket } = options;
    let layout = Layout::from_env();
    layout.create()?;
    raise_file_limit();
    // The folders may be on different paths: each belongs to one daemon.
    let _sockets = lock(layout.sockets())?;
    let _state = lock(layout.state())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let own_binary = std::env::current_exe()?;
    let socket = socket.unwrap_or_else(|| layout.service_sock());
    // Before anything is started: a path that cannot be bound ends a daemon that has done nothing yet.
    let listener = bind(&socket)?;
    let (engine, mut end) = Engine::start(Settings { layout, catalogue, own_binary })?;
    tracing::info!("wharf {} listens on {}", env!("CARGO_PKG_VERSION"), socket.display());

    let methods = Arc::new(ServiceMethods::new(Arc::new(engine.clone()), Engine::health_body, Engine::card));
    let (quit, quitted) = tokio::sync::watch::channel(false);
    let server = Server::new(Limits::default());
    let serving = tokio::spawn(async move { server.serve(listener, methods, until(quitted)).await });
    if let Some(path) = echo_socket {
        tokio::spawn(echo(path));
    }
    let ended = tokio::select! {
        _ = terminated.recv() => Ok(()),
        _ = interrupted.recv() => Ok(()),
        end = &mut end => end.unwrap_or_else(|_| {
            Err(Failure::new(ErrorKind::Internal, "the engine's loop ended by a fault of its own")
                .hint("start the daemon again: it adopts what lives"))
        }),
    };
    match &ended {
        Ok(()) => tracing::info!("the daemon ends; services go on"),
        Err(failure) => tracing::error!("the daemon ends, services go on: {failure}"),
    }
    // The receiver lives in the task that serves.
    let _ = quit.send(true);
    let _ = serving.await;
    engine.quit();
    // Its last commit is done before another daemon may begin.
    let stopped = matches!(ended, Ok(()));
    if stopped && tokio::time::timeout(Duration::from_secs(2), end).await.is_err() {
        tracing::warn!("the engine's loop did not end in time");
    }
    ended
}

/// Two descriptors a run, one a connection: the usual soft limit of 1,024 is for programs that use `select`.
/// Services get the usual limit back from their shim.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(e) = raised {
        tracing::warn!("the limit of open files could not be raised: {e}");
    }
}

async fn until(mut quitted: tokio::sync::watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = quitted.wait_for(|q| *q).await;
}

/// One byte in, one byte out.
async fn echo(path: PathBuf) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let Ok(listener) = tokio::net::UnixListener::bind(&path) else { return };
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut byte = [0];
            while stream.read_exact(&mut byte).await.is_ok() && stream.write_all(&byte).await.is_ok() {}
        });
    }
}

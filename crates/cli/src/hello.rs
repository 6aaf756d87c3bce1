//! `hello`: a small HTTP service inside Wharf's own binary, so that a new machine has something to run.
//!
//! It listens on 127.0.0.1 only, answers `GET /` with a greeting and `GET /health` with its
//! state, and ends at SIGTERM or SIGINT.

use std::{convert::Infallible, time::Duration};

use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use wharf_model::{ErrorKind, Failure};

type Body = Full<hyper::body::Bytes>;

/// Serves `GET /health` and a greeting on 127.0.0.1 at this port until it is told to end.
pub(crate) fn serve(port: u16) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(accept(port))
}

async fn accept(port: u16) -> Result<(), Failure> {
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(|e| {
        Failure::new(ErrorKind::PortTaken, format!("hello cannot listen on 127.0.0.1:{port}: {e}"))
            .hint("name another port: wharf start hello --port http=auto")
    })?;
    println!("hello listens on http://127.0.0.1:{port}");
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = terminated.recv() => break,
            _ = interrupted.recv() => break,
        };
        match accepted {
            Ok((stream, _)) => drop(tokio::spawn(converse(stream))),
            // Out of descriptors, for example: a pause lets connections end.
            Err(e) => {
                eprintln!("accept: {e}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    println!("hello ends");
    Ok(())
}

async fn converse(stream: tokio::net::TcpStream) {
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(10))
        .serve_connection(TokioIo::new(stream), service_fn(answer))
        .await;
    if let Err(e) = served {
        eprintln!("a connection ended: {e}");
    }
}

async fn answer(request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let known = matches!(request.uri().path(), "/" | "/health");
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/health") => (StatusCode::OK, "application/json", health()),
        (&Method::GET | &Method::HEAD, "/") => (StatusCode::OK, "text/plain; charset=utf-8", greeting()),
        _ if known => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "text/plain", "nothing here; try / or /health\n".to_owned()),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    Ok(response)
}

fn health() -> String {
    let now = jiff::Timestamp::now();
    let version = env!("CARGO_PKG_VERSION");
    format!("{{\"status\":\"healthy\",\"service\":\"hello\",\"version\":\"{version}\",\"timestamp\":\"{now}\"}}\n")
}

fn greeting() -> String {
    let unit = std::env::var("WHARF_UNIT").unwrap_or_else(|_| "hello".into());
    let run = std::env::var("WHARF_RUN").unwrap_or_else(|_| "?".into());
    format!("Hello from {unit}, run {run}. Wharf started me, watches me, and will start me again.\n")
}

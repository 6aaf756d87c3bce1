//! HTTP probes: one request, no redirects, a bounded body.

use std::pin::pin;

use futures_util::future::{Either, select};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use wharf_model::Health;
use wharf_services::{Endpoint, HttpProbe};

use super::{ANSWER_BYTES, Reply, quoted};

/// An answer's head may have so many bytes.
const HEAD_BYTES: usize = 64 * 1024;

/// Asks and judges.
pub(super) async fn ask(probe: &HttpProbe) -> Reply {
    let answer = match &probe.at {
        Endpoint::Port(port) => match super::connect(*port).await {
            Ok(stream) => over(stream, probe, &format!("127.0.0.1:{port}")).await,
            Err(e) => return Reply::Unheard(super::reason(&e)),
        },
        Endpoint::Address(address) => match TcpStream::connect(address).await {
            Ok(stream) => over(stream, probe, &address.to_string()).await,
            Err(e) => return Reply::Unheard(format!("{address}: {}", super::reason(&e))),
        },
        Endpoint::Socket(path) => match UnixStream::connect(path).await {
            Ok(stream) => over(stream, probe, "localhost").await,
            Err(e) => return Reply::Unheard(format!("{}: {}", path.display(), super::reason(&e))),
        },
    };
    Reply::Said(answer.unwrap_or_else(Health::unhealthy))
}

/// One request on a connection of its own, driven here: no task is left behind when this is dropped.
async fn over<S>(stream: S, probe: &HttpProbe, host: &str) -> Result<Health, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let request = request(probe, host)?;
    let builder = http1::Builder::new().max_buf_size(HEAD_BYTES).to_owned();
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| told(&e))?;
    let asked = pin!(async move {
        let response = sender.send_request(request).await.map_err(|e| told(&e))?;
        Ok(judge(probe, response).await)
    });
    match select(asked, pin!(connection)).await {
        Either::Left((health, _)) => health,
        // The peer has closed: what it said before lies here.
        Either::Right((_, asked)) => asked.await,
    }
}

fn request(probe: &HttpProbe, host: &str) -> Result<Request<Full<Bytes>>, String> {
    let named = |name: &str| probe.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
    let mut request = Request::builder().method(probe.method.as_str()).uri(&probe.path);
    for (name, value) in [(header::HOST, host), (header::USER_AGENT, "wharf-probe"), (header::ACCEPT, "*/*")] {
        if !named(name.as_str()) {
            request = request.header(name, value);
        }
    }
    for (name, value) in &probe.headers {
        request = request.header(name, value);
    }
    request
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(probe.body.clone())))
        .map_err(|e| format!("the probe of {:?} cannot be sent: {e}", probe.path))
}

/// The innermost reason, which names what the kernel said.
fn told(e: &(dyn std::error::Error + 'static)) -> String {
    let mut reason = e;
    while let Some(source) = reason.source() {
        reason = source;
    }
    match reason.downcast_ref::<std::io::Error>() {
        Some(io) => super::reason(io),
        None => format!("no HTTP answer: {reason}"),
    }
}

async fn judge(probe: &HttpProbe, response: Response<Incoming>) -> Health {
    let status = response.status().as_u16();
    if !probe.status.iter().any(|range| range.contains(&status)) {
        let wanted: Vec<String> = probe.status.iter().map(words).collect();
        return Health::unhealthy(format!("HTTP {status}, and not {}", wanted.join(" or ")));
    }
    if probe.json.is_empty() && probe.contains.is_none() && probe.matches.is_none() {
        return Health::healthy(format!("HTTP {status}"));
    }
    let body = match read(response.into_body()).await {
        Ok(body) => body,
        Err(why) => return Health::unhealthy(format!("HTTP {status}, but the body broke off: {why}")),
    };
    match fault(probe, &body) {
        None => Health::healthy(format!("HTTP {status}")),
        Some(fault) => Health::unhealthy(format!("HTTP {status}, but {fault}")),
    }
}

fn words(range: &std::ops::RangeInclusive<u16>) -> String {
    match range.start() == range.end() {
        true => range.start().to_string(),
        false => format!("{} to {}", range.start(), range.end()),
    }
}

async fn read(mut body: Incoming) -> Result<Vec<u8>, String> {
    let mut kept = Vec::new();
    while kept.len() < ANSWER_BYTES {
        match body.frame().await {
            None => break,
            Some(Err(e)) => return Err(told(&e)),
            Some(Ok(frame)) => kept.extend(frame.into_data().unwrap_or_default()),
        }
    }
    kept.truncate(ANSWER_BYTES);
    Ok(kept)
}

/// What is wrong with a body.
fn fault(probe: &HttpProbe, body: &[u8]) -> Option<String> {
    if let Some(text) = probe.contains.as_ref().filter(|text| !super::contains(body, text)) {
        return Some(format!("the body does not contain {text:?}"));
    }
    if let Some(pattern) = &probe.matches {
        match super::log_line::compiled(pattern) {
            Ok(regex) if regex.is_match(body) => {}
            Ok(_) => return Some(format!("the body does not match {pattern:?}: {}", quoted(body))),
            Err(why) => return Some(format!("{pattern:?} is no regular expression: {why}")),
        }
    }
    if probe.json.is_empty() {
        return None;
    }
    let Ok(value) = serde_json::from_slice::<Value>(body) else {
        return Some(format!("the body is no JSON: {}", quoted(body)));
    };
    probe.json.iter().find_map(|(pointer, wanted)| match value.pointer(pointer) {
        Some(found) if found == wanted => None,
        Some(found) => Some(format!("{pointer} is {found} and not {wanted}")),
        None => Some(format!("{pointer} is missing")),
    })
}

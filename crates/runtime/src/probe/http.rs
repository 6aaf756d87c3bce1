//! HTTP probes: one request, no redirects, a bounded body.

use http_body_util::{BodyExt, Empty};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    header,
};
use hyper_util::rt::TokioIo;
use hyperlocal::UnixClientExt;
use serde_json::Value;
use wharf_model::Health;
use wharf_services::{HttpAt, HttpProbe};

use super::{ANSWER_BYTES, quoted};

/// Asks and judges.
pub(super) async fn ask(probe: &HttpProbe) -> Health {
    let answer = match &probe.at {
        HttpAt::Port(port) => over_tcp(*port, &probe.path).await,
        HttpAt::Socket(path) => over_socket(path, &probe.path).await,
    };
    match answer {
        Ok(response) => judge(probe, response).await,
        Err(why) => Health::unhealthy(why),
    }
}

async fn over_tcp(port: u16, path: &str) -> Result<Response<Incoming>, String> {
    let stream = super::connect(port).await.map_err(|e| super::reason(&e))?;
    let _ = stream.set_nodelay(true);
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| told(&e))?;
    // It ends with the response's body, or with the peer.
    tokio::spawn(connection);
    let request = request(path, &format!("127.0.0.1:{port}"))?;
    sender.send_request(request).await.map_err(|e| told(&e))
}

async fn over_socket(socket: &std::path::Path, path: &str) -> Result<Response<Incoming>, String> {
    let client = hyper_util::client::legacy::Client::unix();
    let mut request = request(path, "localhost")?;
    *request.uri_mut() = hyperlocal::Uri::new(socket, path).into();
    client.request(request).await.map_err(|e| told(&e))
}

fn request(path: &str, host: &str) -> Result<Request<Empty<Bytes>>, String> {
    Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "wharf-probe")
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(|e| format!("the probe's path {path:?} is no path: {e}"))
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
    if status != probe.status {
        return Health::unhealthy(format!("HTTP {status}, and not {}", probe.status));
    }
    if probe.json.is_empty() && probe.contains.is_none() {
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

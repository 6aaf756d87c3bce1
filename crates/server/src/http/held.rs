//! A request that arrived while a handover is under way: it waits and is not begun, and can be carried
//! over to another process as the bytes that it came as.

use std::sync::Arc;

use bytes::Bytes;
use hyper::header::{self, HeaderMap};
use hyper::http::request::Parts;
use hyper::{Method, Version};

use super::{Guest, Refused};

/// Returns when the request may begin here after all; an error means that it is not ours any more.
pub(super) async fn wait(guest: &Arc<Guest>, head: &Parts, body: &Bytes) -> Result<(), Refused> {
    if !guest.line.hold(written(&head.method, head.version, &head.headers, body)) {
        return Err(Refused::Left);
    }
    guest.site.gate.opened().await;
    if guest.line.begin_held() { Ok(()) } else { Err(Refused::Left) }
}

/// The request as bytes. Chunks and a split of the header are not kept: they mean nothing.
fn written(method: &Method, version: Version, headers: &HeaderMap, body: &Bytes) -> Bytes {
    let version = if version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let mut out = format!("{method} /rpc {version}\r\n").into_bytes();
    for (name, value) in headers {
        // `Expect` was answered when the body was read.
        if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::EXPECT].contains(name) {
            continue;
        }
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
    out.extend_from_slice(body);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    #[test]
    fn a_chunked_request_is_written_with_its_length() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("wharf"));
        headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        headers.append(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.append(header::ACCEPT, HeaderValue::from_static("application/json"));
        let text = written(&Method::POST, Version::HTTP_11, &headers, &Bytes::from_static(b"{}"));
        let wanted = "POST /rpc HTTP/1.1\r\nhost: wharf\r\naccept: text/event-stream\r\n\
                      accept: application/json\r\ncontent-length: 2\r\n\r\n{}";
        assert_eq!(text, wanted.as_bytes());
    }
}

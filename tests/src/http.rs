//! Raw HTTP over a Unix socket, by hand: what `curl --unix-socket` does.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// Head lines, lower case names.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl Reply {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

/// Sends these bytes and reads to the end.
pub fn exchange(socket: &Path, bytes: &[u8]) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(300)))?;
    stream.write_all(bytes)?;
    let mut answer = vec![];
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// One request on a connection of its own.
pub fn request(socket: &Path, head: &str, body: &str) -> io::Result<Reply> {
    let head = format!("{head}\r\nHost: wharf\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    let text = exchange(socket, &[head.as_bytes(), body.as_bytes()].concat())?;
    parse(&text).ok_or_else(|| io::Error::other(format!("no HTTP answer: {text:?}")))
}

/// `POST /rpc`.
pub fn post(socket: &Path, body: &str) -> io::Result<Reply> {
    request(socket, "POST /rpc HTTP/1.1\r\nContent-Type: application/json", body)
}

/// `GET path`.
pub fn get(socket: &Path, path: &str) -> io::Result<Reply> {
    request(socket, &format!("GET {path} HTTP/1.1"), "")
}

fn parse(text: &str) -> Option<Reply> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: Vec<(String, String)> =
        lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect();
    let chunked = headers.iter().any(|(n, v)| n == "transfer-encoding" && v == "chunked");
    let body = if chunked { unchunk(body) } else { body.to_owned() };
    Some(Reply { status, headers, body })
}

fn unchunk(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else { break };
        if size == 0 {
            break;
        }
        body.push_str(&after[..size]);
        rest = after[size..].trim_start_matches("\r\n");
    }
    body
}

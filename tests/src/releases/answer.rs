//! What the forge answers: releases in two shapes, and files with what is to go wrong with them.

use std::{
    io::{self, Write},
    net::TcpStream,
    sync::Mutex,
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use super::{Fault, Forge, Release, Seen, World, locked, sha256};

/// A status line's rest, headers, and a body.
struct Reply {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// The connection ends after so many bytes of it.
    cut: Option<usize>,
    bytes_per_s: Option<usize>,
}

impl Reply {
    fn new(status: &'static str, kind: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("Content-Type", kind.to_owned())];
        Self { status, headers, body: body.into(), cut: None, bytes_per_s: None }
    }

    fn json(status: &'static str, body: &Value) -> Self {
        Self::new(status, "application/json; charset=utf-8", body.to_string())
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.headers.push((name, value.to_string()));
        self
    }
}

pub(super) fn answer(out: &mut TcpStream, seen: &Seen, port: u16, world: &Mutex<World>) -> io::Result<()> {
    let reply = choose(seen, port, world);
    let mut head = format!("HTTP/1.1 {}\r\nContent-Length: {}\r\n", reply.status, reply.body.len());
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    out.write_all(format!("{head}\r\n").as_bytes())?;
    let body = &reply.body[..reply.cut.unwrap_or(reply.body.len()).min(reply.body.len())];
    match reply.bytes_per_s {
        None => out.write_all(body)?,
        Some(per_s) => {
            for piece in body.chunks((per_s / 20).max(1)) {
                out.write_all(piece)?;
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
    out.flush()?;
    match reply.cut {
        None => Ok(()),
        Some(_) => {
            let _ = out.shutdown(std::net::Shutdown::Both);
            Err(io::ErrorKind::ConnectionAborted.into())
        }
    }
}

fn choose(seen: &Seen, port: u16, world: &Mutex<World>) -> Reply {
    let (path, _) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["api.github.com", "repos", owner, repo, "releases", rest @ ..] => {
            releases(Forge::GitHub, owner, repo, rest, port, world)
        }
        ["codeberg.org", "api", "v1", "repos", owner, repo, "releases", rest @ ..] => {
            releases(Forge::Forgejo, owner, repo, rest, port, world)
        }
        ["github.com", owner, repo, "releases", "download", tag, name] => {
            file((Forge::GitHub, owner, repo), tag, name, seen, world)
        }
        ["codeberg.org", owner, repo, "releases", "download", tag, name] => {
            file((Forge::Forgejo, owner, repo), tag, name, seen, world)
        }
        _ => match locked(world).files.get(path.trim_start_matches('/')) {
            Some(bytes) => part(bytes, &format!("\"{}\"", &sha256(bytes)[..16]), seen),
            None => Reply::new("404 Not Found", "text/html", "<!DOCTYPE html><title>404</title>"),
        },
    }
}

fn releases(forge: Forge, owner: &str, repo: &str, rest: &[&str], port: u16, world: &Mutex<World>) -> Reply {
    let world = locked(world);
    if world.limited {
        return match forge {
            Forge::GitHub => Reply::json("403 rate limit exceeded", &json!({ "message": "API rate limit exceeded" }))
                .with("X-RateLimit-Remaining", 0)
                .with("X-RateLimit-Reset", 4_102_444_800_u64),
            Forge::Forgejo => Reply::json("429 Too Many Requests", &json!({})).with("Retry-After", 60),
        };
    }
    let Some(releases) = world.repos.get(&(forge, owner.to_owned(), repo.to_owned())) else { return absent(forge) };
    let shown = |release: &Release| shape(forge, owner, repo, release, port);
    let found = match rest {
        ["latest"] => releases.last(),
        ["tags", tag] => releases.iter().find(|r| r.tag == *tag),
        [] | [""] => return Reply::json("200 OK", &releases.iter().rev().map(shown).collect::<Value>()),
        _ => None,
    };
    found.map_or_else(|| absent(forge), |release| Reply::json("200 OK", &shown(release)))
}

/// As each forge says it, with what a client has no use for among it.
fn shape(forge: Forge, owner: &str, repo: &str, release: &Release, port: u16) -> Value {
    let tag = &release.tag;
    let assets = release.assets.iter().enumerate().map(|(n, asset)| match forge {
        Forge::GitHub => json!({
            "id": n, "name": asset.name, "label": null, "state": "uploaded", "size": asset.bytes.len(),
            "content_type": "application/octet-stream", "download_count": 7,
            "digest": asset.digest.then(|| format!("sha256:{}", sha256(&asset.bytes))),
            "browser_download_url": format!("https://github.com/{owner}/{repo}/releases/download/{tag}/{}", asset.name),
        }),
        Forge::Forgejo => json!({
            "id": n, "name": asset.name, "size": asset.bytes.len(), "uuid": "0a0b", "type": "attachment",
            "created_at": "2026-01-01T00:00:00Z", "download_count": 7,
            "browser_download_url":
                format!("http://127.0.0.1:{port}/codeberg.org/{owner}/{repo}/releases/download/{tag}/{}", asset.name),
        }),
    });
    json!({
        "id": 1, "tag_name": tag, "name": format!("Release {tag}"), "body": "Notes", "draft": false,
        "prerelease": false, "author": { "login": owner }, "assets": assets.collect::<Value>(),
    })
}

fn absent(forge: Forge) -> Reply {
    match forge {
        Forge::GitHub => Reply::json("404 Not Found", &json!({ "message": "Not Found", "status": "404" })),
        Forge::Forgejo => Reply::json("404 Not Found", &json!({ "message": "The target couldn't be found." })),
    }
}

fn file((forge, owner, repo): (Forge, &str, &str), tag: &str, name: &str, seen: &Seen, world: &Mutex<World>) -> Reply {
    let mut world = locked(world);
    let releases = world.repos.get_mut(&(forge, owner.to_owned(), repo.to_owned()));
    let release = releases.and_then(|all| all.iter_mut().find(|r| r.tag == tag));
    let Some(asset) = release.and_then(|r| r.assets.iter_mut().find(|a| a.name == name)) else {
        return Reply::new("404 Not Found", "text/html", "<!DOCTYPE html><title>404</title>");
    };
    asset.asked += 1;
    let bytes = asset.bytes.clone();
    let tag = format!("\"{}\"", &sha256(&bytes)[..16]);
    match asset.fault.clone() {
        None => part(&bytes, &tag, seen),
        Some(Fault::NotThere) => Reply::new("404 Not Found", "text/plain", "Not Found"),
        Some(Fault::Html) => Reply::new("200 OK", "text/html", "<!DOCTYPE html><title>Sign in</title>"),
        Some(Fault::Truncated(at)) => part(&bytes[..at.min(bytes.len())], &tag, seen),
        Some(Fault::Cut { after, times }) => {
            let reply = part(&bytes, &tag, seen);
            Reply { cut: (asset.asked <= times).then_some(after), ..reply }
        }
        Some(Fault::Replaced { after, by }) => {
            asset.fault = None;
            asset.bytes = by.into();
            Reply { cut: Some(after), ..part(&bytes, &tag, seen) }
        }
        Some(Fault::Redirect(to)) => Reply::new("302 Found", "text/plain", "").with("Location", to),
        Some(Fault::Limited) => Reply::new("429 Too Many Requests", "text/plain", "slow down").with("Retry-After", 60),
        Some(Fault::Slow(per_s)) => Reply { bytes_per_s: Some(per_s), ..part(&bytes, &tag, seen) },
    }
}

/// The whole file, or what was asked for of it.
fn part(bytes: &[u8], tag: &str, seen: &Seen) -> Reply {
    let from =
        seen.headers.get("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let is_same = seen.headers.get("if-range").is_none_or(|known| known == tag);
    let reply = match from {
        Some(from) if is_same && from >= bytes.len() => {
            return Reply::new("416 Range Not Satisfiable", "text/plain", "")
                .with("Content-Range", format!("bytes */{}", bytes.len()));
        }
        Some(from) if is_same => Reply::new("206 Partial Content", "application/octet-stream", &bytes[from..])
            .with("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
        _ => Reply::new("200 OK", "application/octet-stream", bytes),
    };
    reply.with("ETag", tag).with("Accept-Ranges", "bytes")
}

//! The dashboard's files, as they lie in `static/admin`. They are compiled in, so that a page is always of
//! its daemon's version; and they are written by hand, so that nothing has to be built before `cargo build`.
//!
//! It refuses to know what the page shows: the files hold nothing of this machine and may be read by
//! whoever reaches the socket.

use hyper::header::HeaderValue;
use serde_json::value::RawValue;

use crate::offer::tag;

/// One file of the page.
pub(crate) struct File {
    /// Where it is asked for.
    path: &'static str,
    pub(crate) kind: HeaderValue,
    pub(crate) body: &'static [u8],
    pub(crate) tag: HeaderValue,
}

/// What admin.sock serves.
pub struct Pages {
    files: Vec<File>,
    health: Box<dyn Fn() -> Box<RawValue> + Send + Sync>,
}

/// The views are one page: which one it shows is in its path.
const PAGE: &[u8] = include_bytes!("../../../static/admin/index.html");

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const PICTURE: &str = "image/svg+xml";

macro_rules! file {
    ($path:literal) => {
        include_bytes!(concat!("../../../static/admin", $path))
    };
}

/// Where, of what kind, and what.
const FILES: [(&str, &str, &[u8]); 11] = [
    ("/", HTML, PAGE),
    ("/services", HTML, PAGE),
    ("/gpus", HTML, PAGE),
    ("/events", HTML, PAGE),
    ("/app/app.css", STYLE, file!("/app/app.css")),
    ("/app/app.js", SCRIPT, file!("/app/app.js")),
    ("/app/link.js", SCRIPT, file!("/app/link.js")),
    ("/app/parts.js", SCRIPT, file!("/app/parts.js")),
    ("/app/services.js", SCRIPT, file!("/app/services.js")),
    ("/app/machine.js", SCRIPT, file!("/app/machine.js")),
    ("/app/icon.svg", PICTURE, file!("/app/icon.svg")),
];

impl Pages {
    /// `health` is the body of `GET /health`.
    pub fn new(health: impl Fn() -> Box<RawValue> + Send + Sync + 'static) -> Self {
        let file = |(path, kind, body)| File { path, kind: HeaderValue::from_static(kind), body, tag: tag(body) };
        Self { files: FILES.map(file).into(), health: Box::new(health) }
    }

    pub(crate) fn find(&self, path: &str) -> Option<&File> {
        self.files.iter().find(|file| file.path == path)
    }

    pub(crate) fn health(&self) -> Box<RawValue> {
        (self.health)()
    }
}

//! What is served at a socket: calls for programs, or pages for people. Never both, so that whoever is
//! given one of the sockets is not given the other: a program finds no HTML, a page no `/rpc`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use hyper::header::HeaderValue;
use serde_json::value::RawValue;
use wharf_api::Methods;

use crate::pages::Pages;

/// What a listener's guests find.
#[derive(Clone)]
pub enum Offer {
    /// JSON-RPC, its document, the events.
    Calls(Arc<dyn Methods>),
    /// The dashboard. It calls nothing by itself: `wharf ui` brings it together with the other sockets.
    Pages(Arc<Pages>),
}

impl Offer {
    /// The body of `GET /health`.
    pub(crate) fn health(&self) -> Box<RawValue> {
        match self {
            Self::Calls(methods) => methods.health(),
            Self::Pages(pages) => pages.health(),
        }
    }

    /// Of the document, so that it is sent once to whoever keeps it.
    pub(crate) fn document_tag(&self) -> HeaderValue {
        match self {
            Self::Calls(methods) => tag(methods.document().as_bytes()),
            Self::Pages(_) => tag(b""),
        }
    }
}

impl<M: Methods> From<Arc<M>> for Offer {
    fn from(methods: Arc<M>) -> Self {
        Self::Calls(methods)
    }
}

impl From<Pages> for Offer {
    fn from(pages: Pages) -> Self {
        Self::Pages(Arc::new(pages))
    }
}

/// An `ETag` of what never changes while a daemon lives.
pub(crate) fn tag(bytes: &[u8]) -> HeaderValue {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    let text = format!("\"{:016x}\"", hasher.finish());
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static("\"0\""))
}

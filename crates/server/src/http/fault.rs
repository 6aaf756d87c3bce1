//! Faults of the transport: an HTTP status whose body is a JSON-RPC error object with a null id.

use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};
use jsonrpsee_types::ErrorObjectOwned;

use super::reply::Reply;
use crate::envelope;
use crate::roster::Busy;

pub(super) struct Fault {
    status: StatusCode,
    message: &'static str,
    allow: Option<&'static str>,
    closes: bool,
}

impl Fault {
    pub(super) const fn new(status: StatusCode, message: &'static str) -> Self {
        Self { status, message, allow: None, closes: false }
    }

    /// 405, naming what is allowed.
    pub(super) const fn not_allowed(allow: &'static str) -> Self {
        let fault = Self::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed here");
        Self { allow: Some(allow), ..fault }
    }

    /// Ends the connection: what follows on it cannot be told from a body.
    pub(super) const fn closing(self) -> Self {
        Self { closes: true, ..self }
    }

    pub(super) fn response(&self, busy: Busy) -> Response<Reply> {
        let code = if self.status.is_server_error() { -32603 } else { -32600 };
        let error = ErrorObjectOwned::owned(code, self.message, None::<()>);
        let body = envelope::error(None, &error);
        let mut response = super::json(self.status, Reply::whole(body.into(), busy));
        let headers = response.headers_mut();
        if let Some(allow) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        if self.closes {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

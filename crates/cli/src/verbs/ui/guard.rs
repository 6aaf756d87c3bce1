//! What a browser may ask the gateway for. It decides and does nothing: a request's head, or a body, and a verdict.
//!
//! | what could be tried | what stops it |
//! |---|---|
//! | a page from elsewhere that calls 127.0.0.1 | `Origin` must be this one; the token is asked for; no CORS |
//! | the same under a name that leads here (DNS rebinding) | `Host` must be a name of this machine's loopback |
//! | another user of this machine | the token |
//! | another service of 127.0.0.1 that the browser looks at | the token is no cookie: it goes nowhere by itself |
//! | a call that changes something, where one may only look | the method's class, as the contract says it |

use std::collections::BTreeSet;

use hyper::{
    Method, StatusCode,
    header::{self, HeaderMap, HeaderName},
    http::{request::Parts, uri::Authority},
};
use serde_json::Value;
use wharf_api::Class;

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// To admin.sock, path and all.
    Page,
    /// It is answered here: what this page may do.
    Session,
    /// To service.sock, there to this path.
    Service(&'static str),
    /// To rpc.sock, there to this path.
    Rpc(&'static str),
}

/// Why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: &'static str,
    pub(super) hint: Option<&'static str>,
}

/// What holds for every request of one gateway.
pub(super) struct Rules {
    token: String,
    /// The methods that may be called; none: all.
    only: Option<BTreeSet<&'static str>>,
}

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

impl Rules {
    pub(super) fn new(token: String, read_only: bool) -> Self {
        let all = || wharf_api::service_methods().into_iter().chain(wharf_api::rpc_methods());
        let looks = |class: Class| matches!(class, Class::Read | Class::Logs);
        let only = read_only.then(|| all().filter(|method| looks(method.class)).map(|method| method.name).collect());
        Self { token, only }
    }

    pub(super) fn is_read_only(&self) -> bool {
        self.only.is_some()
    }

    /// Where a request goes, by its head.
    pub(super) fn way(&self, head: &Parts) -> Result<Way, Refusal> {
        let host = host(&head.headers)?;
        if let Some(origin) = head.headers.get(header::ORIGIN)
            && !origin.as_bytes().eq_ignore_ascii_case(format!("http://{host}").as_bytes())
        {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "this request comes from another page"));
        }
        let (way, method) = match head.uri.path() {
            "/session" => (Way::Session, Method::GET),
            "/service/rpc" => (Way::Service("/rpc"), Method::POST),
            "/health" => (Way::Service("/health"), Method::GET),
            "/service/openrpc.json" => (Way::Service("/openrpc.json"), Method::GET),
            "/rpc/rpc" => (Way::Rpc("/rpc"), Method::POST),
            "/rpc/events" => (Way::Rpc("/events"), Method::GET),
            "/rpc/openrpc.json" => (Way::Rpc("/openrpc.json"), Method::GET),
            _ => (Way::Page, Method::GET),
        };
        if head.method != method && !(way == Way::Page && head.method == Method::HEAD) {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed here"));
        }
        if way != Way::Page {
            self.may_ask(&head.headers)?;
        }
        Ok(way)
    }

    fn may_ask(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        // Every browser of these days says where a request comes from; what says nothing has the token at least.
        let site = headers.get(SEC_FETCH_SITE).map(|site| site.as_bytes());
        if site.is_some_and(|site| site != b"same-origin" && site != b"none") {
            return Err(Refusal::new(StatusCode::FORBIDDEN, "this request comes from another page"));
        }
        let given = headers.get(header::AUTHORIZATION).and_then(|given| given.as_bytes().strip_prefix(b"Bearer "));
        if given.is_some_and(|given| is_same(given, self.token.as_bytes())) {
            return Ok(());
        }
        let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "this page has not the token of this wharf ui");
        Err(Refusal { hint: Some("open the address that it printed, with what is behind its #"), ..refusal })
    }

    /// A body as it may go on. Where one may only look it is written anew from what was read here, so that the daemon
    /// reads nothing else in it.
    pub(super) fn body(&self, body: Vec<u8>) -> Result<Vec<u8>, Refusal> {
        let Some(only) = &self.only else { return Ok(body) };
        let refused = Refusal {
            hint: Some("wharf ui without --read-only shows a page that can"),
            ..Refusal::new(StatusCode::FORBIDDEN, "this page may look and change nothing")
        };
        let read: Value = serde_json::from_slice(&body).map_err(|_| refused.clone())?;
        let calls = read.as_array().map_or(std::slice::from_ref(&read), Vec::as_slice);
        let may = |call: &Value| call.get("method").and_then(Value::as_str).is_some_and(|method| only.contains(method));
        if calls.iter().all(may) { serde_json::to_vec(&read).map_err(|_| refused) } else { Err(refused) }
    }
}

impl Refusal {
    fn new(status: StatusCode, message: &'static str) -> Self {
        Self { status, message, hint: None }
    }
}

/// The one `Host`, where it is a name of this machine's loopback; the port may be another one behind a tunnel.
fn host(headers: &HeaderMap) -> Result<&str, Refusal> {
    let wrong = || Refusal {
        hint: Some("127.0.0.1, localhost or [::1]; from elsewhere through ssh -L"),
        ..Refusal::new(StatusCode::FORBIDDEN, "this page has no such name (Host header)")
    };
    let mut all = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (all.next(), all.next()) else { return Err(wrong()) };
    let text = host.to_str().map_err(|_| wrong())?;
    let authority: Authority = text.parse().map_err(|_| wrong())?;
    let known = ["127.0.0.1", "localhost", "[::1]"];
    let is_known = known.iter().any(|name| authority.host().eq_ignore_ascii_case(name)) && !text.contains('@');
    if is_known { Ok(text) } else { Err(wrong()) }
}

/// In a time that does not tell how much of it is right.
fn is_same(given: &[u8], expected: &[u8]) -> bool {
    given.len() == expected.len() && given.iter().zip(expected).fold(0, |wrong, (a, b)| wrong | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::Request;

    const TOKEN: &str = "00112233";

    fn head(method: &str, path: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn way(method: &str, path: &str, headers: &[(&str, &str)]) -> Result<Way, u16> {
        let rules = Rules::new(TOKEN.into(), false);
        rules.way(&head(method, path, headers)).map_err(|refusal| refusal.status.as_u16())
    }

    const HOST: (&str, &str) = ("host", "127.0.0.1:8790");
    const RIGHT: (&str, &str) = ("authorization", "Bearer 00112233");

    #[test]
    fn the_page_is_for_all_and_calls_are_for_who_has_the_token() {
        assert_eq!(way("GET", "/services", &[HOST]), Ok(Way::Page));
        assert_eq!(way("HEAD", "/app/app.js", &[HOST]), Ok(Way::Page));
        assert_eq!(way("POST", "/services", &[HOST]), Err(405));
        assert_eq!(way("POST", "/service/rpc", &[HOST, RIGHT]), Ok(Way::Service("/rpc")));
        assert_eq!(way("GET", "/rpc/events", &[HOST, RIGHT]), Ok(Way::Rpc("/events")));
        assert_eq!(way("GET", "/session", &[HOST, RIGHT]), Ok(Way::Session));
        for wrong in ["Bearer 00112234", "Bearer 0011223", "Bearer ", "bearer 00112233", "Basic 00112233", ""] {
            assert_eq!(way("POST", "/rpc/rpc", &[HOST, ("authorization", wrong)]), Err(401), "{wrong}");
        }
        assert_eq!(way("GET", "/session", &[HOST]), Err(401));
        assert_eq!(way("GET", "/health", &[HOST]), Err(401), "it tells of the machine");
        assert_eq!(way("GET", "/service/rpc", &[HOST, RIGHT]), Err(405), "no call without a body");
    }

    #[test]
    fn other_names_and_other_pages_are_refused() {
        for host in ["evil.example", "127.0.0.1.evil.example", "127.0.0.2", "localhost.evil", "u@localhost", "0.0.0.0", ""]
        {
            assert_eq!(way("GET", "/services", &[("host", host)]), Err(403), "{host}");
        }
        for host in ["localhost:1", "LOCALHOST", "[::1]:8790", "127.0.0.1"] {
            assert_eq!(way("GET", "/services", &[("host", host)]), Ok(Way::Page), "{host}");
        }
        assert_eq!(way("GET", "/services", &[]), Err(403));
        assert_eq!(way("GET", "/services", &[HOST, HOST]), Err(403));
        for origin in ["http://evil.example", "null", "https://127.0.0.1:8790", "http://127.0.0.1:9000"] {
            assert_eq!(way("POST", "/rpc/rpc", &[HOST, RIGHT, ("origin", origin)]), Err(403), "{origin}");
        }
        assert!(way("POST", "/rpc/rpc", &[HOST, RIGHT, ("origin", "http://127.0.0.1:8790")]).is_ok());
        for site in ["cross-site", "same-site"] {
            assert_eq!(way("POST", "/rpc/rpc", &[HOST, RIGHT, ("sec-fetch-site", site)]), Err(403), "{site}");
        }
        assert!(way("POST", "/rpc/rpc", &[HOST, RIGHT, ("sec-fetch-site", "same-origin")]).is_ok());
    }

    #[test]
    fn a_page_that_may_only_look_calls_what_looks() {
        let rules = Rules::new(TOKEN.into(), true);
        let may = |body: &str| rules.body(body.into()).is_ok();
        assert!(may(r#"{"jsonrpc":"2.0","id":1,"method":"service.list"}"#));
        assert!(may(r#"[{"id":1,"method":"service.logs"},{"id":2,"method":"gpu.list"},{"method":"event.watch"}]"#));
        for bad in [
            r#"{"id":1,"method":"service.stop"}"#,
            r#"[{"id":1,"method":"service.list"},{"id":2,"method":"service.delete"}]"#,
            r#"{"id":1,"method":"gpu.acquire"}"#,
            r#"{"id":1,"method":"service.list","method":"service.stop"}"#,
            r#"{"id":1}"#,
            "[[]]",
            "nonsense",
            "",
        ] {
            assert!(!may(bad), "{bad}");
        }
        // What the daemon reads is what was judged here.
        let twice = r#"{"id":1,"method":"service.stop","method":"service.list"}"#;
        assert_eq!(rules.body(twice.into()).unwrap(), br#"{"id":1,"method":"service.list"}"#);
        let whole = Rules::new(TOKEN.into(), false);
        assert_eq!(whole.body(twice.into()).unwrap(), twice.as_bytes());
    }
}

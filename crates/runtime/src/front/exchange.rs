//! One request: held until the gate opens, passed on, and answered as the program answers.

use std::{
    convert::Infallible,
    net::Ipv4Addr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri, Version,
    body::{Body, Bytes, Frame, Incoming, SizeHint},
    client::conn::http1,
    header,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};

use super::{Admission, Hall, Pass, Place};

/// A program that is up and does not take the connection is tried again after this.
const CONNECT_AGAIN: Duration = Duration::from_millis(20);
/// A request without a body that asks for nothing to be changed is tried so often where the program breaks off.
const TRIES: u32 = 3;
/// What a client is told to wait before it tries again, where nothing better is known, in seconds.
const RETRY_AFTER_S: u64 = 5;
/// What concerns one connection only (RFC 9110, 7.6.1).
const OF_ONE_CONNECTION: [&str; 6] =
    ["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

/// The body of an answer: the program's, counted as in flight to its end, or our own.
pub(super) enum Answer {
    Own(Full<Bytes>),
    Passed { body: Incoming, pass: Option<Pass> },
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Passed { body, pass } => {
                let polled = Pin::new(body).poll_frame(cx);
                if matches!(polled, Poll::Ready(None | Some(Err(_)))) {
                    *pass = None;
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Passed { body, .. } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Passed { body, .. } => body.size_hint(),
        }
    }
}

/// Why a request was not passed on, or not answered.
struct Refusal {
    status: StatusCode,
    kind: &'static str,
    why: String,
    retry_after_s: u64,
}

impl Refusal {
    fn unavailable(kind: &'static str, why: String, retry_after_s: u64) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, kind, why, retry_after_s }
    }

    fn broke_off(why: String) -> Self {
        Self { status: StatusCode::BAD_GATEWAY, kind: "broke_off", why, retry_after_s: 1 }
    }

    /// In the form that clients of OpenAI's API read.
    fn response(self) -> Response<Answer> {
        let body = serde_json::json!({
            "error": { "message": self.why, "type": self.kind, "code": self.status.as_u16() },
        });
        let mut response = Response::new(Answer::Own(Full::new(Bytes::from(body.to_string()))));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
        headers.insert(header::RETRY_AFTER, self.retry_after_s.into());
        response
    }
}

/// What is needed to ask once more.
struct Head {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

impl Head {
    /// None where the request has a body, or asks for something to be done.
    fn repeatable(request: &Request<Incoming>) -> Option<Self> {
        let harmless = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
        (harmless && request.body().is_end_stream()).then(|| Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            headers: request.headers().clone(),
        })
    }

    fn request(&self) -> Request<Asked> {
        let mut request = Request::new(Asked::Nothing);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        request
    }
}

/// The body of a request: the client's, as it comes, or none.
enum Asked {
    Nothing,
    Passed(Incoming),
}

impl Body for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Nothing => Poll::Ready(None),
            Self::Passed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Passed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Passed(body) => body.size_hint(),
        }
    }
}

/// Answers one request. It never fails: what goes wrong is an answer, too.
pub(super) async fn answer(hall: Arc<Hall>, mut request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
    let until = Instant::now() + hall.state().terms.hold;
    let upgrade = request.headers().contains_key(header::UPGRADE).then(|| hyper::upgrade::on(&mut request));
    strip(request.headers_mut(), upgrade.is_some());
    // It was said to the client by us, when the body was first read.
    request.headers_mut().remove(header::EXPECT);
    *request.version_mut() = Version::HTTP_11;
    let again = Head::repeatable(&request).filter(|_| upgrade.is_none());
    let mut present = Some(request.map(Asked::Passed));
    for nth in 1.. {
        let Some(request) = present.take().or_else(|| again.as_ref().map(Head::request)) else { break };
        let (stream, pass) = match reach(&hall, until).await {
            Ok(reached) => reached,
            Err(refusal) => return Ok(refusal.response()),
        };
        match pass_on(stream, request).await {
            Ok(response) => return Ok(passed_back(response, pass, upgrade)),
            Err(e) if again.is_some() && nth < TRIES => {
                tracing::debug!("a request is repeated: the program broke off: {e}");
                drop(pass);
                tokio::time::sleep(CONNECT_AGAIN).await;
            }
            Err(e) => {
                let why = format!("the program behind this port broke off before it answered: {e}");
                return Ok(Refusal::broke_off(why).response());
            }
        }
    }
    Ok(Refusal::broke_off("the program behind this port broke off before it answered".into()).response())
}

/// A connection to the program, as soon as the gate is open; the request is held until then.
async fn reach(hall: &Arc<Hall>, until: Instant) -> Result<(TcpStream, Pass), Refusal> {
    let mut moved = hall.moved.subscribe();
    let mut place = None;
    loop {
        moved.mark_unchanged();
        let why = match hall.try_in() {
            Admission::In(port, pass) => {
                // Counted as in flight first, and no longer as held then: at no time as neither.
                drop(place.take());
                match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                    Ok(stream) => return Ok((stream, pass)),
                    Err(e) => Some(format!("the program behind this port does not listen: {e}")),
                }
            }
            Admission::Wait(why) => why,
            Admission::No { why, retry_after_s } => {
                return Err(Refusal::unavailable("unavailable", why, retry_after_s));
            }
        };
        if place.is_none() {
            place = Place::take(hall);
        }
        if place.is_none() {
            let why = "too many requests wait for the program behind this port".to_owned();
            return Err(Refusal::unavailable("too_many_held", why, RETRY_AFTER_S));
        }
        let pause = async {
            let is_open = matches!(hall.state().gate, super::Gate::Open(_));
            if is_open { tokio::time::sleep(CONNECT_AGAIN).await } else { drop(moved.changed().await) }
        };
        if tokio::time::timeout_at(until, pause).await.is_err() {
            let why = why.unwrap_or_else(|| "the program behind this port is starting".to_owned());
            let why = format!("not ready within the time that requests are held: {why}");
            return Err(Refusal::unavailable("not_ready", why, RETRY_AFTER_S));
        }
    }
}

async fn pass_on(stream: TcpStream, request: Request<Asked>) -> hyper::Result<Response<Incoming>> {
    let _ = stream.set_nodelay(true);
    let builder = http1::Builder::new().preserve_header_case(true).to_owned();
    let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
    // It ends with the answer, or when nobody waits for that any more.
    tokio::spawn(async move {
        if let Err(e) = connection.with_upgrades().await {
            tracing::debug!("a connection behind a front broke: {e}");
        }
    });
    sender.send_request(request).await
}

fn passed_back(
    mut response: Response<Incoming>,
    pass: Pass,
    upgrade: Option<hyper::upgrade::OnUpgrade>,
) -> Response<Answer> {
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    strip(response.headers_mut(), switches);
    let mut pass = Some(pass);
    if let (true, Some(client)) = (switches, upgrade) {
        let program = hyper::upgrade::on(&mut response);
        let pass = pass.take();
        tokio::spawn(async move {
            if let (Ok(client), Ok(program)) = (client.await, program.await) {
                let (mut client, mut program) = (TokioIo::new(client), TokioIo::new(program));
                let _ = tokio::io::copy_bidirectional(&mut client, &mut program).await;
            }
            drop(pass);
        });
    }
    response.map(|body| Answer::Passed { body, pass })
}

/// Takes away what concerns one connection only, and what `Connection` names.
fn strip(headers: &mut HeaderMap, switches: bool) {
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(',').map(|name| name.trim().to_ascii_lowercase()))
        .collect();
    let kept = |name: &str| switches && (name == "connection" || name == "upgrade");
    for name in OF_ONE_CONNECTION.iter().copied().chain(named.iter().map(String::as_str)) {
        if !kept(name) {
            headers.remove(name);
        }
    }
}

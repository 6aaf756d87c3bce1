//! A response that is a stream: the notifications of one call, then its JSON-RPC response, then the end.
//!
//! The call's future lives in the response's body: when the client closes, hyper drops the body, and
//! with it the call. A slow reader is felt by the call through its bounded channel.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hyper::Response;
use hyper::header::{self, HeaderValue};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use wharf_api::{Caller, Methods, Notification};

use super::accept::Framing;
use super::body::Whole;
use super::reply::Reply;
use super::{Guest, dispatch};
use crate::envelope;
use crate::roster::Busy;

/// How much is put into one frame before it is handed on, in bytes.
const FRAME_BYTES: usize = 16 * 1024;

pub(super) struct Stream {
    framing: Framing,
    notifications: mpsc::Receiver<Notification>,
    /// Gone when it has answered.
    call: Option<BoxFuture<'static, Option<Vec<u8>>>>,
    answer: Option<Vec<u8>>,
    alive: Option<Interval>,
}

/// Starts a call whose answer is streamed.
pub(super) fn response(
    guest: &Guest,
    methods: Arc<dyn Methods>,
    caller: Caller,
    body: Whole,
    framing: Framing,
    busy: Busy,
) -> Response<Reply> {
    let limits = &guest.site.limits;
    let (sender, notifications) = mpsc::channel(limits.stream_notifications.max(1));
    let caller = Caller { stream: Some(sender), ..caller };
    let (site, line) = (guest.site.clone(), guest.line.clone());
    let call = Box::pin(async move { dispatch::answer(&*methods, &caller, &line, &site.limits, &body.bytes).await });
    let alive = (framing == Framing::Events).then(|| {
        let mut alive = interval_at(Instant::now() + limits.keep_alive, limits.keep_alive);
        alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        alive
    });
    let stream = Stream { framing, notifications, call: Some(call), answer: None, alive };
    streamed(Reply::stream(stream, busy), framing)
}

/// The head of every stream.
pub(super) fn streamed(reply: Reply, framing: Framing) -> Response<Reply> {
    let mut response = Response::new(reply);
    let kind = match framing {
        Framing::Events => "text/event-stream",
        Framing::Lines => "application/x-ndjson",
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

impl Stream {
    /// The next bytes; `None` is the end.
    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        // The call first: a flood of notifications from elsewhere must not keep it from ending.
        if let Some(call) = &mut self.call
            && let Poll::Ready(answer) = call.as_mut().poll(cx)
        {
            self.answer = answer;
            self.call = None;
        }
        let mut out = Vec::new();
        while out.len() < FRAME_BYTES
            && let Some(notification) = self.next_notification(cx)
        {
            self.frame(&mut out, notification_json(&notification));
        }
        // What was said before the answer is sent before it.
        if self.call.is_none() && out.len() < FRAME_BYTES {
            let Some(answer) = self.answer.take() else {
                return Poll::Ready((!out.is_empty()).then(|| out.into()));
            };
            self.frame(&mut out, answer);
        }
        if let Some(alive) = &mut self.alive {
            if !out.is_empty() {
                alive.reset();
            } else if alive.poll_tick(cx).is_ready() {
                out.extend_from_slice(b": keep-alive\n\n");
            }
        }
        if out.is_empty() { Poll::Pending } else { Poll::Ready(Some(out.into())) }
    }

    fn next_notification(&mut self, cx: &mut Context<'_>) -> Option<Notification> {
        if self.call.is_none() {
            // Nothing more is waited for, and `poll_recv` may say "pending" with something queued.
            return self.notifications.try_recv().ok();
        }
        match self.notifications.poll_recv(cx) {
            Poll::Ready(notification) => notification,
            Poll::Pending => None,
        }
    }

    fn frame(&self, out: &mut Vec<u8>, mut json: Vec<u8>) {
        envelope::one_line(&mut json);
        match self.framing {
            Framing::Events => {
                out.extend_from_slice(b"event: message\ndata: ");
                out.extend_from_slice(&json);
                out.extend_from_slice(b"\n\n");
            }
            Framing::Lines => {
                out.extend_from_slice(&json);
                out.push(b'\n');
            }
        }
    }
}

fn notification_json(notification: &Notification) -> Vec<u8> {
    let (method, params) = (notification.method, notification.params.get());
    let mut out = Vec::with_capacity(method.len() + params.len() + 48);
    out.extend_from_slice(br#"{"jsonrpc":"2.0","method":""#);
    out.extend_from_slice(method.as_bytes());
    out.extend_from_slice(br#"","params":"#);
    out.extend_from_slice(params.as_bytes());
    out.push(b'}');
    out
}

//! Runs the calls of one body and frames their outcomes. Knows nothing of HTTP.

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::Poll;

use futures_util::{FutureExt, StreamExt, stream};
use jsonrpsee_types::ErrorObjectOwned;
use serde_json::value::RawValue;
use wharf_api::{Caller, Class, Methods, error_object};
use wharf_model::{ErrorKind, Failure};

use crate::Limits;
use crate::envelope::{self, Call, Entry, Message};
use crate::roster::{Gravity, Line};

/// Runs what a body asks for. `None`: only notifications, nothing to say.
pub(crate) async fn answer(
    methods: &dyn Methods,
    caller: &Caller,
    line: &Line,
    limits: &Limits,
    body: &[u8],
) -> Option<Vec<u8>> {
    match envelope::parse(body, limits.batch_calls) {
        Message::One(entry) => {
            line.weigh(weight(methods, &entry));
            run(methods, caller, line, entry).await
        }
        Message::Many(entries) => {
            let mut calls = Vec::with_capacity(entries.len());
            // All are weighed before the first one begins: the last of them may be the one that changes something.
            let gravest = entries.iter().map(|entry| weight(methods, entry)).max();
            line.weigh(gravest.unwrap_or(Gravity::Brief));
            for entry in entries {
                calls.push(run(methods, caller, line, entry));
            }
            let replies: Vec<Vec<u8>> = stream::iter(calls)
                .buffered(limits.calls_in_flight.max(1))
                .filter_map(std::future::ready)
                .collect()
                .await;
            (!replies.is_empty()).then(|| envelope::join(&replies))
        }
    }
}

/// Whether a body is one call that waits for an answer: only that can be streamed.
pub(crate) fn is_one_call(body: &[u8], limits: &Limits) -> bool {
    matches!(envelope::parse(body, limits.batch_calls), Message::One(Ok(Call { id: Some(_), .. })))
}

/// Whether a body changes something, or may: what is not known here is assumed to.
pub(crate) fn is_changing(methods: &dyn Methods, body: &[u8], limits: &Limits) -> bool {
    match envelope::parse(body, limits.batch_calls) {
        Message::One(entry) => weight(methods, &entry) == Gravity::Changing,
        Message::Many(entries) => entries.iter().any(|entry| weight(methods, entry) == Gravity::Changing),
    }
}

fn weight(methods: &dyn Methods, entry: &Entry<'_>) -> Gravity {
    let Ok(call) = entry else { return Gravity::Brief };
    match methods.class(&call.method) {
        Some(Class::Read) => Gravity::Brief,
        Some(Class::Logs) => Gravity::Following,
        Some(Class::Control | Class::Install) | None => Gravity::Changing,
    }
}

/// A call, unless its connection is told meanwhile that all calls end now.
async fn unless_cut(
    line: &Line,
    call: impl Future<Output = Result<Box<RawValue>, ErrorObjectOwned>>,
) -> Result<Box<RawValue>, ErrorObjectOwned> {
    let mut call = pin!(call);
    // Whoever cuts wakes the connection's task, and that polls this.
    poll_fn(|cx| match call.as_mut().poll(cx) {
        Poll::Pending if line.is_cut() => Poll::Ready(Err(ends())),
        other => other,
    })
    .await
}

fn ends() -> ErrorObjectOwned {
    let mut failure = Failure::new(ErrorKind::Internal, "the daemon ends; what was begun goes on without it")
        .hint("ask again: the next daemon answers, and knows what was begun");
    failure.retryable = true;
    error_object(failure)
}

async fn run(methods: &dyn Methods, caller: &Caller, line: &Line, entry: Entry<'_>) -> Option<Vec<u8>> {
    let call = match entry {
        Ok(call) => call,
        Err(refusal) => {
            let fault = refusal.fault;
            let error = ErrorObjectOwned::owned(fault.code(), fault.message(), Some(fault.detail()));
            return Some(envelope::error(refusal.id, &error));
        }
    };
    // The async block matters: a method may panic before it returns its future.
    let outcome = AssertUnwindSafe(async { methods.call(caller, &call.method, call.params).await }).catch_unwind();
    let outcome = unless_cut(line, async { outcome.await.unwrap_or_else(|_| Err(panicked(&call.method))) }).await;
    let id = call.id?;
    Some(match outcome {
        Ok(result) => envelope::result(id, &result),
        Err(error) => envelope::error(Some(id), &error),
    })
}

fn panicked(method: &str) -> ErrorObjectOwned {
    tracing::error!(%method, "a method panicked");
    ErrorObjectOwned::owned(-32603, "Internal error", None::<()>)
}

//! Runs the calls of one body and frames their outcomes. Knows nothing of HTTP.

use std::panic::AssertUnwindSafe;

use futures_util::{FutureExt, StreamExt, stream};
use jsonrpsee_types::ErrorObjectOwned;
use wharf_api::{Caller, Methods};

use crate::Limits;
use crate::envelope::{self, Call, Entry, Message};

/// Runs what a body asks for. `None`: only notifications, nothing to say.
pub(crate) async fn answer(methods: &dyn Methods, caller: &Caller, limits: &Limits, body: &[u8]) -> Option<Vec<u8>> {
    match envelope::parse(body, limits.batch_calls) {
        Message::One(entry) => run(methods, caller, entry).await,
        Message::Many(entries) => {
            let mut calls = Vec::with_capacity(entries.len());
            for entry in entries {
                calls.push(run(methods, caller, entry));
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

async fn run(methods: &dyn Methods, caller: &Caller, entry: Entry<'_>) -> Option<Vec<u8>> {
    let call = match entry {
        Ok(call) => call,
        Err(refusal) => {
            let fault = refusal.fault;
            let error = ErrorObjectOwned::owned(fault.code(), fault.message(), Some(fault.detail()));
            return Some(envelope::error(refusal.id, &error));
        }
    };
    // The async block matters: a method may panic before it returns its future.
    let outcome =
        AssertUnwindSafe(async { methods.call(caller, &call.method, call.params).await }).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|_| {
        tracing::error!(method = %call.method, "a method panicked");
        Err(ErrorObjectOwned::owned(-32603, "Internal error", None::<()>))
    });
    let id = call.id?;
    Some(match outcome {
        Ok(result) => envelope::result(id, &result),
        Err(error) => envelope::error(Some(id), &error),
    })
}

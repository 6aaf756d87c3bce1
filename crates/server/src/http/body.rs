//! Reading a request's body: bounded in size, in time, and in what all of them cost together.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use hyper::StatusCode;
use hyper::body::{Body, Incoming};
use tokio::sync::OwnedSemaphorePermit;

use super::fault::Fault;
use super::{Guest, Refused};
use crate::Limits;

/// Bodies up to this size cost the budget nothing: connections are bounded, and so are these.
const SMALL_BYTES: usize = 16 * 1024;

/// A whole body, and its share of the budget until the call is over.
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// Reads a body. In the ordinary case it came with the headers, and costs neither timer nor copy.
pub(super) async fn read(guest: &Guest, mut incoming: Incoming) -> Result<Whole, Refused> {
    let limits = &guest.site.limits;
    let declared = incoming.size_hint().exact();
    if declared.is_some_and(|bytes| bytes > limits.body_bytes as u64) {
        return Err(too_large().into());
    }
    let first = poll_fn(|cx| Poll::Ready(Pin::new(&mut incoming).poll_frame(cx))).await;
    let mut read = BytesMut::new();
    match first {
        Poll::Ready(None) => return Ok(Whole { bytes: Bytes::new(), _share: None }),
        Poll::Ready(Some(Err(_))) => return Err(Refused::Left),
        Poll::Ready(Some(Ok(frame))) => {
            let bytes = frame.into_data().unwrap_or_default();
            if bytes.len() > limits.body_bytes {
                return Err(too_large().into());
            }
            if incoming.is_end_stream() {
                return Ok(Whole { bytes, _share: None });
            }
            read.extend_from_slice(&bytes);
        }
        Poll::Pending => {}
    }
    guest.line.waits_for_body();
    let most = declared.map_or(limits.body_bytes, |bytes| usize::try_from(bytes).unwrap_or(limits.body_bytes));
    let reading = async {
        let share = share(guest, most).await?;
        collect(&mut incoming, &mut read, limits).await?;
        Ok(Whole { bytes: read.freeze(), _share: share })
    };
    tokio::time::timeout(limits.body_time, reading)
        .await
        .unwrap_or_else(|_| Err(Fault::new(StatusCode::REQUEST_TIMEOUT, "the body took too long").closing().into()))
}

/// Waits for a share of the budget; the body's time limit bounds the wait.
async fn share(guest: &Guest, bytes: usize) -> Result<Option<OwnedSemaphorePermit>, Refused> {
    if bytes <= SMALL_BYTES {
        return Ok(None);
    }
    let bytes = u32::try_from(bytes.min(guest.site.limits.budget_bytes)).unwrap_or(u32::MAX);
    guest.site.budget.clone().acquire_many_owned(bytes).await.map(Some).map_err(|_| Refused::Left)
}

async fn collect(incoming: &mut Incoming, read: &mut BytesMut, limits: &Limits) -> Result<(), Refused> {
    loop {
        let frame = match poll_fn(|cx| Pin::new(&mut *incoming).poll_frame(cx)).await {
            None => return Ok(()),
            Some(Ok(frame)) => frame,
            Some(Err(_)) => return Err(Refused::Left),
        };
        let bytes = frame.into_data().unwrap_or_default();
        if read.len() + bytes.len() > limits.body_bytes {
            return Err(too_large().into());
        }
        read.extend_from_slice(&bytes);
    }
}

const fn too_large() -> Fault {
    Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than the limit").closing()
}

//! The body of a response. It holds the mark that its connection is busy until the last byte is handed on.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::events::Events;
use super::stream::Stream;
use crate::roster::Busy;

pub(crate) struct Reply {
    content: Content,
    _busy: Busy,
}

enum Content {
    Whole(Bytes),
    Stream(Box<Stream>),
    Events(Box<Events>),
}

impl Reply {
    pub(super) fn empty(busy: Busy) -> Self {
        Self::whole(Bytes::new(), busy)
    }

    pub(super) fn whole(bytes: Bytes, busy: Busy) -> Self {
        Self { content: Content::Whole(bytes), _busy: busy }
    }

    pub(super) fn stream(stream: Stream, busy: Busy) -> Self {
        Self { content: Content::Stream(Box::new(stream)), _busy: busy }
    }

    pub(super) fn events(events: Events, busy: Busy) -> Self {
        Self { content: Content::Events(Box::new(events)), _busy: busy }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut self.content {
            Content::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Content::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Content::Stream(stream) => stream.poll_next(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
            Content::Events(events) => events.poll_next(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.content, Content::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Content::Stream(_) | Content::Events(_) => SizeHint::new(),
        }
    }
}

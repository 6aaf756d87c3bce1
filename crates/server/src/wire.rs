//! The bytes of one connection on their way to hyper. Notes when a request begins, whether all that
//! hyper has to say was said, and one thing that hyper hides: it drops `Content-Length` where
//! `Transfer-Encoding` is there as well.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;

use crate::roster::Line;

/// A header line's beginning, in lower case.
const LENGTH: &[u8] = b"\ncontent-length:";

/// What was seen on the wire since the last request was taken.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    length: AtomicBool,
    /// Something was written and not flushed: hyper flushes when it has nothing more to write.
    unsaid: AtomicBool,
}

impl Seen {
    /// Whether all that was answered is on its way.
    pub(crate) fn is_all_said(&self) -> bool {
        !self.unsaid.load(Ordering::Relaxed)
    }

    /// Whether a `Content-Length` came; forgets it. With requests that are pipelined it may be the
    /// next one's, so it decides only about requests that hyper calls chunked.
    pub(crate) fn take_length(&self) -> bool {
        self.length.load(Ordering::Relaxed) && self.length.swap(false, Ordering::Relaxed)
    }
}

pub(crate) struct Wire {
    stream: UnixStream,
    line: Arc<Line>,
    seen: Arc<Seen>,
    /// How much of `LENGTH` the last bytes matched: a header may be cut anywhere.
    matched: usize,
    /// What another process had read of this connection, and not begun.
    unread: Bytes,
}

impl Wire {
    pub(crate) fn new(stream: UnixStream, unread: Bytes, line: Arc<Line>, seen: Arc<Seen>) -> Self {
        Self { stream, line, seen, matched: 0, unread }
    }

    /// The connection and what of it hyper has not seen.
    pub(crate) fn into_parts(self) -> (UnixStream, Bytes) {
        (self.stream, self.unread)
    }

    fn look_for_length(&mut self, bytes: &[u8]) {
        if self.seen.length.load(Ordering::Relaxed) {
            return;
        }
        let mut rest = bytes.iter();
        while let Some(byte) = rest.next() {
            if self.matched == 0 {
                // Line ends are few: look for the next one before comparing anything.
                if *byte != b'\n' && !rest.any(|b| *b == b'\n') {
                    return;
                }
                self.matched = 1;
                continue;
            }
            self.matched = match byte.to_ascii_lowercase() {
                b if b == LENGTH[self.matched] => self.matched + 1,
                b'\n' => 1,
                _ => 0,
            };
            if self.matched == LENGTH.len() {
                self.matched = 0;
                self.seen.length.store(true, Ordering::Relaxed);
                return;
            }
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.unread.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        } else {
            let fits = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..fits]);
            self.unread.advance(fits);
        }
        let bytes = &buf.filled()[before..];
        if !bytes.is_empty() {
            self.line.heard();
            self.look_for_length(bytes);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.seen.unsaid.store(true, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.seen.unsaid.store(true, Ordering::Relaxed);
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.seen.unsaid.store(false, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

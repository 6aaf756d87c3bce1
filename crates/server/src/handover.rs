//! What is left for another process when a server leaves its sockets without closing them.
//!
//! A listener goes with those who wait at it, and with every connection on which nothing is in
//! flight: idle ones, half a header, and requests that were read and not begun. It refuses to know
//! how they reach the other process.

use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::Listener;

/// How a server leaves a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// For good: the socket is removed, connections end.
    Close,
    /// To another process: nothing is closed on which nothing is in flight.
    HandOver,
}

/// A connection that goes on elsewhere.
#[derive(Debug)]
pub struct Carried {
    /// Still open, non-blocking.
    pub stream: UnixStream,
    /// What was read of it and not begun; it comes before what the stream holds.
    pub unread: Bytes,
}

/// A listener and those who are in already.
#[derive(Debug)]
pub struct Door {
    /// Bound and listening.
    pub listener: Listener,
    /// Connections that another server has left.
    pub guests: Vec<Carried>,
}

impl From<Listener> for Door {
    fn from(listener: Listener) -> Self {
        Self { listener, guests: vec![] }
    }
}

/// Whether calls that change something may begin.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    is_shut: AtomicBool,
    opened: Notify,
}

impl Gate {
    pub(crate) fn shut(&self) {
        self.is_shut.store(true, Ordering::SeqCst);
    }

    pub(crate) fn open(&self) {
        self.is_shut.store(false, Ordering::SeqCst);
        self.opened.notify_waiters();
    }

    pub(crate) fn holds(&self) -> bool {
        self.is_shut.load(Ordering::SeqCst)
    }

    /// Returns when the gate is open.
    pub(crate) async fn opened(&self) {
        let mut opened = pin!(self.opened.notified());
        // Registered first: it may open between a look and a wait.
        opened.as_mut().enable();
        if self.holds() {
            opened.await;
        }
    }
}

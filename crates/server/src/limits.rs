//! Every limit of the server in one place, so that tests can shorten them and a reader can find them.

use std::time::Duration;

/// What a client may cost. The defaults are those of the contract; configure them downward.
#[derive(Debug, Clone)]
pub struct Limits {
    /// One request's body, in bytes. More is 413.
    pub body_bytes: usize,
    /// All larger bodies that are in memory together, in bytes, over all listeners of one `Server`.
    pub budget_bytes: usize,
    /// Calls in one batch. More is one -32600.
    pub batch_calls: usize,
    /// Calls of one batch that run at the same time; the rest wait their turn.
    pub calls_in_flight: usize,
    /// Connections over all listeners of one `Server`. Past it, the longest idle one is closed.
    pub connections: usize,
    /// Connections beyond that for root alone, when every other one is in the middle of a call.
    pub root_connections: usize,
    /// From a request's first byte to the end of its headers; also how long a new connection may be silent.
    pub header_time: Duration,
    /// From the headers to the end of the body. Longer is 408.
    pub body_time: Duration,
    /// How long a kept connection may stay without a request.
    pub idle_time: Duration,
    /// How often a silent event stream says that it is alive.
    pub keep_alive: Duration,
    /// Notifications that wait for a slow reader of a stream.
    pub stream_notifications: usize,
    /// How long requests in flight may go on after the shutdown began.
    pub drain_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1024 * 1024,
            budget_bytes: 64 * 1024 * 1024,
            batch_calls: 64,
            calls_in_flight: 32,
            connections: 256,
            root_connections: 8,
            header_time: Duration::from_secs(10),
            body_time: Duration::from_secs(10),
            idle_time: Duration::from_secs(600),
            keep_alive: Duration::from_secs(15),
            stream_notifications: 256,
            drain_time: Duration::from_secs(2),
        }
    }
}

//! A call while it runs: a line a notification, the last line the answer.

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::{Response, StatusCode, body::Incoming, header};
use serde_json::{Value, value::RawValue};

use crate::{
    ClientFailure,
    call::{self, Line},
};

/// One thing that came over the stream.
#[derive(Debug)]
pub enum Heard {
    /// Something that was said while the call runs.
    Notification {
        /// `service.progress`, `service.log`.
        method: String,
        /// Its params.
        params: Value,
    },
    /// The result; nothing comes after it.
    Answer(Box<RawValue>),
}

/// The stream of one call. Dropped, it closes its connection.
#[derive(Debug)]
pub struct Listening {
    status: StatusCode,
    is_lines: bool,
    body: Incoming,
    unread: BytesMut,
    /// Up to here there is no line's end in what is unread.
    searched: usize,
}

impl Listening {
    pub(crate) fn new(response: Response<Incoming>) -> Self {
        let kind = response.headers().get(header::CONTENT_TYPE).map(|v| v.as_bytes());
        // A refusal of the transport is one document, perhaps over several lines.
        let is_lines = kind.is_some_and(|kind| kind.starts_with(b"application/x-ndjson"));
        let status = response.status();
        Self { status, is_lines, body: response.into_body(), unread: BytesMut::new(), searched: 0 }
    }

    /// The next thing that is said.
    pub async fn next(&mut self) -> Result<Heard, ClientFailure> {
        while self.is_lines {
            let Some(line) = self.line().await? else { break };
            if line.trim_ascii().is_empty() {
                continue;
            }
            let line = Line::read(&line)?;
            let Some(method) = line.method else {
                return heard(line);
            };
            return Ok(Heard::Notification { method, params: line.params.unwrap_or_default() });
        }
        if self.is_lines {
            return Err(ClientFailure::Broken { what: "it ended before the answer came".into() });
        }
        while self.more().await? {}
        call::answer(self.status, &self.unread)?.map(Heard::Answer).map_err(ClientFailure::Answered)
    }

    /// The next whole line; `None` is the end.
    async fn line(&mut self) -> Result<Option<BytesMut>, ClientFailure> {
        loop {
            if let Some(at) = self.unread[self.searched..].iter().position(|b| *b == b'\n') {
                let line = self.unread.split_to(self.searched + at);
                self.unread.advance(1);
                self.searched = 0;
                return Ok(Some(line));
            }
            self.searched = self.unread.len();
            if !self.more().await? {
                let rest = std::mem::take(&mut self.unread);
                self.searched = 0;
                return Ok((!rest.is_empty()).then_some(rest));
            }
        }
    }

    async fn more(&mut self) -> Result<bool, ClientFailure> {
        loop {
            match self.body.frame().await {
                None => return Ok(false),
                Some(Err(e)) => return Err(ClientFailure::broken(&e)),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.unread.extend_from_slice(&bytes);
                        return Ok(true);
                    }
                }
            }
        }
    }
}

fn heard(line: Line) -> Result<Heard, ClientFailure> {
    match line.answer() {
        Some(Ok(result)) => Ok(Heard::Answer(result)),
        Some(Err(error)) => Err(ClientFailure::Answered(error)),
        None => Err(ClientFailure::Malformed { what: "the daemon said something that is no answer".into() }),
    }
}

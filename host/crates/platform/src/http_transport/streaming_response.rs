//! An answer that is read as it arrives: server-sent events, or a complete body if the server sends none.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::CONTENT_TYPE;

use super::failure::{Failure, quote, redacted};
use super::{ANSWER_LIMIT, Answer, Call, HttpTransport, whole};
use crate::chat_completion::{Fault, MAX_EVENT};
use crate::{CallError, ErrorKind, Result};
use modhost_core::memory_budget::HeldMemory;
use modhost_core::sse::{self, BodyFormat, Item, Parser};
use modhost_core::tenant_meter::ConnectionInUse;

/// A started answer. It is read only on demand, so that backpressure reaches the server. Dropping it closes the
/// connection.
pub(crate) struct StreamingResponse {
    transport: Arc<HttpTransport>,
    call: Call,
    response: reqwest::Response,
    parser: Parser,
    /// Received bytes that are not parsed yet.
    piece: Bytes,
    /// Whether the body has ended.
    is_over: bool,
    _connection: ConnectionInUse,
    /// The memory of what is received and not returned yet.
    held: HeldMemory,
}

impl StreamingResponse {
    pub(super) fn new(
        transport: Arc<HttpTransport>,
        call: Call,
        response: reqwest::Response,
        connection: ConnectionInUse,
    ) -> Self {
        let (parser, piece, held) = (Parser::new(MAX_EVENT), Bytes::new(), call.memory.hold());
        Self { transport, call, response, parser, piece, is_over: false, _connection: connection, held }
    }

    /// Waits until it is clear whether the answer consists of events. Its beginning decides, because some servers
    /// declare events as JSON or plain text, and others declare JSON as events.
    pub(crate) async fn has_events(&mut self) -> Result<bool> {
        let mut blank = 0;
        loop {
            let skipped = sse::leading_blank(&self.piece);
            self.piece.advance(skipped);
            blank += skipped;
            if blank > ANSWER_LIMIT {
                return Err(self.broken(&format!("it starts with more than {ANSWER_LIMIT} bytes of white space")));
            }
            match sse::detect_format(&self.piece) {
                BodyFormat::Events => return Ok(true),
                BodyFormat::Unknown if !self.is_over => self.fetch().await?,
                // Empty, or an unknown field: an event stream if the content type says so.
                BodyFormat::Other if !self.is_declared() || self.piece.starts_with(b"{") => return Ok(false),
                BodyFormat::Other | BodyFormat::Unknown => return Ok(self.is_declared()),
            }
        }
    }

    /// Returns whether the content type declares events.
    fn is_declared(&self) -> bool {
        let kind = self.response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
    }

    /// Receives the next chunk.
    async fn fetch(&mut self) -> Result<()> {
        let chunk = async { self.response.chunk().await.map_err(Failure::of) };
        match self.call.with_deadline(chunk).await {
            Ok(Some(piece)) if self.piece.is_empty() => self.piece = piece,
            Ok(Some(piece)) => self.piece = [&self.piece[..], &piece].concat().into(),
            Ok(None) => self.is_over = true,
            Err(failure) => return Err(self.failed(&failure)),
        }
        let held = self.held.set(self.piece.len() + self.parser.buffered());
        held.map_err(|limit| self.failed(&Failure::NoMemory(limit)))
    }

    /// Waits for the next item, and returns whether the answer ended with it. Returns `None` at the end. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Option<(Item, bool)>> {
        loop {
            if let Some(item) = self.parser.next(&mut self.piece) {
                return Ok(Some((item, false)));
            }
            if self.is_over {
                return Ok(self.parser.finish().map(|item| (item, true)));
            }
            self.fetch().await?;
        }
    }

    /// Drops an answer that was read to its last event. If the end of its body has arrived, reads it, so that the server
    /// doesn't count the request as canceled. Doesn't wait.
    pub(crate) async fn finish(mut self) {
        let _ = tokio::time::timeout(Duration::ZERO, self.response.chunk()).await;
    }

    /// Reads an answer without events to its end. Also returns its call.
    pub(crate) async fn whole(self) -> Result<(Call, Answer)> {
        let Self { transport, call, response, piece, _connection, .. } = self;
        match call.with_deadline(whole(&call, response, piece)).await {
            Ok(answer) => Ok((call, answer)),
            Err(failure) => Err(transport.failed(&call, 1, &failure)),
        }
    }

    /// Returns the error for an answer that failed while it was streamed.
    pub(crate) fn fault(&self, fault: &Fault) -> CallError {
        let why = match fault {
            Fault::Failed { .. } => {
                return self.transport.fault(&format!("{}: the answer broke off", self.call), fault);
            }
            Fault::Unreadable { why, found } => {
                let quoted = quote(&redacted(found, self.transport.key.expose()));
                format!("an event can't be understood ({why}): {quoted}")
            }
            Fault::TooLarge(what, limit) => format!("{what} is larger than {limit} bytes"),
            Fault::Truncated => "it stopped without having come to its end".to_owned(),
            Fault::Empty | Fault::OnlyToolCalls(_) => {
                return self.transport.fault(&format!("{}: the answer", self.call), fault);
            }
        };
        self.broken(&why)
    }

    /// Returns the error for an answer that can't be read further. `why` is a complete sentence.
    pub(crate) fn broken(&self, why: &str) -> CallError {
        self.transport.error(ErrorKind::Unavailable, &format!("{}: the answer broke off: {why}", self.call))
    }

    fn failed(&self, failure: &Failure) -> CallError {
        match failure {
            Failure::TimedOut => {
                let limit = humantime::format_duration(self.call.limit);
                let message = format!("{}: the answer started but was not complete within {limit}", self.call);
                self.transport.error(ErrorKind::Timeout, &message)
            }
            Failure::NotSent(error) | Failure::Interrupted(error) => {
                self.broken(&format!("the connection broke ({error})"))
            }
            failure => self.transport.failed(&self.call, 1, failure),
        }
    }
}

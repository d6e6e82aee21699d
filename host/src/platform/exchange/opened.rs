//! An answer that is read as it comes: server-sent events, or, from who doesn't send any, a body read whole.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http::header::CONTENT_TYPE;

use super::failure::{Failure, Told, quote, redacted};
use super::{Answer, Call, Exchange, whole};
use crate::platform::{ErrorKind, PlatformError, Result};
use crate::sse::{Parser, Read};

/// The most one event may have, in bytes: far more than a piece of an answer.
const EVENT_LIMIT: usize = 1024 * 1024;

/// An answer that has begun. Nothing is read of it but what is asked for, so that who sends it is held back by who reads
/// it; dropping it closes the connection.
pub(in crate::platform) struct Opened {
    exchange: Arc<Exchange>,
    call: Call,
    response: reqwest::Response,
    parser: Parser,
    /// What has come and isn't read yet.
    piece: Bytes,
}

impl Opened {
    pub(super) fn new(exchange: Arc<Exchange>, call: Call, response: reqwest::Response) -> Self {
        Self { exchange, call, response, parser: Parser::new(EVENT_LIMIT), piece: Bytes::new() }
    }

    /// Whether it consists of events.
    pub(in crate::platform) fn has_events(&self) -> bool {
        let kind = self.response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
    }

    /// Waits for the data of the next event; none: the far side has ended the answer. Who gives up waiting loses nothing.
    pub(in crate::platform) async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            match self.parser.next(&mut self.piece) {
                Some(Read::Data(data)) => return Ok(Some(data)),
                Some(Read::SignOfLife) => {}
                Some(Read::TooLarge) => {
                    return Err(self.broken(&format!("an event of it is larger than {EVENT_LIMIT} bytes")));
                }
                None => {
                    let chunk = async { self.response.chunk().await.map_err(Failure::of) };
                    match self.call.in_time(chunk).await {
                        Ok(Some(piece)) => self.piece = piece,
                        Ok(None) => return Ok(None),
                        Err(failure) => return Err(self.failed(&failure)),
                    }
                }
            }
        }
    }

    /// Lets the connection be used again, if the answer has nothing more to say than that it ends.
    pub(in crate::platform) async fn finish(mut self) {
        // The end is looked for and not waited for.
        let _ = tokio::time::timeout(Duration::ZERO, self.response.chunk()).await;
    }

    /// Reads an answer without events to its end; answers with the call it was made by, too.
    pub(in crate::platform) async fn whole(self) -> Result<(Call, Answer)> {
        let Self { exchange, call, response, .. } = self;
        match call.in_time(whole(response)).await {
            Ok(answer) => Ok((call, answer)),
            Err(failure) => Err(exchange.failed(&call, 1, &failure)),
        }
    }

    /// The error for an answer that says in the middle of itself that it failed.
    pub(in crate::platform) fn refused(&self, status: Option<StatusCode>, told: &[u8]) -> PlatformError {
        let Told { message, retryable } = Told::read(&redacted(told, self.exchange.key.expose()));
        let kind = match status {
            Some(status) => Failure::Refused { status, retry_after: None, retryable, message: String::new() }.kind(),
            None => ErrorKind::Unavailable,
        };
        self.exchange.error(kind, &format!("{}: the answer broke off: {message}", self.call))
    }

    /// The error for an event nobody understands.
    pub(in crate::platform) fn unreadable(&self, event: &[u8], why: &str) -> PlatformError {
        let quoted = quote(&redacted(event, self.exchange.key.expose()));
        self.broken(&format!("an event of it can't be understood ({why}): {quoted}"))
    }

    /// The error for an answer that can't be read on; `why` is a sentence of its own.
    pub(in crate::platform) fn broken(&self, why: &str) -> PlatformError {
        self.exchange.error(ErrorKind::Unavailable, &format!("{}: the answer broke off: {why}", self.call))
    }

    fn failed(&self, failure: &Failure) -> PlatformError {
        match failure {
            Failure::TimedOut => {
                let limit = humantime::format_duration(self.call.limit);
                let message = format!("{}: the answer had begun, and was not at its end within {limit}", self.call);
                self.exchange.error(ErrorKind::Timeout, &message)
            }
            Failure::NotSent(error) | Failure::Interrupted(error) => {
                self.broken(&format!("the connection broke ({error})"))
            }
            failure => self.exchange.failed(&self.call, 1, failure),
        }
    }
}

//! An answer that is read as it comes: server-sent events, or, where the server doesn't send any, a body read whole.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::CONTENT_TYPE;

use super::failure::{Failure, quote, redacted};
use super::{ANSWER_LIMIT, Answer, Call, HttpTransport, whole};
use crate::chat_completion::{Fault, MAX_EVENT};
use crate::{CallError, ErrorKind, Result};
use modhost_core::sse::{self, Beginning, Parser, Read};

/// An answer that has begun. Nothing is read of it but what is asked for, so that who sends it is held back by who reads
/// it; dropping it closes the connection.
pub(crate) struct Opened {
    exchange: Arc<HttpTransport>,
    call: Call,
    response: reqwest::Response,
    parser: Parser,
    /// What has come and isn't read yet.
    piece: Bytes,
    /// Whether nothing more comes.
    is_over: bool,
}

impl Opened {
    pub(super) fn new(exchange: Arc<HttpTransport>, call: Call, response: reqwest::Response) -> Self {
        Self { exchange, call, response, parser: Parser::new(MAX_EVENT), piece: Bytes::new(), is_over: false }
    }

    /// Waits until it is clear whether the answer consists of events. How it begins decides: there are servers that send
    /// events as JSON or plain text, and others that send JSON as events.
    pub(crate) async fn has_events(&mut self) -> Result<bool> {
        let mut blank = 0;
        loop {
            let skipped = sse::blank(&self.piece);
            self.piece.advance(skipped);
            blank += skipped;
            if blank > ANSWER_LIMIT {
                return Err(self.broken(&format!("it begins with more than {ANSWER_LIMIT} blanks")));
            }
            match sse::beginning(&self.piece) {
                Beginning::Events => return Ok(true),
                Beginning::Unknown if !self.is_over => self.fetch().await?,
                // Nothing, or a line no standard knows: an empty stream, if it is said to be one.
                Beginning::Other if !self.is_declared() || self.piece.starts_with(b"{") => return Ok(false),
                Beginning::Other | Beginning::Unknown => return Ok(self.is_declared()),
            }
        }
    }

    /// Whether it is said to consist of events.
    fn is_declared(&self) -> bool {
        let kind = self.response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("text/event-stream")
    }

    /// Waits for more to come.
    async fn fetch(&mut self) -> Result<()> {
        let chunk = async { self.response.chunk().await.map_err(Failure::of) };
        match self.call.in_time(chunk).await {
            Ok(Some(piece)) if self.piece.is_empty() => self.piece = piece,
            Ok(Some(piece)) => self.piece = [&self.piece[..], &piece].concat().into(),
            Ok(None) => self.is_over = true,
            Err(failure) => return Err(self.failed(&failure)),
        }
        Ok(())
    }

    /// Waits for what comes next, and says whether the answer ended with it; none: it has ended. Who gives up waiting loses
    /// nothing.
    pub(crate) async fn next(&mut self) -> Result<Option<(Read, bool)>> {
        loop {
            if let Some(read) = self.parser.next(&mut self.piece) {
                return Ok(Some((read, false)));
            }
            if self.is_over {
                return Ok(self.parser.finish().map(|read| (read, true)));
            }
            self.fetch().await?;
        }
    }

    /// Lets the connection be used again, if the answer has nothing more to say than that it ends.
    pub(crate) async fn finish(mut self) {
        // The end is looked for and not waited for.
        let _ = tokio::time::timeout(Duration::ZERO, self.response.chunk()).await;
    }

    /// Reads an answer without events to its end; answers with the call it was made by, too.
    pub(crate) async fn whole(self) -> Result<(Call, Answer)> {
        let Self { exchange, call, response, piece, .. } = self;
        match call.in_time(whole(response, piece)).await {
            Ok(answer) => Ok((call, answer)),
            Err(failure) => Err(exchange.failed(&call, 1, &failure)),
        }
    }

    /// The error for an answer that is no more.
    pub(crate) fn fault(&self, fault: &Fault) -> CallError {
        let why = match fault {
            Fault::Failed { .. } => return self.exchange.fault(&format!("{}: the answer broke off", self.call), fault),
            Fault::Unreadable { why, found } => {
                let quoted = quote(&redacted(found, self.exchange.key.expose()));
                format!("an event of it can't be understood ({why}): {quoted}")
            }
            Fault::TooLarge(what, limit) => format!("{what} is larger than {limit} bytes"),
            Fault::Cut => "it stopped without having come to its end".to_owned(),
            Fault::Empty | Fault::OnlyToolCalls(_) => {
                return self.exchange.fault(&format!("{}: the answer", self.call), fault);
            }
        };
        self.broken(&why)
    }

    /// The error for an answer that can't be read on; `why` is a sentence of its own.
    pub(crate) fn broken(&self, why: &str) -> CallError {
        self.exchange.error(ErrorKind::Unavailable, &format!("{}: the answer broke off: {why}", self.call))
    }

    fn failed(&self, failure: &Failure) -> CallError {
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

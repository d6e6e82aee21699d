//! A streamed answer, event by event.

use async_trait::async_trait;

use super::answer::Chunk;
use crate::platform::exchange::{ANSWER_LIMIT, Opened};
use crate::platform::{Completion, CompletionStream, Ending, Result, WholeAnswer};

/// What the last event of a stream says.
const DONE: &[u8] = b"[DONE]";

/// What a piece costs beside its text, in bytes, when it is kept and written down.
const PIECE_COSTS: usize = 32;

/// An answer on its way.
pub struct Pieces(Answer);

enum Answer {
    /// It comes in events.
    Streamed(Box<Streamed>),
    /// It came whole.
    Whole(WholeAnswer),
}

struct Streamed {
    /// What is still to be read; none at the end, and after an error.
    opened: Option<Opened>,
    ending: Ending,
    /// How large the answer may still become, in bytes.
    room: usize,
}

impl Pieces {
    pub(super) fn streamed(opened: Opened) -> Self {
        let (opened, ending) = (Some(opened), Ending::default());
        Self(Answer::Streamed(Box::new(Streamed { opened, ending, room: ANSWER_LIMIT })))
    }

    pub(super) fn whole(completion: Completion) -> Self {
        Self(Answer::Whole(completion.into()))
    }
}

#[async_trait]
impl CompletionStream for Pieces {
    async fn next(&mut self) -> Result<Option<String>> {
        match &mut self.0 {
            Answer::Streamed(streamed) => streamed.next().await,
            Answer::Whole(whole) => whole.next().await,
        }
    }

    fn ending(&self) -> Ending {
        match &self.0 {
            Answer::Streamed(streamed) => streamed.ending.clone(),
            Answer::Whole(whole) => whole.ending(),
        }
    }
}

impl Streamed {
    async fn next(&mut self) -> Result<Option<String>> {
        let next = self.read().await;
        match (&next, self.opened.take()) {
            (Ok(Some(_)), opened) => self.opened = opened,
            (Ok(None), Some(opened)) => opened.finish().await,
            // The connection is closed: what else comes is of no use.
            _ => {}
        }
        next
    }

    /// Reads on until there is text, or the end.
    async fn read(&mut self) -> Result<Option<String>> {
        let Some(opened) = &mut self.opened else { return Ok(None) };
        loop {
            let Some(event) = opened.next().await? else {
                // There are endpoints that don't say `[DONE]`, but say why the model has stopped.
                if self.ending.finish_reason.is_some() {
                    return Ok(None);
                }
                return Err(opened.broken("it stopped without having come to its end"));
            };
            if event.trim_ascii() == DONE {
                return Ok(None);
            }
            let mut chunk: Chunk =
                serde_json::from_slice(&event).map_err(|error| opened.unreadable(&event, &error.to_string()))?;
            if let Some(status) = chunk.error() {
                return Err(opened.refused(status, &event));
            }
            if let Some(usage) = chunk.usage() {
                self.ending.usage = Some(usage);
            }
            let (text, finish_reason) = chunk.take_text();
            if finish_reason.is_some() {
                self.ending.finish_reason = finish_reason;
            }
            if let Some(text) = text {
                self.room = self
                    .room
                    .checked_sub(text.len() + PIECE_COSTS)
                    .ok_or_else(|| opened.broken(&format!("it is larger than {ANSWER_LIMIT} bytes")))?;
                return Ok(Some(text));
            }
        }
    }
}

//! A streamed answer, parsed event by event.

use async_trait::async_trait;

use crate::chat_completion::{CompletedAnswer, Progress, Reader};
use crate::http_transport::StreamingResponse;
use crate::{CompleteAnswer, Completion, CompletionStream, Ending, Result};

/// A streamed answer.
pub struct Pieces(Answer);

enum Answer {
    /// The server streams it.
    Streamed(Box<Streamed>),
    /// The server sent it complete.
    Whole(CompleteAnswer),
}

struct Streamed {
    /// The open answer and its parser. `None` after the end or an error.
    open: Option<(StreamingResponse, Reader)>,
    /// The rest of the text at the end: half a character, as a piece of its own.
    rest: Option<String>,
    ending: Ending,
}

impl Pieces {
    pub(super) fn streamed(response: StreamingResponse) -> Self {
        let (open, rest, ending) = (Some((response, Reader::default())), None, Ending::default());
        Self(Answer::Streamed(Box::new(Streamed { open, rest, ending })))
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
        let is_explicit = match self.read().await {
            Ok(ReadResult::Text(text)) => return Ok(Some(text)),
            Ok(ReadResult::End { is_explicit }) => is_explicit,
            Err(error) => {
                // The connection is dropped, since nothing after an error is used.
                self.open = None;
                return Err(error);
            }
        };
        if let Some((response, reader)) = self.open.take() {
            let CompletedAnswer { rest, ending, .. } =
                reader.end(is_explicit).map_err(|fault| response.fault(&fault))?;
            (self.rest, self.ending) = (Some(rest).filter(|rest| !rest.is_empty()), ending);
            // If the caller cancels here, the next call returns the rest.
            response.finish().await;
        }
        Ok(self.rest.take())
    }

    /// Reads until there is text, or the end.
    async fn read(&mut self) -> Result<ReadResult> {
        let Some((response, reader)) = &mut self.open else { return Ok(ReadResult::End { is_explicit: true }) };
        loop {
            let Some((read, is_last)) = response.next().await? else {
                return Ok(ReadResult::End { is_explicit: false });
            };
            match reader.read(read, is_last).map_err(|fault| response.fault(&fault))? {
                Progress::Text(text) => return Ok(ReadResult::Text(text)),
                Progress::Nothing => {}
                Progress::Done => return Ok(ReadResult::End { is_explicit: true }),
            }
        }
    }
}

/// The result of reading.
enum ReadResult {
    Text(String),
    /// The end, and whether the server declared it.
    End {
        is_explicit: bool,
    },
}

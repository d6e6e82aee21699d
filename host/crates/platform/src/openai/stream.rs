//! A streamed answer, event by event.

use async_trait::async_trait;

use crate::chat_completion::{Answered, Progress, Reader};
use crate::http_transport::Opened;
use crate::{Completion, CompletionStream, Ending, Result, WholeAnswer};

/// An answer on its way.
pub struct Pieces(Answer);

enum Answer {
    /// It comes in events.
    Streamed(Box<Streamed>),
    /// It came whole.
    Whole(WholeAnswer),
}

struct Streamed {
    /// What is still to be read, and what reads it; none at the end, and after an error.
    open: Option<(Opened, Reader)>,
    /// What is left of the text at the end: half a character, as a piece of its own.
    rest: Option<String>,
    ending: Ending,
}

impl Pieces {
    pub(super) fn streamed(opened: Opened) -> Self {
        let (open, rest, ending) = (Some((opened, Reader::default())), None, Ending::default());
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
        let said = match self.read().await {
            Ok(Next::Text(text)) => return Ok(Some(text)),
            Ok(Next::End { said }) => said,
            Err(error) => {
                // The connection is closed: what else comes is of no use.
                self.open = None;
                return Err(error);
            }
        };
        if let Some((opened, reader)) = self.open.take() {
            let Answered { rest, ending, .. } = reader.end(said).map_err(|fault| opened.fault(&fault))?;
            (self.rest, self.ending) = (Some(rest).filter(|rest| !rest.is_empty()), ending);
            // Whoever gives up waiting here has it next time.
            opened.finish().await;
        }
        Ok(self.rest.take())
    }

    /// Reads on until there is text, or the end.
    async fn read(&mut self) -> Result<Next> {
        let Some((opened, reader)) = &mut self.open else { return Ok(Next::End { said: true }) };
        loop {
            let Some((read, is_last)) = opened.next().await? else { return Ok(Next::End { said: false }) };
            match reader.read(read, is_last).map_err(|fault| opened.fault(&fault))? {
                Progress::Text(text) => return Ok(Next::Text(text)),
                Progress::Nothing => {}
                Progress::Done => return Ok(Next::End { said: true }),
            }
        }
    }
}

/// What comes next.
enum Next {
    Text(String),
    /// The end, and whether the server said that it is.
    End {
        said: bool,
    },
}

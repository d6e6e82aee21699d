//! The platform of a test: it answers what the test says, makes up the ids of what is made, and sends nothing anywhere.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::answers::{Answers, Scripted, Spoken};
use super::written::line;
use modhost_platform::{
    CallError, Caller, Completion, CompletionRequest, CompletionStream, Ending, ErrorKind, Hit, Message, MessageChange,
    NewStep, Platform, Query, Result, Role, StepChange, StreamTarget, StreamedAnswer,
};

/// The platform of one test.
pub(super) struct Script {
    state: Mutex<State>,
    /// The messages of the chat, the event's own last.
    history: Vec<Message>,
    made: AtomicU32,
}

struct State {
    search: Vec<Scripted<Vec<Hit>>>,
    completion: Vec<Scripted<Spoken>>,
    unanswered: Vec<String>,
}

impl Script {
    /// A platform that answers this; `question` is the event's own message, if it has one.
    pub fn new(answers: &Answers, question: Option<Message>) -> Self {
        let state =
            State { search: answers.search.clone(), completion: answers.completion.clone(), unanswered: Vec::new() };
        let history = answers.history.iter().cloned().chain(question).collect();
        Self { state: Mutex::new(state), history, made: AtomicU32::new(1) }
    }

    /// What was asked that the test has no answer to: each with the lines to add.
    pub fn unanswered(&self) -> Vec<String> {
        self.state().unanswered.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn made_up(&self, what: &str) -> String {
        format!("{what}_{}", self.made.fetch_add(1, Ordering::Relaxed))
    }

    /// What the model says to this.
    fn spoken(&self, request: &CompletionRequest) -> Result<Spoken> {
        let mut state = self.state();
        let asked = |only: &super::matcher::Matcher| request.messages.iter().any(|it| only.fits(&it.content));
        Scripted::take(&mut state.completion, asked).unwrap_or_else(|| {
            let question = request.messages.last().map(|message| message.content.as_str()).unwrap_or_default();
            let asked = shortened(question);
            let lines = "[[completion]]\ntext = \"…\"";
            Err(state.unanswered(format!("a language model is asked {}", line(&asked)), lines))
        })
    }

    /// All of what the model says to this: an error where it breaks off.
    fn complete_with(&self, request: &CompletionRequest) -> Result<Completion> {
        let Spoken { whole, broken_off, .. } = self.spoken(request)?;
        broken_off.map_or(Ok(whole), Err)
    }
}

impl State {
    fn unanswered(&mut self, what: String, lines: &str) -> CallError {
        self.unanswered.push(format!("{what}, and the test has no answer left to that; add:\n\n{lines}"));
        CallError::new(ErrorKind::Unsupported, "the test has no answer to this")
    }
}

fn shortened(text: &str) -> String {
    const MOST: usize = 120;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn message(id: String, change: &MessageChange) -> Message {
    let (text, references) = (change.text.clone(), change.references.clone());
    Message { id, role: Role::Assistant, text, references, created_at: None }
}

#[async_trait]
impl Platform for Script {
    fn unsupported(&self, what: &str) -> CallError {
        CallError::new(ErrorKind::Unsupported, format!("a test has no {what}"))
    }

    fn changes_messages(&self) -> bool {
        true
    }

    async fn create_step(&self, _: &Caller, _: &NewStep) -> Result<String> {
        Ok(self.made_up("step"))
    }

    async fn update_step(&self, _: &Caller, _: &str, _: &StepChange) -> Result<()> {
        Ok(())
    }

    async fn create_message(&self, _: &Caller, _: Option<&str>, _: &str, change: &MessageChange) -> Result<Message> {
        Ok(message(self.made_up("msg"), change))
    }

    async fn modify_message(&self, _: &Caller, _: &str, id: &str, change: &MessageChange) -> Result<Message> {
        Ok(message(id.to_owned(), change))
    }

    async fn show_message(&self, _: &Caller, _: &str, _: &str, _: &str) -> Result<()> {
        Ok(())
    }

    async fn list_messages(&self, _: &Caller, _: &str) -> Result<Vec<Message>> {
        Ok(self.history.clone())
    }

    async fn search(&self, _: &Caller, _: Option<&str>, query: &Query) -> Result<Vec<Hit>> {
        let mut state = self.state();
        Scripted::take(&mut state.search, |only| only.fits(&query.text)).unwrap_or_else(|| {
            let asked = shortened(&query.text);
            let lines =
                "[[search]]\n[[search.hits]]\ntitle = \"…\"\ntext = \"…\"\n\n(or [[search]] alone, for no hits)";
            Err(state.unanswered(format!("it searches for {}", line(&asked)), lines))
        })
    }

    async fn complete(&self, _: &Caller, request: &CompletionRequest) -> Result<Completion> {
        self.complete_with(request)
    }

    async fn stream(&self, _: &Caller, request: &CompletionRequest) -> Result<Box<dyn CompletionStream>> {
        let Spoken { pieces, whole, broken_off } = self.spoken(request)?;
        // An empty piece is none.
        let pieces: VecDeque<_> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let ending = Ending { finish_reason: whole.finish_reason, usage: whole.usage };
        Ok(Box::new(Pieces { pieces, broken_off, ending }))
    }

    async fn complete_into(
        &self,
        _: &Caller,
        _: &StreamTarget,
        request: &CompletionRequest,
        _: &[Hit],
    ) -> Result<StreamedAnswer> {
        Ok(StreamedAnswer { completion: self.complete_with(request)?, unwritten: None })
    }
}

/// An answer on its way.
struct Pieces {
    pieces: VecDeque<String>,
    broken_off: Option<CallError>,
    ending: Ending,
}

#[async_trait]
impl CompletionStream for Pieces {
    async fn next(&mut self) -> Result<Option<String>> {
        match (self.pieces.pop_front(), self.broken_off.take()) {
            (Some(piece), broken_off) => {
                self.broken_off = broken_off;
                Ok(Some(piece))
            }
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    fn ending(&self) -> Ending {
        self.ending.clone()
    }
}

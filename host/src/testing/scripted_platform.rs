//! The platform of a test. It returns the answers of the test, generates ids, and sends nothing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use async_trait::async_trait;

use super::answers::{ScriptedAnswer, ScriptedAnswers, ScriptedCompletion};
use super::matcher::Matcher;
use super::toml_writer::line;
use modhost_core::sync::lock;
use modhost_core::text::truncate;
use modhost_platform::{
    CallError, Caller, Completion, CompletionRequest, CompletionStream, Ending, ErrorKind, Hit, Message, MessageChange,
    NewStep, Platform, Query, Result, Role, StepChange, StreamTarget, StreamedAnswer,
};

/// The longest question or query that a message shows, in characters.
const MAX_SHOWN_CHARS: usize = 120;

/// The platform of one test.
pub(super) struct ScriptedPlatform {
    state: Mutex<PendingAnswers>,
    /// The messages of the chat; that of the event is the last.
    history: Vec<Message>,
    next_id: AtomicU32,
}

struct PendingAnswers {
    search: Vec<ScriptedAnswer<Vec<Hit>>>,
    completion: Vec<ScriptedAnswer<ScriptedCompletion>>,
    unanswered: Vec<String>,
}

impl ScriptedPlatform {
    /// Returns a platform with these answers. `user_message` is the message of the event, if it has one.
    pub fn new(answers: &ScriptedAnswers, user_message: Option<Message>) -> Self {
        let state = PendingAnswers {
            search: answers.search.clone(),
            completion: answers.completion.clone(),
            unanswered: Vec::new(),
        };
        let history = answers.history.iter().cloned().chain(user_message).collect();
        Self { state: Mutex::new(state), history, next_id: AtomicU32::new(1) }
    }

    /// Returns the requests without an answer, each with the lines to add to the test.
    pub fn unanswered(&self) -> Vec<String> {
        self.state().unanswered.clone()
    }

    fn state(&self) -> MutexGuard<'_, PendingAnswers> {
        lock(&self.state)
    }

    fn new_id(&self, what: &str) -> String {
        format!("{what}_{}", self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns the completion for a request.
    fn completion_for(&self, request: &CompletionRequest) -> Result<ScriptedCompletion> {
        let mut state = self.state();
        let applies = |condition: &Matcher| request.messages.iter().any(|message| condition.matches(&message.content));
        ScriptedAnswer::next_match(&mut state.completion, applies).unwrap_or_else(|| {
            let prompt = request.messages.last().map(|message| message.content.as_str()).unwrap_or_default();
            let prompt = truncate(prompt, MAX_SHOWN_CHARS);
            let lines = "[[completion]]\ntext = \"…\"";
            Err(state.unanswered(format!("the module requests a completion for {}", line(&prompt)), lines))
        })
    }

    /// Returns the whole completion for a request, or the error that ends its stream.
    fn whole_completion(&self, request: &CompletionRequest) -> Result<Completion> {
        let ScriptedCompletion { whole, stream_error, .. } = self.completion_for(request)?;
        stream_error.map_or(Ok(whole), Err)
    }
}

impl PendingAnswers {
    fn unanswered(&mut self, what: String, lines: &str) -> CallError {
        self.unanswered.push(format!("{what}, and the test has no answer left for it; add:\n\n{lines}"));
        CallError::new(ErrorKind::Unsupported, "the test has no answer for this call")
    }
}

fn message(id: String, change: &MessageChange) -> Message {
    let (text, references) = (change.text.clone(), change.references.clone());
    Message { id, role: Role::Assistant, text, references, created_at: None }
}

#[async_trait]
impl Platform for ScriptedPlatform {
    fn unsupported(&self, what: &str) -> CallError {
        CallError::new(ErrorKind::Unsupported, format!("tests do not support {what}"))
    }

    fn changes_messages(&self) -> bool {
        true
    }

    async fn create_step(&self, _: &Caller, _: &NewStep) -> Result<String> {
        Ok(self.new_id("step"))
    }

    async fn update_step(&self, _: &Caller, _: &str, _: &StepChange) -> Result<()> {
        Ok(())
    }

    async fn create_message(&self, _: &Caller, _: Option<&str>, _: &str, change: &MessageChange) -> Result<Message> {
        Ok(message(self.new_id("msg"), change))
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
        ScriptedAnswer::next_match(&mut state.search, |condition| condition.matches(&query.text)).unwrap_or_else(|| {
            let text = truncate(&query.text, MAX_SHOWN_CHARS);
            let lines = "[[search]]\n[[search.hits]]\ntitle = \"…\"\ntext = \"…\"\n\n(or only [[search]], for no hits)";
            Err(state.unanswered(format!("the module searches for {}", line(&text)), lines))
        })
    }

    async fn complete(&self, _: &Caller, request: &CompletionRequest) -> Result<Completion> {
        self.whole_completion(request)
    }

    async fn stream(&self, _: &Caller, request: &CompletionRequest) -> Result<Box<dyn CompletionStream>> {
        let ScriptedCompletion { pieces, whole, stream_error } = self.completion_for(request)?;
        // Empty pieces are not delivered.
        let pieces: VecDeque<_> = pieces.into_iter().filter(|piece| !piece.is_empty()).collect();
        let ending = Ending { finish_reason: whole.finish_reason, usage: whole.usage };
        Ok(Box::new(ScriptedStream { pieces, stream_error, ending }))
    }

    async fn complete_into(
        &self,
        _: &Caller,
        _: &StreamTarget,
        request: &CompletionRequest,
        _: &[Hit],
    ) -> Result<StreamedAnswer> {
        Ok(StreamedAnswer { completion: self.whole_completion(request)?, unwritten: None })
    }
}

/// A streamed completion.
struct ScriptedStream {
    pieces: VecDeque<String>,
    stream_error: Option<CallError>,
    ending: Ending,
}

#[async_trait]
impl CompletionStream for ScriptedStream {
    async fn next(&mut self) -> Result<Option<String>> {
        match (self.pieces.pop_front(), self.stream_error.take()) {
            (Some(piece), stream_error) => {
                self.stream_error = stream_error;
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

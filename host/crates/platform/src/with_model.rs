//! A platform whose completions come from an OpenAI-compatible endpoint instead of its own model.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::citations::{cite, showable_prefix};
use super::openai::OpenAi;
use super::{
    CallError, Caller, Completion, CompletionRequest, CompletionStream, ErrorKind, Hit, Message, MessageChange,
    NewStep, Platform, Query, Result, StepChange, StreamTarget, StreamedAnswer,
};

/// The minimum interval between two previews of an unfinished answer, since readers notice no faster changes.
const SHOW_EVERY: Duration = Duration::from_millis(250);

/// A platform that delegates completions to a model and everything else to another platform.
pub struct WithModel {
    platform: Arc<dyn Platform>,
    model: OpenAi,
}

impl WithModel {
    /// Combines a platform with a model.
    pub fn new(platform: Arc<dyn Platform>, model: OpenAi) -> Self {
        Self { platform, model }
    }

    /// Reads an answer to its end, and publishes the text read so far.
    async fn read(
        &self,
        caller: &Caller,
        request: &CompletionRequest,
        text: watch::Sender<String>,
    ) -> Result<Completion> {
        let mut pieces = self.model.stream(caller, request).await?;
        let mut held = caller.memory.hold();
        while let Some(piece) = pieces.next().await? {
            held.grow(piece.len()).map_err(|limit| {
                CallError::new(ErrorKind::Unavailable, format!("the answer was not read: limit reached: {limit}"))
            })?;
            text.send_modify(|text| text.push_str(&piece));
        }
        let ending = pieces.ending();
        Ok(Completion { text: text.borrow().clone(), finish_reason: ending.finish_reason, usage: ending.usage })
    }

    /// Shows the unfinished answer in place of a message until the answer ends.
    async fn show(&self, caller: &Caller, target: &StreamTarget, sources: &[Hit], mut text: watch::Receiver<String>) {
        let mut shown = String::new();
        while text.changed().await.is_ok() {
            let (preview, _) = cite(showable_prefix(&text.borrow_and_update()), sources);
            if preview == shown {
                continue;
            }
            let (chat_id, id) = (&target.chat_id, &target.assistant_message_id);
            if let Err(error) = self.platform.show_message(caller, chat_id, id, &preview).await {
                tracing::warn!(message_id = id, %error, "cannot show the partial answer; the complete one will be shown");
                return;
            }
            shown = preview;
            // Returns at once when the answer ends, without waiting for the interval.
            tokio::select! {
                () = tokio::time::sleep(SHOW_EVERY) => {}
                () = ended(text.clone()) => return,
            }
        }
    }
}

/// Waits until the sender is dropped.
async fn ended(mut text: watch::Receiver<String>) {
    while text.changed().await.is_ok() {}
}

#[async_trait]
impl Platform for WithModel {
    fn unsupported(&self, what: &str) -> CallError {
        self.platform.unsupported(what)
    }

    fn changes_messages(&self) -> bool {
        self.platform.changes_messages()
    }

    async fn create_step(&self, caller: &Caller, step: &NewStep) -> Result<String> {
        self.platform.create_step(caller, step).await
    }

    async fn update_step(&self, caller: &Caller, id: &str, change: &StepChange) -> Result<()> {
        self.platform.update_step(caller, id, change).await
    }

    async fn create_message(
        &self,
        caller: &Caller,
        assistant_id: Option<&str>,
        chat_id: &str,
        change: &MessageChange,
    ) -> Result<Message> {
        self.platform.create_message(caller, assistant_id, chat_id, change).await
    }

    async fn modify_message(
        &self,
        caller: &Caller,
        chat_id: &str,
        id: &str,
        change: &MessageChange,
    ) -> Result<Message> {
        self.platform.modify_message(caller, chat_id, id, change).await
    }

    async fn show_message(&self, caller: &Caller, chat_id: &str, id: &str, text: &str) -> Result<()> {
        self.platform.show_message(caller, chat_id, id, text).await
    }

    async fn list_messages(&self, caller: &Caller, chat_id: &str) -> Result<Vec<Message>> {
        self.platform.list_messages(caller, chat_id).await
    }

    async fn search(&self, caller: &Caller, chat_id: Option<&str>, query: &Query) -> Result<Vec<Hit>> {
        self.platform.search(caller, chat_id, query).await
    }

    async fn complete(&self, caller: &Caller, request: &CompletionRequest) -> Result<Completion> {
        self.model.complete(caller, request).await
    }

    async fn stream(&self, caller: &Caller, request: &CompletionRequest) -> Result<Box<dyn CompletionStream>> {
        Ok(Box::new(self.model.stream(caller, request).await?))
    }

    async fn complete_into(
        &self,
        caller: &Caller,
        target: &StreamTarget,
        request: &CompletionRequest,
        sources: &[Hit],
    ) -> Result<StreamedAnswer> {
        // Checked before the completion, which costs money.
        if !self.changes_messages() {
            return Err(self.unsupported("reply to stream into"));
        }
        // A preview contains the whole text and can safely be repeated. It has no idempotency key, because with the key
        // of the completion the platform would take the second preview for a repetition of the first.
        let keyless = Caller { idempotency_key: None, ..caller.clone() };
        let (sender, receiver) = watch::channel(String::new());
        let (completion, ()) =
            tokio::join!(self.read(caller, request, sender), self.show(&keyless, target, sources, receiver));
        let mut completion = completion?;
        let (text, references) = cite(&completion.text, sources);
        completion.text.clone_from(&text);
        let unwritten = MessageChange { text: Some(text), references, ..MessageChange::default() };
        Ok(StreamedAnswer { completion, unwritten: Some(unwritten) })
    }
}

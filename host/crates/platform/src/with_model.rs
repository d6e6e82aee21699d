//! A platform whose completions are made by an OpenAI-compatible endpoint instead of its own model.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use super::citations::{cite, finished};
use super::openai::OpenAi;
use super::{
    CallError, Caller, Completion, CompletionRequest, CompletionStream, Hit, Message, MessageChange, NewStep, Platform,
    Query, Result, StepChange, StreamTarget, StreamedAnswer,
};

/// The least time from one look at an unfinished answer to the next: as often as a reader notices, however fast the model
/// is.
const SHOW_EVERY: Duration = Duration::from_millis(250);

/// The platform: everything is done by the one it is made of, but for completions.
pub struct WithModel {
    platform: Arc<dyn Platform>,
    model: OpenAi,
}

impl WithModel {
    /// This platform with that model.
    pub fn new(platform: Arc<dyn Platform>, model: OpenAi) -> Self {
        Self { platform, model }
    }

    /// Reads an answer to its end; whoever watches sees it grow.
    async fn read(
        &self,
        caller: &Caller,
        request: &CompletionRequest,
        text: watch::Sender<String>,
    ) -> Result<Completion> {
        let mut pieces = self.model.stream(caller, request).await?;
        while let Some(piece) = pieces.next().await? {
            text.send_modify(|text| text.push_str(&piece));
        }
        let ending = pieces.ending();
        Ok(Completion { text: text.borrow().clone(), finish_reason: ending.finish_reason, usage: ending.usage })
    }

    /// Shows in a message's place what there is of an answer, until there is no more to come.
    async fn show(&self, caller: &Caller, target: &StreamTarget, sources: &[Hit], mut text: watch::Receiver<String>) {
        let mut shown = String::new();
        while text.changed().await.is_ok() {
            let (so_far, _) = cite(finished(&text.borrow_and_update()), sources);
            if so_far == shown {
                continue;
            }
            let (chat_id, id) = (&target.chat_id, &target.assistant_message_id);
            if let Err(error) = self.platform.show_message(caller, chat_id, id, &so_far).await {
                tracing::warn!(message_id = id, %error, "cannot show the partial answer; the complete one will be shown");
                return;
            }
            shown = so_far;
            // Nobody waits for the next look once the answer is there.
            tokio::select! {
                () = tokio::time::sleep(SHOW_EVERY) => {}
                () = ended(text.clone()) => return,
            }
        }
    }
}

/// Waits until nothing more is to come.
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
        // Said before the model is asked, which costs money.
        if !self.changes_messages() {
            return Err(self.unsupported("reply that an answer could be written into"));
        }
        // What is shown states the whole text, and may happen twice. Under the key of the question, the second of these
        // would be taken for the first.
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

//! The client side of a platform: what carries a capability's call out of the host.
//!
//! A capability speaks in the types of this module; each platform turns them into its own wire format. Who is
//! acted for ([`Caller`]) comes from the verified event, so no call can be made in another tenant's name.

#![deny(unsafe_code)]
#![deny(clippy::print_stdout, clippy::print_stderr, clippy::dbg_macro)]

pub mod chat_completion;
mod citations;
mod completion;
mod dry_run;
mod error;
#[doc(hidden)]
pub mod fuzzing;
mod http_transport;
pub mod nexus;
mod null_platform;
pub mod openai;
pub mod unique;
mod with_model;

use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use completion::{
    Completion, CompletionRequest, CompletionStream, Ending, ModelMessage, StreamTarget, StreamedAnswer, Usage,
    WholeAnswer,
};
pub use dry_run::DryRunPlatform;
pub use error::{CallError, ErrorKind};
pub use http_transport::{SetupError, http_client};
pub use null_platform::NullPlatform;
pub use with_model::WithModel;

/// What a call to a platform ends in.
pub type Result<T> = std::result::Result<T, CallError>;

/// On whose behalf a call is made: always the user and company of the verified event. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name of the event, for errors.
    pub event: Arc<str>,
    /// The company, in the platform's ids; there are platforms without companies.
    pub company_id: Option<Arc<str>>,
    /// The user, in the platform's ids; some events come from none.
    pub user_id: Option<Arc<str>>,
    /// What tells this call from any other, and a second try of it from a new one: a platform that knows such keys
    /// does nothing twice.
    pub idempotency_key: Option<String>,
}

impl Caller {
    /// The error of a call that needs what the event doesn't bring: "company", "chat".
    pub fn unsupported(&self, what: &str) -> CallError {
        CallError::new(ErrorKind::Unsupported, format!("an event `{}` has no {what} to act on", self.event))
    }
}

/// A platform modules answer on.
///
/// What a platform doesn't have it leaves as it is here: such a call ends in [`Platform::unsupported`].
#[async_trait]
pub trait Platform: Send + Sync {
    /// The error of a call this platform doesn't have; `what` is what that would be about: "steps", "search".
    fn unsupported(&self, what: &str) -> CallError;

    /// The error of a completion where there is no language model.
    fn lacks_a_model(&self) -> CallError {
        let mut error = self.unsupported("completion");
        error.message.push_str("; [tenant.completion] in modules.toml gives a tenant a language model of its own");
        error
    }

    /// Whether messages can be changed once they are written.
    fn changes_messages(&self) -> bool {
        false
    }

    /// Shows a step under a message; answers with the step's id.
    async fn create_step(&self, _caller: &Caller, _step: &NewStep) -> Result<String> {
        Err(self.unsupported("steps"))
    }

    /// Changes a step that was shown before.
    async fn update_step(&self, _caller: &Caller, _id: &str, _change: &StepChange) -> Result<()> {
        Err(self.unsupported("steps"))
    }

    /// Writes a new assistant message into a chat; every call writes another one. The answer's id is empty where the
    /// platform doesn't tell it.
    async fn create_message(
        &self,
        _caller: &Caller,
        _assistant_id: Option<&str>,
        _chat_id: &str,
        _change: &MessageChange,
    ) -> Result<Message> {
        Err(self.unsupported("messages"))
    }

    /// Changes a message.
    async fn modify_message(
        &self,
        _caller: &Caller,
        _chat_id: &str,
        _id: &str,
        _change: &MessageChange,
    ) -> Result<Message> {
        Err(self.unsupported("changes of messages"))
    }

    /// Shows a text in a message's place for the moment, without storing it.
    async fn show_message(&self, _caller: &Caller, _chat_id: &str, _id: &str, _text: &str) -> Result<()> {
        Err(self.unsupported("changes of messages"))
    }

    /// The messages of a chat, oldest first.
    async fn list_messages(&self, _caller: &Caller, _chat_id: &str) -> Result<Vec<Message>> {
        Err(self.unsupported("history"))
    }

    /// Searches the knowledge base, best hit first. `chat_id` lets the platform see the chat's own documents.
    async fn search(&self, _caller: &Caller, _chat_id: Option<&str>, _query: &Query) -> Result<Vec<Hit>> {
        Err(self.unsupported("search"))
    }

    /// Lets a language model answer.
    async fn complete(&self, _caller: &Caller, _request: &CompletionRequest) -> Result<Completion> {
        Err(self.lacks_a_model())
    }

    /// Lets a language model answer piece by piece. A platform that answers its clients whole sends one piece.
    async fn stream(&self, caller: &Caller, request: &CompletionRequest) -> Result<Box<dyn CompletionStream>> {
        Ok(Box::new(WholeAnswer::from(self.complete(caller, request).await?)))
    }

    /// Lets a language model answer straight into a message, word by word as it comes; `[sourceN]` in the answer
    /// becomes a reference to the N-th of `sources`, counted from 0. What has been written of it when this ends,
    /// [`StreamedAnswer`] says; only [`Platform::modify_message`] makes the message complete.
    async fn complete_into(
        &self,
        _caller: &Caller,
        _target: &StreamTarget,
        _request: &CompletionRequest,
        _sources: &[Hit],
    ) -> Result<StreamedAnswer> {
        Err(self.lacks_a_model())
    }
}

/// How far a step is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StepStatus {
    /// Shown with a spinner.
    Running,
    /// Done.
    Completed,
    /// Ended without its result.
    Failed,
}

/// A step to show under a message: a line of its log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewStep {
    /// The message it is shown under.
    pub message_id: String,
    /// What the user reads.
    pub text: String,
    /// How far it is.
    pub status: StepStatus,
    /// Its place among the steps of the message, from 1.
    pub order: u32,
}

/// What changes of a step; what is `None` or empty stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepChange {
    /// What the user reads.
    pub text: Option<String>,
    /// How far it is.
    pub status: Option<StepStatus>,
    /// Details in the platform's own shape, a JSON object.
    pub details: Option<serde_json::Value>,
    /// Sources the step found.
    pub references: Vec<Reference>,
}

/// A source named in a message or a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// What the user reads.
    pub name: String,
    /// More about it.
    pub description: Option<String>,
    /// Where it can be opened.
    pub url: Option<String>,
    /// The number it is shown with, from 1.
    pub sequence_number: u32,
    /// The places in the list of sources it was made from.
    pub original_index: Vec<u32>,
    /// The platform's id of what it points to: `<content id>_<chunk id>` for a hit of a search.
    pub source_id: String,
    /// The kind of source: `node-ingestion-chunks` for a hit of a search.
    pub source: String,
}

/// Who wrote a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions nobody wrote in the chat.
    System,
    /// A person.
    User,
    /// A module or a model.
    Assistant,
}

/// A message of a chat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The platform's id; empty where it doesn't tell.
    pub id: String,
    /// Who wrote it.
    pub role: Role,
    /// What it says; an assistant message nobody filled yet says nothing.
    pub text: Option<String>,
    /// The sources it names.
    pub references: Vec<Reference>,
    /// When it was written (RFC 3339).
    pub created_at: Option<String>,
}

/// What changes of a message; what is `None` or empty stays.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MessageChange {
    /// What it says.
    pub text: Option<String>,
    /// The sources it names.
    pub references: Vec<Reference>,
    /// What the platform keeps for people who look for mistakes, a JSON object.
    pub debug_info: Option<serde_json::Value>,
    /// Whether this is the final text: the platform stamps it, and a client that waits for the answer has it.
    pub completed: bool,
}

/// How the knowledge base is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SearchKind {
    /// By meaning and by words.
    Combined,
    /// By meaning.
    Vector,
    /// By words.
    FullText,
}

/// A question to the knowledge base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// What is looked for.
    pub text: String,
    /// How.
    pub kind: SearchKind,
    /// How many hits at most; the platform's default is 20, its ceiling 1000.
    pub limit: Option<u32>,
    /// Which page of hits, from 1.
    pub page: Option<u32>,
    /// Only in these scopes; empty: wherever the user may look.
    pub scope_ids: Vec<String>,
    /// Only in these contents; empty: in all.
    pub content_ids: Vec<String>,
    /// Only in what was uploaded to the chat.
    pub chat_only: bool,
    /// The language of the text index, as the platform names it (`english`).
    pub language: Option<String>,
    /// Drop hits below this score.
    pub score_threshold: Option<f32>,
    /// A filter in UniqueQL.
    pub metadata_filter: Option<serde_json::Value>,
    /// The deployment that ranks the hits anew.
    pub reranker: Option<String>,
}

/// A passage of the knowledge base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// The platform's id of the content.
    pub id: String,
    /// The passage in it.
    pub chunk_id: String,
    /// The passage's text.
    pub text: String,
    /// The content's title.
    pub title: Option<String>,
    /// The content's key: usually its file name.
    pub key: Option<String>,
    /// Where it can be opened.
    pub url: Option<String>,
    /// The passage's place in the content.
    pub order: u32,
    /// The first page it stands on; -1 or none where the content has no pages.
    pub start_page: Option<i32>,
    /// The last page it stands on.
    pub end_page: Option<i32>,
    /// What the platform knows about the content besides, a JSON object.
    pub metadata: Option<serde_json::Value>,
}

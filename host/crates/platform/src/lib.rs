//! The client side of a platform: executes the calls that capabilities make.
//!
//! Capabilities use the types of this module, and each platform converts them to its own wire format. The user and
//! company of a call ([`Caller`]) come from the verified event, so a call can't be made in the name of another tenant.

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
mod idempotency_key;
pub mod nexus;
mod null_platform;
pub mod openai;
pub mod unique;
mod with_model;

use std::sync::Arc;

use async_trait::async_trait;
use modhost_core::memory_budget::MemoryBudget;
use serde::{Deserialize, Serialize};

pub use completion::{
    CompleteAnswer, Completion, CompletionRequest, CompletionStream, Ending, ModelMessage, StreamTarget,
    StreamedAnswer, Usage,
};
pub use dry_run::DryRunPlatform;
pub use error::{CallError, ErrorKind};
pub use http_transport::{
    HttpClients, LookUp, SetupError, TenantHttpClients, TenantLookups, client_builder, http_client,
};
pub use idempotency_key::{IdempotencyKey, KeySource};
pub use null_platform::NullPlatform;
pub use with_model::WithModel;

/// The result of a call to a platform.
pub type Result<T> = std::result::Result<T, CallError>;

/// The user and company on whose behalf a call is made. They are always those of the verified event. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The name of the event, for error messages.
    pub event: Arc<str>,
    /// The company, by the platform's id. Some platforms have no companies.
    pub company_id: Option<Arc<str>>,
    /// The user, by the platform's id. Some events have no user.
    pub user_id: Option<Arc<str>>,
    /// Identifies this call, also when it is repeated. A platform that supports idempotency keys executes it only once.
    pub idempotency_key: Option<IdempotencyKey>,
    /// Counts the memory of answers while they are received and parsed.
    pub memory: MemoryBudget,
}

impl Caller {
    /// Returns the error of a call that needs something the event doesn't have. `what` names it: "company", "chat".
    pub fn unsupported(&self, what: &str) -> CallError {
        CallError::new(ErrorKind::Unsupported, format!("an event `{}` has no {what} to act on", self.event))
    }
}

/// A platform that modules answer on.
///
/// A platform overrides the operations that it supports. The defaults return [`Platform::unsupported`].
#[async_trait]
pub trait Platform: Send + Sync {
    /// Returns the error of an unsupported operation. `what` names the feature: "steps", "search".
    fn unsupported(&self, what: &str) -> CallError;

    /// Returns the error of a completion on a platform without a language model.
    fn no_model_error(&self) -> CallError {
        let mut error = self.unsupported("completion");
        error.message.push_str("; configure one with [tenant.completion] in modules.toml");
        error
    }

    /// Returns whether messages can be changed after they are created.
    fn changes_messages(&self) -> bool {
        false
    }

    /// Creates a step under a message. Returns the step's id.
    async fn create_step(&self, _caller: &Caller, _step: &NewStep) -> Result<String> {
        Err(self.unsupported("steps"))
    }

    /// Changes a step.
    async fn update_step(&self, _caller: &Caller, _id: &str, _change: &StepChange) -> Result<()> {
        Err(self.unsupported("steps"))
    }

    /// Creates an assistant message in a chat. Every call creates another one. The id of the returned message is empty
    /// if the platform doesn't return one.
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

    /// Shows a text in place of a message for the moment, without storing it.
    async fn show_message(&self, _caller: &Caller, _chat_id: &str, _id: &str, _text: &str) -> Result<()> {
        Err(self.unsupported("changes of messages"))
    }

    /// Lists the messages of a chat, oldest first.
    async fn list_messages(&self, _caller: &Caller, _chat_id: &str) -> Result<Vec<Message>> {
        Err(self.unsupported("history"))
    }

    /// Searches the knowledge base, best hit first. With `chat_id`, the search includes the documents of the chat.
    async fn search(&self, _caller: &Caller, _chat_id: Option<&str>, _query: &Query) -> Result<Vec<Hit>> {
        Err(self.unsupported("search"))
    }

    /// Requests a completion from a language model.
    async fn complete(&self, _caller: &Caller, _request: &CompletionRequest) -> Result<Completion> {
        Err(self.no_model_error())
    }

    /// Requests a completion that is read piece by piece. A platform that doesn't stream returns the complete text as
    /// one piece.
    async fn stream(&self, caller: &Caller, request: &CompletionRequest) -> Result<Box<dyn CompletionStream>> {
        Ok(Box::new(CompleteAnswer::from(self.complete(caller, request).await?)))
    }

    /// Streams a completion into a message. `[sourceN]` in the answer becomes a reference to the N-th of `sources`,
    /// counted from 0. [`StreamedAnswer`] contains the text, and the changes that are not stored in the message yet.
    /// Only [`Platform::modify_message`] completes the message.
    async fn complete_into(
        &self,
        _caller: &Caller,
        _target: &StreamTarget,
        _request: &CompletionRequest,
        _sources: &[Hit],
    ) -> Result<StreamedAnswer> {
        Err(self.no_model_error())
    }
}

/// The state of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum StepStatus {
    /// Shown with a spinner.
    Running,
    /// Done.
    Completed,
    /// Ended without a result.
    Failed,
}

/// A step to show under a message: a line of its message log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NewStep {
    /// The message it is shown under.
    pub message_id: String,
    /// The text that the user reads.
    pub text: String,
    /// Its state.
    pub status: StepStatus,
    /// Its position among the steps of the message, from 1.
    pub order: u32,
}

/// A change of a step. Fields that are `None` or empty stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StepChange {
    /// The text that the user reads.
    pub text: Option<String>,
    /// Its state.
    pub status: Option<StepStatus>,
    /// Details in the platform's own format, a JSON object.
    pub details: Option<serde_json::Value>,
    /// Sources that the step found.
    pub references: Vec<Reference>,
}

/// A source cited in a message or a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reference {
    /// The title that the user reads.
    pub name: String,
    /// A description.
    pub description: Option<String>,
    /// The URL that opens it.
    pub url: Option<String>,
    /// The displayed number, from 1.
    pub sequence_number: u32,
    /// The indexes in the list of sources that it was created from.
    pub original_index: Vec<u32>,
    /// The platform's id of the target: `<content id>_<chunk id>` for a search hit.
    pub source_id: String,
    /// The kind of source: `node-ingestion-chunks` for a search hit.
    pub source: String,
}

/// The author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions that no participant of the chat wrote.
    System,
    /// A person.
    User,
    /// A module or a model.
    Assistant,
}

/// A message of a chat.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// The platform's id. Empty if the platform doesn't return one.
    pub id: String,
    /// Its author.
    pub role: Role,
    /// Its text. `None` if it is an assistant message that is still empty.
    pub text: Option<String>,
    /// The sources that it cites.
    pub references: Vec<Reference>,
    /// When it was created (RFC 3339).
    pub created_at: Option<String>,
}

/// A change of a message. Fields that are `None` or empty stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MessageChange {
    /// The text.
    pub text: Option<String>,
    /// The cited sources.
    pub references: Vec<Reference>,
    /// Debug information that the platform stores, a JSON object.
    pub debug_info: Option<serde_json::Value>,
    /// Whether this is the final text. The platform sets the completion time, for which its clients wait.
    pub completed: bool,
}

/// The search method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum SearchKind {
    /// By meaning and by full text.
    Combined,
    /// By meaning.
    Vector,
    /// By full text.
    FullText,
}

/// A search in the knowledge base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Query {
    /// The text to search for.
    pub text: String,
    /// The search method.
    pub kind: SearchKind,
    /// The maximum number of hits. The platform's default is 20, its limit 1000.
    pub limit: Option<u32>,
    /// The page of hits, from 1.
    pub page: Option<u32>,
    /// Restricts the search to these scopes. Empty: everything that the user may access.
    pub scope_ids: Vec<String>,
    /// Restricts the search to these contents. Empty: no restriction.
    pub content_ids: Vec<String>,
    /// Restricts the search to documents uploaded to the chat.
    pub chat_only: bool,
    /// The language of the text index, as the platform names it (`english`).
    pub language: Option<String>,
    /// Drops hits below this score.
    pub score_threshold: Option<f32>,
    /// A filter in UniqueQL.
    pub metadata_filter: Option<serde_json::Value>,
    /// The deployment that reranks the hits.
    pub reranker: Option<String>,
}

/// A passage of the knowledge base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hit {
    /// The platform's id of the content.
    pub id: String,
    /// The platform's id of the passage in it.
    pub chunk_id: String,
    /// The passage's text.
    pub text: String,
    /// The content's title.
    pub title: Option<String>,
    /// The content's key, usually its file name.
    pub key: Option<String>,
    /// The URL that opens it.
    pub url: Option<String>,
    /// The position of the passage in the content.
    pub order: u32,
    /// The first page of the passage. -1 or `None` if the content has no pages.
    pub start_page: Option<i32>,
    /// The last page of the passage.
    pub end_page: Option<i32>,
    /// Other metadata of the content, a JSON object.
    pub metadata: Option<serde_json::Value>,
}

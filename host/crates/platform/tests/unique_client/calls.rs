//! All calls of the trait, so that tests can iterate over them.

use std::time::Duration;

use modhost_platform::unique::Unique;
use modhost_platform::{
    CallError, CompletionRequest, Hit, MessageChange, ModelMessage, NewStep, Platform, Query, Reference, Role,
    SearchKind, StepChange, StepStatus, StreamTarget,
};
use serde_json::json;

use crate::client::caller;

/// A call of the trait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    CreateStep,
    UpdateStep,
    CreateMessage,
    ModifyMessage,
    ShowMessage,
    ListMessages,
    Search,
    Complete,
    CompleteInto,
}

impl Call {
    pub const ALL: [Self; 9] = [
        Self::CreateStep,
        Self::UpdateStep,
        Self::CreateMessage,
        Self::ModifyMessage,
        Self::ShowMessage,
        Self::ListMessages,
        Self::Search,
        Self::Complete,
        Self::CompleteInto,
    ];

    /// Returns whether it can safely be repeated.
    pub fn is_repeatable(self) -> bool {
        !matches!(self, Self::CreateStep | Self::CreateMessage | Self::Complete | Self::CompleteInto)
    }

    /// Makes the call.
    pub async fn make(self, client: &Unique) -> Result<(), CallError> {
        let caller = caller();
        match self {
            Self::CreateStep => client.create_step(&caller, &step()).await.map(drop),
            Self::UpdateStep => client.update_step(&caller, "log_1", &step_change()).await,
            Self::CreateMessage => {
                let change = MessageChange { completed: false, ..message_change() };
                client.create_message(&caller, Some("assistant_1"), "chat_1", &change).await.map(drop)
            }
            Self::ModifyMessage => client.modify_message(&caller, "chat_1", "msg_a", &message_change()).await.map(drop),
            Self::ShowMessage => client.show_message(&caller, "chat_1", "msg_a", "Hel").await,
            Self::ListMessages => client.list_messages(&caller, "chat_1").await.map(drop),
            Self::Search => client.search(&caller, Some("chat_1"), &query()).await.map(drop),
            Self::Complete => client.complete(&caller, &completion()).await.map(drop),
            Self::CompleteInto => client.complete_into(&caller, &target(), &completion(), &[hit()]).await.map(drop),
        }
    }

    /// Returns a valid answer.
    pub fn good_answer(self) -> &'static str {
        match self {
            Self::CreateStep => r#"{"id": "log_1"}"#,
            Self::UpdateStep | Self::ShowMessage => "",
            Self::CreateMessage | Self::ModifyMessage => r#"{"id": "msg_a", "role": "ASSISTANT"}"#,
            Self::ListMessages => r#"{"object": "list", "data": [], "has_more": false}"#,
            Self::Search => "[]",
            Self::Complete => r#"{"choices": [{"message": {"content": "Hello"}}]}"#,
            Self::CompleteInto => r#"{"message": {"id": "msg_a", "text": "Hello"}}"#,
        }
    }
}

pub fn step() -> NewStep {
    NewStep { message_id: "msg_a".into(), text: "Searching…".into(), status: StepStatus::Running, order: 1 }
}

pub fn step_change() -> StepChange {
    StepChange {
        text: Some("Found 1 relevant document".into()),
        status: Some(StepStatus::Completed),
        details: Some(json!({"data": []})),
        references: vec![reference()],
    }
}

pub fn reference() -> Reference {
    Reference {
        name: "Travel policy".into(),
        description: Some(String::new()),
        url: Some("https://example.com/travel.pdf".into()),
        sequence_number: 1,
        original_index: vec![0],
        source_id: "cont_1_chunk_1".into(),
        source: "node-ingestion-chunks".into(),
    }
}

pub fn message_change() -> MessageChange {
    MessageChange {
        text: Some("Hello".into()),
        references: vec![reference()],
        debug_info: Some(json!({"took": 1})),
        completed: true,
    }
}

pub fn query() -> Query {
    Query {
        text: "travel policy".into(),
        kind: SearchKind::Combined,
        limit: Some(3),
        page: Some(2),
        scope_ids: vec!["scope_1".into()],
        content_ids: vec!["cont_1".into()],
        chat_only: true,
        language: Some("english".into()),
        score_threshold: Some(0.3),
        metadata_filter: Some(json!({"path": ["key"], "operator": "equals", "value": "a.pdf"})),
        reranker: Some("rank".into()),
    }
}

pub fn hit() -> Hit {
    Hit {
        id: "cont_1".into(),
        chunk_id: "chunk_1".into(),
        text: "Book early.".into(),
        title: Some("Travel policy".into()),
        key: Some("travel.pdf".into()),
        url: Some("https://example.com/travel.pdf".into()),
        order: 0,
        start_page: None,
        end_page: None,
        metadata: None,
    }
}

pub fn completion() -> CompletionRequest {
    CompletionRequest {
        model: Some("AZURE_GPT_4o_2024_1120".into()),
        messages: vec![
            ModelMessage { role: Role::System, content: "Be brief.".into() },
            ModelMessage { role: Role::User, content: "Hi".into() },
        ],
        temperature: Some(0.3),
        max_tokens: Some(200),
        options: Some(json!({"top_p": 0.9})),
        timeout: Some(Duration::from_secs(20)),
    }
}

pub fn target() -> StreamTarget {
    StreamTarget {
        chat_id: "chat_1".into(),
        assistant_id: "assistant_1".into(),
        user_message_id: "msg_u".into(),
        assistant_message_id: "msg_a".into(),
    }
}

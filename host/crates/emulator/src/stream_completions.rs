//! `POST /integrated/chat/stream-completions`: writes a language model's answer into a message while it is streamed.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::LocalState;
use super::citations::{Source, cite, complete_prefix};
use super::completion::{CompletionRequest, Model};
use super::error::{ApiError, Body};
use super::quote;
use super::relay::AnswerPiece;
use super::wire::{Message, MessageAnswer, Object, Role, Stamp};
use modhost_platform::Usage;
use modhost_platform::chat_completion::{CompletedAnswer, ToolCall};

/// The question and the message to write the answer to, as the official Python SDK sends them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamRequest {
    chat_id: String,
    assistant_id: String,
    assistant_message_id: String,
    user_message_id: String,
    search_context: Option<Vec<Source>>,
    start_text: Option<String>,
    debug_info: Option<Object>,
    #[serde(flatten)]
    question: CompletionRequest,
}

/// Responds when the answer is complete.
pub async fn stream(
    State(state): State<Arc<LocalState>>,
    Body(request): Body<StreamRequest>,
) -> Result<Json<Value>, ApiError> {
    request.check(&state)?;
    // Runs in its own task, so that the answer is completed even if the client disconnects: users are reading it in the
    // chat.
    let work = tokio::spawn(async move { Writer { state: &state, request: &request }.run().await });
    work.await.map_err(|error| ApiError::internal(format!("the answer was interrupted: {error}")))?
}

impl StreamRequest {
    fn check(&self, state: &LocalState) -> Result<(), ApiError> {
        self.question.check()?;
        let chat = state.chat(&self.chat_id)?;
        if self.assistant_id != chat.assistant_id {
            let message =
                format!("assistantId is {:?}, but the chat belongs to {:?}", self.assistant_id, chat.assistant_id);
            return Err(ApiError::invalid(message));
        }
        state.message(&chat.id, &self.user_message_id)?;
        if state.message(&chat.id, &self.assistant_message_id)?.role != Role::Assistant {
            return Err(ApiError::invalid(
                "assistantMessageId names a message of the user: answers are written to messages of the assistant",
            ));
        }
        Ok(())
    }
}

/// Writes an answer into its message.
struct Writer<'a> {
    state: &'a LocalState,
    request: &'a StreamRequest,
}

/// The model's answer.
#[derive(Default)]
struct Answer {
    text: String,
    tool_calls: Vec<ToolCall>,
    usage: Option<Usage>,
}

impl Writer<'_> {
    async fn run(&self) -> Result<Json<Value>, ApiError> {
        self.change(|message| {
            message.started_streaming_at = Some(Stamp::now());
            message.stopped_streaming_at = None;
            message.completed_at = None;
        })?;
        match self.write().await {
            Ok(answer) => self.complete(answer),
            Err(error) => {
                // The text so far stays. Streaming has to be marked as stopped, so that clients don't wait for more.
                self.change(|message| message.stopped_streaming_at = Some(Stamp::now()))?;
                Err(error)
            }
        }
    }

    async fn write(&self) -> Result<Answer, ApiError> {
        let mut answer = Answer { text: self.request.start_text.clone().unwrap_or_default(), ..Answer::default() };
        match &self.state.model {
            Model::Endpoint(relay) => {
                let mut pieces = relay.stream(&self.request.question).await?;
                loop {
                    match pieces.next().await? {
                        AnswerPiece::Text(text) => self.append(&mut answer.text, &text)?,
                        AnswerPiece::End(CompletedAnswer { rest, ending, tool_calls }) => {
                            self.append(&mut answer.text, &rest)?;
                            (answer.usage, answer.tool_calls) = (ending.usage, tool_calls);
                            break;
                        }
                    }
                }
            }
            Model::Quote => {
                let quotation = quote::answer(self.state, &self.request.question.messages).await?;
                for piece in quotation.split_inclusive("\n\n") {
                    self.append(&mut answer.text, piece)?;
                }
            }
        }
        Ok(answer)
    }

    fn append(&self, text: &mut String, piece: &str) -> Result<(), ApiError> {
        if piece.is_empty() {
            return Ok(());
        }
        text.push_str(piece);
        let (shown, references) = cite(complete_prefix(text), self.sources());
        self.change(|message| {
            message.text = Some(shown);
            message.references = references;
        })?;
        Ok(())
    }

    fn complete(&self, answer: Answer) -> Result<Json<Value>, ApiError> {
        let (text, references) = cite(&answer.text, self.sources());
        let message = self.change(|message| {
            let now = Stamp::now();
            message.text = Some(text);
            message.original_text = Some(answer.text);
            message.references = references;
            message.stopped_streaming_at = Some(now);
            message.completed_at = Some(now);
            if self.request.debug_info.is_some() {
                message.debug_info = self.request.debug_info.clone();
            }
        })?;
        let null_if_empty = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
        let calls = answer.tool_calls.iter();
        let calls: Vec<_> = calls
            .map(
                |it| json!({ "id": it.id, "name": null_if_empty(&it.name), "arguments": null_if_empty(&it.arguments) }),
            )
            .collect();
        let usage = answer.usage.map_or((0, 0), |it| (it.prompt_tokens.into(), it.completion_tokens.into()));
        let (prompt_tokens, completion_tokens): (u64, u64) = usage;
        Ok(Json(json!({
            "object": "streamResult",
            "message": MessageAnswer::from(message),
            "toolCalls": calls,
            "usage": {
                "promptTokens": prompt_tokens,
                "completionTokens": completion_tokens,
                "totalTokens": prompt_tokens + completion_tokens,
            },
        })))
    }

    fn sources(&self) -> &[Source] {
        self.request.search_context.as_deref().unwrap_or_default()
    }

    fn change(&self, change: impl FnOnce(&mut Message)) -> Result<Message, ApiError> {
        let id = &self.request.assistant_message_id;
        let changed = self.state.chats.change_message(&self.request.chat_id, id, change)?;
        changed.ok_or_else(|| ApiError::not_found("message", id))
    }
}

//! A platform that does nothing: every call returns a constant at once, so that only the host's work is measured.

use async_trait::async_trait;
use modhost_platform::{
    CallError, Caller, Completion, CompletionRequest, ErrorKind, Hit, Message, MessageChange, NewStep, Platform, Query,
    Result, Role, StepChange, StreamTarget, StreamedAnswer, Usage,
};

/// The id of every step.
pub const STEP_ID: &str = "log_qwk3x8y0c5u7r1d2e9f4g6h0";
/// The language model's answer.
pub const ANSWER: &str = "You may book a flight in economy class, and in business class above six hours [source0].";
/// The text of every search hit, see [`HITS`].
pub const PASSAGE: &str = "Flights of up to six hours are booked in economy class. Above six hours business class may \
                           be booked if the line manager has agreed to it in writing before.";
/// The number of hits of a search.
pub const HITS: u32 = 3;

/// The platform.
pub struct Nothing;

#[async_trait]
impl Platform for Nothing {
    fn unsupported(&self, what: &str) -> CallError {
        CallError::new(ErrorKind::Unsupported, format!("nothing has no {what}"))
    }

    async fn create_step(&self, _: &Caller, _: &NewStep) -> Result<String> {
        Ok(STEP_ID.to_owned())
    }

    async fn update_step(&self, _: &Caller, _: &str, _: &StepChange) -> Result<()> {
        Ok(())
    }

    async fn create_message(&self, _: &Caller, _: Option<&str>, _: &str, _: &MessageChange) -> Result<Message> {
        Ok(message())
    }

    async fn modify_message(&self, _: &Caller, _: &str, _: &str, _: &MessageChange) -> Result<Message> {
        Ok(message())
    }

    async fn show_message(&self, _: &Caller, _: &str, _: &str, _: &str) -> Result<()> {
        Ok(())
    }

    async fn list_messages(&self, _: &Caller, _: &str) -> Result<Vec<Message>> {
        Ok(Vec::new())
    }

    async fn search(&self, _: &Caller, _: Option<&str>, _: &Query) -> Result<Vec<Hit>> {
        Ok((0..HITS).map(hit).collect())
    }

    async fn complete(&self, _: &Caller, _: &CompletionRequest) -> Result<Completion> {
        Ok(completion())
    }

    async fn complete_into(
        &self,
        _: &Caller,
        _: &StreamTarget,
        _: &CompletionRequest,
        _: &[Hit],
    ) -> Result<StreamedAnswer> {
        Ok(StreamedAnswer { completion: completion(), unwritten: None })
    }
}

fn message() -> Message {
    Message {
        id: "msg_2".into(),
        role: Role::Assistant,
        text: Some(ANSWER.into()),
        references: Vec::new(),
        created_at: None,
    }
}

fn completion() -> Completion {
    Completion {
        text: ANSWER.into(),
        finish_reason: Some("stop".into()),
        usage: Some(Usage { prompt_tokens: 400, completion_tokens: 20 }),
    }
}

fn hit(order: u32) -> Hit {
    Hit {
        id: "cont_travel_policy".into(),
        chunk_id: "chunk_1".into(),
        text: PASSAGE.into(),
        title: Some("Travel policy".into()),
        key: Some("travel-policy.md".into()),
        url: None,
        order,
        start_page: None,
        end_page: None,
        metadata: None,
    }
}

//! The platform of dry runs, which sends nothing. Calls that create something return placeholders, and reads fail.

use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;

use super::{CallError, Caller, ErrorKind, Message, MessageChange, NewStep, Platform, Result, Role, StepChange};

/// The platform of a dry run.
#[derive(Default)]
pub struct DryRunPlatform {
    next_id: AtomicU32,
}

impl DryRunPlatform {
    fn placeholder_id(&self, what: &str) -> String {
        format!("{what}_dry_run_{}", self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    fn message(id: String, change: &MessageChange) -> Message {
        let (text, references) = (change.text.clone(), change.references.clone());
        Message { id, role: Role::Assistant, text, references, created_at: None }
    }
}

#[async_trait]
impl Platform for DryRunPlatform {
    fn unsupported(&self, what: &str) -> CallError {
        CallError::new(ErrorKind::Unsupported, format!("a dry run has no {what} that was not recorded"))
    }

    fn no_model_error(&self) -> CallError {
        self.unsupported("completion")
    }

    fn changes_messages(&self) -> bool {
        true
    }

    async fn create_step(&self, _: &Caller, _: &NewStep) -> Result<String> {
        Ok(self.placeholder_id("step"))
    }

    async fn update_step(&self, _: &Caller, _: &str, _: &StepChange) -> Result<()> {
        Ok(())
    }

    async fn create_message(&self, _: &Caller, _: Option<&str>, _: &str, change: &MessageChange) -> Result<Message> {
        Ok(Self::message(self.placeholder_id("message"), change))
    }

    async fn modify_message(&self, _: &Caller, _: &str, id: &str, change: &MessageChange) -> Result<Message> {
        Ok(Self::message(id.to_owned(), change))
    }

    async fn show_message(&self, _: &Caller, _: &str, _: &str, _: &str) -> Result<()> {
        Ok(())
    }
}

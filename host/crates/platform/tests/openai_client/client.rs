//! The client under test, its caller, and its requests.

use std::time::Duration;

use modhost_core::memory_budget::MemoryBudget;
use modhost_core::secret::Secret;
use modhost_platform::openai::{OpenAi, OpenAiSettings};
use modhost_platform::{
    CallError, Caller, CompletionRequest, CompletionStream, Ending, HttpClients, ModelMessage, Role,
};

use crate::server::Server;

/// The API key of all tests.
pub const KEY: &str = "sk-very-secret";

impl Server {
    /// Returns a client of this server.
    pub fn client(&self) -> OpenAi {
        self.client_with(|_| {})
    }

    /// Returns a client of this server with changed settings.
    pub fn client_with(&self, change: impl FnOnce(&mut OpenAiSettings)) -> OpenAi {
        let mut settings = OpenAiSettings::new(format!("http://{}/v1/", self.address).parse().unwrap(), "own-model");
        settings.api_key = Some(Secret::new(KEY));
        settings.retry.backoff.first = Duration::from_millis(1);
        change(&mut settings);
        OpenAi::new(settings, HttpClients::new().unwrap()).unwrap()
    }
}

/// The caller, without a company and a user, which aren't needed.
pub fn caller() -> Caller {
    Caller {
        event: "document.created".into(),
        company_id: None,
        user_id: None,
        idempotency_key: Some("dlv_1-0-abc".into()),
        memory: MemoryBudget::default(),
    }
}

/// Returns a minimal request.
pub fn question() -> CompletionRequest {
    CompletionRequest {
        model: None,
        messages: vec![ModelMessage { role: Role::User, content: "Where?".into() }],
        temperature: None,
        max_tokens: None,
        options: None,
        timeout: None,
    }
}

/// Reads an answer to its end. Returns the pieces, and how it ended.
pub async fn read(client: &OpenAi, request: &CompletionRequest) -> (Vec<String>, Result<Ending, CallError>) {
    let mut pieces = Vec::new();
    let mut stream = match client.stream(&caller(), request).await {
        Ok(stream) => stream,
        Err(error) => return (pieces, Err(error)),
    };
    loop {
        match stream.next().await {
            Ok(Some(piece)) => pieces.push(piece),
            Ok(None) => {
                assert_eq!(stream.next().await, Ok(None), "a piece after the end");
                return (pieces, Ok(stream.ending()));
            }
            Err(error) => {
                assert_eq!(stream.next().await, Ok(None), "a piece after an error");
                return (pieces, Err(error));
            }
        }
    }
}

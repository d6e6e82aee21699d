//! The client under test, who it calls for, and what it asks.

use std::time::Duration;

use modhost_core::secret::Secret;
use modhost_platform::openai::{OpenAi, OpenAiSettings};
use modhost_platform::{
    CallError, Caller, CompletionRequest, CompletionStream, Ending, ModelMessage, Role, http_client,
};

use crate::server::Server;

/// The key every test calls with.
pub const KEY: &str = "sk-very-secret";

impl Server {
    /// A client of this server.
    pub fn client(&self) -> OpenAi {
        self.client_with(|_| {})
    }

    /// A client of this server with other settings.
    pub fn client_with(&self, change: impl FnOnce(&mut OpenAiSettings)) -> OpenAi {
        let mut settings = OpenAiSettings::new(format!("http://{}/v1/", self.address).parse().unwrap(), "own-model");
        settings.api_key = Some(Secret::new(KEY));
        settings.retry.backoff.first = Duration::from_millis(1);
        change(&mut settings);
        OpenAi::new(settings, http_client().unwrap()).unwrap()
    }
}

/// Who calls: neither a company nor a user is needed.
pub fn caller() -> Caller {
    Caller {
        event: "document.created".into(),
        company_id: None,
        user_id: None,
        idempotency_key: Some("dlv_1-0-abc".into()),
    }
}

/// A plain question.
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

/// Reads an answer to its end: its pieces, and how it ended.
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
                assert_eq!(stream.next().await, Ok(None), "the end stays the end");
                return (pieces, Ok(stream.ending()));
            }
            Err(error) => {
                assert_eq!(stream.next().await, Ok(None), "nothing comes after an error");
                return (pieces, Err(error));
            }
        }
    }
}

//! The client under test, and its caller.

use std::time::Duration;

use modhost_core::memory_budget::MemoryBudget;
use modhost_core::secret::Secret;
use modhost_platform::nexus::{Nexus, NexusSettings};
use modhost_platform::{Caller, HttpClients, Message, MessageChange, Platform, Result};

use crate::server::Server;

/// The API key of all tests.
pub const KEY: &str = "nexus_very_secret";

impl Server {
    /// Returns a client of this server.
    pub fn client(&self) -> Nexus {
        self.client_with(|_| {})
    }

    /// Returns a client of this server with changed settings.
    pub fn client_with(&self, change: impl FnOnce(&mut NexusSettings)) -> Nexus {
        let mut settings = NexusSettings::new(format!("http://{}/", self.address).parse().unwrap(), Secret::new(KEY));
        settings.retry.backoff.first = Duration::from_millis(1);
        change(&mut settings);
        Nexus::new(settings, HttpClients::new().unwrap()).unwrap()
    }
}

/// The caller: the user of an event that names no company.
pub fn caller() -> Caller {
    Caller {
        event: "MESSAGE_FINALIZED".into(),
        company_id: None,
        user_id: Some("user_1".into()),
        idempotency_key: Some("dlv_1-0-abc".into()),
        memory: MemoryBudget::default(),
    }
}

/// Returns a text message.
pub fn says(text: impl Into<String>) -> MessageChange {
    MessageChange { text: Some(text.into()), completed: true, ..MessageChange::default() }
}

/// Writes a text into a thread.
pub async fn write(client: &Nexus, thread: &str, text: impl Into<String>) -> Result<Message> {
    client.create_message(&caller(), None, thread, &says(text)).await
}

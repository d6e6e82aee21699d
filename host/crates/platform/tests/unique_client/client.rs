//! The client under test, and its caller.

use std::net::SocketAddr;
use std::time::Duration;

use modhost_core::memory_budget::MemoryBudget;
use modhost_core::secret::Secret;
use modhost_platform::unique::{Unique, UniqueSettings};
use modhost_platform::{Caller, HttpClients};

use crate::server::Server;

/// The API key of all tests.
pub const KEY: &str = "ukey_very_secret";

impl Server {
    /// Returns a client of this server.
    pub fn client(&self) -> Unique {
        self.client_with(|_| {})
    }

    /// Returns a client of this server with changed settings.
    pub fn client_with(&self, change: impl FnOnce(&mut UniqueSettings)) -> Unique {
        let mut settings = settings(self.address);
        change(&mut settings);
        Unique::new(settings, HttpClients::new().unwrap()).unwrap()
    }
}

/// Returns settings for a platform at this address, with short delays.
pub fn settings(address: SocketAddr) -> UniqueSettings {
    let api_base = format!("http://{address}/public/chat").parse().unwrap();
    let mut settings = UniqueSettings::new(api_base, "app_test", Secret::new(KEY));
    settings.retry.backoff.first = Duration::from_millis(1);
    settings
}

/// The caller.
pub fn caller() -> Caller {
    Caller {
        event: "unique.chat.external-module.chosen".into(),
        company_id: Some("company_1".into()),
        user_id: Some("user_1".into()),
        idempotency_key: None,
        memory: MemoryBudget::default(),
    }
}

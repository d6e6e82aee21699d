//! A journal without a host: read only, and never changed.

use super::schema::JOURNAL;
use super::{SqliteSettings, open, reading};
use crate::journal::{Details, Filter, Result, State, Summary};
use crate::sqlite::{Database, Readers};
use modhost_core::event::DeliveryId;

/// The journal of a host that is stopped.
pub struct AtRest {
    readers: Readers,
    salt: [u8; 32],
    missing: Option<String>,
}

impl AtRest {
    /// Opens a journal to read it. A host that runs on it meanwhile is not disturbed.
    ///
    /// # Errors
    ///
    /// If there is no journal, or it is damaged or of another version.
    pub async fn open(settings: SqliteSettings) -> Result<Self> {
        let database = Database::new(&JOURNAL, settings.directory);
        let opened = database.clone();
        let opening = tokio::task::spawn_blocking(move || {
            let (salt, missing) = open::look(&opened)?;
            Ok(Self { readers: Readers::new(opened), salt, missing })
        });
        opening.await.map_err(|error| database.interrupted(&error))?
    }

    /// Describes the changes that the journal has lost; none if nothing is missing.
    pub fn missing(&self) -> Option<&str> {
        self.missing.as_deref()
    }

    /// Returns deliveries, newest first.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Summary>> {
        // The number of deliveries in each state is unknown, so the query takes no shortcut.
        let many = [u64::MAX; State::ALL.len()];
        Ok(self.readers.read(move |connection| reading::list(connection, &filter, many)).await?)
    }

    /// Returns everything that is recorded of one delivery.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub async fn show(&self, delivery: &DeliveryId) -> Result<Option<Details>> {
        let delivery = delivery.clone();
        let history = self.readers.read(move |connection| reading::show(connection, &delivery)).await?;
        Ok(history.map(Details::from))
    }

    /// The bytes that the random numbers of modules are derived from.
    pub fn salt(&self) -> [u8; 32] {
        self.salt
    }
}

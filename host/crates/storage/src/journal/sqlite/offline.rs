//! Read-only access to the journal of a stopped host.

use super::schema::JOURNAL;
use super::{SqliteSettings, open, reading};
use crate::journal::{Details, Filter, Result, State, Summary};
use crate::sqlite::{Database, Readers};
use modhost_core::event::DeliveryId;

/// The journal of a stopped host, opened read-only.
pub struct OfflineJournal {
    readers: Readers,
    salt: [u8; 32],
    missing: Option<String>,
}

impl OfflineJournal {
    /// Opens a journal read-only. Does not interfere with a host that uses it at the same time.
    ///
    /// # Errors
    ///
    /// If there is no journal, or it is damaged or was written by a newer version.
    pub async fn open(settings: SqliteSettings) -> Result<Self> {
        let database = Database::new(&JOURNAL, settings.directory);
        let opened = database.clone();
        let opening = tokio::task::spawn_blocking(move || {
            let (salt, missing) = open::inspect(&opened)?;
            Ok(Self { readers: Readers::new(opened), salt, missing })
        });
        opening.await.map_err(|error| database.task_failed(&error))?
    }

    /// Returns a description of the changes that the journal has lost; `None` if nothing is missing.
    pub fn missing(&self) -> Option<&str> {
        self.missing.as_deref()
    }

    /// Returns deliveries, newest first.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Summary>> {
        // The number of deliveries in each state is unknown; `u64::MAX` makes the query assume that there are many.
        let many = [u64::MAX; State::ALL.len()];
        Ok(self.readers.read(move |connection| reading::list(connection, &filter, many)).await?)
    }

    /// Returns everything recorded about a delivery; `None` if the id is unknown.
    ///
    /// # Errors
    ///
    /// If the journal cannot be read.
    pub async fn show(&self, delivery: &DeliveryId) -> Result<Option<Details>> {
        let delivery = delivery.clone();
        let history = self.readers.read(move |connection| reading::show(connection, &delivery)).await?;
        Ok(history.map(Details::from))
    }

    /// Returns the salt of the journal, from which the random numbers of modules are derived.
    pub fn salt(&self) -> [u8; 32] {
        self.salt
    }
}

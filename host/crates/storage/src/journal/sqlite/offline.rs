//! A journal nobody writes: only looked at, and left as it is.

use super::schema::JOURNAL;
use super::{SqliteSettings, open, reading};
use crate::journal::{Details, Filter, JournalError, Result, State, Summary};
use crate::sqlite::{Database, Readers};
use modhost_core::event::DeliveryId;

/// The journal of a host that doesn't run.
pub struct AtRest {
    readers: Readers,
    salt: [u8; 32],
    missing: Option<String>,
}

impl AtRest {
    /// Opens a journal to look at it. A host that runs on it meanwhile is not disturbed.
    ///
    /// # Errors
    ///
    /// When there is none, or it is damaged or another version's.
    pub async fn open(settings: SqliteSettings) -> Result<Self> {
        let database = Database::new(&JOURNAL, settings.directory);
        let opening = tokio::task::spawn_blocking(move || {
            let (salt, missing) = open::look(&database)?;
            Ok(Self { readers: Readers::new(database), salt, missing })
        });
        opening.await.map_err(|error| JournalError::Broken(format!("opening it broke off: {error}")))?
    }

    /// What the journal has lost, for people; none if nothing is missing.
    pub fn missing(&self) -> Option<&str> {
        self.missing.as_deref()
    }

    /// Deliveries, newest first.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Summary>> {
        // How many there are of each state isn't known, so that no short cut is taken.
        let many = [u64::MAX; State::ALL.len()];
        Ok(self.readers.read(move |connection| reading::list(connection, &filter, many)).await?)
    }

    /// All there is to know about one delivery.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    pub async fn show(&self, delivery: &DeliveryId) -> Result<Option<Details>> {
        let delivery = delivery.clone();
        let story = self.readers.read(move |connection| reading::show(connection, &delivery)).await?;
        Ok(story.map(Details::from))
    }

    /// What the chance that modules draw is derived from.
    pub fn salt(&self) -> [u8; 32] {
        self.salt
    }
}

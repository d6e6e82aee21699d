//! A journal nobody writes: only looked at, and left as it is.

use super::fault::Place;
use super::readers::Readers;
use super::{SqliteSettings, open, reading};
use crate::event::DeliveryId;
use crate::journal::{Details, Filter, JournalError, Result, State, Summary};

/// The journal of a host that doesn't run.
pub struct AtRest {
    readers: Readers,
    salt: [u8; 32],
}

impl AtRest {
    /// Opens a journal to look at it. A host that runs on it meanwhile is not disturbed.
    ///
    /// # Errors
    ///
    /// When there is none, or it is damaged or another version's.
    pub async fn open(settings: SqliteSettings) -> Result<Self> {
        let place = Place::new(settings.directory);
        let opening = tokio::task::spawn_blocking(move || {
            let salt = open::look(&place)?;
            Ok(Self { readers: Readers::new(place), salt })
        });
        opening.await.map_err(|error| JournalError::Broken(format!("opening it broke off: {error}")))?
    }

    /// Deliveries, newest first.
    ///
    /// # Errors
    ///
    /// When it can't be read.
    pub async fn list(&self, filter: Filter) -> Result<Vec<Summary>> {
        // How many there are of each state isn't known, so that no short cut is taken.
        let many = [u64::MAX; State::ALL.len()];
        self.readers.read(move |connection| reading::list(connection, &filter, many)).await
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

//! What the tests share: events to record, times to record them at, a journal in a directory of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use modhost_core::event::{DeliveryId, Event, Header, Name};
use modhost_storage::journal::{
    Attempt, Call, Claim, Claimed, Disposition, Journal, JournalError, NewDelivery, Recorded, Sqlite, SqliteSettings,
    State,
};
use tempfile::TempDir;

/// A moment, so many milliseconds after the tests' beginning of time.
pub fn at(millis: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_000 + millis)
}

/// An event of tenant `acme` from source `unique`.
pub fn event(id: &str) -> Arc<Event> {
    event_of("acme", id)
}

/// An event of a tenant from source `unique`.
pub fn event_of(tenant: &str, id: &str) -> Arc<Event> {
    event_from("unique", tenant, id)
}

/// An event of a tenant from a source.
pub fn event_from(source: &str, tenant: &str, id: &str) -> Arc<Event> {
    let raw = format!(r#"{{"id":"{id}","event":"test.happened","payload":{{"word":"größer","of":"{id}"}},"extra":1}}"#);
    let start = raw.find(r#"{"word""#).expect("it stands there");
    let end = raw.find(r#","extra""#).expect("it stands there");
    let header = Header {
        id: id.to_owned(),
        source: source.into(),
        name: "test.happened".to_owned(),
        tenant: tenant.into(),
        user_id: Some("user_1".to_owned()),
        company_id: None,
        created_at: Some(1_790_000_000),
    };
    Arc::new(Event::new(header, Bytes::from(raw), start..end))
}

/// An event's delivery to a module.
pub fn to(event: &Event, module: &str) -> NewDelivery {
    let module = Name::from(module);
    NewDelivery { id: DeliveryId::new(event, &module), module, one_at_a_time: None }
}

/// An event's delivery to a module, one at a time in this chat.
pub fn in_chat(event: &Event, module: &str, chat: &str) -> NewDelivery {
    NewDelivery { one_at_a_time: Some(chat.to_owned()), ..to(event, module) }
}

/// The journal in a directory.
pub async fn open(directory: &Path) -> Sqlite {
    try_open(directory).await.expect("the journal opens")
}

/// The journal in a directory, if it opens.
pub async fn try_open(directory: &Path) -> Result<Sqlite, JournalError> {
    Sqlite::open(SqliteSettings { directory: directory.to_owned() }).await
}

/// A journal in a directory of its own.
pub struct Kept {
    pub directory: TempDir,
    pub journal: Sqlite,
}

impl std::ops::Deref for Kept {
    type Target = Sqlite;

    fn deref(&self) -> &Sqlite {
        &self.journal
    }
}

impl Kept {
    pub async fn new() -> Self {
        let directory = TempDir::new().expect("there is a place for it");
        let journal = open(directory.path()).await;
        Self { directory, journal }
    }

    /// Closes it and opens it again.
    pub async fn reopened(self) -> Self {
        self.journal.close().await.expect("it closes");
        drop(self.journal);
        let journal = open(self.directory.path()).await;
        Self { directory: self.directory, journal }
    }

    /// Records an event with one delivery, to module `Echo`.
    pub async fn one(&self, id: &str, millis: u64) -> DeliveryId {
        let event = event(id);
        let delivery = to(&event, "Echo");
        let recorded = self.record(event, vec![delivery.clone()], at(millis)).await.expect("it is recorded");
        assert_eq!(recorded, Recorded::New);
        delivery.id
    }

    /// Records an event with one delivery to module `Echo`, one at a time in a chat.
    pub async fn one_in_chat(&self, id: &str, chat: &str, millis: u64) -> DeliveryId {
        let event = event(id);
        let delivery = in_chat(&event, "Echo", chat);
        self.record(event, vec![delivery.clone()], at(millis)).await.expect("it is recorded");
        delivery.id
    }

    /// Claims what is due for module `Echo` of tenant `acme`, for `host-1`, for ten seconds.
    pub async fn take(&self, limit: u32, millis: u64) -> Vec<Claimed> {
        self.claim(claim("acme", limit, millis)).await.expect("it can be claimed")
    }

    /// The ids of what [`Kept::take`] takes.
    pub async fn take_ids(&self, limit: u32, millis: u64) -> Vec<DeliveryId> {
        self.take(limit, millis).await.into_iter().map(|claimed| claimed.id).collect()
    }

    /// Ends an attempt of `host-1`.
    pub async fn end(&self, claimed: &Claimed, next: Disposition, millis: u64) {
        self.complete_attempt(claimed.id.clone(), attempt(claimed, millis), next).await.expect("it is settled");
    }

    pub async fn state(&self, delivery: &DeliveryId) -> State {
        self.show(delivery).await.expect("it can be read").expect("it is there").summary.state
    }

    /// Takes the next delivery and completes it.
    pub async fn complete_next(&self, millis: u64) -> DeliveryId {
        let claimed = self.take(1, millis).await.pop().expect("one is due");
        self.end(&claimed, Disposition::Completed, millis).await;
        claimed.id
    }
}

/// A wish for deliveries of a tenant to module `Echo`, by `host-1`, for ten seconds.
pub fn claim(tenant: &str, limit: u32, millis: u64) -> Claim {
    Claim {
        tenant: tenant.into(),
        module: "Echo".into(),
        limit,
        now: at(millis),
        owner: "host-1".to_owned(),
        until: at(millis + 10_000),
    }
}

/// The attempt that was claimed, by `host-1`, ended at this moment.
pub fn attempt(claimed: &Claimed, millis: u64) -> Attempt {
    Attempt {
        number: claimed.attempt,
        owner: "host-1".to_owned(),
        started: at(millis.saturating_sub(5)),
        ended: at(millis),
        version: Some("v1".to_owned()),
        outcome: "completed".to_owned(),
        log: Vec::new(),
    }
}

/// Another attempt at this moment.
pub fn retry(millis: u64) -> Disposition {
    Disposition::Retry { at: at(millis), reason: "the platform is down".into() }
}

/// Given up.
pub fn dead() -> Disposition {
    Disposition::Dead { reason: "no more attempts".into() }
}

/// A call that was answered.
pub fn call(number: u32, answer: impl Into<Vec<u8>>) -> Call {
    let arguments = format!("arguments of {number}").into_bytes();
    Call { number, import: "search.search".into(), arguments, answer: Some(answer.into()), at: at(u64::from(number)) }
}

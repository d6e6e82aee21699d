//! Deliveries as the admin API tells them and the commands print them: one shape for both.

use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use modhost_core::import::{Import, RecordedImport};
use modhost_ingress::sources::event_socket::SocketReport;
use modhost_runtime::capabilities::redact_http;
use modhost_storage::journal::{Attempt, Call, Change, Details, LogLine, State, Summary, Totals};
use modhost_storage::keyvalue::{BucketTotals, KeyInfo};

/// A delivery in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeliveryView {
    /// Its id.
    pub id: String,
    /// The id of its event.
    pub event_id: String,
    /// The name of its event.
    pub event_name: String,
    /// The source of its event.
    pub source: String,
    /// The tenant.
    pub tenant: String,
    /// The module.
    pub module: String,
    /// The version of the module that ran last.
    pub version: Option<String>,
    /// Where it stands.
    pub state: String,
    /// How many attempts were begun.
    pub attempts: u32,
    /// When its event was recorded (RFC 3339).
    pub created_at: String,
    /// When it came to stand where it stands (RFC 3339).
    pub changed_at: String,
    /// When it ended, if it has (RFC 3339).
    pub ended_at: Option<String>,
    /// When its next attempt is due, if it waits (RFC 3339).
    pub due_at: Option<String>,
    /// Why it stands there, where there is something to say.
    pub reason: Option<String>,
}

/// All there is to know about a delivery.
#[derive(Debug, Serialize, Deserialize)]
pub struct DetailsView {
    /// As in a list.
    #[serde(flatten)]
    pub delivery: DeliveryView,
    /// The event.
    pub event: EventView,
    /// Every change of its state.
    pub changes: Vec<ChangeView>,
    /// The attempts that have ended.
    pub attempts_made: Vec<AttemptView>,
    /// The calls, answers included.
    pub calls: Vec<CallView>,
}

/// An event.
#[derive(Debug, Serialize, Deserialize)]
pub struct EventView {
    /// Its id.
    pub id: String,
    /// What happened.
    pub name: String,
    /// The source it came through.
    pub source: String,
    /// The tenant it belongs to.
    pub tenant: String,
    /// The user it happened to.
    pub user_id: Option<String>,
    /// The company of that user.
    pub company_id: Option<String>,
    /// When the platform says it happened, in seconds since 1970.
    pub created_at: Option<u64>,
    /// The payload, as the source wrote it.
    pub payload: Box<RawValue>,
}

/// A change of a delivery's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeView {
    /// When (RFC 3339).
    pub at: String,
    /// To what.
    pub state: String,
    /// Why, where there is something to say.
    pub reason: Option<String>,
}

/// An attempt that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptView {
    /// Which one, from 1.
    pub number: u32,
    /// When it began (RFC 3339).
    pub started_at: String,
    /// When it ended (RFC 3339).
    pub ended_at: String,
    /// The version of the module that ran, if one did.
    pub version: Option<String>,
    /// How it ended.
    pub outcome: String,
    /// The lines the module logged.
    pub log: Vec<LogLine>,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallView {
    /// Its place, from 0.
    pub number: u32,
    /// What was called.
    pub import: RecordedImport,
    /// When it was begun (RFC 3339).
    pub at: String,
    /// Its arguments.
    pub arguments: Value,
    /// The answer: `{"ok": …}` or `{"error": …}`; none while it is in flight.
    pub answer: Option<Value>,
}

/// What is in the journal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TotalsView {
    /// How many deliveries are in each state.
    pub deliveries: std::collections::BTreeMap<String, u64>,
    /// How large the journal is on disk, in bytes.
    pub journal_bytes: u64,
    /// How many calls this host has made a second time because it was not known whether they had happened.
    pub calls_made_again: u64,
}

/// A way events come in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum SourceView {
    /// They are posted to this host.
    Webhook {
        /// The source's name.
        name: String,
        /// The path they are posted to.
        path: String,
    },
    /// This host fetches them.
    EventSocket(Box<EventSocketView>),
}

/// An event socket, and how it has fared since its source was taken in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventSocketView {
    /// The source's name.
    pub name: String,
    /// Where it is connected to.
    pub address: String,
    /// The names of the events that come.
    pub subscriptions: Vec<String>,
    /// Since when there has been a connection at any time; none: there is none now (RFC 3339).
    pub connected_since: Option<String>,
    /// Why the last try to connect failed, if it did.
    pub problem: Option<String>,
    /// How many connections were made.
    pub connections: u64,
    /// How many events were handed on, those that came twice included.
    pub events: u64,
    /// How many events were not: too large, none that can be read, of a foreign company, or not taken at the end.
    pub refused: u64,
    /// The id of the event that waits because the host can't take it now; nothing is read meanwhile.
    pub held: Option<String>,
    /// How many times there was no connection, since the first one.
    pub gaps: u64,
    /// Since when there is none now, if there was one before (RFC 3339).
    pub gap_since: Option<String>,
    /// The last time there was none: events of that time may have been missed, and don't come any more.
    pub last_gap: Option<GapView>,
}

/// A time without a connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GapView {
    /// When it began (RFC 3339).
    pub from: String,
    /// When it ended (RFC 3339).
    pub to: String,
}

/// A bucket of the key-value store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BucketView {
    /// Its name.
    pub name: String,
    /// How many keys it has.
    pub keys: u64,
    /// How large they and their values are together, in bytes.
    pub bytes: u64,
}

/// A key of a bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyView {
    /// The key.
    pub key: String,
    /// How large its value is, in bytes.
    pub size: u64,
    /// When it was set last (RFC 3339).
    pub changed_at: String,
}

pub(super) fn rfc3339(time: SystemTime) -> String {
    let at = Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

impl From<Summary> for DeliveryView {
    fn from(summary: Summary) -> Self {
        Self {
            id: summary.id.to_string(),
            event_id: summary.event_id,
            event_name: summary.event_name,
            source: summary.source.to_string(),
            tenant: summary.tenant.to_string(),
            module: summary.module.to_string(),
            version: summary.version,
            state: summary.state.to_string(),
            attempts: summary.attempts,
            created_at: rfc3339(summary.received_at),
            changed_at: rfc3339(summary.changed_at),
            ended_at: summary.state.is_final().then(|| rfc3339(summary.changed_at)),
            due_at: summary.due_at.map(rfc3339),
            reason: summary.reason,
        }
    }
}

impl From<SocketReport> for SourceView {
    fn from(report: SocketReport) -> Self {
        let SocketReport { name, address, subscriptions, status } = report;
        Self::EventSocket(Box::new(EventSocketView {
            name: name.to_string(),
            address,
            subscriptions,
            connected_since: status.connected_since.map(rfc3339),
            problem: status.problem,
            connections: status.connections,
            events: status.events,
            refused: status.refused,
            held: status.held,
            gaps: status.gaps,
            gap_since: status.gap_since.map(rfc3339),
            last_gap: status.last_gap.map(|gap| GapView { from: rfc3339(gap.from), to: rfc3339(gap.to) }),
        }))
    }
}

impl From<Details> for DetailsView {
    fn from(details: Details) -> Self {
        let event = &details.event;
        let payload = RawValue::from_string(event.payload().to_owned());
        let event = EventView {
            id: event.id.clone(),
            name: event.name.clone(),
            source: event.source.to_string(),
            tenant: event.tenant.to_string(),
            user_id: event.user_id.clone(),
            company_id: event.company_id.clone(),
            created_at: event.created_at,
            payload: payload.unwrap_or_else(|_| RawValue::NULL.to_owned()),
        };
        Self {
            delivery: details.summary.into(),
            event,
            changes: details.changes.into_iter().map(ChangeView::from).collect(),
            attempts_made: details.attempts.into_iter().map(AttemptView::from).collect(),
            calls: details.calls.into_iter().map(CallView::from).collect(),
        }
    }
}

impl From<Change> for ChangeView {
    fn from(change: Change) -> Self {
        Self { at: rfc3339(change.at), state: change.state.to_string(), reason: change.reason }
    }
}

impl From<Attempt> for AttemptView {
    fn from(attempt: Attempt) -> Self {
        Self {
            number: attempt.number,
            started_at: rfc3339(attempt.started),
            ended_at: rfc3339(attempt.ended),
            version: attempt.version,
            outcome: attempt.outcome,
            log: attempt.log,
        }
    }
}

impl From<Call> for CallView {
    fn from(call: Call) -> Self {
        let json = |bytes: &[u8]| serde_json::from_slice(bytes).unwrap_or(Value::Null);
        let mut answer = call.answer.as_deref().map(json);
        if let Some(answer) = answer.as_mut().filter(|_| call.import == Import::HttpHandle) {
            redact_http(answer);
        }
        Self {
            number: call.number,
            at: rfc3339(call.at),
            arguments: json(&call.arguments),
            answer,
            import: call.import,
        }
    }
}

impl From<BucketTotals> for BucketView {
    fn from(bucket: BucketTotals) -> Self {
        Self { name: bucket.name, keys: bucket.keys, bytes: bucket.bytes }
    }
}

impl From<KeyInfo> for KeyView {
    fn from(key: KeyInfo) -> Self {
        Self { key: key.key, size: key.size, changed_at: rfc3339(key.changed_at) }
    }
}

impl TotalsView {
    /// What is in the journal, and what the host has counted.
    pub fn new(totals: &Totals, calls_made_again: u64) -> Self {
        let deliveries = State::ALL.into_iter().map(|state| (state.word().to_owned(), totals.of(state))).collect();
        Self { deliveries, journal_bytes: totals.bytes, calls_made_again }
    }
}

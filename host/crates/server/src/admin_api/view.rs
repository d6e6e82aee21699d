//! Deliveries as the admin API returns them and the commands print them.

use std::time::SystemTime;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use modhost_core::import::{Import, RecordedImport};
use modhost_ingress::sources::event_socket::SocketReport;
use modhost_runtime::capabilities::redact_http;
use modhost_sandbox::{InForce, SandboxMode};
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
    /// Its state.
    pub state: String,
    /// The number of attempts started.
    pub attempts: u32,
    /// When its event was recorded (RFC 3339).
    pub created_at: String,
    /// When its state changed last (RFC 3339).
    pub changed_at: String,
    /// When it ended, if it has (RFC 3339).
    pub ended_at: Option<String>,
    /// When its next attempt is due, if it waits (RFC 3339).
    pub due_at: Option<String>,
    /// The reason for its state, if there is one.
    pub reason: Option<String>,
}

/// A delivery with its event, history and calls.
#[derive(Debug, Serialize, Deserialize)]
pub struct DetailsView {
    /// The same fields as in a list.
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
    /// The name of the event.
    pub name: String,
    /// The source that received it.
    pub source: String,
    /// The tenant that it belongs to.
    pub tenant: String,
    /// The user of the event, by the platform's id.
    pub user_id: Option<String>,
    /// The company of that user.
    pub company_id: Option<String>,
    /// When it happened according to the platform, in seconds since 1970.
    pub created_at: Option<u64>,
    /// The payload, as the source wrote it.
    pub payload: Box<RawValue>,
}

/// A change of a delivery's state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangeView {
    /// The time of the change (RFC 3339).
    pub at: String,
    /// The new state.
    pub state: String,
    /// The reason, if there is one.
    pub reason: Option<String>,
}

/// An attempt that has ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptView {
    /// Its number, from 1.
    pub number: u32,
    /// The life of the host that made it, as in the list of hosts.
    #[serde(default)]
    pub owner: String,
    /// When it began (RFC 3339).
    pub started_at: String,
    /// When it ended (RFC 3339).
    pub ended_at: String,
    /// The version of the module that ran, if one did.
    pub version: Option<String>,
    /// The outcome.
    pub outcome: String,
    /// The lines the module logged.
    pub log: Vec<LogLine>,
}

/// A call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CallView {
    /// Its position in the call log, from 0.
    pub number: u32,
    /// The function that was called.
    pub import: RecordedImport,
    /// When it began (RFC 3339).
    pub at: String,
    /// Its arguments. Of a long text in large arguments, they have the size, a digest and the beginning.
    pub arguments: Value,
    /// The answer: `{"ok": …}` or `{"error": …}`; none while it is in flight.
    pub answer: Option<Value>,
}

/// What restricts the processes of the host.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SandboxView {
    /// The setting `sandbox`.
    pub mode: SandboxMode,
    /// The restrictions of the host.
    pub host: InForce,
    /// The restrictions of the processes that compile.
    pub compiler: InForce,
}

/// The totals of the journal and of this host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TotalsView {
    /// The number of deliveries in each state.
    pub deliveries: std::collections::BTreeMap<String, u64>,
    /// The size of the journal on disk, in bytes.
    pub journal_bytes: u64,
    /// The number of calls that this host repeated because it was unknown whether they had been executed.
    pub calls_made_again: u64,
}

/// A source of events.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum SourceView {
    /// A platform posts the events to this host.
    Webhook {
        /// The source's name.
        name: String,
        /// The path of the webhook.
        path: String,
    },
    /// This host fetches the events.
    EventSocket(Box<EventSocketView>),
}

/// An event socket, with its status since its source was configured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventSocketView {
    /// The source's name.
    pub name: String,
    /// The URL that it connects to.
    pub address: String,
    /// The names of the subscribed events.
    pub subscriptions: Vec<String>,
    /// When uninterrupted connectivity began (RFC 3339). `None` if the socket is disconnected.
    pub connected_since: Option<String>,
    /// Whether another host that shares the storage keeps the socket open, or is about to.
    #[serde(default)]
    pub elsewhere: bool,
    /// The reason why the last connection attempt failed, if it did.
    pub problem: Option<String>,
    /// The number of connections made.
    pub connections: u64,
    /// The number of events passed to dispatch, including duplicates.
    pub events: u64,
    /// The number of events that were rejected: too large, not readable, of another company,
    /// or not accepted when the host stopped.
    pub refused: u64,
    /// The id of the event that waits because of backpressure. The host reads nothing from the socket meanwhile.
    pub held: Option<String>,
    /// The number of gaps: times without a connection, after the first one.
    pub gaps: u64,
    /// When the current gap began (RFC 3339), if there is one.
    pub gap_since: Option<String>,
    /// The last gap. Events of that time may have been missed and are not sent again.
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
    /// The number of its keys.
    pub keys: u64,
    /// The total size of its keys and values, in bytes.
    pub bytes: u64,
}

/// A key of a bucket.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KeyView {
    /// The key.
    pub key: String,
    /// The size of its value, in bytes.
    pub size: u64,
    /// When it was last set (RFC 3339).
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
            elsewhere: status.elsewhere,
            problem: status.problem,
            connections: status.connections,
            events: status.events,
            refused: status.refused,
            held: status.waiting,
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
            owner: attempt.owner,
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
    /// Combines the totals of the journal and the counter of the host.
    pub fn new(totals: &Totals, calls_made_again: u64) -> Self {
        let deliveries = State::ALL.into_iter().map(|state| (state.name().to_owned(), totals.of(state))).collect();
        Self { deliveries, journal_bytes: totals.bytes, calls_made_again }
    }
}

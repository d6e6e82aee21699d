//! Runs a recorded delivery on a version with the recorded answers. No call leaves the host and nothing is changed.

use std::sync::Arc;

use serde_json::Value;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::instance::GuestOutcome;
use super::version::Version;
use crate::call_log::{CallLog, CallRequest, Lookup};
use crate::capabilities::{AttemptContext, Delivery};
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::import::RecordedImport;
use modhost_platform::DryRunPlatform;
use modhost_storage::journal::Call;
use modhost_storage::keyvalue;

/// A delivery from the journal.
pub struct RecordedDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// Its event.
    pub event: Arc<Event>,
    /// Its module.
    pub module: Name,
    /// Its calls and their answers.
    pub calls: Vec<Call>,
    /// The journal's salt, from which the seed of the module's random numbers is derived.
    pub salt: [u8; 32],
}

/// The result of a dry run.
pub struct DryRunOutcome {
    /// The outcome of the instance.
    pub ended: GuestOutcome,
    /// The calls that the module made, in order.
    pub calls: Vec<CallRequest>,
    /// The recorded calls that the module didn't make: the import and its arguments.
    pub missing: Vec<(RecordedImport, Value)>,
    /// Whether the event needs a reply and the module wrote none.
    pub unanswered: bool,
}

impl DryRunOutcome {
    /// Returns the first call that isn't recorded and that costs money or changes something.
    pub fn unrecorded_write(&self) -> Option<&CallRequest> {
        self.calls.iter().find(|call| call.lasting && call.known == Lookup::Added)
    }

    /// Returns the first call that isn't recorded and only reads. Its answer is unknown.
    pub fn unrecorded_read(&self) -> Option<&CallRequest> {
        self.calls.iter().find(|call| !call.lasting && call.known == Lookup::Added)
    }
}

/// Runs a recorded delivery on a version. The module's log lines are discarded.
pub async fn dry_run(version: &Version, recorded: RecordedDelivery) -> DryRunOutcome {
    let RecordedDelivery { id, event, module, calls, salt } = recorded;
    let delivery = Arc::new(Delivery::new(AttemptContext {
        event,
        module,
        attempt: 1,
        platform: Arc::new(DryRunPlatform::default()),
        keyvalue: Arc::new(keyvalue::DryRunStore),
        call_log: CallLog::dry_run(id, calls),
        limits: *version.limits(),
        tenant_memory: None,
        tenant_log: None,
        salt,
    }));
    let run = async {
        let ended = version.run(&delivery).await;
        delivery.changes_done().await;
        ended
    };
    let ended = run.with_subscriber(NoSubscriber::default()).await;
    let reply = delivery.progress().reply.clone();
    let needs_reply = delivery.event.assistant_message_id().is_some();
    DryRunOutcome {
        ended,
        calls: delivery.call_log.requested_calls(),
        missing: delivery.call_log.unreplayed(),
        unanswered: needs_reply && !reply.completed && reply.text.is_none(),
    }
}

//! Runs a recorded delivery on a version, with the recorded answers. No call leaves the host and nothing is changed.

use std::sync::Arc;

use serde_json::Value;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::instance::Ended;
use super::version::Version;
use crate::call_log::{CallLog, CallRequest, Lookup};
use crate::capabilities::{AttemptContext, Delivery};
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::import::RecordedImport;
use modhost_platform::DryRunPlatform;
use modhost_storage::journal::Call;
use modhost_storage::keyvalue;

/// A delivery out of the journal.
pub struct RecordedDelivery {
    /// Its id.
    pub id: DeliveryId,
    /// Its event.
    pub event: Arc<Event>,
    /// Its module.
    pub module: Name,
    /// Its calls, with their answers.
    pub calls: Vec<Call>,
    /// What the chance its module drew is derived from.
    pub salt: [u8; 32],
}

/// What a dry run came to.
pub struct DryRunOutcome {
    /// How the instance ended.
    pub ended: Ended,
    /// The calls it asked for, in order.
    pub asked: Vec<CallRequest>,
    /// The recorded calls it didn't ask for: what was called, and its arguments.
    pub gone: Vec<(RecordedImport, Value)>,
    /// Whether there is no reply, though somebody waits for one.
    pub unanswered: bool,
}

impl DryRunOutcome {
    /// The first call that the record has nothing of and that costs money or changes something.
    pub fn added(&self) -> Option<&CallRequest> {
        self.asked.iter().find(|call| call.lasting && call.known == Lookup::Added)
    }

    /// The first call that the record has nothing of and that only reads: what it would have been told isn't known.
    pub fn unknown(&self) -> Option<&CallRequest> {
        self.asked.iter().find(|call| !call.lasting && call.known == Lookup::Added)
    }
}

/// Rehearses a delivery. What the module logs meanwhile is nobody's news, and goes nowhere.
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
        salt,
    }));
    let run = async {
        let ended = version.run(&delivery).await;
        delivery.changes_done().await;
        ended
    };
    let ended = run.with_subscriber(NoSubscriber::default()).await;
    let reply = delivery.progress().reply.clone();
    let waits = delivery.event.assistant_message_id().is_some();
    DryRunOutcome {
        ended,
        asked: delivery.call_log.asked(),
        gone: delivery.call_log.left(),
        unanswered: waits && !reply.completed && reply.text.is_none(),
    }
}

//! Runs a recorded delivery on a version, with the recorded answers. No call leaves the host and nothing is changed.

use std::sync::Arc;

use serde_json::Value;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use super::instance::Ended;
use super::version::Version;
use crate::capabilities::{Asked, Begin, Delivery, Known, Tape};
use crate::event::{DeliveryId, Event, Name};
use crate::journal::Call;
use crate::keyvalue;
use crate::platform::Rehearsal;

/// A delivery out of the journal.
pub struct Recorded {
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

/// What a rehearsal came to.
pub struct Rehearsed {
    /// How the instance ended.
    pub ended: Ended,
    /// The calls it asked for, in order.
    pub asked: Vec<Asked>,
    /// The recorded calls it didn't ask for: what was called, and its arguments.
    pub gone: Vec<(String, Value)>,
    /// Whether there is no reply, though somebody waits for one.
    pub unanswered: bool,
}

impl Rehearsed {
    /// The first call that the record has nothing of and that costs money or changes something.
    pub fn added(&self) -> Option<&Asked> {
        self.asked.iter().find(|call| call.lasting && call.known == Known::Added)
    }

    /// The first call that the record has nothing of and that only reads: what it would have been told isn't known.
    pub fn unknown(&self) -> Option<&Asked> {
        self.asked.iter().find(|call| !call.lasting && call.known == Known::Added)
    }
}

/// Rehearses a delivery. What the module logs meanwhile is nobody's news, and goes nowhere.
pub async fn rehearse(version: &Version, recorded: Recorded) -> Rehearsed {
    let Recorded { id, event, module, calls, salt } = recorded;
    let delivery = Arc::new(Delivery::new(Begin {
        event,
        module,
        attempt: 1,
        platform: Arc::new(Rehearsal::default()),
        keyvalue: Arc::new(keyvalue::Rehearsal),
        tape: Tape::rehearsal(id, calls),
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
    Rehearsed {
        ended,
        asked: delivery.tape.asked(),
        gone: delivery.tape.left(),
        unanswered: waits && !reply.completed && reply.text.is_none(),
    }
}

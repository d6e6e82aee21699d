//! The declaration of a call: what the log needs to record and replay it.

use serde_json::Value;

use modhost_core::import::Import;

/// The declaration of a call, a constant of its capability.
///
/// `P` is the progress of a delivery, which recorded answers restore when the delivery starts again.
pub(crate) struct CallSpec<P: 'static> {
    /// The import.
    pub import: Import,
    /// The cost of making the call twice.
    pub effect: CallEffect,
    pub(super) keeps_result: bool,
    pub(super) restore: Option<fn(&mut P, &Value)>,
}

impl<P> Clone for CallSpec<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for CallSpec<P> {}

impl<P> CallSpec<P> {
    /// Declares a call whose recorded answer is only used when the guest repeats the call.
    pub const fn new(import: Import, effect: CallEffect) -> Self {
        Self { import, effect, keeps_result: false, restore: None }
    }

    /// Keeps the result of the call aside when the log is truncated: for calls that create something that can't be
    /// undone and must not exist twice, such as a step or a message. A guest that makes the same call later gets that
    /// result.
    pub const fn keeping_result(self) -> Self {
        Self { keeps_result: true, ..self }
    }

    /// Restores the progress from the recorded answers of earlier attempts before the guest starts, whether or not the
    /// guest repeats the call.
    pub const fn restored_by(self, restore: fn(&mut P, &Value)) -> Self {
        Self { restore: Some(restore), ..self }
    }
}

/// The cost of making a call twice, which decides how the call is recorded.
///
/// | effect   | before it leaves the host | before the guest has its answer | if the guest drops it |
/// |----------|---------------------------|---------------------------------|-----------------------|
/// | `Read`   | nothing on disk           | nothing on disk                 | canceled              |
/// | `Paid`   | intent on disk            | answer on disk                  | canceled              |
/// | `Change` | intent on disk            | intent on disk                  | runs to completion    |
/// | `Store`  | intent on disk            | intent on disk                  | runs to completion    |
/// | `Send`   | intent on disk            | answer on disk                  | runs to completion    |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallEffect {
    /// Only reads: repeating it costs nothing.
    Read,
    /// Repeating it costs money.
    Paid,
    /// Repeating it shows something to the user twice.
    Change,
    /// Changes the host's own store, which applies a change once, however often it is requested. The store keeps the
    /// deduplication key of the change until the answer is on disk.
    Store,
    /// Repeating it has an effect outside the platform twice, and may cost money.
    Send,
}

impl CallEffect {
    /// Returns whether the intent has to be on disk before the call leaves the host. If the intent is on disk without
    /// an answer, the next attempt counts the call as repeated.
    pub fn needs_durable_intent(self) -> bool {
        self != Self::Read
    }

    /// Returns whether the answer has to be on disk before the guest gets it.
    pub fn needs_durable_answer(self) -> bool {
        matches!(self, Self::Paid | Self::Send)
    }

    /// Returns whether the call runs to completion when the guest drops it, so that the log contains everything that
    /// happened.
    pub fn outlives_guest(self) -> bool {
        matches!(self, Self::Change | Self::Store | Self::Send)
    }

    /// Returns whether the call has a lasting effect: a dry run reports it if the log doesn't have it.
    pub fn is_lasting(self) -> bool {
        self != Self::Read
    }
}

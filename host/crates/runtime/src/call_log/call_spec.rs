//! The declaration of a call: everything the log has to know about it.

use serde_json::Value;

use modhost_core::import::Import;

/// A call as its capability declares it, once, in a constant.
///
/// `P` is the progress of a delivery: what recorded answers restore when the delivery starts again.
pub(crate) struct CallSpec<P: 'static> {
    /// Its name.
    pub import: Import,
    /// What it costs to make it twice.
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
    /// A call whose recorded answer is of use only to a guest that makes the same call again.
    pub const fn new(import: Import, effect: CallEffect) -> Self {
        Self { import, effect, keeps_result: false, restore: None }
    }

    /// The same for a call that makes something that can't be unmade and would exist twice: a step, a message. When the log
    /// is cut, its result is kept aside. The guest that makes the same call later gets that result.
    pub const fn keeping_its_result(self) -> Self {
        Self { keeps_result: true, ..self }
    }

    /// The same for a call whose answers of earlier attempts change the progress before the guest starts, whether or not
    /// the guest makes the call again.
    pub const fn restored_by(self, restore: fn(&mut P, &Value)) -> Self {
        Self { restore: Some(restore), ..self }
    }
}

/// What it costs to make a call twice, and so how it is recorded.
///
/// | effect   | before it leaves the host | before the guest has its answer | if the guest drops it |
/// |----------|---------------------------|---------------------------------|-----------------------|
/// | `Read`   | nothing on disk           | nothing on disk                 | canceled              |
/// | `Paid`   | intent on disk            | answer on disk                  | canceled              |
/// | `Change` | intent on disk            | intent on disk                  | carried to its end    |
/// | `Store`  | intent on disk            | intent on disk                  | carried to its end    |
/// | `Send`   | intent on disk            | answer on disk                  | carried to its end    |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallEffect {
    /// Nothing: it only reads.
    Read,
    /// Money.
    Paid,
    /// The user sees something twice.
    Change,
    /// Nothing, because the host's own store applies a change once, however often it is asked. The store remembers the
    /// change until the answer is on disk, and then forgets it.
    Store,
    /// Something happens twice outside the platform, and may cost money.
    Send,
}

impl CallEffect {
    /// Whether the intent has to be on disk before the call leaves the host. If it is, and no answer is, the next attempt
    /// counts the call as made again.
    pub fn needs_durable_intent(self) -> bool {
        self != Self::Read
    }

    /// Whether the answer has to be on disk before the guest has it.
    pub fn needs_durable_answer(self) -> bool {
        matches!(self, Self::Paid | Self::Send)
    }

    /// Whether the call is carried to its end when the guest drops it, so that the log knows everything that happened.
    pub fn outlives_guest(self) -> bool {
        matches!(self, Self::Change | Self::Store | Self::Send)
    }

    /// Whether the call has a lasting effect: a dry run reports it if the log doesn't have it.
    pub fn is_lasting(self) -> bool {
        self != Self::Read
    }
}

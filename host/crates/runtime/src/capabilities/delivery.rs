//! One delivery as its capabilities see it: whom it acts for, what it has written so far, and the calls it makes.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{CallSpec, DeliveryLog, TenantMemory, spec_of};
use crate::call_log::{CallLog, InFlight, RecordedCall, Requested, UsageMeter};
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::limits::Limits;
use modhost_core::sync::lock;
use modhost_platform::{CallError, Caller, Platform, StepStatus};
use modhost_storage::keyvalue::{KeyValue, Space};

/// One delivery of an event to a module.
pub struct Delivery {
    /// Its id.
    pub id: DeliveryId,
    /// The event.
    pub event: Arc<Event>,
    /// The module that answers it.
    pub module: Name,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Where its guest's lines go.
    pub log: DeliveryLog,
    /// The record of its calls.
    pub call_log: Arc<CallLog>,
    platform: Arc<dyn Platform>,
    keyvalue: Arc<dyn KeyValue>,
    /// Made when the first call is; there are deliveries without any.
    caller: OnceLock<Caller>,
    tenant_memory: Option<Arc<TenantMemory>>,
    progress: Mutex<Progress>,
    salt: [u8; 32],
}

/// What an attempt at a delivery begins with.
pub struct AttemptContext {
    /// The event.
    pub event: Arc<Event>,
    /// The module that is to answer it.
    pub module: Name,
    /// Which attempt this is, from 1.
    pub attempt: u32,
    /// Where calls are carried out.
    pub platform: Arc<dyn Platform>,
    /// Where the module's values are kept.
    pub keyvalue: Arc<dyn KeyValue>,
    /// The record of the calls of earlier attempts.
    pub call_log: CallLog,
    /// What the attempt may use.
    pub limits: Limits,
    /// The memory it shares with the other deliveries of its tenant, if that has a limit.
    pub tenant_memory: Option<Arc<TenantMemory>>,
    /// What makes the chance a delivery draws impossible to guess, and yet the same whenever it starts again.
    pub salt: [u8; 32],
}

/// What a delivery has shown to the user so far, and so what has to be tidied up when it ends.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The steps of the message log by their order.
    pub steps: BTreeMap<u32, Step>,
    /// The reply.
    pub reply: Reply,
    /// Whether a message of the chat was written, the reply or another one.
    pub has_written: bool,
    orders_given: u32,
}

/// A step that is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The platform's id of it.
    pub id: String,
    /// How far it was when last heard of.
    pub status: StepStatus,
}

/// The event's assistant message, as far as this delivery has filled it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The text last written, if any was.
    pub text: Option<String>,
    /// Whether the guest has said that it is final.
    pub completed: bool,
}

impl Progress {
    /// The order of the next step, from 1.
    pub(super) fn next_order(&mut self) -> u32 {
        self.orders_given += 1;
        self.orders_given
    }

    /// Takes in a step that was shown, now or by an earlier attempt.
    pub(super) fn step_shown(&mut self, order: u32, id: &str, status: StepStatus) {
        self.orders_given = self.orders_given.max(order);
        self.steps.insert(order, Step { id: id.to_owned(), status });
    }
}

impl Delivery {
    /// A delivery that begins, or begins again: the steps of earlier attempts are known.
    pub fn new(begin: AttemptContext) -> Self {
        let AttemptContext { event, module, attempt, platform, keyvalue, call_log, limits, tenant_memory, salt } =
            begin;
        let mut progress = Progress::default();
        let call_log = call_log.start(module.clone(), limits, spec_of, &mut progress);
        let id = call_log.delivery().clone();
        let log = DeliveryLog::new(event.clone(), module.clone(), id.clone(), &limits);
        Self {
            id,
            event,
            module,
            attempt,
            log,
            call_log: Arc::new(call_log),
            platform,
            keyvalue,
            caller: OnceLock::new(),
            tenant_memory,
            progress: Mutex::new(progress),
            salt,
        }
    }

    /// What the attempt may use.
    pub fn limits(&self) -> &Limits {
        self.usage().limits()
    }

    /// What its calls have used.
    pub fn usage(&self) -> &UsageMeter {
        self.call_log.usage()
    }

    /// The memory it shares with the other deliveries of its tenant, if that has a limit.
    pub fn tenant_memory(&self) -> Option<&Arc<TenantMemory>> {
        self.tenant_memory.as_ref()
    }

    /// The seed of the chance its guest draws, for one of several uses: the same whenever the delivery starts again.
    pub fn random(&self, use_: u8) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        hash.update([use_]);
        hash.update(self.id.as_str());
        hash.finalize().into()
    }

    /// The platform that carries calls out.
    pub fn platform(&self) -> &Arc<dyn Platform> {
        &self.platform
    }

    /// Whose values the module sees.
    pub fn space(&self) -> Space {
        Space { tenant: self.event.tenant.clone(), module: self.module.clone() }
    }

    /// On whose behalf calls are made.
    pub fn caller(&self) -> &Caller {
        self.caller.get_or_init(|| Caller {
            event: self.event.name.as_str().into(),
            company_id: self.event.company_id.as_deref().map(Into::into),
            user_id: self.event.user_id.as_deref().map(Into::into),
            idempotency_key: None,
        })
    }

    /// The chat the event happened in.
    ///
    /// # Errors
    ///
    /// When it happened in none.
    pub fn chat_id(&self) -> Result<&str, CallError> {
        self.event.chat_id().ok_or_else(|| self.caller().unsupported("chat"))
    }

    /// The assistant of that chat.
    ///
    /// # Errors
    ///
    /// When the event names none.
    pub fn assistant_id(&self) -> Result<&str, CallError> {
        self.event.assistant_id().ok_or_else(|| self.caller().unsupported("assistant"))
    }

    /// The assistant message that waits to be filled.
    ///
    /// # Errors
    ///
    /// When the event brought none.
    pub fn reply_id(&self) -> Result<&str, CallError> {
        self.event.assistant_message_id().ok_or_else(|| self.caller().unsupported("reply"))
    }

    /// What has been shown so far.
    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }

    /// Takes a position in the call log for a call.
    ///
    /// # Errors
    ///
    /// When it may make no such call, or the log takes no more.
    pub(super) fn request(&self, spec: &CallSpec, arguments: &impl Serialize) -> Result<Requested, CallError> {
        Requested::new(&self.call_log, spec, arguments)
    }

    /// Makes a call on the platform, unless the log has its answer. `apply` is given a successful answer, recorded or new.
    pub(super) async fn make<T, F>(
        self: &Arc<Self>,
        call: Requested,
        make: impl FnOnce(Arc<dyn Platform>, Caller) -> F + Send + 'static,
        apply: impl FnOnce(&mut Progress, &T) + Send + 'static,
    ) -> Result<T, CallError>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let (delivery, applied_to) = (self.clone(), self.clone());
        let make = move |call: &RecordedCall<InFlight>| make(delivery.platform.clone(), delivery.caller_of(call));
        let apply = move |answer: &T| apply(&mut applied_to.progress(), answer);
        call.carry_out(make, apply, |_| {}).await
    }

    /// Makes a call on the key-value store, unless the log has its answer. `make` is given the key of a change, by which the
    /// store applies it once.
    pub(super) async fn make_in_store<T, F>(
        &self,
        call: Requested,
        make: impl FnOnce(Arc<dyn KeyValue>, String) -> F + Send + 'static,
    ) -> Result<T, CallError>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let (store, told) = (self.keyvalue.clone(), self.keyvalue.clone());
        let make = move |call: &RecordedCall<InFlight>| make(store, call.change_key());
        call.carry_out(make, |_| {}, move |call| told.answered(&call.change_key())).await
    }

    /// On whose behalf a call is made, with its idempotency key.
    pub(super) fn caller_of(&self, call: &RecordedCall<InFlight>) -> Caller {
        Caller { idempotency_key: Some(call.idempotency_key()), ..self.caller().clone() }
    }

    /// Waits until every call has ended that changes something.
    pub async fn changes_done(&self) {
        self.call_log.outliving_calls().await;
    }
}

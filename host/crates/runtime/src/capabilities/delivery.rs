//! The delivery that capabilities serve: its event and caller, its progress, and its calls.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{CallSpec, DeliveryLog, TenantLog, TenantMemory, spec_of};
use crate::call_log::{CallLog, InFlight, RecordedCall, Requested, UsageMeter};
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::limits::Limits;
use modhost_core::memory_budget::MemoryBudget;
use modhost_core::sync::lock;
use modhost_core::tenant_meter::{self, TenantMeter};
use modhost_platform::{CallError, Caller, Platform, StepStatus};
use modhost_storage::keyvalue::{KeyValue, Space};

/// One delivery of an event to a module.
pub struct Delivery {
    /// The id.
    pub id: DeliveryId,
    /// The event.
    pub event: Arc<Event>,
    /// The module that answers the event.
    pub module: Name,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The log lines of the guest.
    pub log: DeliveryLog,
    /// The log of the calls.
    pub call_log: Arc<CallLog>,
    platform: Arc<dyn Platform>,
    keyvalue: Arc<dyn KeyValue>,
    /// Created with the first call; some deliveries make none.
    caller: OnceLock<Caller>,
    tenant_memory: Option<Arc<TenantMemory>>,
    tenant_meter: Arc<TenantMeter>,
    progress: Mutex<Progress>,
    salt: [u8; 32],
}

/// The inputs of an attempt.
pub struct AttemptContext {
    /// The event.
    pub event: Arc<Event>,
    /// The module that answers the event.
    pub module: Name,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The platform that executes the calls.
    pub platform: Arc<dyn Platform>,
    /// The store of the module's values.
    pub keyvalue: Arc<dyn KeyValue>,
    /// The log with the calls of earlier attempts.
    pub call_log: CallLog,
    /// The limits of the attempt.
    pub limits: Limits,
    /// The memory shared with the tenant's other deliveries, if the tenant has a memory limit.
    pub tenant_memory: Option<Arc<TenantMemory>>,
    /// What the tenant's modules may write to the host's log; none: everything.
    pub tenant_log: Option<Arc<TenantLog>>,
    /// The secret salt of random seeds: random numbers can't be guessed, and are the same in every attempt.
    pub salt: [u8; 32],
}

/// The steps and the reply that a delivery has shown to the user: what finalizing has to close.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The steps of the message log by their order.
    pub steps: BTreeMap<u32, Step>,
    /// The reply.
    pub reply: Reply,
    /// Whether any message of the chat was written, the reply or another one.
    pub has_written: bool,
    last_order: u32,
}

/// A step in the message log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The platform's id.
    pub id: String,
    /// The last known status.
    pub status: StepStatus,
}

/// The event's assistant message, as this delivery has written it so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The last text written, if any.
    pub text: Option<String>,
    /// Whether the guest marked it as final.
    pub completed: bool,
}

impl Progress {
    /// Returns the order of the next step, from 1.
    pub(super) fn next_order(&mut self) -> u32 {
        self.last_order += 1;
        self.last_order
    }

    /// Records a step that was shown, now or by an earlier attempt.
    pub(super) fn step_shown(&mut self, order: u32, id: &str, status: StepStatus) {
        self.last_order = self.last_order.max(order);
        self.steps.insert(order, Step { id: id.to_owned(), status });
    }
}

impl Delivery {
    /// Creates the delivery for an attempt, and restores the progress of earlier attempts from the call log.
    pub fn new(begin: AttemptContext) -> Self {
        let AttemptContext {
            event,
            module,
            attempt,
            platform,
            keyvalue,
            call_log,
            limits,
            tenant_memory,
            tenant_log,
            salt,
        } = begin;
        let mut progress = Progress::default();
        let tenant_meter = tenant_meter::of(&event.tenant);
        let memory = tenant_memory.clone().map(|tenant| MemoryBudget::new(tenant)).unwrap_or_default();
        let call_log = call_log.with_memory(memory);
        let call_log = call_log.start(module.clone(), tenant_meter.clone(), limits, spec_of, &mut progress);
        let id = call_log.delivery().clone();
        let log = DeliveryLog::new(event.clone(), module.clone(), id.clone(), &limits, tenant_log, call_log.memory());
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
            tenant_meter,
            progress: Mutex::new(progress),
            salt,
        }
    }

    /// Returns the limits of the attempt.
    pub fn limits(&self) -> &Limits {
        self.usage().limits()
    }

    /// Returns the resource usage of the calls.
    pub fn usage(&self) -> &UsageMeter {
        self.call_log.usage()
    }

    /// Returns the memory that the host can hold for the delivery. It counts as memory of the tenant; exceeding it ends
    /// the guest.
    pub(super) fn memory(&self) -> &MemoryBudget {
        self.call_log.memory()
    }

    /// Returns the memory shared with the tenant's other deliveries, if the tenant has a memory limit.
    pub fn tenant_memory(&self) -> Option<&Arc<TenantMemory>> {
        self.tenant_memory.as_ref()
    }

    /// Returns the counters of what the tenant uses.
    pub fn tenant_meter(&self) -> &Arc<TenantMeter> {
        &self.tenant_meter
    }

    /// Returns the random seed for one of several uses. It is the same in every attempt.
    pub fn random(&self, use_: u8) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        hash.update([use_]);
        hash.update(self.id.as_str());
        hash.finalize().into()
    }

    /// Returns the platform that executes the calls.
    pub fn platform(&self) -> &Arc<dyn Platform> {
        &self.platform
    }

    /// Returns the key-value space of the module and the tenant.
    pub fn space(&self) -> Space {
        Space { tenant: self.event.tenant.clone(), module: self.module.clone() }
    }

    /// Returns the caller: the user and company that calls act for.
    pub fn caller(&self) -> &Caller {
        self.caller.get_or_init(|| Caller {
            event: self.event.name.as_str().into(),
            company_id: self.event.company_id.as_deref().map(Into::into),
            user_id: self.event.user_id.as_deref().map(Into::into),
            idempotency_key: None,
            memory: self.memory().clone(),
        })
    }

    /// Returns the chat of the event.
    ///
    /// # Errors
    ///
    /// When the event has none.
    pub fn chat_id(&self) -> Result<&str, CallError> {
        self.event.chat_id().ok_or_else(|| self.caller().unsupported("chat"))
    }

    /// Returns the assistant of the event.
    ///
    /// # Errors
    ///
    /// When the event has none.
    pub fn assistant_id(&self) -> Result<&str, CallError> {
        self.event.assistant_id().ok_or_else(|| self.caller().unsupported("assistant"))
    }

    /// Returns the id of the assistant message that has to be filled.
    ///
    /// # Errors
    ///
    /// When the event has none.
    pub fn reply_id(&self) -> Result<&str, CallError> {
        self.event.assistant_message_id().ok_or_else(|| self.caller().unsupported("reply"))
    }

    /// Locks and returns the progress.
    pub fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }

    /// When a limit is reached, or the log can't be written.
    pub(super) fn request(&self, spec: &CallSpec, arguments: &impl Serialize) -> Result<Requested, CallError> {
        Requested::new(&self.call_log, spec, arguments)
    }

    /// Makes a call to the platform, unless the log has its answer. `apply` receives a successful answer, recorded or
    /// new.
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

    /// Makes a call to the key-value store, unless the log has its answer.
    pub(super) async fn make_in_store<T, F>(
        &self,
        call: Requested,
        make: impl FnOnce(Arc<dyn KeyValue>, &RecordedCall<InFlight>) -> F + Send + 'static,
    ) -> Result<T, CallError>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let (store, acknowledging) = (self.keyvalue.clone(), self.keyvalue.clone());
        let make = move |call: &RecordedCall<InFlight>| make(store, call);
        call.carry_out(make, |_| {}, move |call| acknowledging.forget_key(&call.change_key())).await
    }

    /// Returns the caller with the idempotency key of a call.
    pub(super) fn caller_of(&self, call: &RecordedCall<InFlight>) -> Caller {
        Caller { idempotency_key: Some(call.idempotency_key()), ..self.caller().clone() }
    }

    /// Waits until every call that changes something has ended.
    pub async fn changes_done(&self) {
        self.call_log.wait_for_detached_calls().await;
    }
}

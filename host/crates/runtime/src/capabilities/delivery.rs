//! One delivery as its capabilities see it: whom it acts for, what it has written so far, and the calls it makes.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tokio_util::task::TaskTracker;

use super::call_log::{self, Place, Turn};
use super::detach_on_drop::DetachOnDrop;
use super::usage::InFlight;
use super::{Answer, CallLog, DeliveryLog, TenantMemory, UsageMeter, message_log};
use modhost_core::event::{DeliveryId, Event, Name, push_hex};
use modhost_core::limits::Limits;
use modhost_core::metrics;
use modhost_platform::{CallError, Caller, ErrorKind, Platform, StepStatus};
use modhost_storage::journal::CommitHandle;
use modhost_storage::keyvalue::{KeyValue, Space};

/// What the arguments of most calls don't exceed as they are recorded, in bytes.
const USUAL_ARGUMENTS: usize = 512;

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
    changes: TaskTracker,
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

/// What a call costs if it is made twice, and so how it is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CallEffect {
    /// Nothing: its answer is written down in passing. It is given up when the guest that waits for it ends.
    Read,
    /// Money: that it is made is on disk before, its answer at once after.
    Paid,
    /// Something is shown twice: that it is made is on disk before. It is carried to its end even if the guest that
    /// waits for it ends, so that nothing is shown to the user that nobody knows of.
    Change,
    /// Nothing, since the host's own store does it once, however often it is asked: recorded and carried to its end like
    /// [`CallEffect::Change`]. Once its answer is on disk, nobody will ask for it again.
    Store,
    /// Something happens somewhere else, and may cost money: that it is made is on disk before, its answer, too, before
    /// the guest has it. It is carried to its end like [`CallEffect::Change`].
    Sent,
}

/// A call that has its place in the record and is still to be answered.
pub(super) struct Pending {
    delivery: Arc<Delivery>,
    effect: CallEffect,
    import: &'static str,
    arguments: Vec<u8>,
    turn: Turn,
    /// The entry that says that it is made, if it is on its way to the disk already.
    begun: Option<CommitHandle>,
    in_flight: InFlight,
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
        let call_log = call_log.limited(limits);
        let id = call_log.delivery().clone();
        let log = DeliveryLog::new(event.clone(), module.clone(), id.clone(), &limits);
        let mut progress = Progress::default();
        for (import, answer) in call_log.answers() {
            message_log::remember(&mut progress, &import, &answer);
        }
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
            changes: TaskTracker::new(),
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
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a call its place in the record; whether it was made before is known then.
    ///
    /// # Errors
    ///
    /// When it may make no such call, or the record takes no more.
    pub(super) fn prepare(
        self: &Arc<Self>,
        effect: CallEffect,
        import: &'static str,
        arguments: &impl Serialize,
    ) -> Result<Pending, CallError> {
        let mut written = Vec::with_capacity(USUAL_ARGUMENTS);
        serde_json::to_writer(&mut written, arguments)
            .map_err(|error| CallError::new(ErrorKind::Invalid, format!("arguments of `{import}`: {error}")))?;
        let in_flight = InFlight::begin(&self.call_log, written.len())?;
        let turn = self.call_log.turn(effect, import, &written)?;
        Ok(Pending { delivery: self.clone(), effect, import, arguments: written, turn, begun: None, in_flight })
    }

    /// Makes a call, unless the record has its answer: [`Delivery::prepare`] and [`Pending::make`] in one.
    pub(super) async fn call<T, F>(
        self: &Arc<Self>,
        effect: CallEffect,
        import: &'static str,
        arguments: &impl Serialize,
        make: impl FnOnce(Arc<dyn Platform>, Caller) -> F + Send + 'static,
    ) -> Result<T, CallError>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        self.prepare(effect, import, arguments)?.make(make, |_, _| {}).await
    }

    /// Waits until every call that changes something has come to its end.
    pub async fn changes_done(&self) {
        self.changes.close();
        self.changes.wait().await;
    }

    fn note(&self, import: &'static str, started: Instant, error: Option<&CallError>) {
        if self.call_log.is_dry_run() {
            return;
        }
        let (module, delivery, took) = (&self.module, &self.id, started.elapsed());
        metrics::call(import, error.map_or("ok", |error| error.kind.word()), took);
        match error {
            None => tracing::debug!(%module, %delivery, import, ?took, "call answered"),
            Some(error) => tracing::warn!(%module, %delivery, import, ?took, %error, "call failed"),
        }
    }
}

impl Pending {
    /// Writes down that the call is made, without waiting: the guest goes on while it is under way, and what it asks for
    /// next must not be on record without it. A record with a hole would be cut off there by the next attempt.
    ///
    /// # Errors
    ///
    /// When the record takes no more.
    pub(super) fn note(mut self) -> Result<Self, CallError> {
        if let Turn::Live(place) = self.turn {
            self.begun = Some(self.delivery.call_log.begin(place, self.import, &self.arguments)?);
        }
        Ok(self)
    }

    /// Makes the call on the platform, unless the record has its answer; `apply` takes in what an answer means, recorded
    /// or new.
    pub(super) async fn make<T, F>(
        self,
        make: impl FnOnce(Arc<dyn Platform>, Caller) -> F + Send + 'static,
        apply: impl FnOnce(&mut Progress, &T) + Send + 'static,
    ) -> Result<T, CallError>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let begin = |record: &Record| make(record.delivery.platform.clone(), record.caller());
        self.carry_out(begin, apply).await
    }

    /// Makes the call on the key-value store, unless the record has its answer. The text is what a change is known by.
    pub(super) async fn store<T, F>(
        self,
        make: impl FnOnce(Arc<dyn KeyValue>, String) -> F + Send + 'static,
    ) -> Result<T, CallError>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let begin = |record: &Record| make(record.delivery.keyvalue.clone(), record.once());
        self.carry_out(begin, |_, _| {}).await
    }

    /// Begins a call whose answer comes in pieces, and leaves it to the caller to make and [end](Record::end) it: when this
    /// returns, that it is made is on disk, or here is the answer the record has. It is in flight for as long as the last of
    /// the three is held.
    pub(super) async fn begin(self) -> Result<(Record, Option<Answer>, InFlight), CallError> {
        let Self { delivery, import, arguments, turn, begun, in_flight, .. } = self;
        let (place, answer) = match turn {
            Turn::Replayed(place, answer) => (place, Some(answer)),
            Turn::Live(place) => (place, None),
        };
        let mut record = Record { delivery, place, import, arguments, begun };
        if answer.is_none() {
            record.begin().await?;
        }
        Ok((record, answer, in_flight))
    }

    /// Makes the call somewhere else than on the platform, unless the record has its answer. The text is its idempotency
    /// key.
    pub(super) async fn send<T, F>(self, make: impl FnOnce(String) -> F + Send + 'static) -> Result<T, CallError>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let begin = |record: &Record| make(record.idempotency_key());
        self.carry_out(begin, |_, _| {}).await
    }

    async fn carry_out<T, F>(
        self,
        begin: impl FnOnce(&Record) -> F,
        apply: impl FnOnce(&mut Progress, &T) + Send + 'static,
    ) -> Result<T, CallError>
    where
        T: Serialize + DeserializeOwned + Send + 'static,
        F: Future<Output = Result<T, CallError>> + Send + 'static,
    {
        let Self { delivery, effect, import, arguments, turn, begun, in_flight } = self;
        let place = match turn {
            Turn::Replayed(_, answer) => {
                let answer = answer.into_result();
                if let Ok(answer) = &answer {
                    apply(&mut delivery.progress(), answer);
                }
                return answer;
            }
            Turn::Live(place) => place,
        };
        let mut record = Record { delivery: delivery.clone(), place, import, arguments, begun };
        let call = begin(&record);
        match effect {
            CallEffect::Read => {
                let _in_flight = in_flight;
                record.answer(call, effect, apply).await
            }
            CallEffect::Paid => {
                let _in_flight = in_flight;
                record.begin().await?;
                record.answer(call, effect, apply).await
            }
            CallEffect::Change | CallEffect::Store | CallEffect::Sent => {
                let waited_for = delivery.changes.token();
                let whole = async move {
                    let _until_its_end = (in_flight, waited_for);
                    record.begin().await?;
                    record.answer(call, effect, apply).await
                };
                DetachOnDrop::new(whole).await.unwrap_or_else(|_| {
                    let broke =
                        format!("`{import}` broke off: the host itself broke while it was made: please report this");
                    Err(CallError::new(ErrorKind::Unavailable, broke))
                })
            }
        }
    }
}

/// A call and its place in the record.
pub(super) struct Record {
    delivery: Arc<Delivery>,
    place: Place,
    import: &'static str,
    arguments: Vec<u8>,
    /// The entry that says that it is made, if it is on its way to the disk already.
    begun: Option<CommitHandle>,
}

impl Record {
    /// Refuses an answer of so many bytes, as far as it has come, if it is too large.
    pub(super) fn check_answer(&self, bytes: usize) -> Result<(), CallError> {
        self.delivery.usage().check_answer(bytes)
    }

    /// On whose behalf it is made, and by what key.
    pub(super) fn caller(&self) -> Caller {
        Caller { idempotency_key: Some(self.idempotency_key()), ..self.delivery.caller().clone() }
    }

    /// Notes what came of a call that was begun by hand. When this returns, it is on disk.
    pub(super) async fn end(&self, started: Instant, answer: &Answer) -> Result<(), CallError> {
        self.delivery.note(self.import, started, answer.error());
        let written = self.delivery.call_log.end_with(self.place, self.import, &self.arguments, answer)?;
        call_log::on_disk(written).await
    }

    /// Has the next attempt make it again, although it has an answer: one that is of no use.
    pub(super) fn make_again(&self) {
        self.delivery.call_log.make_again(self.place, self.import, &self.arguments);
    }

    /// The same whenever this call is made again. What is asked is part of it: another version of a module may ask
    /// something else in the same place, and must not be given the answer to what was asked before.
    fn idempotency_key(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.import);
        hash.update([0]);
        hash.update(&self.arguments);
        let mut key = format!("{}-{}-", self.delivery.id, self.place.number);
        push_hex(&mut key, &hash.finalize()[..8]);
        key
    }

    /// The same only as long as nobody knows whether the call was made. With its answers forgotten, a delivery makes the
    /// same call in the same place, and means another one.
    fn once(&self) -> String {
        let begun = self.place.begun.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        format!("{}-{}", self.idempotency_key(), begun.as_millis())
    }

    /// Writes down that it is made. When this returns, that and all before it is on disk.
    async fn begin(&mut self) -> Result<(), CallError> {
        let begun = match self.begun.take() {
            Some(begun) => begun,
            None => self.delivery.call_log.begin(self.place, self.import, &self.arguments)?,
        };
        call_log::on_disk(begun).await
    }

    /// Waits for the answer, takes it in, and writes it down.
    async fn answer<T: Serialize>(
        self,
        call: impl Future<Output = Result<T, CallError>>,
        effect: CallEffect,
        apply: impl FnOnce(&mut Progress, &T),
    ) -> Result<T, CallError> {
        let started = Instant::now();
        let answer = call.await;
        self.delivery.note(self.import, started, answer.as_ref().err());
        if let Ok(answer) = &answer {
            apply(&mut self.delivery.progress(), answer);
        }
        let written = self.delivery.call_log.end(self.place, self.import, &self.arguments, &answer)?;
        match effect {
            CallEffect::Read | CallEffect::Change => {}
            CallEffect::Paid | CallEffect::Sent => call_log::on_disk(written).await?,
            CallEffect::Store => drop(tokio::spawn(self.forget(written))),
        }
        answer
    }

    /// Tells the store, when the answer is on disk, that it won't be asked for this change again.
    async fn forget(self, written: CommitHandle) {
        if written.on_disk().await.is_ok() {
            self.delivery.keyvalue.answered(&self.once());
        }
    }
}

//! Makes one attempt at a delivery: runs the module, and writes down how it ended and what is next.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures::FutureExt;

use super::finalize::{self, Outcome};
use super::routes::{RouteSpec, Tenant};
use super::scheduler::RunSlot;
use super::{FailedAttempt, Inner, Runner, supervise};
use crate::call_log::CallLog;
use crate::capabilities::{AttemptContext, Delivery};
use crate::engine::{self, Retry};
use modhost_core::backoff::RetryPolicy;
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::limits::Limits;
use modhost_core::metrics;
use modhost_core::plural::counted;
use modhost_storage::journal::{
    AttemptReport, Call, Claimed, Details, Disposition, FailureReason, JournalError, State,
};

/// How many attempts there are only to tell the user, when there have been enough at the answer.
const TIDYING: u32 = 20;

/// Makes an attempt, to its very end: whatever breaks on the way, the delivery is finalized and its slot freed.
pub(super) async fn attempt(inner: Arc<Inner>, claimed: Claimed, slot: RunSlot) {
    let started = inner.clock.now();
    // What has begun when it ends before its time.
    let begun = OnceLock::new();
    let working = AssertUnwindSafe(work(&inner, &claimed, &begun)).catch_unwind();
    let worked = tokio::select! {
        biased;
        () = lease_lost(&slot, &claimed, &begun) => return,
        worked = working => worked,
    };
    let worked = match worked {
        Ok(worked) => worked,
        Err(panic) => {
            let panic = supervise::message(&*panic).to_owned();
            Worked::Done(after_panic(&inner, &claimed, begun.get(), panic).await)
        }
    };
    // From here on nothing ends it: what is committed has to be told.
    let ending = async {
        match worked {
            Worked::Done(done) => finish(&inner, &claimed, started, done).await,
            Worked::NoVersion => give_back(&inner, &claimed).await,
            Worked::Unreadable => {}
        }
    };
    if let Err(panic) = AssertUnwindSafe(ending).catch_unwind().await {
        let panic = supervise::message(&*panic);
        tracing::error!(delivery = %claimed.id(), panic, "finalizing the delivery panicked; waiting for the lease to expire");
    }
    drop(slot);
}

/// Waits until the delivery is another attempt's. From then on this one changes nothing: neither the record of its calls,
/// which the other reads and writes, nor what the user sees, nor the delivery's state.
async fn lease_lost(slot: &RunSlot, claimed: &Claimed, begun: &OnceLock<Arc<Delivery>>) {
    slot.lost().await;
    if let Some(delivery) = begun.get() {
        delivery.call_log.revoke();
    }
    let (module, delivery, attempt) = (&claimed.module, claimed.id(), claimed.attempt());
    tracing::warn!(%module, %delivery, attempt, "lease lost; the attempt is canceled and its result is discarded");
}

/// What an attempt came to.
enum Worked {
    /// It ended.
    Done(Done),
    /// It didn't begin: there is no version of its module.
    NoVersion,
    /// It didn't begin: it isn't known what was done before.
    Unreadable,
}

/// Runs the module, closes what it left open and decides what is next.
async fn work(inner: &Inner, claimed: &Claimed, begun: &OnceLock<Arc<Delivery>>) -> Worked {
    let routes = inner.routes.load_full();
    let tenant = routes.tenant(&claimed.event.tenant);
    let Some((tenant, route)) = tenant.zip(routes.module(&claimed.module)) else {
        if let Some(tenant) = tenant {
            let calls = match inner.journal.calls(claimed.id()).await {
                Ok(calls) => calls,
                // Without the calls its steps would be left open for good.
                Err(error) => return unreadable(claimed, &error),
            };
            let ended = Ended { id: claimed.id(), event: &claimed.event, module: &claimed.module, calls };
            show_no_answer(inner, ended, tenant, routes.apology()).await;
        }
        let reason = "its module or its tenant is no longer in modules.toml; send it again when it is".into();
        return Worked::Done(Done { version: None, log: Vec::new(), next: Disposition::Dead { reason } });
    };
    let enough = claimed.attempt() - claimed.earlier > route.retry.attempts;
    let chosen = inner.modules.choose(&claimed.module, claimed.id(), claimed.received_at);
    if chosen.is_none() && !enough {
        return Worked::NoVersion;
    }
    let delivery = match begin(inner, claimed, tenant, route).await {
        Ok(delivery) => begun.get_or_init(|| Arc::new(delivery)),
        Err(error) => return unreadable(claimed, &error),
    };
    let (outcome, chosen) = match chosen.filter(|_| !enough) {
        Some(chosen) => (run(inner, delivery, &*chosen).await, Some(chosen)),
        None => (Outcome::GivenUp { reason: why_enough(inner, claimed).await, user_text: None }, None),
    };
    let cut_off = matches!(outcome, Outcome::CutOff);
    let next = finalize::finalize(&*inner.clock, delivery, outcome, route, allowed(&route.retry)).await;
    // A delivery counts once, by its very first attempt: what the host cut off says nothing, and whoever sends a delivery
    // again doesn't make it another one.
    if let Some(chosen) = chosen.as_ref().filter(|_| claimed.attempt() == 1 && !cut_off) {
        chosen.ended(next == Disposition::Completed);
    }
    let version = chosen.map(|chosen| chosen.version());
    metrics::calls_made_again(delivery.call_log.made_again().into());
    inner.calls_made_again.fetch_add(delivery.call_log.made_again().into(), Ordering::Relaxed);
    Worked::Done(Done { version, log: delivery.log.take(), next })
}

fn unreadable(claimed: &Claimed, error: &JournalError) -> Worked {
    tracing::error!(delivery = %claimed.id(), %error, "cannot read the call log; waiting for the lease to expire");
    Worked::Unreadable
}

/// What becomes of a delivery whose attempt panicked, which is a mistake of the host's: it is tried again, as it would be
/// after any other failure that may pass. Its steps are closed where that doesn't panic as well.
async fn after_panic(inner: &Inner, claimed: &Claimed, begun: Option<&Arc<Delivery>>, panic: String) -> Done {
    tracing::error!(module = %claimed.module, delivery = %claimed.id(), panic, "attempt panicked; please report it");
    let reason = format!("internal error in the host: {panic}; please report it");
    let routes = inner.routes.load_full();
    let route = routes.module(&claimed.module);
    if let (Some(delivery), Some(route)) = (begun, route) {
        let outcome = try_again(reason.clone(), None, None);
        let settling = finalize::finalize(&*inner.clock, delivery, outcome, route, allowed(&route.retry));
        if let Ok(next) = AssertUnwindSafe(settling).catch_unwind().await {
            return Done { version: None, log: delivery.log.take(), next };
        }
    }
    let policy = route.map_or(RetryPolicy::DELIVERY, |route| route.retry);
    let attempt = claimed.attempt() - claimed.earlier;
    let next = if attempt < policy.attempts {
        Disposition::Retry { after: policy.delay_after(attempt), reason: FailureReason::new(reason) }
    } else {
        let reason = format!("{reason} (attempt {attempt} of {})", policy.attempts);
        Disposition::Dead { reason: FailureReason::new(reason) }
    };
    Done { version: None, log: Vec::new(), next }
}

/// Why there have been enough attempts: the reason of the last one, or that each was cut off.
async fn why_enough(inner: &Inner, claimed: &Claimed) -> String {
    let known = inner.journal.show(claimed.id()).await.ok().flatten();
    let outcome = known.and_then(|details| Some(details.attempts.last()?.outcome.clone()));
    match outcome {
        Some(outcome) => FailureReason::parse(&outcome).reason().to_owned(),
        None => {
            let times = counted(claimed.attempt() - claimed.earlier - 1, "time", "times");
            format!("cut off {times}: the host was ended each time while it ran")
        }
    }
}

/// How many attempts there are, those included that only tell the user.
fn allowed(policy: &RetryPolicy) -> u32 {
    policy.attempts.saturating_add(TIDYING)
}

async fn begin(inner: &Inner, claimed: &Claimed, tenant: &Tenant, route: &RouteSpec) -> Result<Delivery, JournalError> {
    let recorded = if claimed.calls > 0 { inner.journal.calls(claimed.id()).await? } else { Vec::new() };
    if claimed.attempt() > 1 {
        let (module, delivery, calls) = (&claimed.module, claimed.id(), recorded.len());
        let (attempt, notice) = counted_as(inner, claimed);
        tracing::info!(%module, %delivery, attempt, notice, calls, "starts again");
    }
    let mut call_log = CallLog::new(inner.journal.clone(), claimed.lease.clone(), recorded);
    if !route.resume {
        call_log.start_afresh();
    }
    if claimed.earlier > 0 {
        call_log.make_failed_calls_again();
    }
    Ok(Delivery::new(AttemptContext {
        event: claimed.event.clone(),
        module: claimed.module.clone(),
        attempt: claimed.attempt() - claimed.earlier,
        platform: tenant.platform.clone(),
        keyvalue: inner.keyvalue.clone(),
        call_log,
        limits: route.limits.for_tenant(&tenant.ceilings),
        tenant_memory: tenant.memory.clone(),
        salt: inner.journal.salt(),
    }))
}

/// Tells the user of a delivery that a person dropped that there will be no answer.
pub(super) async fn show_dropped(inner: &Inner, dropped: &Details, reason: &str) {
    let (summary, routes) = (&dropped.summary, inner.routes.load_full());
    tracing::info!(module = %summary.module, delivery = %summary.id, "dropped: {reason}");
    if let Some(tenant) = routes.tenant(&summary.tenant) {
        let apology = routes.module(&summary.module).map_or(routes.apology(), |route| &route.apology);
        let (id, event, module, calls) = (&summary.id, &dropped.event, &summary.module, dropped.calls.clone());
        show_no_answer(inner, Ended { id, event, module, calls }, tenant, apology).await;
    }
}

/// A delivery that will not run again.
struct Ended<'a> {
    id: &'a DeliveryId,
    event: &'a Arc<Event>,
    module: &'a Name,
    calls: Vec<Call>,
}

/// Closes what a delivery that will not run again has left open, and tells its user.
async fn show_no_answer(inner: &Inner, ended: Ended<'_>, tenant: &Tenant, apology: &str) {
    let Ended { id, event, module, calls } = ended;
    let delivery = Delivery::new(AttemptContext {
        event: event.clone(),
        module: module.clone(),
        attempt: 1,
        platform: tenant.platform.clone(),
        keyvalue: inner.keyvalue.clone(),
        call_log: CallLog::dry_run(id.clone(), calls),
        limits: Limits::default(),
        tenant_memory: None,
        salt: inner.journal.salt(),
    });
    if let Err(error) = finalize::apologise(&delivery, apology.to_owned()).await {
        tracing::error!(%module, delivery = %delivery.id, "the user could not be told that there is no answer: {error}");
    }
}

/// Makes a delivery wait again that there is no version for. None is claimed while its module has no version, but the module
/// may have been taken out of modules.toml and put back since.
async fn give_back(inner: &Inner, claimed: &Claimed) {
    let lane = (claimed.event.tenant.clone(), claimed.module.clone());
    match inner.journal.unclaim(&claimed.lease).await {
        // The scheduler leaves the lane alone until a version serves.
        Ok(_) => inner.woken([lane]),
        Err(error) => tracing::error!(
            module = %claimed.module, delivery = %claimed.id(), %error, "cannot return a delivery; waiting for the lease to expire"
        ),
    }
}

/// Runs the version of the module that is this delivery's.
async fn run(inner: &Inner, delivery: &Arc<Delivery>, runner: &dyn Runner) -> Outcome {
    let (module, id, event) = (&delivery.module, &delivery.id, &delivery.event);
    tracing::debug!(%module, delivery = %id, version = %runner.version(), event = event.id, name = event.name, "delivery begins");
    // A panic in the host is a mistake of ours; the user must not pay for it with a spinner that never stops.
    let ended = tokio::select! {
        ended = AssertUnwindSafe(runner.run(delivery)).catch_unwind() => ended,
        () = inner.stop.cancelled() => return Outcome::CutOff,
    };
    match ended {
        Ok(ended) => outcome(ended),
        Err(_) => try_again("the host itself broke while it served the module: please report this".into(), None, None),
    }
}

/// What the end of an instance means for its delivery. What would end the same way again is given up: an attempt that
/// gets the same answers takes the same way.
fn outcome(ended: engine::Ended) -> Outcome {
    match ended {
        engine::Ended::Answered => Outcome::Answered,
        engine::Ended::Failed(failure) => match failure.retry {
            Retry::No => Outcome::GivenUp { reason: failure.reason, user_text: failure.user_text },
            Retry::Yes => try_again(failure.reason, None, failure.user_text),
            Retry::After(wait) => try_again(failure.reason, Some(wait), failure.user_text),
        },
        engine::Ended::Trapped { reason } => Outcome::GivenUp { reason: format!("trap: {reason}"), user_text: None },
        engine::Ended::LimitReached(limit) if limit.is_temporary() => {
            try_again(format!("limit reached: {limit}"), None, None)
        }
        engine::Ended::LimitReached(limit) => {
            Outcome::GivenUp { reason: format!("limit reached: {limit}"), user_text: None }
        }
    }
}

fn try_again(reason: String, after: Option<Duration>, user_text: Option<String>) -> Outcome {
    Outcome::TryAgain { reason, after, user_text }
}

/// How an attempt went.
struct Done {
    version: Option<String>,
    log: Vec<modhost_storage::journal::LogLine>,
    next: Disposition,
}

/// Writes down how an attempt went and what is next.
async fn finish(inner: &Inner, claimed: &Claimed, started: SystemTime, done: Done) {
    let (outcome, state, retry_after) = match &done.next {
        Disposition::Completed => ("completed".to_owned(), State::Completed, None),
        Disposition::Retry { after, reason } => (reason.to_string(), State::Waiting, Some(*after)),
        Disposition::Dead { reason } => (reason.to_string(), State::Dead, None),
        Disposition::Dropped { reason } => (reason.clone(), State::Dropped, None),
    };
    let took = inner.clock.now().duration_since(started).unwrap_or_default();
    tell(inner, claimed, &done, took);
    if let Disposition::Retry { reason, .. } | Disposition::Dead { reason } = &done.next {
        inner.failures.tell(|| FailedAttempt {
            event: claimed.event.clone(),
            module: claimed.module.clone(),
            delivery: claimed.id().clone(),
            attempt: claimed.attempt(),
            again: state == State::Waiting,
            reason: reason.to_string(),
            log: done.log.clone(),
        });
    }
    metrics::attempt(&claimed.module, &claimed.event.tenant, state.word(), took);
    let report = AttemptReport { took, version: done.version, outcome, log: done.log };
    if let Err(error) = inner.journal.complete_attempt(&claimed.lease, report, done.next).await {
        tracing::error!(delivery = %claimed.id(), %error, "cannot record the outcome; the delivery will be retried");
    }
    // After an error as well, because the outcome may have been recorded all the same.
    if state != State::Waiting {
        // Of a chat whose deliveries go one at a time the next may begin.
        inner.woken([(claimed.event.tenant.clone(), claimed.module.clone())]);
    }
    if let Some(after) = retry_after {
        inner.look_again(inner.clock.now() + after);
    }
}

/// How an attempt is counted in the log, which is how the reasons beside it and the module itself count: from 1 since the delivery
/// was last sent, to as many as there may be. Beyond that, which one it is of those that only tell the user.
fn counted_as(inner: &Inner, claimed: &Claimed) -> (u32, Option<u32>) {
    let number = claimed.attempt() - claimed.earlier;
    let most = inner.routes.load().module(&claimed.module).map_or(number, |route| route.retry.attempts);
    (number.min(most), number.checked_sub(most).filter(|notice| *notice > 0))
}

fn tell(inner: &Inner, claimed: &Claimed, done: &Done, took: std::time::Duration) {
    let (module, delivery, event) = (&claimed.module, claimed.id(), &claimed.event.id);
    let (attempt, notice) = counted_as(inner, claimed);
    match &done.next {
        Disposition::Completed => tracing::info!(%module, %delivery, ?took, "completed"),
        Disposition::Retry { after: wait, reason } => {
            tracing::warn!(%module, %delivery, event, attempt, notice, ?took, "failed, tried again in {wait:.1?}: {reason}");
        }
        Disposition::Dead { reason } => {
            tracing::warn!(%module, %delivery, event, attempt, notice, ?took, "failed: {reason}");
        }
        Disposition::Dropped { reason } => tracing::warn!(%module, %delivery, event, "dropped: {reason}"),
    }
}

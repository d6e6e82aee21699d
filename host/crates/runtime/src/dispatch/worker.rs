//! Makes one attempt at a delivery: runs the module and records the outcome and the next state.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures::FutureExt;

use super::finalize::{self, Outcome};
use super::routes::{RouteSpec, Tenant};
use super::scheduler::RunSlot;
use super::{FailedAttempt, Inner, Runner, supervise};
use crate::call_log::{CallLog, HostLease};
use crate::capabilities::{AttemptContext, Delivery};
use crate::engine::{self, Retry};
use modhost_core::backoff::RetryPolicy;
use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::limits::Limits;
use modhost_core::metrics;
use modhost_core::plural::counted;
use modhost_core::tenant_meter;
use modhost_storage::journal::{
    AttemptReport, Call, Claimed, Details, Disposition, FailureReason, JournalError, State,
};

/// A delivery that was interrupted at least this often runs only while no other such delivery runs.
const SUSPECT_AFTER_INTERRUPTIONS: u32 = 2;

/// Maximum number of extra attempts that only notify the user, once the attempts of the retry policy are used up.
const MAX_NOTICE_ATTEMPTS: u32 = 20;

/// Makes an attempt. Whatever fails or panics, the delivery is finalized and its run slot is released.
pub(super) async fn attempt(inner: Arc<Inner>, claimed: Claimed, slot: RunSlot) {
    let started = inner.clock.now();
    if claimed.attempt() == 1 {
        let waited = started.duration_since(claimed.received_at).unwrap_or_default();
        tenant_meter::of(&claimed.event.tenant).add_delivery_wait(waited);
    }
    // Set once the attempt has started. The handlers of a lost lease and of a panic use it.
    let started_delivery = OnceLock::new();
    let attempt = AssertUnwindSafe(work(&inner, &claimed, &started_delivery)).catch_unwind();
    let result = tokio::select! {
        biased;
        () = lease_lost(&slot, &claimed, &started_delivery) => return,
        result = attempt => result,
    };
    let result = match result {
        Ok(result) => result,
        Err(panic) => {
            let panic = supervise::message(&*panic).to_owned();
            AttemptResult::Done(after_panic(&inner, &claimed, started_delivery.get(), panic).await)
        }
    };
    // A lost lease no longer cancels the attempt: a committed outcome has to be reported.
    let ending = async {
        match result {
            AttemptResult::Done(done) => finish(&inner, &claimed, started, done, slot).await,
            AttemptResult::NoVersion => {
                return_to_queue(&inner, &claimed).await;
                drop(slot);
            }
            AttemptResult::Unreadable => {
                inner.lease_operations.not_recorded(&claimed.lease);
                drop(slot);
            }
        }
    };
    if let Err(panic) = AssertUnwindSafe(ending).catch_unwind().await {
        let panic = supervise::message(&*panic);
        tracing::error!(delivery = %claimed.id(), panic, "finalizing the delivery panicked; waiting for the lease to expire");
    }
}

/// Waits until the lease is lost. From then on this attempt must change nothing: neither the call log, which the new
/// owner reads and writes, nor what the user sees, nor the state of the delivery.
async fn lease_lost(slot: &RunSlot, claimed: &Claimed, started_delivery: &OnceLock<Arc<Delivery>>) {
    slot.lease_lost().await;
    if let Some(delivery) = started_delivery.get() {
        delivery.call_log.revoke();
    }
    let (module, delivery, attempt) = (&claimed.module, claimed.id(), claimed.attempt());
    tracing::warn!(%module, %delivery, attempt, "lease lost; the attempt is canceled and its result is discarded");
}

/// The result of an attempt.
enum AttemptResult {
    /// The attempt ended.
    Done(Done),
    /// The attempt did not start: its module has no version here, or only other hosts have it.
    NoVersion,
    /// The attempt did not start: the call log cannot be read.
    Unreadable,
}

/// Runs the module, finalizes the attempt, and decides the next state.
async fn work(inner: &Inner, claimed: &Claimed, started_delivery: &OnceLock<Arc<Delivery>>) -> AttemptResult {
    // A delivery that was running each time the host stopped may be what stops the host. Such deliveries run one at a
    // time, so that the harmless ones complete. Settings and version are those after the wait.
    let _alone = match claimed.interrupted {
        ..SUSPECT_AFTER_INTERRUPTIONS => None,
        _ => inner.stop.run_until_cancelled(inner.suspects.acquire()).await,
    };
    let routes = inner.routes.load_full();
    let tenant = routes.tenant(&claimed.event.tenant);
    let Some((tenant, route)) = tenant.zip(routes.module(&claimed.module)) else {
        if inner.is_left_to_others(&routes, &claimed.event.tenant, &claimed.module) {
            return AttemptResult::NoVersion;
        }
        if let Some(tenant) = tenant {
            let calls = match inner.journal.calls(claimed.id()).await {
                Ok(calls) => calls,
                // Without the call log, the open steps are unknown and would stay open.
                Err(error) => return unreadable(claimed, &error),
            };
            let host_lease = inner.membership.lease();
            let (id, event, module) = (claimed.id(), &claimed.event, &claimed.module);
            let ended = EndedDelivery { id, event, module, calls, host_lease: Some(host_lease) };
            notify_no_answer(inner, ended, tenant, routes.apology()).await;
        }
        let reason = "its module or its tenant is no longer in modules.toml; send it again once both are back".into();
        return AttemptResult::Done(Done { version: None, log: Vec::new(), next: Disposition::Dead { reason } });
    };
    let exhausted = claimed.attempt() - claimed.earlier_attempts > route.retry.attempts;
    let chosen = inner.modules.choose(&claimed.module, claimed.id(), claimed.received_at);
    if chosen.is_none() && !exhausted {
        return AttemptResult::NoVersion;
    }
    let delivery = match begin(inner, claimed, tenant, route).await {
        Ok(delivery) => started_delivery.get_or_init(|| Arc::new(delivery)),
        Err(error) => return unreadable(claimed, &error),
    };
    let (outcome, chosen) = match chosen.filter(|_| !exhausted) {
        Some(chosen) => (run(inner, delivery, &*chosen).await, Some(chosen)),
        None => (Outcome::GivenUp { reason: exhausted_reason(inner, claimed).await, user_text: None }, None),
    };
    let cut_off = matches!(outcome, Outcome::Interrupted);
    let next = finalize::finalize(&*inner.clock, delivery, outcome, route, max_attempts(&route.retry)).await;
    // Only the first attempt of a delivery is evidence for a canary. An attempt that the host canceled isn't evidence,
    // and sending a delivery again doesn't make it count twice.
    if let Some(chosen) = chosen.as_ref().filter(|_| claimed.attempt() == 1 && !cut_off) {
        chosen.ended(next == Disposition::Completed);
    }
    let version = chosen.map(|chosen| chosen.version());
    metrics::calls_made_again(delivery.call_log.repeated_calls().into());
    inner.repeated_calls.fetch_add(delivery.call_log.repeated_calls().into(), Ordering::Relaxed);
    AttemptResult::Done(Done { version, log: delivery.log.take(), next })
}

fn unreadable(claimed: &Claimed, error: &JournalError) -> AttemptResult {
    tracing::error!(delivery = %claimed.id(), %error, "cannot read the call log; waiting for the lease to expire");
    AttemptResult::Unreadable
}

/// Decides the next state of a delivery whose attempt panicked. A panic is a bug in the host: the delivery is retried,
/// as after any temporary failure. Its steps are closed, unless that panics too.
async fn after_panic(inner: &Inner, claimed: &Claimed, started: Option<&Arc<Delivery>>, panic: String) -> Done {
    tracing::error!(module = %claimed.module, delivery = %claimed.id(), panic, "attempt panicked; please report it");
    let reason = format!("internal error in the host: {panic}; please report it");
    let routes = inner.routes.load_full();
    let route = routes.module(&claimed.module);
    if let (Some(delivery), Some(route)) = (started, route) {
        let outcome = try_again(reason.clone(), None, None);
        let finalizing = finalize::finalize(&*inner.clock, delivery, outcome, route, max_attempts(&route.retry));
        if let Ok(next) = AssertUnwindSafe(finalizing).catch_unwind().await {
            return Done { version: None, log: delivery.log.take(), next };
        }
    }
    let policy = route.map_or(RetryPolicy::DELIVERY, |route| route.retry);
    let attempt = claimed.attempt() - claimed.earlier_attempts;
    let next = if attempt < policy.attempts {
        Disposition::Retry { after: policy.delay_after(attempt), reason: FailureReason::new(reason) }
    } else {
        let reason = format!("{reason} (attempt {attempt} of {})", policy.attempts);
        Disposition::Dead { reason: FailureReason::new(reason) }
    };
    Done { version: None, log: Vec::new(), next }
}

/// Returns why the attempts are used up: the reason of the last one, or that the host stopped during each of them.
async fn exhausted_reason(inner: &Inner, claimed: &Claimed) -> String {
    let details = inner.journal.show(claimed.id()).await.ok().flatten();
    let outcome = details.and_then(|details| Some(details.attempts.last()?.outcome.clone()));
    match outcome {
        Some(outcome) => FailureReason::parse(&outcome).reason().to_owned(),
        None => {
            let times = counted(claimed.attempt() - claimed.earlier_attempts - 1, "time", "times");
            format!("interrupted {times}: the host stopped each time while the delivery ran")
        }
    }
}

/// Returns the maximum number of attempts, including those that only notify the user.
fn max_attempts(policy: &RetryPolicy) -> u32 {
    policy.attempts.saturating_add(MAX_NOTICE_ATTEMPTS)
}

/// Reads the call log and creates the delivery of an attempt.
async fn begin(inner: &Inner, claimed: &Claimed, tenant: &Tenant, route: &RouteSpec) -> Result<Delivery, JournalError> {
    let recorded = if claimed.calls > 0 { inner.journal.calls(claimed.id()).await? } else { Vec::new() };
    if claimed.attempt() > 1 {
        let (module, delivery, calls) = (&claimed.module, claimed.id(), recorded.len());
        let (attempt, notice) = counted_as(inner, claimed);
        tracing::info!(%module, %delivery, attempt, notice, calls, "delivery resumed");
    }
    let call_log = CallLog::new(inner.journal.clone(), claimed.lease.clone(), recorded);
    let mut call_log = call_log.with_quota(inner.quota(tenant)).with_host_lease(inner.membership.lease());
    if !route.resume {
        call_log.disable_replay();
    }
    if claimed.earlier_attempts > 0 {
        call_log.repeat_failed_calls();
    }
    Ok(Delivery::new(AttemptContext {
        event: claimed.event.clone(),
        module: claimed.module.clone(),
        attempt: claimed.attempt() - claimed.earlier_attempts,
        platform: tenant.platform.clone(),
        keyvalue: inner.keyvalue.clone(),
        call_log,
        limits: route.limits.for_tenant(&tenant.ceilings),
        tenant_memory: Some(tenant.memory.clone()),
        tenant_log: Some(tenant.log.clone()),
        salt: inner.journal.salt(),
    }))
}

/// Notifies the user of a delivery that an operator dropped.
pub(super) async fn notify_dropped(inner: &Inner, dropped: &Details, reason: &str) {
    let (summary, routes) = (&dropped.summary, inner.routes.load_full());
    tracing::info!(module = %summary.module, delivery = %summary.id, reason, "delivery dropped");
    if let Some(tenant) = routes.tenant(&summary.tenant) {
        let apology = routes.module(&summary.module).map_or(routes.apology(), |route| &route.apology);
        let (id, event, module, calls) = (&summary.id, &dropped.event, &summary.module, dropped.calls.clone());
        let ended = EndedDelivery { id, event, module, calls, host_lease: None };
        notify_no_answer(inner, ended, tenant, apology).await;
    }
}

/// The parts of a delivery that will not run again.
struct EndedDelivery<'a> {
    id: &'a DeliveryId,
    event: &'a Arc<Event>,
    module: &'a Name,
    calls: Vec<Call>,
    /// The lease of the host, if it holds the delivery.
    host_lease: Option<Arc<HostLease>>,
}

/// Closes the open steps of a delivery that will not run again, and notifies its user.
async fn notify_no_answer(inner: &Inner, ended: EndedDelivery<'_>, tenant: &Tenant, apology: &str) {
    let EndedDelivery { id, event, module, calls, host_lease } = ended;
    let mut call_log = CallLog::dry_run(id.clone(), calls);
    if let Some(lease) = host_lease {
        call_log = call_log.with_host_lease(lease);
    }
    let delivery = Delivery::new(AttemptContext {
        event: event.clone(),
        module: module.clone(),
        attempt: 1,
        platform: tenant.platform.clone(),
        keyvalue: inner.keyvalue.clone(),
        call_log,
        limits: Limits::default(),
        tenant_memory: None,
        tenant_log: None,
        salt: inner.journal.salt(),
    });
    if let Err(error) = finalize::notify_failure(&delivery, apology.to_owned()).await {
        tracing::error!(%module, delivery = %delivery.id, %error, "cannot show the user that there is no answer");
    }
}

/// Returns a delivery whose module has no version to the queue. The scheduler claims none while a module has no
/// version, but the module may have been removed from modules.toml and added again since.
async fn return_to_queue(inner: &Inner, claimed: &Claimed) {
    let lane = (claimed.event.tenant.clone(), claimed.module.clone());
    match inner.journal.unclaim(&claimed.lease).await {
        // The scheduler skips the lane until a version serves.
        Ok(_) => inner.woken([lane]),
        Err(error) => tracing::error!(
            module = %claimed.module, delivery = %claimed.id(), %error, "cannot return a delivery; waiting for the lease to expire"
        ),
    }
}

/// Runs the chosen version of the module.
async fn run(inner: &Inner, delivery: &Arc<Delivery>, runner: &dyn Runner) -> Outcome {
    let (module, id, event) = (&delivery.module, &delivery.id, &delivery.event);
    tracing::debug!(%module, delivery = %id, version = %runner.version(), event = event.id, name = event.name, "attempt started");
    // A panic is a bug in the host: it is retried, so that the user's steps and reply are completed.
    match AssertUnwindSafe(runner.run(delivery, &inner.stop)).catch_unwind().await {
        Ok(Some(ended)) => outcome(ended),
        Ok(None) => Outcome::Interrupted,
        Err(_) => try_again("internal error in the host: the attempt panicked; please report it".into(), None, None),
    }
}

/// Maps the end of an instance to the outcome of its attempt. A deterministic failure is given up: a retry replays the
/// same answers and fails in the same way.
fn outcome(ended: engine::GuestOutcome) -> Outcome {
    match ended {
        engine::GuestOutcome::Answered => Outcome::Answered,
        engine::GuestOutcome::Failed(failure) => match failure.retry {
            Retry::No => Outcome::GivenUp { reason: failure.reason, user_text: failure.user_text },
            Retry::Yes => try_again(failure.reason, None, failure.user_text),
            Retry::After(wait) => try_again(failure.reason, Some(wait), failure.user_text),
        },
        engine::GuestOutcome::Trapped { reason } => {
            Outcome::GivenUp { reason: format!("trap: {reason}"), user_text: None }
        }
        engine::GuestOutcome::LimitReached(limit) if limit.is_temporary() => {
            try_again(format!("limit reached: {limit}"), None, None)
        }
        engine::GuestOutcome::LimitReached(limit) => {
            Outcome::GivenUp { reason: format!("limit reached: {limit}"), user_text: None }
        }
    }
}

fn try_again(reason: String, after: Option<Duration>, user_text: Option<String>) -> Outcome {
    Outcome::TryAgain { reason, after, user_text }
}

/// The report of an attempt that ended.
struct Done {
    version: Option<String>,
    log: Vec<modhost_storage::journal::LogLine>,
    next: Disposition,
}

/// Logs, counts and records the outcome of an attempt and its next state. The run slot is released before the journal has
/// the outcome, which may take milliseconds; the number of attempts that are being recorded is limited.
async fn finish(inner: &Inner, claimed: &Claimed, started: SystemTime, done: Done, slot: RunSlot) {
    let (outcome, state, retry_after) = match &done.next {
        Disposition::Completed => ("completed".to_owned(), State::Completed, None),
        Disposition::Retry { after, reason } => (reason.to_string(), State::Waiting, Some(*after)),
        Disposition::Dead { reason } => (reason.to_string(), State::Dead, None),
        Disposition::Dropped { reason } => (reason.clone(), State::Dropped, None),
    };
    let took = inner.clock.now().duration_since(started).unwrap_or_default();
    log_outcome(inner, claimed, &done, took);
    if let Disposition::Retry { reason, .. } | Disposition::Dead { reason } = &done.next {
        inner.failures.report(|| FailedAttempt {
            event: claimed.event.clone(),
            module: claimed.module.clone(),
            delivery: claimed.id().clone(),
            attempt: claimed.attempt(),
            will_retry: state == State::Waiting,
            reason: reason.to_string(),
            log: done.log.clone(),
        });
    }
    metrics::attempt(&claimed.module, &claimed.event.tenant, state.name(), took);
    let report = AttemptReport { took, version: done.version, outcome, log: done.log };
    let _permit = inner.completing.acquire().await;
    let _in_flight = inner.lease_operations.begin(inner.clock.since_boot());
    drop(slot);
    let released = inner.journal.complete_attempt(&claimed.lease, report, done.next).await;
    if let Err(error) = &released {
        inner.lease_operations.not_recorded(&claimed.lease);
        tracing::error!(delivery = %claimed.id(), %error, "cannot record the outcome; the delivery will be retried");
    }
    // The next delivery of its chat may start now. Also after an error: the outcome may have been recorded nonetheless.
    if released.unwrap_or(true) {
        inner.woken([(claimed.event.tenant.clone(), claimed.module.clone())]);
    }
    if let Some(after) = retry_after {
        inner.rescan(inner.clock.now() + after);
    }
}

/// Returns the number of an attempt for the log, counted as in failure reasons and as the module sees it: from 1 since
/// the delivery was last sent, up to the maximum of its retry policy. The second value numbers the attempts beyond it,
/// which only notify the user.
fn counted_as(inner: &Inner, claimed: &Claimed) -> (u32, Option<u32>) {
    let number = claimed.attempt() - claimed.earlier_attempts;
    let max = inner.routes.load().module(&claimed.module).map_or(number, |route| route.retry.attempts);
    (number.min(max), number.checked_sub(max).filter(|notice| *notice > 0))
}

fn log_outcome(inner: &Inner, claimed: &Claimed, done: &Done, took: std::time::Duration) {
    let (module, delivery, event) = (&claimed.module, claimed.id(), &claimed.event.id);
    let (attempt, notice) = counted_as(inner, claimed);
    match &done.next {
        Disposition::Completed => tracing::info!(%module, %delivery, ?took, "delivery completed"),
        Disposition::Retry { after, reason } => {
            let retry_in = format!("{after:.1?}");
            tracing::warn!(%module, %delivery, event, attempt, notice, ?took, retry_in, %reason, "attempt failed; retrying");
        }
        Disposition::Dead { reason } => {
            tracing::warn!(%module, %delivery, event, attempt, notice, ?took, %reason, "delivery failed");
        }
        Disposition::Dropped { reason } => tracing::warn!(%module, %delivery, event, %reason, "delivery dropped"),
    }
}

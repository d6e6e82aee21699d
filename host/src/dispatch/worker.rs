//! Makes one attempt at a delivery: runs the module, and writes down how it ended and what is next.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use futures::FutureExt;

use super::routes::{RouteSpec, Tenant};
use super::scheduler::Place;
use super::settle::{self, Outcome};
use super::{FailedAttempt, Inner, RetryPolicy};
use crate::capabilities::{Begin, Delivery, Tape};
use crate::clock;
use crate::engine::{Chosen, Ended, Retry};
use crate::event::{DeliveryId, Event, Name};
use crate::journal::{Attempt, Call, Claimed, Details, JournalError, Next, State};
use crate::limits::Limits;
use crate::telemetry::{indented, metrics};

/// How many attempts there are only to tell the user, when there have been enough at the answer.
const TIDYING: u32 = 20;

/// Makes an attempt, to its very end.
pub(super) async fn attempt(inner: Arc<Inner>, claimed: Claimed, place: Place) {
    let started = clock::now();
    let routes = inner.routes.load_full();
    let tenant = routes.tenant(&claimed.event.tenant);
    let Some((tenant, route)) = tenant.zip(routes.module(&claimed.module)) else {
        if let Some(tenant) = tenant {
            let calls = inner.journal.calls(&claimed.id).await.unwrap_or_default();
            tell_no_answer(&inner, &claimed.event, &claimed.module, calls, tenant, routes.apology()).await;
        }
        let reason = "its module or its tenant is no longer in modules.toml; send it again when it is".to_owned();
        return finish(&inner, &claimed, started, Done { version: None, log: Vec::new(), next: Next::Dead { reason } })
            .await;
    };
    let enough = claimed.attempt - claimed.earlier > route.retry.attempts;
    let chosen = inner.registry.choose(&claimed.module, &claimed.id, claimed.received_at);
    if chosen.is_none() && !enough {
        return give_back(&inner, &claimed).await;
    }
    let delivery = match begin(&inner, &claimed, tenant, route).await {
        Ok(delivery) => Arc::new(delivery),
        Err(error) => {
            tracing::error!(delivery = %claimed.id, "its record can't be read, its lease runs out: {error}");
            return;
        }
    };
    let (outcome, chosen) = match chosen.filter(|_| !enough) {
        Some(chosen) => (run(&inner, &delivery, &chosen).await, Some(chosen)),
        None => (Outcome::GivenUp { reason: why_enough(&inner, &claimed).await, user_text: None }, None),
    };
    let cut_off = matches!(outcome, Outcome::CutOff);
    let next = settle::settle(&delivery, outcome, route, allowed(&route.retry)).await;
    // A delivery counts once, by its first attempt; what the host cut off says nothing.
    if let Some(chosen) = chosen.as_ref().filter(|_| delivery.attempt == 1 && !cut_off) {
        chosen.ended(next == Next::Completed);
    }
    let version = chosen.map(|chosen| chosen.version.hash().to_string());
    metrics::calls_made_again(delivery.tape.made_again().into());
    inner.calls_made_again.fetch_add(delivery.tape.made_again().into(), Ordering::Relaxed);
    finish(&inner, &claimed, started, Done { version, log: delivery.log.take(), next }).await;
    drop(place);
}

/// Why there have been enough attempts: the reason of the last one, or that each was cut off.
async fn why_enough(inner: &Inner, claimed: &Claimed) -> String {
    let known = inner.journal.show(&claimed.id).await.ok().flatten();
    let reason = known.and_then(|details| Some(details.attempts.last()?.outcome.clone()));
    match reason {
        Some(reason) => reason.split(settle::NOT_TOLD).next().unwrap_or_default().to_owned(),
        None => format!("cut off {} times: the host was ended each time while it ran", claimed.attempt - 1),
    }
}

/// How many attempts there are, those included that only tell the user.
fn allowed(policy: &RetryPolicy) -> u32 {
    policy.attempts.saturating_add(TIDYING)
}

async fn begin(inner: &Inner, claimed: &Claimed, tenant: &Tenant, route: &RouteSpec) -> Result<Delivery, JournalError> {
    let recorded = if claimed.calls > 0 { inner.journal.calls(&claimed.id).await? } else { Vec::new() };
    if claimed.attempt > 1 {
        let (module, delivery, calls) = (&claimed.module, &claimed.id, recorded.len());
        tracing::info!(%module, %delivery, attempt = claimed.attempt, calls, "starts again");
    }
    let mut tape = Tape::new(inner.journal.clone(), claimed.id.clone(), recorded);
    if !route.resume {
        tape.start_afresh();
    }
    if claimed.earlier > 0 {
        tape.make_failed_calls_again();
    }
    Ok(Delivery::new(Begin {
        event: claimed.event.clone(),
        module: claimed.module.clone(),
        attempt: claimed.attempt - claimed.earlier,
        platform: tenant.platform.clone(),
        keyvalue: inner.keyvalue.clone(),
        tape,
        limits: route.limits.for_tenant(&tenant.ceilings),
        tenant_memory: tenant.memory.clone(),
        salt: inner.journal.salt(),
    }))
}

/// Tells the user of a delivery that a person dropped that there will be no answer.
pub(super) async fn tell_dropped(inner: &Inner, dropped: &Details, reason: &str) {
    let (summary, routes) = (&dropped.summary, inner.routes.load_full());
    tracing::info!(module = %summary.module, delivery = %summary.id, "dropped: {reason}");
    if let Some(tenant) = routes.tenant(&summary.tenant) {
        let apology = routes.module(&summary.module).map_or(routes.apology(), |route| &route.apology);
        tell_no_answer(inner, &dropped.event, &summary.module, dropped.calls.clone(), tenant, apology).await;
    }
}

/// Closes what a delivery that will not run again has left open, and tells its user.
async fn tell_no_answer(
    inner: &Inner,
    event: &Arc<Event>,
    module: &Name,
    calls: Vec<Call>,
    tenant: &Tenant,
    apology: &str,
) {
    let delivery = Delivery::new(Begin {
        event: event.clone(),
        module: module.clone(),
        attempt: 1,
        platform: tenant.platform.clone(),
        keyvalue: inner.keyvalue.clone(),
        tape: Tape::rehearsal(DeliveryId::new(event, module), calls),
        limits: Limits::default(),
        tenant_memory: None,
        salt: inner.journal.salt(),
    });
    if let Err(error) = settle::apologise(&delivery, apology.to_owned()).await {
        tracing::error!(%module, delivery = %delivery.id, "the user could not be told that there is no answer: {error}");
    }
}

/// Makes a delivery wait again that there is no version for. None is claimed while its module has no version, but the module
/// may have been taken out of modules.toml and put back since.
async fn give_back(inner: &Inner, claimed: &Claimed) {
    let lane = (claimed.event.tenant.clone(), claimed.module.clone());
    match inner.journal.unclaim(claimed, &inner.settings.owner, clock::now()).await {
        // The scheduler leaves the lane alone until a version serves.
        Ok(_) => inner.woken([lane]),
        Err(error) => tracing::error!(
            module = %claimed.module, delivery = %claimed.id, %error, "cannot return a delivery; waiting for the lease to expire"
        ),
    }
}

/// Runs the version of the module that is this delivery's.
async fn run(inner: &Inner, delivery: &Arc<Delivery>, chosen: &Chosen) -> Outcome {
    let hash = chosen.version.hash();
    let (module, id, event) = (&delivery.module, &delivery.id, &delivery.event);
    tracing::debug!(%module, delivery = %id, version = %hash, event = event.id, name = event.name, "delivery begins");
    // A panic in the host is a mistake of ours; the user must not pay for it with a spinner that never stops.
    let ended = tokio::select! {
        ended = AssertUnwindSafe(chosen.version.run(delivery)).catch_unwind() => ended,
        () = inner.stop.cancelled() => return Outcome::CutOff,
    };
    match ended {
        Ok(ended) => outcome(ended),
        Err(_) => try_again("the host itself broke while it served the module: please report this".into(), None, None),
    }
}

/// What the end of an instance means for its delivery. What would end the same way again is given up: an attempt that
/// gets the same answers takes the same way.
fn outcome(ended: Ended) -> Outcome {
    match ended {
        Ended::Answered => Outcome::Answered,
        Ended::Failed(failure) => match failure.retry {
            Retry::No => Outcome::GivenUp { reason: failure.reason, user_text: failure.user_text },
            Retry::Yes => try_again(failure.reason, None, failure.user_text),
            Retry::After(wait) => try_again(failure.reason, Some(wait), failure.user_text),
        },
        Ended::Trapped { reason } => Outcome::GivenUp { reason: format!("trap: {reason}"), user_text: None },
        Ended::LimitReached(limit) if limit.is_temporary() => try_again(format!("limit reached: {limit}"), None, None),
        Ended::LimitReached(limit) => Outcome::GivenUp { reason: format!("limit reached: {limit}"), user_text: None },
    }
}

fn try_again(reason: String, after: Option<Duration>, user_text: Option<String>) -> Outcome {
    Outcome::TryAgain { reason, after, user_text }
}

/// How an attempt went.
struct Done {
    version: Option<String>,
    log: Vec<crate::journal::LogLine>,
    next: Next,
}

/// Writes down how an attempt went and what is next.
async fn finish(inner: &Inner, claimed: &Claimed, started: SystemTime, done: Done) {
    let ended = clock::now();
    let (outcome, state, retry_at) = match &done.next {
        Next::Completed => ("completed".to_owned(), State::Completed, None),
        Next::Retry { at, reason } => (reason.clone(), State::Waiting, Some(*at)),
        Next::Dead { reason } => (reason.clone(), State::Dead, None),
        Next::Dropped { reason } => (reason.clone(), State::Dropped, None),
    };
    let took = ended.duration_since(started).unwrap_or_default();
    tell(claimed, &done, took);
    if let Next::Retry { reason, .. } | Next::Dead { reason } = &done.next {
        inner.failures.tell(|| FailedAttempt {
            event: claimed.event.clone(),
            module: claimed.module.clone(),
            delivery: claimed.id.clone(),
            attempt: claimed.attempt,
            again: state == State::Waiting,
            reason: reason.clone(),
            log: done.log.clone(),
        });
    }
    metrics::attempt(&claimed.module, &claimed.event.tenant, state, took);
    let attempt = Attempt {
        number: claimed.attempt,
        owner: inner.settings.owner.clone(),
        started,
        ended,
        version: done.version,
        outcome,
        log: done.log,
    };
    if let Err(error) = inner.journal.settle(claimed.id.clone(), attempt, done.next).await {
        tracing::error!(delivery = %claimed.id, "how it ended can't be written down, it starts again: {error}");
        return;
    }
    if state != State::Waiting {
        inner.depth.remove(&claimed.event.tenant, 1);
        // Of a chat whose deliveries go one at a time the next may begin.
        inner.woken([(claimed.event.tenant.clone(), claimed.module.clone())]);
    }
    if let Some(at) = retry_at {
        inner.look_again(at);
    }
}

fn tell(claimed: &Claimed, done: &Done, took: std::time::Duration) {
    let (module, delivery, event, attempt) = (&claimed.module, &claimed.id, &claimed.event.id, claimed.attempt);
    match &done.next {
        Next::Completed => tracing::info!(%module, %delivery, ?took, "completed"),
        Next::Retry { at, reason } => {
            let wait = at.duration_since(clock::now()).unwrap_or_default();
            let reason = indented(reason);
            tracing::warn!(%module, %delivery, event, attempt, ?took, "failed, tried again in {wait:.1?}: {reason}");
        }
        Next::Dead { reason } => {
            tracing::warn!(%module, %delivery, event, attempt, ?took, "failed: {}", indented(reason));
        }
        Next::Dropped { reason } => tracing::warn!(%module, %delivery, event, "dropped: {}", indented(reason)),
    }
}

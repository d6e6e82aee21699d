//! Finalizes an attempt: closes its steps and completes the reply, so that the user never waits for something that
//! ended.

use std::time::Duration;

use futures::future::join_all;

use super::routes::RouteSpec;
use crate::capabilities::{Delivery, Step};
use crate::engine::NO_REPLY;
use modhost_core::clock::{Clock, timeout};
use modhost_platform::{CallError, Caller, MessageChange, StepChange, StepStatus};
use modhost_storage::journal::{Disposition, FailureReason};

/// How long to wait for the guest's calls in flight before its steps are closed.
const CALLS_IN_FLIGHT: Duration = Duration::from_secs(30);

/// The outcome of an attempt for its delivery.
pub(super) enum Outcome {
    /// The module answered.
    Answered,
    /// The attempt failed, and a retry may succeed.
    TryAgain {
        /// The reason of the failure.
        reason: String,
        /// The delay that the module asked for, which the maximum delay of the retry policy caps; none: the delay of
        /// the retry policy.
        after: Option<Duration>,
        /// The text for the user if no attempts are left; none: the apology.
        user_text: Option<String>,
    },
    /// The attempt failed, and a retry would fail too.
    GivenUp {
        /// The reason of the failure.
        reason: String,
        /// The text for the user; none: the apology.
        user_text: Option<String>,
    },
    /// The host is shutting down: the delivery restarts with the next host.
    Interrupted,
}

/// Waits for calls in flight, then closes the steps and completes the reply if the delivery has ended. Returns the next
/// state. `max_attempts` is the maximum number of attempts, including those that only notify the user.
pub(super) async fn finalize(
    clock: &dyn Clock,
    delivery: &Delivery,
    outcome: Outcome,
    route: &RouteSpec,
    max_attempts: u32,
) -> Disposition {
    if timeout(clock, CALLS_IN_FLIGHT, delivery.changes_done()).await.is_none() {
        tracing::warn!(module = %delivery.module, delivery = %delivery.id, "a call to the platform has not ended; finalizing without it");
    }
    match outcome {
        Outcome::Interrupted => Disposition::Retry { after: Duration::ZERO, reason: "the host was shut down".into() },
        Outcome::Answered => match answered(delivery).await {
            Ok(()) => Disposition::Completed,
            Err(Unfinished::NoReply) => give_up(delivery, no_reply(delivery), None, route, max_attempts).await,
            Err(Unfinished::Platform(error)) => {
                let reason = format!("the reply can't be completed: {error}");
                if error.is_temporary() {
                    retry_later(delivery, Failed { reason, after: None, user_text: None }, route, max_attempts).await
                } else {
                    give_up(delivery, reason, None, route, max_attempts).await
                }
            }
        },
        Outcome::TryAgain { reason, after, user_text } => {
            retry_later(delivery, Failed { reason, after, user_text }, route, max_attempts).await
        }
        Outcome::GivenUp { reason, user_text } => give_up(delivery, reason, user_text, route, max_attempts).await,
    }
}

/// Returns the reason for a missing reply, with the parse error of the event if it has one.
fn no_reply(delivery: &Delivery) -> String {
    match delivery.event.parse_error() {
        Some(error) => {
            format!("{NO_REPLY} (the event's payload has an unknown shape, {error}: the module gets it as `other`)")
        }
        None => NO_REPLY.to_owned(),
    }
}

/// Returns whether the user waits for a reply whose id is not in the event, and no other message was written.
fn waits_without_reply_id(delivery: &Delivery) -> bool {
    let event = &delivery.event;
    event.is_for_one_module() && event.assistant_message_id().is_none() && !delivery.progress().has_written
}

enum Unfinished {
    NoReply,
    Platform(CallError),
}

/// A failed attempt that may be retried.
struct Failed {
    reason: String,
    after: Option<Duration>,
    user_text: Option<String>,
}

/// Closes the steps as completed, and completes the reply with the last text written.
async fn answered(delivery: &Delivery) -> Result<(), Unfinished> {
    let reply = delivery.progress().reply.clone();
    let waits = delivery.event.assistant_message_id().is_some() && !reply.completed;
    if waits && reply.text.is_none() || waits_without_reply_id(delivery) {
        return Err(Unfinished::NoReply);
    }
    close_steps(delivery, StepStatus::Completed).await.map_err(Unfinished::Platform)?;
    if waits { write_reply(delivery, reply.text, true).await.map_err(Unfinished::Platform) } else { Ok(()) }
}

/// Schedules a retry and shows the retry notice to the user, if attempts are left; otherwise gives the delivery up.
async fn retry_later(delivery: &Delivery, failed: Failed, route: &RouteSpec, max_attempts: u32) -> Disposition {
    let Failed { reason, after, user_text } = failed;
    if delivery.attempt >= route.retry.attempts {
        let reason = format!("{reason} (attempt {} of {})", delivery.attempt, route.retry.attempts);
        return give_up(delivery, reason, user_text, route, max_attempts).await;
    }
    if let Err(error) = delivery.call_log.clear_temporary_failures() {
        tracing::warn!(delivery = %delivery.id, %error, "cannot clear failed calls; the next attempt replays them");
    }
    let written = delivery.progress().reply.completed;
    if delivery.event.assistant_message_id().is_some()
        && !written
        && let Err(error) = write_reply(delivery, Some(route.retry_notice.to_string()), false).await
    {
        tracing::warn!(delivery = %delivery.id, %error, "cannot show the retry notice to the user");
    }
    // A module that asks for a delay of years would keep its delivery in the journal for as long.
    let wait = match after {
        Some(after) => after.min(route.retry.backoff.max),
        None => route.retry.delay_after(delivery.attempt),
    };
    Disposition::Retry { after: wait, reason: FailureReason::new(reason) }
}

/// Gives a delivery up and notifies its user.
///
/// If the platform is unavailable, further attempts are made only to notify the user, who would otherwise wait forever.
async fn give_up(
    delivery: &Delivery,
    reason: String,
    user_text: Option<String>,
    route: &RouteSpec,
    max_attempts: u32,
) -> Disposition {
    let text = user_text.unwrap_or_else(|| route.apology.to_string());
    let reason = FailureReason::new(reason);
    match notify_failure(delivery, text).await {
        Err(error) if error.is_temporary() && delivery.attempt < max_attempts => {
            let after = route.retry.delay_after(delivery.attempt);
            Disposition::Retry { after, reason: reason.with_notice_error(error) }
        }
        Err(error) => Disposition::Dead { reason: reason.with_notice_error(error) },
        Ok(()) => Disposition::Dead { reason },
    }
}

/// Closes the steps as failed, and writes the text into the reply, unless the reply is complete.
pub(super) async fn notify_failure(delivery: &Delivery, text: String) -> Result<(), CallError> {
    close_steps(delivery, StepStatus::Failed).await?;
    let answered = delivery.progress().reply.completed;
    if waits_without_reply_id(delivery)
        && let Some(chat) = delivery.event.chat_id()
    {
        // The id of the reply is unknown, so the text becomes a new message.
        let change = MessageChange { text: Some(text), completed: true, ..MessageChange::default() };
        let assistant = delivery.event.assistant_id();
        delivery.call_log.check_may_leave()?;
        delivery.platform().create_message(delivery.caller(), assistant, chat, &change).await?;
        delivery.progress().has_written = true;
        return Ok(());
    }
    if delivery.event.assistant_message_id().is_none() || answered {
        return Ok(());
    }
    write_reply(delivery, Some(text), true).await
}

async fn write_reply(delivery: &Delivery, text: Option<String>, completed: bool) -> Result<(), CallError> {
    let change = MessageChange { text, completed, ..MessageChange::default() };
    let (chat, reply) = (delivery.chat_id()?, delivery.reply_id()?);
    delivery.call_log.check_may_leave()?;
    delivery.platform().modify_message(delivery.caller(), chat, reply, &change).await?;
    Ok(())
}

/// Closes all running steps.
///
/// # Errors
///
/// The first error of the platform.
async fn close_steps(delivery: &Delivery, status: StepStatus) -> Result<(), CallError> {
    let steps: Vec<(u32, Step)> = {
        let progress = delivery.progress();
        let running = progress.steps.iter().filter(|(_, step)| step.status == StepStatus::Running);
        running.map(|(order, step)| (*order, step.clone())).collect()
    };
    if steps.is_empty() {
        return Ok(());
    }
    let caller = delivery.caller();
    let closed = join_all(steps.iter().map(|(order, step)| close_step(delivery, caller, *order, step, status))).await;
    closed.into_iter().collect()
}

async fn close_step(
    delivery: &Delivery,
    caller: &Caller,
    order: u32,
    step: &Step,
    status: StepStatus,
) -> Result<(), CallError> {
    let change = StepChange { status: Some(status), ..StepChange::default() };
    delivery.call_log.check_may_leave()?;
    delivery.platform().update_step(caller, &step.id, &change).await?;
    if let Some(step) = delivery.progress().steps.get_mut(&order) {
        step.status = status;
    }
    Ok(())
}

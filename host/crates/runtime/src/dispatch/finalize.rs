//! What the host sees to when an attempt has ended: no step keeps spinning, and the user reads something to act on.

use std::time::Duration;

use futures::future::join_all;

use super::routes::RouteSpec;
use crate::capabilities::{Delivery, Step};
use crate::engine::NO_REPLY;
use modhost_core::clock::{Clock, timeout};
use modhost_platform::{CallError, Caller, MessageChange, StepChange, StepStatus};
use modhost_storage::journal::{Disposition, FailureReason};

/// How long is waited for calls a guest left in flight before its steps are closed.
const CALLS_IN_FLIGHT: Duration = Duration::from_secs(30);

/// How an attempt ended, as far as the delivery is concerned.
pub(super) enum Outcome {
    /// The module answered.
    Answered,
    /// It didn't, and another attempt may.
    TryAgain {
        /// Why it didn't.
        reason: String,
        /// After this time; none: after a time that grows with the attempts.
        after: Option<Duration>,
        /// What the user is to read if there is no other attempt.
        user_text: Option<String>,
    },
    /// It didn't, and another attempt wouldn't.
    GivenUp {
        /// Why.
        reason: String,
        /// What the user is to read.
        user_text: Option<String>,
    },
    /// The host ended it: it starts again with the host.
    CutOff,
}

/// Closes what the attempt left open as far as the delivery has ended with it, and says what is next. `allowed` is how
/// many attempts there may be, those included that only tell the user.
pub(super) async fn finalize(
    clock: &dyn Clock,
    delivery: &Delivery,
    outcome: Outcome,
    route: &RouteSpec,
    allowed: u32,
) -> Disposition {
    if timeout(clock, CALLS_IN_FLIGHT, delivery.changes_done()).await.is_none() {
        tracing::warn!(module = %delivery.module, delivery = %delivery.id, "a call to the platform doesn't come to its end");
    }
    match outcome {
        Outcome::CutOff => Disposition::Retry { after: Duration::ZERO, reason: "the host was shut down".into() },
        Outcome::Answered => match answered(delivery).await {
            Ok(()) => Disposition::Completed,
            Err(Unfinished::NoReply) => given_up(delivery, no_reply(delivery), None, route, allowed).await,
            Err(Unfinished::Platform(error)) => {
                let reason = format!("the reply can't be completed: {error}");
                if error.is_temporary() {
                    again(delivery, Failed { reason, after: None, user_text: None }, route, allowed).await
                } else {
                    given_up(delivery, reason, None, route, allowed).await
                }
            }
        },
        Outcome::TryAgain { reason, after, user_text } => {
            again(delivery, Failed { reason, after, user_text }, route, allowed).await
        }
        Outcome::GivenUp { reason, user_text } => given_up(delivery, reason, user_text, route, allowed).await,
    }
}

/// The same, with what was wrong with the event.
fn no_reply(delivery: &Delivery) -> String {
    match delivery.event.flaw() {
        Some(flaw) => {
            format!("{NO_REPLY} (the event's payload has an unknown shape, {flaw}: the module gets it as `other`)")
        }
        None => NO_REPLY.to_owned(),
    }
}

/// Whether a user waits for a reply whose id can't be read, and no other message was written either.
fn waits_unseen(delivery: &Delivery) -> bool {
    let event = &delivery.event;
    event.chooses() && event.assistant_message_id().is_none() && !delivery.progress().has_written
}

enum Unfinished {
    NoReply,
    Platform(CallError),
}

/// An attempt that failed, where another may not.
struct Failed {
    reason: String,
    after: Option<Duration>,
    user_text: Option<String>,
}

/// Closes steps as completed, and the reply with the text last written.
async fn answered(delivery: &Delivery) -> Result<(), Unfinished> {
    let reply = delivery.progress().reply.clone();
    let waits = delivery.event.assistant_message_id().is_some() && !reply.completed;
    if waits && reply.text.is_none() || waits_unseen(delivery) {
        return Err(Unfinished::NoReply);
    }
    close_steps(delivery, StepStatus::Completed).await.map_err(Unfinished::Platform)?;
    if waits { write_reply(delivery, reply.text, true).await.map_err(Unfinished::Platform) } else { Ok(()) }
}

/// Tries again later if there are attempts left; the user reads that it isn't over.
async fn again(delivery: &Delivery, failed: Failed, route: &RouteSpec, allowed: u32) -> Disposition {
    let Failed { reason, after, user_text } = failed;
    if delivery.attempt >= route.retry.attempts {
        let reason = format!("{reason} (attempt {} of {})", delivery.attempt, route.retry.attempts);
        return given_up(delivery, reason, user_text, route, allowed).await;
    }
    if let Err(error) = delivery.call_log.forgive() {
        tracing::warn!(delivery = %delivery.id, "calls that failed are not made again: {error}");
    }
    let written = delivery.progress().reply.completed;
    if delivery.event.assistant_message_id().is_some()
        && !written
        && let Err(error) = write_reply(delivery, Some(route.retry_notice.to_string()), false).await
    {
        tracing::warn!(delivery = %delivery.id, "the user could not be told that it is tried again: {error}");
    }
    let wait = after.unwrap_or_else(|| route.retry.delay_after(delivery.attempt));
    Disposition::Retry { after: wait, reason: FailureReason::new(reason) }
}

/// Gives a delivery up, and tells its user.
///
/// If the platform is out of reach, another attempt is made for this alone: a user who is told nothing would look at a
/// spinner for ever.
async fn given_up(
    delivery: &Delivery,
    reason: String,
    user_text: Option<String>,
    route: &RouteSpec,
    allowed: u32,
) -> Disposition {
    let text = user_text.unwrap_or_else(|| route.apology.to_string());
    let reason = FailureReason::new(reason);
    match apologise(delivery, text).await {
        Err(error) if error.is_temporary() && delivery.attempt < allowed => {
            let after = route.retry.delay_after(delivery.attempt);
            Disposition::Retry { after, reason: reason.with_notice_error(error) }
        }
        Err(error) => Disposition::Dead { reason: reason.with_notice_error(error) },
        Ok(()) => Disposition::Dead { reason },
    }
}

/// Closes steps as failed, and tells the user in the reply, unless the answer already stands there whole.
pub(super) async fn apologise(delivery: &Delivery, text: String) -> Result<(), CallError> {
    close_steps(delivery, StepStatus::Failed).await?;
    let answered = delivery.progress().reply.completed;
    if waits_unseen(delivery)
        && let Some(chat) = delivery.event.chat_id()
    {
        // The reply can't be found: the user reads it below.
        let change = MessageChange { text: Some(text), completed: true, ..MessageChange::default() };
        let assistant = delivery.event.assistant_id();
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
    delivery.platform().modify_message(delivery.caller(), chat, reply, &change).await?;
    Ok(())
}

/// Closes all steps that run; the first error there was, if any.
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
    delivery.platform().update_step(caller, &step.id, &change).await?;
    if let Some(step) = delivery.progress().steps.get_mut(&order) {
        step.status = status;
    }
    Ok(())
}

//! The gate for new versions: dry runs of the module's last completed deliveries.

use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use crate::call_log::CallRequest;
use crate::engine::dry_run::{DryRunOutcome, RecordedDelivery, dry_run};
use crate::engine::instance::GuestOutcome;
use crate::engine::version::{SwapPolicy, Version};
use modhost_core::event::{DeliveryId, Name};
use modhost_core::text::truncate;
use modhost_storage::journal::{Details, Filter, JournalError, State};

/// The maximum number of concurrent dry runs on the host. The instance pool has slots for them in addition to those of
/// deliveries.
pub const MAX_CONCURRENT_DRY_RUNS: usize = 2;

/// The maximum total duration of a version's dry runs; the remaining ones are skipped. Time spent waiting for a permit
/// doesn't count.
const MAX_TOTAL_TIME: Duration = Duration::from_secs(60);

/// The maximum length of a call's arguments in a message, in characters.
const MAX_ARGUMENTS: usize = 200;

/// The results of dry runs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DryRuns {
    /// The number that passed.
    pub(super) passed: usize,
    /// The number without a result, because the version made a call that isn't recorded.
    pub(super) inconclusive: usize,
    /// The number skipped for lack of time.
    pub(super) not_run: usize,
}

/// The reason why a version doesn't pass the gate.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// The dry runs failed.
    Failed {
        /// The failure.
        reason: String,
        /// The delivery whose dry run failed, if a single one did.
        delivery: Option<DeliveryId>,
    },
    /// The dry runs weren't possible, which says nothing about the version.
    Unable(String),
}

/// Dry-runs the last completed deliveries of a module on a version.
///
/// # Errors
///
/// If the version fails, or the dry runs aren't possible.
pub(super) async fn examine(
    shared: &Shared,
    module: &Name,
    version: &Version,
    swap: &SwapPolicy,
) -> Result<DryRuns, Rejection> {
    let filter = Filter {
        state: Some(State::Completed),
        module: Some(module.clone()),
        limit: Some(swap.replay),
        ..Filter::default()
    };
    let unreadable =
        |error: JournalError| Rejection::Unable(format!("the deliveries it is dry-run on can't be read: {error}"));
    let last = shared.journal.list(filter).await.map_err(unreadable)?;
    let mut left = MAX_TOTAL_TIME;
    let mut dry_runs = DryRuns::default();
    for (index, known) in last.iter().enumerate() {
        // The semaphore is never closed.
        let _permit = shared
            .dry_run_permits
            .acquire()
            .await
            .map_err(|_| Rejection::Unable("the host is shutting down".into()))?;
        // Retention removed the delivery meanwhile.
        let Some(details) = shared.journal.show(&known.id).await.map_err(unreadable)? else { continue };
        let recorded = recorded(&details, shared.journal.salt());
        let began = Instant::now();
        let Ok(dry_run) = tokio::time::timeout(left, dry_run(version, recorded)).await else {
            dry_runs.not_run = last.len() - index;
            break;
        };
        left = left.saturating_sub(began.elapsed());
        match judge(&dry_run) {
            Verdict::Passed => dry_runs.passed += 1,
            Verdict::Inconclusive => dry_runs.inconclusive += 1,
            Verdict::Failed(what) => {
                let on = known.version.as_deref().unwrap_or("another version");
                return Err(Rejection::Failed {
                    reason: format!("delivery {}, which completed on {on}, was dry-run on it: {what}", known.id),
                    delivery: Some(known.id.clone()),
                });
            }
        }
    }
    if dry_runs.not_run > 0 && dry_runs.passed == 0 {
        let limit = humantime::format_duration(MAX_TOTAL_TIME);
        let reason = match last.len() {
            1 => format!("the delivery it was dry-run on didn't end within {limit}"),
            count => format!("none of the {count} deliveries it was dry-run on ended within {limit}"),
        };
        return Err(Rejection::Failed { reason, delivery: None });
    }
    // With `canary`, the trial decides instead.
    if dry_runs.inconclusive > 0 && dry_runs.passed == 0 && swap.canary.is_none() {
        let reason = format!(
            "none of its {} dry runs has a result, because it makes calls that aren't recorded; with `canary` in the \
             module's `swap` settings it would be tried on a share of the deliveries",
            dry_runs.inconclusive
        );
        return Err(Rejection::Failed { reason, delivery: None });
    }
    Ok(dry_runs)
}

fn recorded(details: &Details, salt: [u8; 32]) -> RecordedDelivery {
    RecordedDelivery {
        id: details.summary.id.clone(),
        event: details.event.clone(),
        module: details.summary.module.clone(),
        calls: details.calls.clone(),
        salt,
    }
}

#[derive(Debug, PartialEq)]
enum Verdict {
    Passed,
    Inconclusive,
    Failed(String),
}

/// Judges a dry run. Changed arguments of calls are expected in a new version. An additional call that costs money or
/// changes something is a failure.
fn judge(dry_run: &DryRunOutcome) -> Verdict {
    match &dry_run.ended {
        GuestOutcome::Trapped { reason } => return Verdict::Failed(format!("it traps: {}", reason.trim())),
        GuestOutcome::LimitReached(limit) => return Verdict::Failed(format!("it reaches a limit, {limit}")),
        GuestOutcome::Answered | GuestOutcome::Failed(_) => {}
    }
    if let Some(call) = dry_run.unrecorded_write() {
        return Verdict::Failed(format!(
            "it asks for {} more often than was recorded, which costs money or changes something: {}",
            call.import,
            arguments(call)
        ));
    }
    // The guest got an error for a call that isn't recorded, so its outcome says nothing.
    if dry_run.unrecorded_read().is_some() {
        return Verdict::Inconclusive;
    }
    match &dry_run.ended {
        GuestOutcome::Failed(failure) => Verdict::Failed(format!("it fails: {}", failure.reason.trim())),
        _ if dry_run.unanswered => Verdict::Failed("it returns ok and never writes a reply".into()),
        _ => Verdict::Passed,
    }
}

fn arguments(call: &CallRequest) -> String {
    truncate(&call.arguments.to_string(), MAX_ARGUMENTS).into_owned()
}

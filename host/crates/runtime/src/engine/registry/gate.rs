//! What a new version has to show before it serves: that the last deliveries of its module end well on it.

use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use crate::call_log::CallRequest;
use crate::engine::dry_run::{DryRunOutcome, RecordedDelivery, dry_run};
use crate::engine::instance::Ended;
use crate::engine::version::{SwapPolicy, Version};
use modhost_core::event::{DeliveryId, Name};
use modhost_core::text::truncate;
use modhost_storage::journal::{Details, Filter, JournalError, State};

/// How many dry runs run at once on the whole host. They have their places in the pool of instances beside those of
/// deliveries.
pub const MAX_CONCURRENT_DRY_RUNS: usize = 2;

/// How long all dry runs of a version may run; those that haven't begun by then are left out. Waiting for a turn doesn't
/// count: others may be at it.
const LONGEST: Duration = Duration::from_secs(60);

/// How much of a call's arguments is told.
const SHOWN: usize = 200;

/// How dry runs went.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct DryRuns {
    /// How many ended well.
    pub(super) passed: usize,
    /// How many could not be told: they read what isn't on record.
    pub(super) open: usize,
    /// How many there was no time for.
    pub(super) left_out: usize,
}

/// Why a version doesn't pass.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rejection {
    /// What it has shown.
    Unfit {
        /// What goes wrong.
        what: String,
        /// The delivery that shows it, if one does.
        delivery: Option<DeliveryId>,
    },
    /// It couldn't be dry-run now, which says nothing about it.
    Unable(String),
}

/// Rehearses the last completed deliveries of a module on a version of it.
///
/// # Errors
///
/// Why the version may not serve.
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
    let mut left = LONGEST;
    let mut dry_runs = DryRuns::default();
    for (index, known) in last.iter().enumerate() {
        // Closed only with the process.
        let _turn =
            shared.rehearsing.acquire().await.map_err(|_| Rejection::Unable("the host is shutting down".into()))?;
        // What was removed meanwhile was old.
        let Some(details) = shared.journal.show(&known.id).await.map_err(unreadable)? else { continue };
        let recorded = recorded(&details, shared.journal.salt());
        let began = Instant::now();
        let Ok(dry_run) = tokio::time::timeout(left, dry_run(version, recorded)).await else {
            dry_runs.left_out = last.len() - index;
            break;
        };
        left = left.saturating_sub(began.elapsed());
        match judge(&dry_run) {
            Verdict::Well => dry_runs.passed += 1,
            Verdict::Open => dry_runs.open += 1,
            Verdict::Wrong(what) => {
                let on = known.version.as_deref().unwrap_or("another version");
                return Err(Rejection::Unfit {
                    what: format!("delivery {}, which completed on {on}, was dry-run on it: {what}", known.id),
                    delivery: Some(known.id.clone()),
                });
            }
        }
    }
    if dry_runs.left_out > 0 && dry_runs.passed == 0 {
        let longest = humantime::format_duration(LONGEST);
        let what = match last.len() {
            1 => format!("the delivery it was dry-run on didn't end within {longest}"),
            more => format!("not one of the {more} deliveries it was dry-run on ended within {longest}"),
        };
        return Err(Rejection::Unfit { what, delivery: None });
    }
    // A trial can still show what dry runs can't.
    if dry_runs.open > 0 && dry_runs.passed == 0 && swap.canary.is_none() {
        let what = format!(
            "not one of the {} dry_runs can tell how it does, as it reads what isn't on record; with `canary` in its \
             `swap` settings it would be tried on some deliveries first",
            dry_runs.open
        );
        return Err(Rejection::Unfit { what, delivery: None });
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
    Well,
    Open,
    Wrong(String),
}

/// What a dry run says about a version. Other arguments than then are what new versions are for. A call that wasn't
/// made then is another matter if somebody pays for it or sees it.
fn judge(dry_run: &DryRunOutcome) -> Verdict {
    match &dry_run.ended {
        Ended::Trapped { reason } => return Verdict::Wrong(format!("it traps: {}", reason.trim())),
        Ended::LimitReached(limit) => return Verdict::Wrong(format!("it reaches a limit, {limit}")),
        Ended::Answered | Ended::Failed(_) => {}
    }
    if let Some(call) = dry_run.added() {
        return Verdict::Wrong(format!(
            "it asks for {} more often than was recorded, which costs money or changes something: {}",
            call.import,
            arguments(call)
        ));
    }
    // It was told that something isn't there which may well be: what it does then says nothing.
    if dry_run.unknown().is_some() {
        return Verdict::Open;
    }
    match &dry_run.ended {
        Ended::Failed(failure) => Verdict::Wrong(format!("it fails: {}", failure.reason.trim())),
        _ if dry_run.unanswered => Verdict::Wrong("it returns ok and never writes a reply".into()),
        _ => Verdict::Well,
    }
}

fn arguments(call: &CallRequest) -> String {
    truncate(&call.arguments.to_string(), SHOWN).into_owned()
}

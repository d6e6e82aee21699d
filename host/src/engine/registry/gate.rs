//! What a new version has to show before it serves: that the last deliveries of its module end well on it.

use std::time::Duration;

use tokio::time::Instant;

use super::Shared;
use crate::capabilities::Asked;
use crate::engine::instance::Ended;
use crate::engine::rehearsal::{Recorded, Rehearsed, rehearse};
use crate::engine::version::{SwapPolicy, Version};
use crate::event::{DeliveryId, Name};
use crate::journal::{Details, Filter, JournalError, State};

/// How many rehearsals run at once on the whole host. They have their places in the pool of instances beside those of
/// deliveries.
pub const REHEARSED_AT_ONCE: usize = 2;

/// How long all rehearsals of a version may run; those that haven't begun by then are left out. Waiting for a turn doesn't
/// count: others may be at it.
const LONGEST: Duration = Duration::from_secs(60);

/// How much of a call's arguments is told.
const SHOWN: usize = 200;

/// How rehearsals went.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rehearsals {
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
    /// It couldn't be rehearsed now, which says nothing about it.
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
) -> Result<Rehearsals, Rejection> {
    let filter = Filter {
        state: Some(State::Completed),
        module: Some(module.clone()),
        limit: Some(swap.replay),
        ..Filter::default()
    };
    let unreadable =
        |error: JournalError| Rejection::Unable(format!("the deliveries it is rehearsed on can't be read: {error}"));
    let last = shared.journal.list(filter).await.map_err(unreadable)?;
    let mut left = LONGEST;
    let mut rehearsals = Rehearsals::default();
    for (index, known) in last.iter().enumerate() {
        // Closed only with the process.
        let _turn =
            shared.rehearsing.acquire().await.map_err(|_| Rejection::Unable("the host is shutting down".into()))?;
        // What was removed meanwhile was old.
        let Some(details) = shared.journal.show(&known.id).await.map_err(unreadable)? else { continue };
        let recorded = recorded(&details, shared.journal.salt());
        let began = Instant::now();
        let Ok(rehearsed) = tokio::time::timeout(left, rehearse(version, recorded)).await else {
            rehearsals.left_out = last.len() - index;
            break;
        };
        left = left.saturating_sub(began.elapsed());
        match judge(&rehearsed) {
            Verdict::Well => rehearsals.passed += 1,
            Verdict::Open => rehearsals.open += 1,
            Verdict::Wrong(what) => {
                let on = known.version.as_deref().unwrap_or("another version");
                return Err(Rejection::Unfit {
                    what: format!("delivery {}, which completed on {on}, was rehearsed on it: {what}", known.id),
                    delivery: Some(known.id.clone()),
                });
            }
        }
    }
    if rehearsals.left_out > 0 && rehearsals.passed == 0 {
        let longest = humantime::format_duration(LONGEST);
        let what = match last.len() {
            1 => format!("the delivery it was rehearsed on didn't end within {longest}"),
            more => format!("not one of the {more} deliveries it was rehearsed on ended within {longest}"),
        };
        return Err(Rejection::Unfit { what, delivery: None });
    }
    // A trial can still show what rehearsals can't.
    if rehearsals.open > 0 && rehearsals.passed == 0 && swap.canary.is_none() {
        let what = format!(
            "not one of the {} rehearsals can tell how it does, as it reads what isn't on record; with `canary` in its \
             `swap` settings it would be tried on some deliveries first",
            rehearsals.open
        );
        return Err(Rejection::Unfit { what, delivery: None });
    }
    Ok(rehearsals)
}

fn recorded(details: &Details, salt: [u8; 32]) -> Recorded {
    Recorded {
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

/// What a rehearsal says about a version. Other arguments than then are what new versions are for. A call that wasn't
/// made then is another matter if somebody pays for it or sees it.
fn judge(rehearsed: &Rehearsed) -> Verdict {
    match &rehearsed.ended {
        Ended::Trapped { reason } => return Verdict::Wrong(format!("it traps: {}", reason.trim())),
        Ended::LimitReached(limit) => return Verdict::Wrong(format!("it reaches a limit, {limit}")),
        Ended::Answered | Ended::Failed(_) => {}
    }
    if let Some(call) = rehearsed.added() {
        return Verdict::Wrong(format!(
            "it asks for {} more often than was recorded, which costs money or changes something: {}",
            call.import,
            arguments(call)
        ));
    }
    // It was told that something isn't there which may well be: what it does then says nothing.
    if rehearsed.unknown().is_some() {
        return Verdict::Open;
    }
    match &rehearsed.ended {
        Ended::Failed(failure) => Verdict::Wrong(format!("it fails: {}", failure.reason.trim())),
        _ if rehearsed.unanswered => Verdict::Wrong("it returns ok and never writes a reply".into()),
        _ => Verdict::Well,
    }
}

fn arguments(call: &Asked) -> String {
    let text = call.arguments.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

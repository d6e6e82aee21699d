//! A new version on trial: it answers a share of the deliveries, and goes back by itself if it does worse.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::likelihood;
use crate::engine::version::{CanaryPolicy, Version};
use crate::event::DeliveryId;
use crate::versions::{Progress, Tally};

/// How many deliveries a new version has to have answered, well or not, before that says anything.
const LEAST_RUNS: u64 = 5;

/// While the trial goes on it is looked after every failure; that many looks want a verdict that is hard to come by.
const DURING: f64 = 0.001;

/// At its end it is looked once more.
const AT_THE_END: f64 = 0.05;

/// A version on trial, beside the one that serves.
pub(super) struct Canary {
    pub(super) version: Arc<Version>,
    pub(super) trial: Arc<Trial>,
}

/// What is known of a trial, whatever settings its versions are given meanwhile.
pub(super) struct Trial {
    pub(super) policy: CanaryPolicy,
    /// Deliveries received before stay with the version they may have begun on.
    pub(super) since: SystemTime,
    /// How long it had gone on when this host began to go on with it.
    watched: Duration,
    resumed: Instant,
    tally: Mutex<Tally>,
    failed: Notify,
    over: CancellationToken,
}

/// Which of the two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arm {
    Stable,
    Canary,
}

impl Tally {
    /// Whether the new version fails more often, and chance would do that less often than `likelihood`.
    fn is_worse(&self, likelihood: f64) -> bool {
        self.canary_runs >= LEAST_RUNS
            && likelihood::by_chance(self.canary_failed, self.canary_runs, self.stable_failed, self.stable_runs)
                < likelihood
    }
}

impl Trial {
    /// A trial that begins, or goes on from where an earlier host has left it. Only time in which a host ran counts:
    /// otherwise a version could take over that nobody has watched for as long as the settings say.
    pub(super) fn new(policy: CanaryPolicy, since: SystemTime, so_far: Progress) -> Self {
        Self {
            policy,
            since,
            watched: so_far.watched,
            resumed: Instant::now(),
            tally: Mutex::new(so_far.tally),
            failed: Notify::new(),
            over: CancellationToken::new(),
        }
    }

    /// Which version a delivery is for: always the same one.
    pub(super) fn arm(&self, delivery: &DeliveryId, received: SystemTime) -> Arm {
        if received < self.since {
            return Arm::Stable;
        }
        let hash = Sha256::digest(delivery.as_str());
        let drawn = hash.iter().take(8).fold(0u64, |number, byte| (number << 8) | u64::from(*byte)) % 100;
        if drawn < u64::from(self.policy.percent) { Arm::Canary } else { Arm::Stable }
    }

    pub(super) fn count(&self, arm: Arm, well: bool) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let (runs, failed) = match arm {
            Arm::Stable => {
                let Tally { stable_runs, stable_failed, .. } = &mut *tally;
                (stable_runs, stable_failed)
            }
            Arm::Canary => {
                let Tally { canary_runs, canary_failed, .. } = &mut *tally;
                (canary_runs, canary_failed)
            }
        };
        *runs += 1;
        *failed += u64::from(!well);
        drop(tally);
        if arm == Arm::Canary && !well {
            self.failed.notify_one();
        }
    }

    pub(super) fn tally(&self) -> Tally {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far it has come.
    pub(super) fn progress(&self) -> Progress {
        Progress { watched: self.watched.saturating_add(self.resumed.elapsed()), tally: self.tally() }
    }

    /// How long it goes on.
    pub(super) fn time_left(&self) -> Duration {
        self.policy.period.saturating_sub(self.progress().watched)
    }

    /// Says that nobody waits for its verdict any more.
    pub(super) fn is_over(&self) {
        self.over.cancel();
    }

    /// Waits for the verdict: whether the new version is to go back. None if somebody ended the trial before.
    pub(super) async fn verdict(&self) -> Option<bool> {
        let end = tokio::time::sleep(self.time_left());
        tokio::pin!(end);
        loop {
            tokio::select! {
                () = self.over.cancelled() => return None,
                () = &mut end => return Some(self.tally().is_worse(AT_THE_END)),
                () = self.failed.notified() => {
                    if self.tally().is_worse(DURING) {
                        return Some(true);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trial(percent: u8) -> Trial {
        Trial::new(
            CanaryPolicy { percent, period: Duration::from_secs(1) },
            SystemTime::UNIX_EPOCH,
            Progress::default(),
        )
    }

    #[test]
    fn a_share_of_the_deliveries_is_its_own_and_stays_so() {
        let trial = trial(10);
        let now = SystemTime::now();
        let id = |number: u32| DeliveryId::from_text(format!("dlv_{number}"));
        let mine = |number: &u32| trial.arm(&id(*number), now) == Arm::Canary;
        let first: Vec<u32> = (0..10_000).filter(mine).collect();
        assert!((850..1150).contains(&first.len()), "{} of 10 000", first.len());
        assert_eq!(first, (0..10_000).filter(mine).collect::<Vec<_>>());
    }

    #[test]
    fn what_came_before_stays_with_the_version_before() {
        let trial = Trial { since: SystemTime::now(), ..trial(99) };
        let before = trial.since - Duration::from_millis(1);
        assert!((0..100).all(|n| trial.arm(&DeliveryId::from_text(format!("dlv_{n}")), before) == Arm::Stable));
    }

    #[test]
    fn few_failures_say_nothing_and_many_do() {
        let tally = |canary_failed, canary_runs, stable_failed, stable_runs| Tally {
            canary_runs,
            canary_failed,
            stable_runs,
            stable_failed,
        };
        assert!(!tally(4, 4, 0, 1000).is_worse(AT_THE_END), "four runs say nothing");
        assert!(tally(5, 5, 0, 45).is_worse(DURING));
        assert!(!tally(1, 10, 0, 90).is_worse(AT_THE_END), "one of ten may be chance");
        assert!(tally(2, 10, 0, 90).is_worse(AT_THE_END) && !tally(2, 10, 0, 90).is_worse(DURING));
        assert!(!tally(10, 10, 90, 90).is_worse(AT_THE_END), "where all fail, the new version isn't worse");
    }
}

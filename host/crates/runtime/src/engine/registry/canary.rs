//! Canary trials: a new version gets a share of the deliveries and is rolled back automatically if it does worse.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::fisher_test;
use crate::engine::version::{CanaryPolicy, Version};
use modhost_core::event::DeliveryId;
use modhost_core::sync::lock;
use modhost_storage::versions::{EntryId, Progress, Tally};

/// The minimum number of deliveries that must end on a new version before it is rolled back during its trial. If
/// `min_deliveries` is lower, that applies instead.
const MIN_RUNS: u64 = 5;

/// The significance level during the trial. It is strict because the test is repeated after each delivery.
const SIGNIFICANCE_DURING: f64 = 0.001;

/// The significance level at the end of the trial.
const SIGNIFICANCE_AT_END: f64 = 0.05;

/// A version on trial.
pub(super) struct Canary {
    pub(super) version: Arc<Version>,
    pub(super) trial: Arc<Trial>,
}

/// The state of a trial. It survives changes of the versions' settings.
pub(super) struct Trial {
    /// The entry of the canary in the record; `None` if it could not be recorded.
    pub(super) id: Option<EntryId>,
    pub(super) policy: CanaryPolicy,
    /// The start of the trial. Deliveries received earlier stay on the stable version, on which they may have started.
    pub(super) since: SystemTime,
    /// The duration of the trial under earlier hosts.
    watched: Duration,
    resumed: Instant,
    counts: Mutex<Counts>,
    counted: Notify,
    ended: CancellationToken,
}

/// The results of a trial.
#[derive(Default)]
struct Counts {
    /// The results over all hosts that the record has returned last.
    recorded: Tally,
    /// Results on this host that the record has been given since.
    handed_over: Tally,
    /// Results on this host that the record has not been given yet.
    pending: Tally,
}

/// A side of the trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arm {
    Stable,
    Canary,
}

/// The verdict of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The new version takes over.
    Promote,
    /// The new version is rolled back.
    RollBack,
}

/// The evidence that a trial lacks when its time is over. The trial continues until it has enough evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingEvidence {
    /// Too few deliveries ended on the new version.
    Deliveries {
        /// The number that ended.
        ended: u64,
        /// The required number.
        min: u64,
    },
    /// Every delivery failed on the new version, but not significantly more often than on the previous version.
    Success {
        /// The number that failed.
        failed: u64,
    },
    /// Deliveries failed on the new version, and too few ended on the previous version for a comparison.
    Comparison {
        /// The number that ended on the previous version.
        ended: u64,
        /// The required number.
        min: u64,
    },
}

impl fmt::Display for MissingEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliveries { ended, min } => {
                write!(f, "{ended} of the {min} deliveries that `min_deliveries` requires have ended on it")
            }
            Self::Success { failed } => {
                write!(f, "all {failed} of its deliveries failed, and the previous version does no better")
            }
            Self::Comparison { ended, min } => write!(
                f,
                "some of its deliveries failed, and only {ended} of the {min} deliveries needed for a comparison have \
                 ended on the previous version"
            ),
        }
    }
}

/// Whether the new version fails more often, at this significance level.
fn is_worse(tally: &Tally, significance: f64) -> bool {
    fisher_test::p_value(tally.canary_failed, tally.canary_runs, tally.stable_failed, tally.stable_runs) < significance
}

/// Whether the new version is so much worse that the trial ends early.
fn is_far_worse(tally: &Tally, min: u64) -> bool {
    tally.canary_runs >= MIN_RUNS.min(min) && is_worse(tally, SIGNIFICANCE_DURING)
}

/// Returns the verdict at the end of the trial, or the missing evidence.
fn verdict(tally: &Tally, min: u64) -> Result<Verdict, MissingEvidence> {
    let Tally { canary_runs, canary_failed, stable_runs, .. } = *tally;
    if canary_runs < min {
        return Err(MissingEvidence::Deliveries { ended: canary_runs, min });
    }
    if is_worse(tally, SIGNIFICANCE_AT_END) {
        return Ok(Verdict::RollBack);
    }
    if canary_failed == canary_runs {
        return Err(MissingEvidence::Success { failed: canary_failed });
    }
    if canary_failed > 0 && stable_runs < min {
        return Err(MissingEvidence::Comparison { ended: stable_runs, min });
    }
    Ok(Verdict::Promote)
}

impl Trial {
    /// Creates a new trial, or continues one of an earlier host. Only time during which a host ran counts. Otherwise a
    /// version could take over without having been observed for the configured period.
    pub(super) fn new(id: Option<EntryId>, policy: CanaryPolicy, since: SystemTime, so_far: Progress) -> Self {
        Self {
            id,
            policy,
            since,
            watched: so_far.observed,
            resumed: Instant::now(),
            counts: Mutex::new(Counts { recorded: so_far.tally, ..Counts::default() }),
            counted: Notify::new(),
            ended: CancellationToken::new(),
        }
    }

    /// Assigns a delivery to a version. The assignment is deterministic.
    pub(super) fn arm(&self, delivery: &DeliveryId, received: SystemTime) -> Arm {
        if received < self.since {
            return Arm::Stable;
        }
        let hash = Sha256::digest(delivery.as_str());
        let drawn = hash.iter().take(8).fold(0u64, |number, byte| (number << 8) | u64::from(*byte)) % 100;
        if drawn < u64::from(self.policy.percent) { Arm::Canary } else { Arm::Stable }
    }

    /// Counts the result of a delivery.
    pub(super) fn count(&self, arm: Arm, succeeded: bool) {
        let mut counts = lock(&self.counts);
        let (runs, failed) = match arm {
            Arm::Stable => {
                let Tally { stable_runs, stable_failed, .. } = &mut counts.pending;
                (stable_runs, stable_failed)
            }
            Arm::Canary => {
                let Tally { canary_runs, canary_failed, .. } = &mut counts.pending;
                (canary_runs, canary_failed)
            }
        };
        *runs += 1;
        *failed += u64::from(!succeeded);
        drop(counts);
        self.counted.notify_one();
    }

    /// Returns the results over all hosts, as far as this host knows them.
    pub(super) fn tally(&self) -> Tally {
        let Counts { recorded, handed_over, pending } = &*lock(&self.counts);
        let mut tally = *recorded;
        tally.add(handed_over);
        tally.add(pending);
        tally
    }

    /// Returns the results to record, and how long the trial has run. The record keeps them from now on, whether it can be
    /// written at once or not.
    pub(super) fn hand_over(&self) -> (Tally, Duration) {
        let mut counts = lock(&self.counts);
        let pending = std::mem::take(&mut counts.pending);
        counts.handed_over.add(&pending);
        (pending, self.observed())
    }

    /// Sets the results over all hosts, which include what was handed over.
    pub(super) fn set_recorded(&self, recorded: Tally) {
        let mut counts = lock(&self.counts);
        (counts.recorded, counts.handed_over) = (recorded, Tally::default());
        drop(counts);
        self.counted.notify_one();
    }

    /// Returns how long the trial has run.
    fn observed(&self) -> Duration {
        self.watched.saturating_add(self.resumed.elapsed())
    }

    /// Returns the remaining time of the trial.
    pub(super) fn time_left(&self) -> Duration {
        self.policy.period.saturating_sub(self.observed())
    }

    /// Ends the trial without a verdict.
    pub(super) fn end(&self) {
        self.ended.cancel();
    }

    fn min(&self) -> u64 {
        u64::from(self.policy.min_deliveries)
    }

    /// Returns the missing evidence, if the trial's time is over and it can't be decided yet.
    pub(super) fn missing_evidence(&self) -> Option<MissingEvidence> {
        if self.time_left() > Duration::ZERO {
            return None;
        }
        verdict(&self.tally(), self.min()).err()
    }

    /// Returns the verdict on the results known now; `None` if the trial goes on.
    pub(super) fn current_verdict(&self) -> Option<Verdict> {
        let tally = self.tally();
        if is_far_worse(&tally, self.min()) {
            return Some(Verdict::RollBack);
        }
        if self.time_left() > Duration::ZERO {
            return None;
        }
        verdict(&tally, self.min()).ok()
    }

    /// Waits for the verdict; `None` if the trial was ended before. Calls `on_missing` once if the trial can't be
    /// decided when its time is over.
    pub(super) async fn verdict(&self, on_missing: impl Fn(MissingEvidence)) -> Option<Verdict> {
        self.verdict_at(tokio::time::sleep(self.time_left()), on_missing).await
    }

    /// Like [`verdict`](Self::verdict), with a future that completes when the trial's time is over.
    async fn verdict_at(&self, end: impl Future<Output = ()>, on_missing: impl Fn(MissingEvidence)) -> Option<Verdict> {
        tokio::pin!(end);
        let (mut time_is_over, mut reported) = (false, false);
        loop {
            tokio::select! {
                () = self.ended.cancelled() => return None,
                () = &mut end, if !time_is_over => time_is_over = true,
                () = self.counted.notified() => {}
            }
            let tally = self.tally();
            if is_far_worse(&tally, self.min()) {
                return Some(Verdict::RollBack);
            }
            match verdict(&tally, self.min()) {
                _ if !time_is_over => {}
                Ok(verdict) => return Some(verdict),
                Err(missing) if !reported => {
                    reported = true;
                    on_missing(missing);
                }
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use futures::future::LocalBoxFuture;
    use tokio::sync::oneshot;

    use super::*;

    const PERIOD: Duration = Duration::from_secs(300);

    fn trial(percent: u8) -> Trial {
        Trial::new(
            None,
            CanaryPolicy { percent, period: PERIOD, min_deliveries: 5 },
            SystemTime::UNIX_EPOCH,
            Progress::default(),
        )
    }

    #[test]
    fn assigns_a_stable_share_of_deliveries_to_the_canary() {
        let trial = trial(10);
        let now = SystemTime::now();
        let id = |number: u32| DeliveryId::from_text(format!("dlv_{number}"));
        let mine = |number: &u32| trial.arm(&id(*number), now) == Arm::Canary;
        let first: Vec<u32> = (0..10_000).filter(mine).collect();
        assert!(
            (850..1150).contains(&first.len()),
            "the canary got {} of 10000 deliveries, expected about 10%",
            first.len()
        );
        assert_eq!(first, (0..10_000).filter(mine).collect::<Vec<_>>());
    }

    #[test]
    fn keeps_earlier_deliveries_on_the_stable_version() {
        let trial = Trial { since: SystemTime::now(), ..trial(99) };
        let before = trial.since - Duration::from_millis(1);
        assert!((0..100).all(|n| trial.arm(&DeliveryId::from_text(format!("dlv_{n}")), before) == Arm::Stable));
    }

    fn tally(canary_failed: u64, canary_runs: u64, stable_failed: u64, stable_runs: u64) -> Tally {
        Tally { canary_runs, canary_failed, stable_runs, stable_failed }
    }

    #[test]
    fn detects_only_significant_failures() {
        assert!(!is_far_worse(&tally(4, 4, 0, 1000), 5), "four runs are too few");
        assert!(is_far_worse(&tally(5, 5, 0, 45), 5));
        assert!(is_far_worse(&tally(5, 5, 0, 45), 1000), "a clear failure must end the trial early");
        assert!(!is_worse(&tally(1, 10, 0, 90), SIGNIFICANCE_AT_END), "one failure in ten runs is not significant");
        assert!(
            is_worse(&tally(2, 10, 0, 90), SIGNIFICANCE_AT_END) && !is_worse(&tally(2, 10, 0, 90), SIGNIFICANCE_DURING)
        );
        assert!(
            !is_worse(&tally(10, 10, 90, 90), SIGNIFICANCE_AT_END),
            "the new version isn't worse if all deliveries fail on both versions"
        );
    }

    #[test]
    fn promotes_only_on_evidence() {
        let deliveries = |ended| Err(MissingEvidence::Deliveries { ended, min: 5 });
        for (tally, wanted) in [
            (tally(0, 0, 0, 0), deliveries(0)),
            (tally(0, 4, 0, 1000), deliveries(4)),
            (tally(4, 4, 0, 4), deliveries(4)),
            (tally(0, 5, 0, 0), Ok(Verdict::Promote)),
            (tally(0, 5, 20, 20), Ok(Verdict::Promote)),
            (tally(5, 5, 0, 5), Ok(Verdict::RollBack)),
            // The new version never succeeded. Failures of the stable version are no evidence for it.
            (tally(31, 31, 0, 0), Err(MissingEvidence::Success { failed: 31 })),
            (tally(31, 31, 300, 300), Err(MissingEvidence::Success { failed: 31 })),
            (tally(31, 31, 300, 400), Ok(Verdict::RollBack)),
            // The new version fails sometimes, and there is no data on the stable version.
            (tally(4, 5, 0, 1), Err(MissingEvidence::Comparison { ended: 1, min: 5 })),
            (tally(1, 10, 0, 90), Ok(Verdict::Promote)),
        ] {
            assert_eq!(verdict(&tally, 5), wanted, "{tally:?}");
        }
        assert_eq!(verdict(&tally(0, 1, 0, 0), 1), Ok(Verdict::Promote));
        assert_eq!(
            verdict(&tally(1, 1, 0, 50), 1),
            Ok(Verdict::RollBack),
            "one delivery must suffice if `min_deliveries` is 1"
        );
    }

    /// No version takes over without a completed delivery, or with fewer deliveries than required.
    #[test]
    fn never_promotes_without_a_success() {
        for canary_runs in 0..12 {
            for canary_failed in 0..=canary_runs {
                for (stable_failed, stable_runs) in [(0, 0), (0, 3), (3, 3), (0, 40), (7, 40), (40, 40)] {
                    let tally = tally(canary_failed, canary_runs, stable_failed, stable_runs);
                    if verdict(&tally, 5) == Ok(Verdict::Promote) {
                        assert!(canary_runs >= 5 && canary_failed < canary_runs, "{tally:?}");
                        assert!(canary_failed == 0 || stable_runs >= 5, "{tally:?}");
                    }
                }
            }
        }
    }

    /// A pending verdict of a trial. The test decides when the trial's time is over.
    struct Watched<'t> {
        end: Option<oneshot::Sender<()>>,
        reported: Arc<Mutex<Vec<MissingEvidence>>>,
        verdict: LocalBoxFuture<'t, Option<Verdict>>,
    }

    impl<'t> Watched<'t> {
        fn new(trial: &'t Trial) -> Self {
            let (end, ended) = oneshot::channel();
            let reported = Arc::new(Mutex::new(Vec::new()));
            let report = reported.clone();
            let time = async move { ended.await.unwrap() };
            let verdict = async move { trial.verdict_at(time, |missing| report.lock().unwrap().push(missing)).await };
            Self { end: Some(end), reported, verdict: verdict.boxed_local() }
        }

        fn time_is_over(&mut self) {
            self.end.take().unwrap().send(()).unwrap();
        }

        /// Returns the verdict, if the trial has ended.
        fn now(&mut self) -> Option<Option<Verdict>> {
            (&mut self.verdict).now_or_never()
        }

        fn reported(&self) -> Vec<MissingEvidence> {
            self.reported.lock().unwrap().clone()
        }
    }

    #[test]
    fn idle_trial_reports_missing_evidence_once_and_decides_later() {
        let trial = trial(10);
        let mut watched = Watched::new(&trial);
        assert_eq!((watched.now(), watched.reported()), (None, vec![]), "the trial's time isn't over");
        watched.time_is_over();
        let missing = vec![MissingEvidence::Deliveries { ended: 0, min: 5 }];
        assert_eq!((watched.now(), watched.reported()), (None, missing.clone()));
        for _ in 0..4 {
            trial.count(Arm::Canary, true);
            trial.count(Arm::Stable, false);
            assert_eq!(watched.now(), None);
        }
        trial.count(Arm::Canary, true);
        assert_eq!((watched.now(), watched.reported()), (Some(Some(Verdict::Promote)), missing));
    }

    #[test]
    fn idle_trial_can_be_ended() {
        let trial = trial(10);
        let mut watched = Watched::new(&trial);
        watched.time_is_over();
        assert_eq!(watched.now(), None);
        trial.end();
        assert_eq!(watched.now(), Some(None));
    }

    #[test]
    fn decides_only_when_the_time_is_over() {
        let trial = trial(10);
        let mut watched = Watched::new(&trial);
        for _ in 0..5 {
            trial.count(Arm::Canary, true);
            assert_eq!(watched.now(), None);
        }
        watched.time_is_over();
        assert_eq!((watched.now(), watched.reported()), (Some(Some(Verdict::Promote)), vec![]));
    }

    #[test]
    fn rolls_back_a_version_that_never_succeeded_once_the_stable_one_does() {
        let trial = trial(10);
        let mut watched = Watched::new(&trial);
        for _ in 0..31 {
            trial.count(Arm::Canary, false);
            trial.count(Arm::Stable, false);
        }
        watched.time_is_over();
        assert_eq!((watched.now(), watched.reported()), (None, vec![MissingEvidence::Success { failed: 31 }]));
        // The platform recovers, and the stable version succeeds.
        for _ in 0..60 {
            trial.count(Arm::Stable, true);
        }
        assert_eq!(watched.now(), Some(Some(Verdict::RollBack)));
    }

    #[test]
    fn continued_trial_waits_for_the_same_evidence() {
        let so_far = Progress { observed: PERIOD * 2, tally: tally(0, 4, 0, 100) };
        let policy = CanaryPolicy { percent: 10, period: PERIOD, min_deliveries: 5 };
        let trial = Trial::new(None, policy, SystemTime::UNIX_EPOCH, so_far);
        assert_eq!(trial.missing_evidence(), Some(MissingEvidence::Deliveries { ended: 4, min: 5 }));
        let mut watched = Watched::new(&trial);
        watched.time_is_over();
        assert_eq!(watched.now(), None);
        trial.count(Arm::Stable, false);
        assert_eq!(watched.now(), None, "deliveries of the stable version must not count for the canary");
        trial.count(Arm::Canary, true);
        assert_eq!((watched.now(), trial.missing_evidence()), (Some(Some(Verdict::Promote)), None));
    }

    #[test]
    fn reports_missing_evidence_only_when_the_time_is_over() {
        assert_eq!(trial(10).missing_evidence(), None);
    }
}

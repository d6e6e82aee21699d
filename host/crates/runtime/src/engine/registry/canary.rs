//! A new version on trial: it answers a share of the deliveries, and goes back by itself if it does worse.

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
use modhost_storage::versions::{Progress, Tally};

/// How many deliveries have to have ended on a new version before it goes back in the middle of its trial, unless the
/// settings want fewer to decide at all.
const MIN_RUNS: u64 = 5;

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
    counted: Notify,
    over: CancellationToken,
}

/// Which of the two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arm {
    Stable,
    Canary,
}

/// What a trial has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The new version takes over.
    TakesOver,
    /// The new version goes back.
    GoesBack,
}

/// What a trial whose time is over still has to show. It goes on until then: nothing takes over without evidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingEvidence {
    /// Too few deliveries have ended on the new version.
    Deliveries {
        /// How many have.
        ended: u64,
        /// How many have to.
        min: u64,
    },
    /// Every delivery failed on the new version, and not clearly more often than on the version before.
    Success {
        /// How many have failed.
        failed: u64,
    },
    /// Deliveries failed on the new version, and too few have ended on the version before to compare that with.
    Comparison {
        /// How many have ended on the version before.
        ended: u64,
        /// How many have to.
        min: u64,
    },
}

impl fmt::Display for MissingEvidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deliveries { ended, min } => {
                write!(f, "{ended} of the {min} deliveries that `min_deliveries` wants have ended on it")
            }
            Self::Success { failed } => {
                write!(f, "all {failed} of its deliveries failed, and the version before does no better")
            }
            Self::Comparison { ended, min } => write!(
                f,
                "some of its deliveries failed, and {ended} of the {min} deliveries to compare them with have ended on the \
                 version before"
            ),
        }
    }
}

/// Whether the new version fails more often, and chance would do that less often than `likelihood`.
fn is_worse(tally: &Tally, likelihood: f64) -> bool {
    fisher_test::by_chance(tally.canary_failed, tally.canary_runs, tally.stable_failed, tally.stable_runs) < likelihood
}

/// Whether it is so much worse that its trial need not go on.
fn is_far_worse(tally: &Tally, min: u64) -> bool {
    tally.canary_runs >= MIN_RUNS.min(min) && is_worse(tally, DURING)
}

/// What it says at the end of the trial, if it says enough by then.
fn verdict(tally: &Tally, min: u64) -> Result<Verdict, MissingEvidence> {
    let Tally { canary_runs, canary_failed, stable_runs, .. } = *tally;
    if canary_runs < min {
        return Err(MissingEvidence::Deliveries { ended: canary_runs, min });
    }
    if is_worse(tally, AT_THE_END) {
        return Ok(Verdict::GoesBack);
    }
    if canary_failed == canary_runs {
        return Err(MissingEvidence::Success { failed: canary_failed });
    }
    if canary_failed > 0 && stable_runs < min {
        return Err(MissingEvidence::Comparison { ended: stable_runs, min });
    }
    Ok(Verdict::TakesOver)
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
            counted: Notify::new(),
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
        let mut tally = lock(&self.tally);
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
        self.counted.notify_one();
    }

    pub(super) fn tally(&self) -> Tally {
        *lock(&self.tally)
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

    fn min(&self) -> u64 {
        u64::from(self.policy.min_deliveries)
    }

    /// What the trial waits for, if its time is over and it can't be decided yet.
    pub(super) fn waits_for(&self) -> Option<MissingEvidence> {
        if self.time_left() > Duration::ZERO {
            return None;
        }
        verdict(&self.tally(), self.min()).err()
    }

    /// Waits for the verdict; none if somebody ended the trial before. `goes_on` is told, once, what the trial waits for
    /// that can't be decided when its time is over.
    pub(super) async fn verdict(&self, goes_on: impl Fn(MissingEvidence)) -> Option<Verdict> {
        self.verdict_at(tokio::time::sleep(self.time_left()), goes_on).await
    }

    /// The same, with the end of the trial's time.
    async fn verdict_at(&self, end: impl Future<Output = ()>, goes_on: impl Fn(MissingEvidence)) -> Option<Verdict> {
        tokio::pin!(end);
        let (mut time_is_over, mut told) = (false, false);
        loop {
            tokio::select! {
                () = self.over.cancelled() => return None,
                () = &mut end, if !time_is_over => time_is_over = true,
                () = self.counted.notified() => {}
            }
            let tally = self.tally();
            if is_far_worse(&tally, self.min()) {
                return Some(Verdict::GoesBack);
            }
            match verdict(&tally, self.min()) {
                _ if !time_is_over => {}
                Ok(verdict) => return Some(verdict),
                Err(missing) if !told => {
                    told = true;
                    goes_on(missing);
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
            CanaryPolicy { percent, period: PERIOD, min_deliveries: 5 },
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

    fn tally(canary_failed: u64, canary_runs: u64, stable_failed: u64, stable_runs: u64) -> Tally {
        Tally { canary_runs, canary_failed, stable_runs, stable_failed }
    }

    #[test]
    fn few_failures_say_nothing_and_many_do() {
        assert!(!is_far_worse(&tally(4, 4, 0, 1000), 5), "four runs say nothing");
        assert!(is_far_worse(&tally(5, 5, 0, 45), 5));
        assert!(is_far_worse(&tally(5, 5, 0, 45), 1000), "what fails so clearly isn't tried a thousand times");
        assert!(!is_worse(&tally(1, 10, 0, 90), AT_THE_END), "one of ten may be chance");
        assert!(is_worse(&tally(2, 10, 0, 90), AT_THE_END) && !is_worse(&tally(2, 10, 0, 90), DURING));
        assert!(!is_worse(&tally(10, 10, 90, 90), AT_THE_END), "where all fail, the new version isn't worse");
    }

    #[test]
    fn takes_over_on_evidence_only() {
        let deliveries = |ended| Err(MissingEvidence::Deliveries { ended, min: 5 });
        for (tally, wanted) in [
            (tally(0, 0, 0, 0), deliveries(0)),
            (tally(0, 4, 0, 1000), deliveries(4)),
            (tally(4, 4, 0, 4), deliveries(4)),
            (tally(0, 5, 0, 0), Ok(Verdict::TakesOver)),
            (tally(0, 5, 20, 20), Ok(Verdict::TakesOver)),
            (tally(5, 5, 0, 5), Ok(Verdict::GoesBack)),
            // It never worked: that the other doesn't either is no evidence for it.
            (tally(31, 31, 0, 0), Err(MissingEvidence::Success { failed: 31 })),
            (tally(31, 31, 300, 300), Err(MissingEvidence::Success { failed: 31 })),
            (tally(31, 31, 300, 400), Ok(Verdict::GoesBack)),
            // It fails now and then, and nobody knows how the other does.
            (tally(4, 5, 0, 1), Err(MissingEvidence::Comparison { ended: 1, min: 5 })),
            (tally(1, 10, 0, 90), Ok(Verdict::TakesOver)),
        ] {
            assert_eq!(verdict(&tally, 5), wanted, "{tally:?}");
        }
        assert_eq!(verdict(&tally(0, 1, 0, 0), 1), Ok(Verdict::TakesOver));
        assert_eq!(verdict(&tally(1, 1, 0, 50), 1), Ok(Verdict::GoesBack), "one is enough if the settings say so");
    }

    /// Whatever is counted in whatever order: no version takes over that hasn't completed a delivery, or has had fewer than
    /// it has to.
    #[test]
    fn no_tally_without_a_success_takes_over() {
        for canary_runs in 0..12 {
            for canary_failed in 0..=canary_runs {
                for (stable_failed, stable_runs) in [(0, 0), (0, 3), (3, 3), (0, 40), (7, 40), (40, 40)] {
                    let tally = tally(canary_failed, canary_runs, stable_failed, stable_runs);
                    if verdict(&tally, 5) == Ok(Verdict::TakesOver) {
                        assert!(canary_runs >= 5 && canary_failed < canary_runs, "{tally:?}");
                        assert!(canary_failed == 0 || stable_runs >= 5, "{tally:?}");
                    }
                }
            }
        }
    }

    /// A trial that is watched, the end of whose time the test says.
    struct Watched<'t> {
        end: Option<oneshot::Sender<()>>,
        told: Arc<Mutex<Vec<MissingEvidence>>>,
        verdict: LocalBoxFuture<'t, Option<Verdict>>,
    }

    impl<'t> Watched<'t> {
        fn new(trial: &'t Trial) -> Self {
            let (end, ended) = oneshot::channel();
            let told = Arc::new(Mutex::new(Vec::new()));
            let tell = told.clone();
            let time = async move { ended.await.unwrap() };
            let verdict = async move { trial.verdict_at(time, |missing| tell.lock().unwrap().push(missing)).await };
            Self { end: Some(end), told, verdict: verdict.boxed_local() }
        }

        fn time_is_over(&mut self) {
            self.end.take().unwrap().send(()).unwrap();
        }

        /// The verdict, if there is one by now.
        fn now(&mut self) -> Option<Option<Verdict>> {
            (&mut self.verdict).now_or_never()
        }

        fn told(&self) -> Vec<MissingEvidence> {
            self.told.lock().unwrap().clone()
        }
    }

    #[test]
    fn an_idle_trial_goes_on_says_so_once_and_decides_when_there_is_evidence() {
        let trial = trial(10);
        let mut watched = Watched::new(&trial);
        assert_eq!((watched.now(), watched.told()), (None, vec![]), "its time isn't over");
        watched.time_is_over();
        let missing = vec![MissingEvidence::Deliveries { ended: 0, min: 5 }];
        assert_eq!((watched.now(), watched.told()), (None, missing.clone()));
        for _ in 0..4 {
            trial.count(Arm::Canary, true);
            trial.count(Arm::Stable, false);
            assert_eq!(watched.now(), None);
        }
        trial.count(Arm::Canary, true);
        assert_eq!((watched.now(), watched.told()), (Some(Some(Verdict::TakesOver)), missing));
    }

    #[test]
    fn an_idle_trial_can_be_ended() {
        let trial = trial(10);
        let mut watched = Watched::new(&trial);
        watched.time_is_over();
        assert_eq!(watched.now(), None);
        trial.is_over();
        assert_eq!(watched.now(), Some(None));
    }

    #[test]
    fn a_trial_with_enough_evidence_ends_with_its_time_and_not_before() {
        let trial = trial(10);
        let mut watched = Watched::new(&trial);
        for _ in 0..5 {
            trial.count(Arm::Canary, true);
            assert_eq!(watched.now(), None);
        }
        watched.time_is_over();
        assert_eq!((watched.now(), watched.told()), (Some(Some(Verdict::TakesOver)), vec![]));
    }

    #[test]
    fn a_version_that_never_worked_does_not_take_over_and_goes_back_when_the_other_works() {
        let trial = trial(10);
        let mut watched = Watched::new(&trial);
        for _ in 0..31 {
            trial.count(Arm::Canary, false);
            trial.count(Arm::Stable, false);
        }
        watched.time_is_over();
        assert_eq!((watched.now(), watched.told()), (None, vec![MissingEvidence::Success { failed: 31 }]));
        // The platform is there again; the version before answers.
        for _ in 0..60 {
            trial.count(Arm::Stable, true);
        }
        assert_eq!(watched.now(), Some(Some(Verdict::GoesBack)));
    }

    #[test]
    fn a_trial_that_goes_on_after_a_restart_waits_for_the_same() {
        let so_far = Progress { watched: PERIOD * 2, tally: tally(0, 4, 0, 100) };
        let policy = CanaryPolicy { percent: 10, period: PERIOD, min_deliveries: 5 };
        let trial = Trial::new(policy, SystemTime::UNIX_EPOCH, so_far);
        assert_eq!(trial.waits_for(), Some(MissingEvidence::Deliveries { ended: 4, min: 5 }));
        let mut watched = Watched::new(&trial);
        watched.time_is_over();
        assert_eq!(watched.now(), None);
        trial.count(Arm::Stable, false);
        assert_eq!(watched.now(), None, "the other version's deliveries are not its own");
        trial.count(Arm::Canary, true);
        assert_eq!((watched.now(), trial.waits_for()), (Some(Some(Verdict::TakesOver)), None));
    }

    #[test]
    fn what_a_trial_waits_for_is_told_when_its_time_is_over() {
        assert_eq!(trial(10).waits_for(), None);
    }
}

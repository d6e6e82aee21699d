//! How the trial of a version begins and ends.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::canary::{Canary, MissingEvidence, Trial, Verdict};
use super::module_entry::{ModuleEntry, Serving};
use crate::engine::version::{CanaryPolicy, Version};
use modhost_core::clock;
use modhost_core::metrics::{self, CanaryEnd};
use modhost_storage::versions::{Fact, HeldBack, ModuleState, Origin, Progress, took_over, went_back};

/// How often it is written down how far a trial has come: what a host that is killed loses of it.
const NOTED_EVERY: Duration = Duration::from_secs(10);

/// Waits for the verdict of a trial and acts on it, and keeps the record of it up to date meanwhile.
async fn watch(slot: Weak<ModuleEntry>, trial: Arc<Trial>) {
    let noting = async {
        loop {
            tokio::time::sleep(NOTED_EVERY).await;
            let Some(slot) = slot.upgrade() else { return };
            slot.note_trial().await;
        }
    };
    let goes_on = |missing| {
        if let Some(slot) = slot.upgrade() {
            slot.log_missing_evidence(&trial, missing);
        }
    };
    let verdict = tokio::select! {
        verdict = trial.verdict(goes_on) => verdict,
        () = noting => None,
    };
    if let (Some(verdict), Some(slot)) = (verdict, slot.upgrade()) {
        slot.conclude(&trial, verdict).await;
    }
}

impl ModuleEntry {
    /// Lets a version answer a share of the deliveries.
    pub(super) async fn begin_trial(
        self: &Arc<Self>,
        version: Arc<Version>,
        policy: CanaryPolicy,
        standing: &ModuleState,
    ) {
        let Some(serving) = self.serving() else { return };
        let (hash, before) = (version.hash(), serving.stable.hash());
        let goes_on = standing.canary.as_ref().is_some_and(|entry| entry.hash == hash);
        if !goes_on {
            let mut facts = vec![Fact::Tried { hash }];
            if standing.canary.is_some() {
                facts.insert(0, Fact::TrialOver { reason: format!("replaced by {hash}") });
                metrics::canary(&self.name, CanaryEnd::Replaced);
            }
            self.write_down(facts).await;
        }
        // The time that is remembered, so that a delivery finds its version again after a restart.
        let remembered = self.standing();
        let began = remembered.canary.filter(|entry| entry.hash == hash).map_or_else(clock::now, |entry| entry.began);
        let so_far = if goes_on { remembered.progress } else { Progress::default() };
        let trial = Arc::new(Trial::new(policy, began, so_far));
        self.exchange(Serving {
            stable: serving.stable.clone(),
            canary: Some(Canary { version, trial: trial.clone() }),
        });
        let (percent, period) = (policy.percent, humantime::format_duration(policy.period));
        match goes_on {
            true => tracing::info!(
                module = %self.name, version = %hash, %before, percent, %period, tally = %so_far.tally, "canary continues"
            ),
            false => tracing::info!(module = %self.name, version = %hash, %before, percent, %period, "canary started"),
        }
        tokio::spawn(watch(Arc::downgrade(self), trial));
    }

    /// Writes down how far the trial has come, if a version is tried.
    pub(super) async fn note_trial(&self) {
        let serving = self.serving();
        let Some(canary) = serving.as_ref().and_then(|serving| serving.canary.as_ref()) else { return };
        let (hash, progress) = (canary.version.hash(), canary.trial.progress());
        self.write_down(vec![Fact::Progress { hash, progress }]).await;
    }

    /// Says that a trial goes on although its time is over.
    fn log_missing_evidence(&self, trial: &Arc<Trial>, missing: MissingEvidence) {
        let serving = self.serving();
        let canary = serving.as_ref().and_then(|serving| serving.canary.as_ref());
        if let Some(canary) = canary.filter(|canary| Arc::ptr_eq(&canary.trial, trial)) {
            tracing::warn!(
                module = %self.name, version = %canary.version.hash(),
                after = %humantime::format_duration(trial.policy.period), %missing,
                help = format!("`modhost modules promote {0}` or `modhost modules abort {0}` ends the trial", self.name),
                "canary stays on trial: too little evidence to promote it"
            );
        }
    }

    /// Acts on a verdict, unless the trial is over for another reason by now.
    async fn conclude(self: &Arc<Self>, trial: &Arc<Trial>, verdict: Verdict) {
        let _turn = self.turn.lock().await;
        let Some(serving) = self.serving() else { return };
        let Some(canary) = serving.canary.as_ref().filter(|canary| Arc::ptr_eq(&canary.trial, trial)) else { return };
        let (hash, tally) = (canary.version.hash(), trial.tally());
        if verdict == Verdict::TakesOver {
            let period = humantime::format_duration(trial.policy.period);
            return self.take_over(&serving, format!("took over after {period}: {tally}"), None).await;
        }
        tracing::warn!(
            module = %self.name, version = %hash, stable = %serving.stable.hash(), %tally, "canary rolled back"
        );
        self.go_back(&serving, HeldBack::by_its_trial(hash, &tally).why, CanaryEnd::WentBack).await;
    }

    /// Makes the version on trial the one that serves.
    pub(super) async fn take_over(&self, serving: &Serving, reason: String, by: Option<String>) {
        let Some(canary) = &serving.canary else { return };
        let (hash, before) = (canary.version.hash(), serving.stable.hash());
        self.exchange(Serving { stable: canary.version.clone(), canary: None });
        tracing::info!(module = %self.name, version = %hash, %before, reason, "canary promoted");
        metrics::canary(&self.name, CanaryEnd::TookOver);
        metrics::swap(&self.name, Origin::Canary.word());
        self.write_down(took_over(hash, reason, by)).await;
    }

    /// Ends a trial in favour of the version before; the file's isn't taken until it is another.
    pub(super) async fn go_back(&self, serving: &Serving, why: String, end: CanaryEnd) {
        let Some(canary) = &serving.canary else { return };
        let hash = canary.version.hash();
        self.exchange(Serving { stable: serving.stable.clone(), canary: None });
        metrics::canary(&self.name, end);
        self.left_aside(hash);
        self.write_down(went_back(hash, why)).await;
    }

    /// Ends a trial because something else is to serve.
    pub(super) async fn end_trial(&self, reason: String, end: CanaryEnd) {
        if let Some(serving) = self.serving().filter(|serving| serving.canary.is_some()) {
            tracing::info!(module = %self.name, version = %serving.stable.hash(), reason, "canary ended");
            self.exchange(Serving { stable: serving.stable.clone(), canary: None });
            metrics::canary(&self.name, end);
        }
        self.write_down(vec![Fact::TrialOver { reason }]).await;
    }
}

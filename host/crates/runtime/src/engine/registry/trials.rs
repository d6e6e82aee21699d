//! Starts, continues and ends canary trials.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::canary::{Canary, MissingEvidence, Trial, Verdict};
use super::module_entry::{ModuleEntry, Serving};
use crate::engine::version::{CanaryPolicy, Version};
use modhost_core::clock;
use modhost_core::metrics::{self, CanaryEnd};
use modhost_storage::versions::{
    Fact, HeldBack, ModuleState, Origin, Progress, canary_failed_facts, canary_promoted_facts,
};

/// The interval at which the progress of a trial is saved. A killed host loses at most this much.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);

/// Waits for the verdict of a trial and applies it. Meanwhile it saves the trial's progress periodically.
async fn watch(entry: Weak<ModuleEntry>, trial: Arc<Trial>) {
    let saving = async {
        loop {
            tokio::time::sleep(SAVE_INTERVAL).await;
            let Some(entry) = entry.upgrade() else { return };
            entry.record_trial().await;
        }
    };
    let on_missing = |missing| {
        if let Some(entry) = entry.upgrade() {
            entry.log_missing_evidence(&trial, missing);
        }
    };
    let verdict = tokio::select! {
        verdict = trial.verdict(on_missing) => verdict,
        () = saving => None,
    };
    if let (Some(verdict), Some(entry)) = (verdict, entry.upgrade()) {
        entry.conclude(&trial, verdict).await;
    }
}

impl ModuleEntry {
    /// Puts a version on trial with a share of the deliveries, or continues its trial after a restart.
    pub(super) async fn begin_trial(
        self: &Arc<Self>,
        version: Arc<Version>,
        policy: CanaryPolicy,
        state: &ModuleState,
    ) {
        let Some(serving) = self.serving() else { return };
        let (hash, before) = (version.hash(), serving.stable.hash());
        let continues = state.canary.as_ref().is_some_and(|entry| entry.hash == hash);
        if !continues {
            let mut facts = vec![Fact::CanaryStarted { hash }];
            if state.canary.is_some() {
                facts.insert(0, Fact::CanaryEnded { reason: format!("replaced by {hash}") });
                metrics::canary(&self.name, CanaryEnd::Replaced);
            }
            self.record_facts(facts).await;
        }
        // Use the recorded start time, so that after a restart each delivery gets the same version as before.
        let recorded = self.module_state();
        let began =
            recorded.canary.filter(|entry| entry.hash == hash).map_or_else(clock::now, |entry| entry.started_at);
        let so_far = if continues { recorded.progress } else { Progress::default() };
        let trial = Arc::new(Trial::new(policy, began, so_far));
        self.swap_serving(Serving {
            stable: serving.stable.clone(),
            canary: Some(Canary { version, trial: trial.clone() }),
        });
        let (percent, period) = (policy.percent, humantime::format_duration(policy.period));
        match continues {
            true => tracing::info!(
                module = %self.name, version = %hash, %before, percent, %period, tally = %so_far.tally, "canary continues"
            ),
            false => tracing::info!(module = %self.name, version = %hash, %before, percent, %period, "canary started"),
        }
        tokio::spawn(watch(Arc::downgrade(self), trial));
    }

    /// Saves the progress of the trial, if there is one.
    pub(super) async fn record_trial(&self) {
        let serving = self.serving();
        let Some(canary) = serving.as_ref().and_then(|serving| serving.canary.as_ref()) else { return };
        let (hash, progress) = (canary.version.hash(), canary.trial.progress());
        self.record_facts(vec![Fact::Progress { hash, progress }]).await;
    }

    /// Logs that a trial continues although its time is over.
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

    /// Applies a verdict, unless the trial has ended for another reason.
    async fn conclude(self: &Arc<Self>, trial: &Arc<Trial>, verdict: Verdict) {
        let _guard = self.module_lock.lock().await;
        let Some(serving) = self.serving() else { return };
        let Some(canary) = serving.canary.as_ref().filter(|canary| Arc::ptr_eq(&canary.trial, trial)) else { return };
        let (hash, tally) = (canary.version.hash(), trial.tally());
        if verdict == Verdict::Promote {
            let period = humantime::format_duration(trial.policy.period);
            return self.promote_canary(&serving, format!("took over after {period}: {tally}"), None).await;
        }
        tracing::warn!(
            module = %self.name, version = %hash, stable = %serving.stable.hash(), %tally, "canary rolled back"
        );
        self.roll_back_canary(&serving, HeldBack::after_failed_trial(hash, &tally).why, CanaryEnd::RolledBack).await;
    }

    /// Promotes the version on trial to the serving version.
    pub(super) async fn promote_canary(&self, serving: &Serving, reason: String, by: Option<String>) {
        let Some(canary) = &serving.canary else { return };
        let (hash, before) = (canary.version.hash(), serving.stable.hash());
        self.swap_serving(Serving { stable: canary.version.clone(), canary: None });
        tracing::info!(module = %self.name, version = %hash, %before, reason, "canary promoted");
        metrics::canary(&self.name, CanaryEnd::Promoted);
        metrics::swap(&self.name, Origin::Canary.name());
        self.record_facts(canary_promoted_facts(hash, reason, by)).await;
    }

    /// Ends a trial in favor of the previous version. The version on trial isn't loaded from the file again until the
    /// file changes.
    pub(super) async fn roll_back_canary(&self, serving: &Serving, why: String, end: CanaryEnd) {
        let Some(canary) = &serving.canary else { return };
        let hash = canary.version.hash();
        self.swap_serving(Serving { stable: serving.stable.clone(), canary: None });
        metrics::canary(&self.name, end);
        self.ignored_version(hash);
        self.record_facts(canary_failed_facts(hash, why)).await;
    }

    /// Ends a trial because another version replaces the one on trial.
    pub(super) async fn end_trial(&self, reason: String, end: CanaryEnd) {
        if let Some(serving) = self.serving().filter(|serving| serving.canary.is_some()) {
            tracing::info!(module = %self.name, version = %serving.stable.hash(), reason, "canary ended");
            self.swap_serving(Serving { stable: serving.stable.clone(), canary: None });
            metrics::canary(&self.name, end);
        }
        self.record_facts(vec![Fact::CanaryEnded { reason }]).await;
    }
}

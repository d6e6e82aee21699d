//! Starts, continues and ends canary trials.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::canary::{Canary, MissingEvidence, Trial, Verdict};
use super::module_entry::{ModuleEntry, Serving};
use super::reload::{Reload, Step};
use crate::engine::version::{CanaryPolicy, Version};
use modhost_core::clock;
use modhost_core::metrics::{self, CanaryEnd};
use modhost_storage::versions::{
    Fact, HeldBack, NoteError, Origin, Progress, canary_failed_facts, canary_promoted_facts,
};

/// The interval at which the progress of a trial is saved. A killed host loses at most this much.
const SAVE_INTERVAL: Duration = Duration::from_secs(10);

/// The interval at which hosts that take part in a trial exchange its progress.
const EXCHANGE_INTERVAL: Duration = Duration::from_secs(2);

/// The time until a verdict is applied again that can't be recorded.
const VERDICT_RETRY: Duration = Duration::from_secs(5);

/// Waits for the verdict of a trial and applies it. Meanwhile it saves the trial's progress periodically.
async fn watch(entry: Weak<ModuleEntry>, trial: Arc<Trial>) {
    let saving = async {
        loop {
            let Some(interval) = entry.upgrade().map(|entry| entry.save_interval()) else { return };
            tokio::time::sleep(interval).await;
            let Some(entry) = entry.upgrade() else { return };
            entry.record_trial().await;
        }
    };
    let deciding = async {
        let on_missing = |missing| {
            if let Some(entry) = entry.upgrade() {
                entry.log_missing_evidence(&trial, missing);
            }
        };
        while let Some(verdict) = trial.verdict(on_missing).await {
            let Some(entry) = entry.upgrade() else { return };
            // The results of other hosts count as well.
            if entry.is_shared() {
                entry.record_trial().await;
            }
            if trial.current_verdict() == Some(verdict) {
                return entry.conclude(&trial, verdict).await;
            }
        }
    };
    tokio::select! {
        () = deciding => {}
        () = saving => {}
    }
}

impl ModuleEntry {
    fn save_interval(&self) -> Duration {
        if self.is_shared() { EXCHANGE_INTERVAL } else { SAVE_INTERVAL }
    }

    /// Puts a version on trial with a share of the deliveries, or continues its trial after a restart or from another host.
    /// Records `facts` with it. The caller holds the module's lock.
    pub(super) async fn begin_trial(
        self: &Arc<Self>,
        reload: &Reload<'_>,
        version: Arc<Version>,
        policy: CanaryPolicy,
        mut facts: Vec<Fact>,
    ) -> Step {
        let Some(serving) = self.serving() else { return Ok(()) };
        let (hash, before) = (version.hash(), serving.stable.hash());
        let canary = self.module_state().canary;
        let continues = canary.as_ref().is_some_and(|entry| entry.hash == hash);
        if !continues {
            if canary.is_some() {
                facts.push(Fact::CanaryEnded { reason: format!("replaced by {hash}") });
            }
            facts.push(Fact::CanaryStarted { hash });
        }
        reload.note(facts).await?;
        if !continues && canary.is_some() {
            metrics::canary(&self.name, CanaryEnd::Replaced);
        }
        // Use the recorded start time, so that after a restart, and on every host, each delivery gets the same version.
        let recorded = self.module_state();
        let canary = recorded.canary.filter(|entry| entry.hash == hash);
        let began = canary.as_ref().map_or_else(clock::now, |entry| entry.started_at);
        let so_far = if continues { recorded.progress } else { Progress::default() };
        let trial = Arc::new(Trial::new(canary.map(|entry| entry.id), policy, began, so_far));
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
        Ok(())
    }

    /// Saves the progress of the trial, if there is one, and reads the results of other hosts.
    pub(super) async fn record_trial(&self) {
        let serving = self.serving();
        let Some(canary) = serving.as_ref().and_then(|serving| serving.canary.as_ref()) else { return };
        let trial = &canary.trial;
        // A trial without an entry could not be recorded.
        let Some(id) = trial.id else { return };
        let (ended, observed) = trial.hand_over();
        match self.shared.versions.count_trial(&self.name, id, ended, observed).await {
            Ok(progress) => trial.set_recorded(progress.tally),
            Err(error) => {
                tracing::error!(module = %self.name, %error, "cannot record the progress of the canary's trial");
            }
        }
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

    /// Applies a verdict, unless the trial has ended for another reason. Of several hosts, one applies it, and the others
    /// follow.
    async fn conclude(self: &Arc<Self>, trial: &Arc<Trial>, verdict: Verdict) {
        while !self.try_conclude(trial, verdict).await {
            tokio::time::sleep(VERDICT_RETRY).await;
        }
    }

    /// Applies a verdict. Returns whether there is nothing left to do.
    async fn try_conclude(self: &Arc<Self>, trial: &Arc<Trial>, verdict: Verdict) -> bool {
        let _guard = self.module_lock.lock().await;
        loop {
            let Some(serving) = self.serving() else { return true };
            let on_trial = serving.canary.as_ref().filter(|canary| Arc::ptr_eq(&canary.trial, trial));
            let Some(canary) = on_trial else { return true };
            let state = self.module_state();
            if self.is_shared() && state.canary.as_ref().map(|entry| entry.id) != trial.id {
                return true;
            }
            let (hash, tally) = (canary.version.hash(), trial.tally());
            let period = humantime::format_duration(trial.policy.period);
            let promoted = format!("took over after {period}: {tally}");
            let facts = match verdict {
                Verdict::Promote => canary_promoted_facts(hash, promoted.clone(), None),
                Verdict::RollBack => canary_failed_facts(hash, HeldBack::after_failed_trial(hash, &tally).why),
            };
            match self.decide(state.epoch, facts).await {
                Ok(_) => {}
                Err(NoteError::Conflict) => continue,
                Err(NoteError::Storage(error)) => {
                    tracing::error!(module = %self.name, %error, "cannot record the end of the canary's trial; retrying");
                    return false;
                }
            }
            match verdict {
                Verdict::Promote => self.promote_canary(&serving, &promoted),
                Verdict::RollBack => {
                    tracing::warn!(
                        module = %self.name, version = %hash, stable = %serving.stable.hash(), %tally, "canary rolled back"
                    );
                    self.roll_back_canary(&serving, CanaryEnd::RolledBack);
                }
            }
            return true;
        }
    }

    /// Promotes the version on trial to the serving version, after that was recorded.
    pub(super) fn promote_canary(&self, serving: &Serving, reason: &str) {
        let Some(canary) = &serving.canary else { return };
        let (hash, before) = (canary.version.hash(), serving.stable.hash());
        self.swap_serving(Serving { stable: canary.version.clone(), canary: None });
        tracing::info!(module = %self.name, version = %hash, %before, reason, "canary promoted");
        metrics::canary(&self.name, CanaryEnd::Promoted);
        metrics::swap(&self.name, Origin::Canary.name());
    }

    /// Ends a trial in favor of the previous version, after that was recorded. The version on trial isn't loaded from the
    /// file again until the file changes.
    pub(super) fn roll_back_canary(&self, serving: &Serving, end: CanaryEnd) {
        let Some(canary) = &serving.canary else { return };
        let hash = canary.version.hash();
        self.swap_serving(Serving { stable: serving.stable.clone(), canary: None });
        metrics::canary(&self.name, end);
        self.ignored_version(hash);
    }

    /// Ends a trial because another version replaces the one on trial, after that was recorded.
    pub(super) fn end_trial(&self, reason: &str, end: CanaryEnd) {
        if let Some(serving) = self.serving().filter(|serving| serving.canary.is_some()) {
            tracing::info!(module = %self.name, version = %serving.stable.hash(), reason, "canary ended");
            self.swap_serving(Serving { stable: serving.stable.clone(), canary: None });
            metrics::canary(&self.name, end);
        }
    }
}

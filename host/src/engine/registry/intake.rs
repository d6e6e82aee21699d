//! How what a module's file holds comes to serve, or doesn't.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::gate;
use super::slot::{Intake, Loading, Refusal, Serving, Slot, lock};
use crate::engine::load::off_thread;
use crate::engine::version::{Spec, Version};
use crate::engine::{LoadError, Urgency, file, milliseconds};
use crate::telemetry::indented;
use crate::telemetry::metrics::{self, CanaryEnd, RefusedBy};
use crate::versions::{ContentHash, Fact, Origin, Standing};

/// A component as it was read.
pub(super) struct Found {
    pub(super) hash: ContentHash,
    pub(super) bytes: Vec<u8>,
}

impl Found {
    pub(super) async fn read(path: &Path) -> Result<Self, LoadError> {
        let path = path.to_owned();
        off_thread(move || {
            let bytes = file::read(&path)?;
            Ok(Self { hash: ContentHash::of(&bytes), bytes })
        })
        .await
    }
}

impl Slot {
    /// Has the file taken in soon.
    pub(super) fn request(self: &Arc<Self>) {
        let (slot, intake) = (self.clone(), Intake::of(self.clone()));
        tokio::spawn(async move {
            // Somebody who waits to do so already reads what is there by then.
            let first = !slot.wanted.swap(true, Ordering::AcqRel);
            slot.overtake().await;
            if first {
                slot.refresh().await;
            }
            drop(intake);
        });
    }

    /// Gives up loading what the file held if it holds something else by now: that may take minutes, for nobody.
    async fn overtake(&self) {
        let Some(Loading { hash, outdated }) = lock(&self.loading).clone() else { return };
        if Found::read(&self.component()).await.is_ok_and(|found| found.hash != hash) {
            outdated.cancel();
        }
    }

    /// Applies the settings, and sees to it that the file is taken in.
    pub(super) fn settle(self: &Arc<Self>) {
        // What the new settings don't give to the version that serves is found, and told, when the file is taken in.
        let _ = self.renew();
        self.request();
    }

    /// Takes in the file, if it is not what serves.
    async fn refresh(self: &Arc<Self>) {
        let _turn = self.turn.lock().await;
        self.wanted.store(false, Ordering::Release);
        if !self.is_forgotten() {
            self.take_in().await;
        }
    }

    /// Takes in the file; only by whose turn it is.
    pub(super) async fn take_in(self: &Arc<Self>) {
        let (spec, standing) = (self.spec(), self.standing());
        let found = Found::read(&spec.component).await;
        if let Some((pinned, order)) = &standing.pinned
            && self.bring_back(&spec, *pinned, found.as_ref().ok()).await
        {
            let why = format!("the module is pinned to {pinned} by {}", order.by);
            return self.stay(&spec, found, &why);
        }
        if let Some(held_back) = &standing.held_back {
            let last = standing.serving.as_ref().map(|entry| entry.hash);
            let same = found.as_ref().is_ok_and(|found| found.hash == held_back.hash);
            if same
                && let Some(last) = last
                && self.bring_back(&spec, last, None).await
            {
                return self.stay(&spec, found, &held_back.why);
            }
            if found.is_ok() {
                self.write_down(vec![Fact::HeldBack(None)]).await;
            }
        }
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.bring_back_last(&spec, &standing).await;
                return self.refuse(&spec, ContentHash::of(&[]), RefusedBy::File, error.to_string()).await;
            }
        };
        if spec.swap.replay > 0 || spec.swap.canary.is_some() {
            self.bring_back_last(&spec, &standing).await;
        }
        self.take(spec, found, standing).await;
    }

    /// Leaves the file aside, as somebody wants it, and says so once.
    fn stay(&self, spec: &Spec, found: Result<Found, LoadError>, why: &str) {
        let serves = self.serving().map(|serving| serving.stable.hash());
        let file = found.ok().map(|found| found.hash).filter(|file| Some(*file) != serves);
        *lock(&self.refused) = None;
        if let Err(error) = self.renew() {
            tracing::error!(module = %self.name, "the new settings are not applied to the version that serves: {error}");
        }
        if let Some(file) = file
            && lock(&self.left_aside).replace(file) != Some(file)
        {
            tracing::warn!(
                module = %self.name, file = %spec.component.display(),
                "version {file} in the file is not taken: {why}; `modhost modules unpin {}` takes it", self.name
            );
        }
    }

    /// Notes that it was told already why this version isn't taken from the file.
    pub(super) fn left_aside(&self, hash: ContentHash) {
        *lock(&self.left_aside) = Some(hash);
    }

    /// Makes what the file holds serve, unless it does already.
    async fn take(self: &Arc<Self>, spec: Arc<Spec>, found: Found, standing: Standing) {
        *lock(&self.left_aside) = None;
        let serving = self.serving();
        if let Some(serving) = &serving
            && serving.stable.hash() == found.hash
        {
            match self.renew() {
                Ok(()) => *lock(&self.refused) = None,
                Err(error) => self.refuse(&spec, found.hash, RefusedBy::File, error.to_string()).await,
            }
            if serving.canary.is_some() || standing.canary.is_some() {
                self.end_trial("the file holds the version before again".into(), CanaryEnd::Replaced).await;
            }
            return;
        }
        let _ = self.renew(); // what can't be applied to the version before matters no more once this one serves
        if serving.as_ref().is_some_and(|it| it.canary.as_ref().is_some_and(|it| it.version.hash() == found.hash)) {
            *lock(&self.refused) = None;
            return;
        }
        if lock(&self.refused).as_ref().is_some_and(|it| it.hash == found.hash && it.spec == spec) {
            return;
        }
        let started = Instant::now();
        let urgency = if serving.is_some() { Urgency::Next } else { Urgency::First };
        match self.load(&found, &spec, urgency).await {
            None => tracing::debug!(module = %self.name, version = %found.hash, "is not loaded: it is out of date"),
            Some(Ok(version)) => self.admit(spec, found, version, standing, started).await,
            Some(Err(error)) => {
                self.bring_back_last(&spec, &standing).await;
                self.refuse(&spec, found.hash, RefusedBy::File, error.to_string()).await;
            }
        }
    }

    /// Loads what the file holds; none if that is out of date before it is done.
    async fn load(&self, found: &Found, spec: &Spec, urgency: Urgency) -> Option<Result<Version, LoadError>> {
        let outdated = CancellationToken::new();
        *lock(&self.loading) = Some(Loading { hash: found.hash, outdated: outdated.clone() });
        // Whoever came before that was there to be seen saw nothing to give up.
        if self.is_forgotten() {
            outdated.cancel();
        } else if self.wanted.load(Ordering::Acquire) {
            self.overtake().await;
        }
        let loaded = outdated.run_until_cancelled(self.shared.engine.load_as(found.bytes.clone(), spec, urgency)).await;
        *lock(&self.loading) = None;
        loaded
    }

    /// Lets a version that can serve do so: after its rehearsals, and on trial first, where the settings want that.
    async fn admit(
        self: &Arc<Self>,
        spec: Arc<Spec>,
        found: Found,
        version: Version,
        standing: Standing,
        started: Instant,
    ) {
        let Found { hash, bytes } = found;
        let before = self.serving().map(|serving| serving.stable.hash());
        let was_tried = standing.canary.as_ref().is_some_and(|entry| entry.hash == hash);
        if before.is_some() && spec.swap.replay > 0 && !was_tried {
            match gate::examine(&self.shared, &self.name, &version, spec.swap.replay).await {
                Ok(rehearsals) => self.tell_rehearsals(hash, &rehearsals),
                Err(reason) => {
                    self.keep(hash, bytes).await;
                    let reason = format!(
                        "{reason}; look at it with `modhost deliveries replay ID --component {}`, or take it all the same \
                         with `modhost modules pin {} {hash}`",
                        spec.component.display(),
                        self.name
                    );
                    return self.refuse(&spec, hash, RefusedBy::Gate, reason).await;
                }
            }
        }
        let version = Arc::new(version);
        match spec.swap.canary {
            Some(policy) if before.is_some() => self.begin_trial(version, policy, &standing).await,
            _ => {
                self.exchange(Serving { stable: version, canary: None });
                let took = milliseconds(started.elapsed());
                match before {
                    Some(before) => tracing::info!(
                        module = %self.name, version = %hash, %before, "new version serves, ready in {took}"
                    ),
                    None => tracing::info!(module = %self.name, version = %hash, "serves, ready in {took}"),
                }
                self.note_serving(hash, Origin::File, &standing).await;
            }
        }
        self.keep(hash, bytes).await;
    }

    fn tell_rehearsals(&self, hash: ContentHash, rehearsals: &gate::Rehearsals) {
        let gate::Rehearsals { passed, open, left_out } = rehearsals;
        let end = if *passed == 1 { "delivery ends" } else { "deliveries end" };
        let mut told = format!("rehearsed: {passed} {end} well on it");
        if *open > 0 {
            told += &format!(", {open} can't be told, as they read what isn't on record");
        }
        if *left_out > 0 {
            told += &format!(", for {left_out} there was no time");
        }
        tracing::info!(module = %self.name, version = %hash, "{told}");
    }

    /// Writes down that the file's version serves, unless it did before the host started.
    async fn note_serving(&self, hash: ContentHash, origin: Origin, standing: &Standing) {
        let mut facts = Vec::new();
        if standing.canary.is_some() {
            facts.push(Fact::TrialOver { reason: format!("{hash} serves") });
            metrics::canary(&self.name, CanaryEnd::Replaced);
        }
        if standing.serving.as_ref().is_none_or(|entry| entry.hash != hash) {
            facts.push(Fact::Serves { hash, origin, by: None });
            metrics::swap(&self.name, origin.word());
        }
        self.write_down(facts).await;
    }

    /// Sees to it that a version serves: from the file if that holds it, else from what was kept. Answers whether it does.
    async fn bring_back(self: &Arc<Self>, spec: &Spec, hash: ContentHash, file: Option<&Found>) -> bool {
        if self.serving().is_some_and(|serving| serving.stable.hash() == hash) {
            return true;
        }
        let bytes = match file.filter(|file| file.hash == hash) {
            Some(file) => Some(file.bytes.clone()),
            None => self.shared.versions.component(hash).await,
        };
        let Some(bytes) = bytes else {
            tracing::error!(module = %self.name, version = %hash, "the component of this version is no longer kept");
            return false;
        };
        match self.shared.engine.load(bytes, spec).await {
            Ok(version) => {
                self.exchange(Serving { stable: Arc::new(version), canary: None });
                tracing::info!(module = %self.name, version = %hash, "serves, as before");
                true
            }
            Err(error) => {
                tracing::error!(module = %self.name, version = %hash, "the version that served before can't serve: {error}");
                false
            }
        }
    }

    /// If nothing serves, brings back what served before the host was started.
    async fn bring_back_last(self: &Arc<Self>, spec: &Spec, standing: &Standing) {
        if self.serving().is_none()
            && let Some(last) = &standing.serving
        {
            self.bring_back(spec, last.hash, None).await;
        }
    }

    /// Keeps what serves, and says once why the file doesn't.
    async fn refuse(&self, spec: &Arc<Spec>, hash: ContentHash, by: RefusedBy, reason: String) {
        let refusal = Refusal { hash, spec: spec.clone(), reason: reason.clone() };
        let before = lock(&self.refused).replace(refusal);
        if before.is_some_and(|before| before.hash == hash && before.reason == reason) {
            return;
        }
        // A new version that fails its rehearsal has chosen words of it.
        let (file, told) = (spec.component.display(), indented(&reason));
        match self.serving() {
            Some(serving) => {
                let what = match by {
                    RefusedBy::File => "the file can't serve".to_owned(),
                    RefusedBy::Gate => format!("the new version {hash} is not taken"),
                };
                let stable = serving.stable.hash();
                tracing::error!(module = %self.name, %file, "{what}; version {stable} goes on serving. {told}");
            }
            // Nothing was there before: it may still be built.
            None if hash == ContentHash::of(&[]) && !spec.component.exists() => tracing::warn!(
                module = %self.name, "no version serves yet: there is no file {file}; it serves as soon as there is, and its deliveries wait"
            ),
            None => {
                tracing::error!(module = %self.name, %file, "no version serves; deliveries wait for another file. {told}")
            }
        }
        metrics::swap_refused(&self.name, by);
        if hash != ContentHash::of(&[]) {
            self.write_down(vec![Fact::Refused { hash, reason }]).await;
        }
    }
}

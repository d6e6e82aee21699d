//! How what a module's file holds comes to serve, or doesn't.
//!
//! Reading, compiling and rehearsing a file takes anything from milliseconds to minutes, and is done without the module's
//! turn. Before each step that changes something the turn is taken, and what was found is judged by how the module stands
//! then: what a person has ordered meanwhile goes before it, and settings that have changed are the ones that count.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::gate::{self, Rejection};
use super::module_entry::{ModuleEntry, PermitGuard, ReloadStep, Serving, Work};
use super::refusal::{Cause, Refusal};
use crate::engine::loaded_components::off_thread;
use crate::engine::version::{Spec, Version};
use crate::engine::{LoadError, Priority, file, milliseconds};
use modhost_core::backoff::Backoff;
use modhost_core::metrics::{self, CanaryEnd, RefusedBy};
use modhost_core::sync::lock;
use modhost_storage::versions::{ContentHash, Fact, ModuleState, Origin};

/// The delays before a file is read again that could not be read, compiled or dry-run for a temporary reason. They grow
/// because a try may cost the host much.
const READ_AGAIN: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(300));

/// How long somebody who wants a file taken in waits to hear what came of it.
const ANSWERED_AFTER: Duration = Duration::from_secs(10);

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

/// Why a version that served before can't serve now.
struct Lost {
    cause: Cause,
    why: String,
}

/// What one look at the file is based on.
struct Look<'a> {
    slot: &'a ModuleEntry,
    spec: Arc<Spec>,
    orders: u64,
    /// Whether a version that its trial has sent back may be tried once more, by other rules.
    new_rules: bool,
    outdated: CancellationToken,
}

impl<'a> Look<'a> {
    fn begin(slot: &'a ModuleEntry, new_rules: bool) -> Self {
        let outdated = CancellationToken::new();
        *lock(&slot.work) = Some(Work { hash: None, outdated: outdated.clone() });
        // Whoever came before that was there to be seen saw nothing to give up.
        if slot.is_forgotten() {
            outdated.cancel();
        }
        Self { slot, orders: slot.orders(), spec: slot.spec(), new_rules, outdated }
    }

    /// Does something that takes long; none if its result isn't wanted any more before it is there.
    async fn wanted<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.outdated.run_until_cancelled(work).await
    }

    /// The module's turn, to act on what was found; none if that is out of date.
    async fn turn(&self) -> Option<PermitGuard<'a>> {
        let turn = self.slot.turn_after_orders().await;
        let spec = self.slot.spec();
        let same_settings = spec.component == self.spec.component && spec.swap == self.spec.swap;
        let holds = same_settings && self.slot.orders() == self.orders && !self.slot.is_forgotten();
        holds.then_some(turn)
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        *lock(&self.slot.work) = None;
    }
}

impl ModuleEntry {
    /// Has the file taken in soon.
    pub(super) fn request(self: &Arc<Self>) {
        let (slot, intake) = (self.clone(), ReloadStep::of(self.clone()));
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

    /// Has the file taken in, and waits a while for that to be done. It goes on even if nobody waits any more: compiling may
    /// take minutes.
    pub(super) async fn take_in_now(self: &Arc<Self>) {
        let (slot, intake) = (self.clone(), ReloadStep::of(self.clone()));
        let taking = tokio::spawn(async move {
            slot.refresh().await;
            drop(intake);
        });
        if let Ok(Err(error)) = tokio::time::timeout(ANSWERED_AFTER, taking).await {
            tracing::error!(module = %self.name, %error, "cannot load the component");
        }
    }

    /// Gives up what is done with what the file held if it holds something else by now: that may take minutes, for nobody.
    async fn overtake(&self) {
        let Some(Work { hash: Some(hash), outdated }) = lock(&self.work).clone() else { return };
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
        let _one_at_a_time = self.intake.lock().await;
        self.wanted.store(false, Ordering::Release);
        let mut new_rules = false;
        loop {
            // What an order that is being prepared comes to decides what becomes of the file.
            drop(self.turn_after_orders().await);
            if self.is_forgotten() {
                return;
            }
            new_rules |= self.new_rules.swap(false, Ordering::AcqRel);
            let look = Look::begin(self, new_rules);
            if self.take_in(&look).await.is_some() {
                return;
            }
            // Whoever has seen that the file changed waits to take it in.
            if self.wanted.load(Ordering::Acquire) {
                self.new_rules.fetch_or(new_rules, Ordering::AcqRel);
                return;
            }
        }
    }

    /// Takes in the file; none if what it was based on has changed before it was done.
    async fn take_in(self: &Arc<Self>, look: &Look<'_>) -> Option<()> {
        let (spec, standing) = (&look.spec, self.standing());
        let found = Found::read(&spec.component).await;
        if let Some((pinned, order)) = &standing.pinned {
            let brought_back = self.bring_back(look, *pinned, found.as_ref().ok()).await?;
            let _turn = look.turn().await?;
            let why = format!("the module is pinned to {pinned} by {}", order.by);
            self.keep_to(spec, *pinned, brought_back, found, &why).await;
            return Some(());
        }
        if let Some(held_back) = &standing.held_back {
            let last = standing.serving.as_ref().map(|entry| entry.hash);
            let same = found.as_ref().is_ok_and(|found| found.hash == held_back.hash);
            let tried_anew = look.new_rules && held_back.is_by_its_trial();
            if same
                && !tried_anew
                && let Some(last) = last
            {
                let brought_back = self.bring_back(look, last, None).await?;
                let _turn = look.turn().await?;
                self.keep_to(spec, last, brought_back, found, &held_back.why).await;
                return Some(());
            }
            if found.is_ok() {
                let _turn = look.turn().await?;
                self.write_down(vec![Fact::HeldBack(None)]).await;
            }
        }
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                self.bring_back_last(look, &standing).await?;
                let _turn = look.turn().await?;
                self.refuse(spec, ContentHash::of(&[]), Cause::of(&error), error.to_string()).await;
                return Some(());
            }
        };
        if spec.swap.replay > 0 || spec.swap.canary.is_some() {
            self.bring_back_last(look, &standing).await?;
        }
        self.take(look, found).await
    }

    /// Keeps to the version that is to serve instead of the file's. If it can't, none does, and deliveries wait: the file's is
    /// what somebody doesn't want to run.
    async fn keep_to(
        self: &Arc<Self>,
        spec: &Arc<Spec>,
        hash: ContentHash,
        brought_back: Result<(), Lost>,
        file: Result<Found, LoadError>,
        why: &str,
    ) {
        match brought_back {
            Ok(()) => self.stay(spec, file, why),
            Err(Lost { cause, why: lost }) => {
                let reason = format!(
                    "version {hash}, which is to serve, can't: {lost}. The one in the file is not taken: {why}; \
                     `modhost modules unpin {}` takes it",
                    self.name
                );
                self.refuse(spec, ContentHash::of(&[]), cause, reason).await;
            }
        }
    }

    /// Leaves the file aside, as somebody wants it, and says so once.
    fn stay(&self, spec: &Spec, found: Result<Found, LoadError>, why: &str) {
        let serves = self.serving().map(|serving| serving.stable.hash());
        let file = found.ok().map(|found| found.hash).filter(|file| Some(*file) != serves);
        *lock(&self.refused) = None;
        if let Err(error) = self.renew() {
            tracing::error!(module = %self.name, %error, "cannot apply the new settings to the version that serves");
        }
        if let Some(file) = file
            && lock(&self.left_aside).replace(file) != Some(file)
        {
            tracing::warn!(
                module = %self.name, version = %file, file = %spec.component.display(), reason = why,
                help = format!("`modhost modules unpin {}` loads it", self.name),
                "version in the file is not loaded"
            );
        }
    }

    /// Notes that it was told already why this version isn't taken from the file.
    pub(super) fn left_aside(&self, hash: ContentHash) {
        *lock(&self.left_aside) = Some(hash);
    }

    /// Makes what the file holds serve, unless it does already.
    async fn take(self: &Arc<Self>, look: &Look<'_>, found: Found) -> Option<()> {
        let spec = &look.spec;
        let turn = look.turn().await?;
        *lock(&self.left_aside) = None;
        let serving = self.serving();
        if let Some(serving) = &serving
            && serving.stable.hash() == found.hash
        {
            match self.renew() {
                Ok(()) => *lock(&self.refused) = None,
                Err(error) => self.refuse(spec, found.hash, Cause::of(&error), error.to_string()).await,
            }
            if serving.canary.is_some() || self.standing().canary.is_some() {
                self.end_trial("the file holds the version before again".into(), CanaryEnd::Replaced).await;
            }
            return Some(());
        }
        let _ = self.renew(); // what can't be applied to the version before matters no more once this one serves
        if serving.as_ref().is_some_and(|it| it.canary.as_ref().is_some_and(|it| it.version.hash() == found.hash)) {
            *lock(&self.refused) = None;
            return Some(());
        }
        if lock(&self.refused).as_ref().is_some_and(|it| it.holds(found.hash, spec)) {
            return Some(());
        }
        drop(turn);
        let started = Instant::now();
        let priority = if serving.is_some() { Priority::Next } else { Priority::First };
        match self.load(look, &found, priority).await {
            None => {
                tracing::debug!(module = %self.name, version = %found.hash, "load canceled: the file has changed");
                None
            }
            Some(Ok(version)) => self.admit(look, found, version, started).await,
            Some(Err(error)) => {
                self.bring_back_last(look, &self.standing()).await?;
                let _turn = look.turn().await?;
                self.refuse(spec, found.hash, Cause::of(&error), error.to_string()).await;
                Some(())
            }
        }
    }

    /// Loads what the file holds; none if that is out of date before it is done.
    async fn load(&self, look: &Look<'_>, found: &Found, priority: Priority) -> Option<Result<Version, LoadError>> {
        if let Some(work) = &mut *lock(&self.work) {
            work.hash = Some(found.hash);
        }
        // Whoever came before that could be seen didn't know what it was that was loaded.
        if self.wanted.load(Ordering::Acquire) {
            self.overtake().await;
        }
        look.wanted(self.shared.engine.load_as(found.bytes.clone(), &look.spec, priority)).await
    }

    /// Lets a version that can serve do so: after its dry runs, and on trial first, where the settings want that.
    async fn admit(self: &Arc<Self>, look: &Look<'_>, found: Found, version: Version, started: Instant) -> Option<()> {
        let (Found { hash, bytes }, spec) = (found, &look.spec);
        let was_tried = self.standing().canary.is_some_and(|entry| entry.hash == hash);
        if self.serving().is_some() && spec.swap.replay > 0 && !was_tried {
            tracing::debug!(module = %self.name, version = %hash, "dry run started");
            let examined = look.wanted(gate::examine(&self.shared, &self.name, &version, &spec.swap)).await;
            if examined.is_none() {
                tracing::debug!(module = %self.name, version = %hash, "dry run canceled: the file has changed");
            }
            match examined? {
                Ok(dry_runs) => self.log_dry_runs(hash, &dry_runs),
                Err(Rejection::Unable(reason)) => {
                    let _turn = look.turn().await?;
                    self.refuse(spec, hash, Cause::Host, reason).await;
                    return Some(());
                }
                Err(Rejection::Unfit { what, delivery }) => {
                    self.keep(hash, bytes).await;
                    let replay = delivery.map(|delivery| {
                        let component = spec.component.display();
                        format!("look at it with `modhost deliveries replay {delivery} --component {component}`, or ")
                    });
                    let reason = format!(
                        "{what}; {}take it all the same with `modhost modules pin {} {hash}`",
                        replay.unwrap_or_default(),
                        self.name
                    );
                    let _turn = look.turn().await?;
                    self.refuse(spec, hash, Cause::Gate, reason).await;
                    return Some(());
                }
            }
        }
        let turn = look.turn().await?;
        // As it is now: a trial may have ended meanwhile.
        let (standing, before) = (self.standing(), self.serving().map(|serving| serving.stable.hash()));
        match &standing.held_back {
            // It was gone back from just now.
            Some(held_back) if held_back.hash == hash => return None,
            Some(_) => self.write_down(vec![Fact::HeldBack(None)]).await,
            None => {}
        }
        let version = Arc::new(version);
        match spec.swap.canary {
            Some(policy) if before.is_some() => self.begin_trial(version, policy, &standing).await,
            _ => {
                self.exchange(Serving { stable: version, canary: None });
                let took = milliseconds(started.elapsed());
                match before {
                    Some(before) => tracing::info!(
                        module = %self.name, version = %hash, %before, %took, "new version serves"
                    ),
                    None => tracing::info!(module = %self.name, version = %hash, %took, "version serves"),
                }
                self.note_serving(hash, Origin::File, &standing).await;
            }
        }
        *lock(&self.refused) = None;
        self.reread.store(0, Ordering::Release);
        drop(turn);
        self.keep(hash, bytes).await;
        Some(())
    }

    fn log_dry_runs(&self, hash: ContentHash, dry_runs: &gate::DryRuns) {
        let gate::DryRuns { passed, open, left_out } = dry_runs;
        if (passed + open + left_out) == 0 {
            tracing::warn!(
                module = %self.name, version = %hash, "dry run skipped: the journal has no completed delivery of the module"
            );
            return;
        }
        tracing::info!(
            module = %self.name, version = %hash, passed, inconclusive = open, not_run = left_out, "dry run passed"
        );
    }

    /// Writes down that the file's version serves, unless it did before the host started.
    async fn note_serving(&self, hash: ContentHash, origin: Origin, standing: &ModuleState) {
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

    /// Sees to it that a version serves: from the file if that holds it, else from what was kept; none if that isn't wanted
    /// any more.
    async fn bring_back(
        self: &Arc<Self>,
        look: &Look<'_>,
        hash: ContentHash,
        file: Option<&Found>,
    ) -> Option<Result<(), Lost>> {
        if self.serving().is_some_and(|serving| serving.stable.hash() == hash) {
            return Some(Ok(()));
        }
        let bytes = match file.filter(|file| file.hash == hash) {
            Some(file) => Some(file.bytes.clone()),
            None => self.shared.versions.component(hash).await,
        };
        let Some(bytes) = bytes else {
            return Some(Err(Lost { cause: Cause::Component, why: "its component is no longer kept".into() }));
        };
        match look.wanted(self.shared.engine.load(bytes, &look.spec)).await? {
            Ok(version) => {
                let _turn = look.turn().await?;
                self.exchange(Serving { stable: Arc::new(version), canary: None });
                *lock(&self.refused) = None;
                tracing::info!(module = %self.name, version = %hash, "previous version serves again");
                Some(Ok(()))
            }
            Err(error) => Some(Err(Lost { cause: Cause::of(&error), why: error.to_string() })),
        }
    }

    /// If nothing serves, brings back what served before the host was started.
    async fn bring_back_last(self: &Arc<Self>, look: &Look<'_>, standing: &ModuleState) -> Option<()> {
        if self.serving().is_none()
            && let Some(last) = &standing.serving
            && let Err(Lost { why, .. }) = self.bring_back(look, last.hash, None).await?
            && lock(&self.lost).replace(why.clone()).as_ref() != Some(&why)
        {
            tracing::error!(
                module = %self.name, version = %last.hash, reason = why, "cannot bring back the version that served before"
            );
        }
        Some(())
    }

    /// Keeps what serves, and says once why the file doesn't.
    async fn refuse(self: &Arc<Self>, spec: &Arc<Spec>, hash: ContentHash, cause: Cause, reason: String) {
        if cause.passes() {
            self.read_again_later();
        } else {
            self.reread.store(0, Ordering::Release);
        }
        let refusal = Refusal { hash, spec: spec.clone(), cause, reason: reason.clone() };
        let before = lock(&self.refused).replace(refusal);
        if before.is_some_and(|before| before.hash == hash && before.reason == reason) {
            return;
        }
        // A new version that fails its dry run has chosen words of it.
        let file = spec.component.display();
        match self.serving() {
            Some(serving) => {
                let stable = serving.stable.hash();
                match cause.by() {
                    RefusedBy::File => tracing::error!(
                        module = %self.name, %file, %stable, reason, "the file cannot serve; the stable version stays"
                    ),
                    RefusedBy::Gate => tracing::error!(
                        module = %self.name, %file, version = %hash, %stable, reason,
                        "new version failed its dry run; the stable version stays"
                    ),
                }
            }
            // Nothing was there before: it may still be built.
            None if cause == Cause::Missing => tracing::warn!(
                module = %self.name, %file, "no version serves: the file does not exist; deliveries wait for it"
            ),
            None => {
                tracing::error!(module = %self.name, %file, reason, "no version serves; deliveries wait");
            }
        }
        metrics::swap_refused(&self.name, cause.by());
        if hash != ContentHash::of(&[]) {
            self.write_down(vec![Fact::Refused { hash, reason }]).await;
        }
    }

    /// Reads the file again after a while: nothing else may say that it can be read, compiled or dry-run by then.
    fn read_again_later(self: &Arc<Self>) {
        if self.rereads.swap(true, Ordering::AcqRel) {
            return;
        }
        let before = self.reread.fetch_add(1, Ordering::AcqRel);
        let wait = READ_AGAIN.delay(before);
        let slot = Arc::downgrade(self);
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let Some(slot) = slot.upgrade() else { return };
            slot.rereads.store(false, Ordering::Release);
            if !slot.is_forgotten() && lock(&slot.refused).as_ref().is_some_and(|it| it.cause.passes()) {
                slot.request();
            }
        });
    }
}

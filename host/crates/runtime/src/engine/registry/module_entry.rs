//! One module: what answers its deliveries, and the one step in which that is exchanged.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::SystemTime;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::canary::{Arm, Canary};
use super::refusal::Refusal;
use super::{Chosen, Shared};
use crate::engine::LoadError;
use crate::engine::version::{Spec, Version};
use modhost_core::clock;
use modhost_core::event::{DeliveryId, Name};
use modhost_core::metrics::{self, CanaryEnd};
use modhost_core::sync::lock;
use modhost_storage::error::StorageError;
use modhost_storage::versions::{ContentHash, Fact, ModuleState, Origin};

/// A module of the registry.
pub(super) struct ModuleEntry {
    pub(super) shared: Arc<Shared>,
    pub(super) name: Name,
    /// When the host started, or the module came into modules.toml.
    pub(super) named: SystemTime,
    spec: ArcSwap<Spec>,
    serving: ArcSwapOption<Serving>,
    /// Why the file as it is now doesn't serve.
    pub(super) refused: Mutex<Option<Refusal>>,
    /// The file that isn't taken, and was told of.
    pub(super) left_aside: Mutex<Option<ContentHash>>,
    /// Why the version that served last doesn't serve now, as the log has said.
    pub(super) lost: Mutex<Option<String>>,
    /// Held while versions are exchanged and that is recorded, so that two changes come one after the other. Nothing is read,
    /// compiled or dry-run under it: a person's order and the end of a trial never wait for that.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// Held while the file is taken in, however long that takes.
    pub(super) intake: tokio::sync::Mutex<()>,
    /// How many orders of people were carried out that overrule what the file says.
    orders: AtomicU64,
    /// How many such orders are being prepared; the file waits for them.
    ordering: watch::Sender<usize>,
    /// Whether somebody waits to take in the file.
    pub(super) wanted: AtomicBool,
    /// Whether other rules hold for new versions than when the file was taken in: a version that went back may be tried anew.
    pub(super) new_rules: AtomicBool,
    /// Whether the file is going to be read again by itself.
    pub(super) rereads: AtomicBool,
    /// How often that has happened in a row.
    pub(super) reread: AtomicU32,
    /// How many want the file taken in, or take it in.
    intakes: AtomicUsize,
    paused: AtomicBool,
    /// What is done with the file now.
    pub(super) work: Mutex<Option<Work>>,
    /// Whether the module is no longer in modules.toml.
    forgotten: AtomicBool,
    /// Versions that no longer serve; those deliveries still run on are there.
    outgoing: Mutex<Vec<Weak<Version>>>,
}

/// What answers deliveries: exchanged as a whole.
pub(super) struct Serving {
    pub(super) stable: Arc<Version>,
    pub(super) canary: Option<Canary>,
}

/// A file that is being read, compiled or dry-run.
#[derive(Clone)]
pub(super) struct Work {
    /// What it holds, once that is known.
    pub(super) hash: Option<ContentHash>,
    /// Ends the work: nobody wants its result any more.
    pub(super) outdated: CancellationToken,
}

impl ModuleEntry {
    pub(super) fn new(shared: Arc<Shared>, spec: Spec) -> Self {
        let paused = shared.versions.standing(&spec.name).paused.is_some();
        Self {
            shared,
            name: spec.name.clone(),
            named: clock::now(),
            spec: ArcSwap::from_pointee(spec),
            serving: ArcSwapOption::empty(),
            refused: Mutex::default(),
            left_aside: Mutex::default(),
            lost: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            intake: tokio::sync::Mutex::default(),
            orders: AtomicU64::new(0),
            ordering: watch::Sender::new(0),
            wanted: AtomicBool::new(false),
            new_rules: AtomicBool::new(false),
            rereads: AtomicBool::new(false),
            reread: AtomicU32::new(0),
            intakes: AtomicUsize::new(0),
            paused: AtomicBool::new(paused),
            work: Mutex::default(),
            forgotten: AtomicBool::new(false),
            outgoing: Mutex::default(),
        }
    }

    /// Gives the module other settings; they are applied when it is settled.
    pub(super) fn set(&self, spec: Spec) {
        let (swap, before) = (spec.swap, self.spec.swap(Arc::new(spec)));
        if swap != before.swap && swap.canary.is_some() {
            self.new_rules.store(true, Ordering::Release);
        }
    }

    pub(super) fn spec(&self) -> Arc<Spec> {
        self.spec.load_full()
    }

    pub(super) fn component(&self) -> PathBuf {
        self.spec.load().component.clone()
    }

    pub(super) fn standing(&self) -> ModuleState {
        self.shared.versions.standing(&self.name)
    }

    pub(super) fn serving(&self) -> Option<Arc<Serving>> {
        self.serving.load_full()
    }

    pub(super) fn refused(&self) -> Option<String> {
        lock(&self.refused).as_ref().map(|refusal| refusal.reason.clone())
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    /// Whether nothing serves yet, and it isn't known yet whether what is in the file can.
    pub(super) fn is_coming_up(&self) -> bool {
        // In this order: what is taken in serves before it counts as taken in.
        self.serving.load().is_none() && self.intakes.load(Ordering::Acquire) > 0
    }

    /// Whether its deliveries wait.
    pub(super) fn makes_wait(&self) -> bool {
        self.is_paused() || self.serving.load().is_none()
    }

    /// Says that the module is no longer in modules.toml: what is loaded for it is given up.
    pub(super) fn forget(&self) {
        self.forgotten.store(true, Ordering::SeqCst);
        self.give_up_work();
    }

    /// Gives up what is done with the file now.
    fn give_up_work(&self) {
        if let Some(work) = &*lock(&self.work) {
            work.outdated.cancel();
        }
    }

    /// How many orders were carried out.
    pub(super) fn orders(&self) -> u64 {
        self.orders.load(Ordering::Acquire)
    }

    /// Says that an order was carried out, by whose turn it is: what is done with the file may have become wrong.
    pub(super) fn is_overruled(&self) {
        self.orders.fetch_add(1, Ordering::AcqRel);
        self.give_up_work();
    }

    /// Keeps the file from coming to serve while an order is prepared: otherwise it could do so before, and the order would
    /// mean another version by then than the person who gave it did.
    pub(super) fn prepare_order(&self) -> Preparing<'_> {
        self.ordering.send_modify(|count| *count += 1);
        self.give_up_work();
        Preparing(self)
    }

    /// Waits until no order is being prepared, and then for the turn.
    pub(super) async fn turn_after_orders(&self) -> PermitGuard<'_> {
        let mut ordering = self.ordering.subscribe();
        loop {
            // It is never closed, as the sender is this module's.
            let _ = ordering.wait_for(|count| *count == 0).await;
            let turn = self.turn.lock().await;
            if *self.ordering.borrow() == 0 {
                return turn;
            }
        }
    }

    pub(super) fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::SeqCst)
    }

    /// How many versions are in memory.
    pub(super) fn loaded(&self) -> usize {
        let serving = self.serving.load();
        let serving = serving.as_ref().map_or(0, |serving| 1 + usize::from(serving.canary.is_some()));
        serving + lock(&self.outgoing).iter().filter(|version| version.strong_count() > 0).count()
    }

    pub(super) fn choose(&self, delivery: &DeliveryId, received: SystemTime) -> Option<Chosen> {
        let serving = self.serving.load();
        let Serving { stable, canary } = &**serving.as_ref()?;
        let Some(Canary { version, trial }) = canary else {
            return Some(Chosen { version: stable.clone(), trial: None });
        };
        let arm = trial.arm(delivery, received);
        let version = if arm == Arm::Canary { version } else { stable };
        Some(Chosen { version: version.clone(), trial: Some((trial.clone(), arm)) })
    }

    /// Makes this what answers deliveries from now on: the one step in which a swap is done.
    pub(super) fn exchange(&self, next: Serving) {
        let before = self.serving.swap(Some(Arc::new(next)));
        match before {
            Some(before) => self.part_with(&before),
            None => self.shared.notify_change(),
        }
        // The settings may have changed while the version was made.
        if let Err(error) = self.renew() {
            tracing::debug!(module = %self.name, %error, "cannot apply newer settings to the version");
        }
    }

    /// Lets go of what served, and remembers what doesn't any more for as long as deliveries run on it.
    fn part_with(&self, before: &Serving) {
        let now = self.serving();
        let versions = |serving: &Serving| {
            let canary = serving.canary.as_ref().map(|canary| canary.version.clone());
            [Some(serving.stable.clone()), canary].into_iter().flatten().collect::<Vec<_>>()
        };
        let trial = now.as_ref().and_then(|now| now.canary.as_ref()).map(|canary| &canary.trial);
        if let Some(canary) = &before.canary
            && trial.is_none_or(|trial| !Arc::ptr_eq(trial, &canary.trial))
        {
            canary.trial.is_over();
        }
        let now = now.as_deref().map(versions).unwrap_or_default();
        let gone = versions(before).into_iter().filter(|version| !now.iter().any(|it| Arc::ptr_eq(it, version)));
        let mut outgoing = lock(&self.outgoing);
        outgoing.retain(|version| version.strong_count() > 0);
        outgoing.extend(gone.map(|version| Arc::downgrade(&version)));
    }

    /// Gives what serves the settings as they are now.
    ///
    /// # Errors
    ///
    /// When they don't give a version what it needs; then nothing is changed.
    pub(super) fn renew(&self) -> Result<(), LoadError> {
        let (Some(before), spec) = (self.serving(), self.spec()) else { return Ok(()) };
        let renewed = |version: &Arc<Version>| match version.is(version.hash(), &spec) {
            true => Ok(version.clone()),
            false => version.with_settings(&spec).map(Arc::new),
        };
        let stable = renewed(&before.stable)?;
        let canary = before
            .canary
            .as_ref()
            .map(|Canary { version, trial }| renewed(version).map(|version| Canary { version, trial: trial.clone() }));
        let canary = canary.transpose()?;
        let mut canaries = canary.iter().zip(&before.canary);
        let same_canary = canaries.all(|(now, before)| Arc::ptr_eq(&now.version, &before.version));
        if Arc::ptr_eq(&stable, &before.stable) && same_canary {
            return Ok(());
        }
        let hash = stable.hash();
        let next = Some(Arc::new(Serving { stable, canary }));
        let found = self.serving.compare_and_swap(&Some(before.clone()), next);
        if found.as_ref().is_some_and(|found| Arc::ptr_eq(found, &before)) {
            self.part_with(&before);
            tracing::info!(module = %self.name, version = %hash, "new settings in use");
        }
        // Else another version was exchanged for it meanwhile, and whoever did that renews it.
        Ok(())
    }

    /// Writes down what has happened; that it can't be is no reason to go back on it.
    pub(super) async fn write_down(&self, facts: Vec<Fact>) {
        if facts.is_empty() {
            return;
        }
        if let Err(error) = self.shared.versions.note(&self.name, facts).await {
            tracing::error!(module = %self.name, %error, "cannot record the version history");
        }
    }

    pub(super) async fn keep(&self, hash: ContentHash, bytes: Vec<u8>) {
        if let Err(error) = self.shared.versions.keep(hash, bytes.into()).await {
            tracing::error!(
                module = %self.name, version = %hash, %error, "cannot keep the component; rolling back to it will fail"
            );
        }
    }
}

/// For what people ask.
impl ModuleEntry {
    /// Makes a version serve, because somebody asked for it; the facts of that are written down before it does. Only by whose
    /// turn it is.
    pub(super) async fn serve(
        &self,
        version: Version,
        origin: Origin,
        by: &str,
        facts: Vec<Fact>,
    ) -> Result<(), StorageError> {
        let (hash, tried) = (version.hash(), self.standing().canary.is_some());
        self.shared.versions.note(&self.name, facts).await?;
        if tried {
            let end = if origin == Origin::Canary { CanaryEnd::TookOver } else { CanaryEnd::Replaced };
            metrics::canary(&self.name, end);
        }
        self.exchange(Serving { stable: Arc::new(version), canary: None });
        *lock(&self.refused) = None;
        self.is_overruled();
        tracing::info!(module = %self.name, version = %hash, origin = origin.word(), by, "version serves");
        metrics::swap(&self.name, origin.word());
        Ok(())
    }
}

/// The intake of a module's file, from when it is asked for: as long as it goes on, a module that has no version is on its
/// way to one.
pub(super) struct ReloadStep(Arc<ModuleEntry>);

impl ReloadStep {
    pub(super) fn of(slot: Arc<ModuleEntry>) -> Self {
        slot.intakes.fetch_add(1, Ordering::Release);
        Self(slot)
    }
}

impl Drop for ReloadStep {
    fn drop(&mut self) {
        self.0.intakes.fetch_sub(1, Ordering::Release);
        if self.0.serving().is_none() {
            self.0.shared.notify_change();
        }
    }
}

/// The turn of a module.
pub(super) type PermitGuard<'a> = tokio::sync::MutexGuard<'a, ()>;

/// An order that is being prepared: as long as there is one, the file doesn't come to serve.
pub(super) struct Preparing<'a>(&'a ModuleEntry);

impl Drop for Preparing<'_> {
    fn drop(&mut self) {
        self.0.ordering.send_modify(|count| *count -= 1);
    }
}

//! What people may say about a module: go back, stay, wait, decide on a trial. The rules are those of
//! [`versions`](crate::versions); here they are carried out on what serves.

use std::sync::Arc;

use super::intake::Found;
use super::slot::{Serving, Slot};
use super::{Registry, Status};
use crate::clock;
use crate::config::nearest;
use crate::engine::LoadError;
use crate::engine::version::{Spec, Version};
use crate::event::Name;
use crate::telemetry::metrics::CanaryEnd;
use crate::versions::{Asked, ContentHash, Fact, Order, Refusal, Standing, VersionsError, ended_by, promoted_by};

/// Why something that was asked isn't done.
#[derive(Debug, thiserror::Error)]
pub enum OrderError {
    /// There is no module of this name.
    #[error("there is no module {name} in modules.toml; {advice}")]
    NoModule {
        /// What was asked for.
        name: Name,
        /// The one that was probably meant, and those there are.
        advice: String,
    },
    /// There is no such version of it, or it doesn't go with how the module stands.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The version can't serve.
    #[error("version {0} can't serve: {1}")]
    CantServe(ContentHash, LoadError),
    /// It can't be written down.
    #[error(transparent)]
    Versions(#[from] VersionsError),
}

type Result<T> = std::result::Result<T, OrderError>;

impl Registry {
    /// Makes the version serve that did before the one that does now. The file it goes back from isn't taken again until
    /// it changes.
    ///
    /// # Errors
    ///
    /// When there is none before, or it can't serve; then nothing is changed.
    pub async fn rollback(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        let turn = slot.turn.lock().await;
        slot.roll_back(by).await?;
        drop(turn);
        Ok(slot.status())
    }

    /// Makes a version serve whose hash begins like this, and stay whatever the file says.
    ///
    /// # Errors
    ///
    /// When there is no such version, more than one, or it can't serve; then nothing is changed.
    pub async fn pin(&self, module: &Name, hash: &str, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        let turn = slot.turn.lock().await;
        slot.pin(hash, by).await?;
        drop(turn);
        Ok(slot.status())
    }

    /// Lets a module follow its file again, whatever kept it from that.
    ///
    /// # Errors
    ///
    /// When it does so already.
    pub async fn unpin(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        let turn = slot.turn.lock().await;
        let decision = slot.asked(by, &slot.standing(), None).unpin()?;
        slot.shared.versions.note(module, decision.facts).await?;
        tracing::info!(%module, "follows its file again, as {by} asked");
        slot.take_in().await;
        drop(turn);
        Ok(slot.status())
    }

    /// Makes a module's deliveries wait: those that run end, no other begins, none fails.
    ///
    /// # Errors
    ///
    /// When it can't be written down.
    pub async fn pause(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        if !slot.is_paused() {
            let order = Order { by: by.to_owned(), at: clock::now() };
            slot.shared.versions.note(module, vec![Fact::Paused(Some(order))]).await?;
            slot.set_paused(true);
            tracing::info!(%module, "is paused, as {by} asked: its deliveries wait");
        }
        Ok(slot.status())
    }

    /// Lets a module's deliveries begin again; whoever runs them has to be told.
    ///
    /// # Errors
    ///
    /// When it can't be written down.
    pub async fn resume(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        if slot.is_paused() {
            slot.shared.versions.note(module, vec![Fact::Paused(None)]).await?;
            slot.set_paused(false);
            tracing::info!(%module, "is resumed, as {by} asked: its deliveries go on");
        }
        Ok(slot.status())
    }

    /// Makes the version that is tried serve, before its time is over.
    ///
    /// # Errors
    ///
    /// When none is tried.
    pub async fn promote(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        let turn = slot.turn.lock().await;
        let serving = slot.on_trial()?;
        slot.take_over(&serving, promoted_by(by), Some(by.to_owned())).await;
        drop(turn);
        Ok(slot.status())
    }

    /// Ends the trial of a version; the one before goes on alone. The file isn't taken again until it changes.
    ///
    /// # Errors
    ///
    /// When none is tried.
    pub async fn abort(&self, module: &Name, by: &str) -> Result<Status> {
        let slot = self.known(module)?;
        let turn = slot.turn.lock().await;
        let serving = slot.on_trial()?;
        slot.go_back(&serving, ended_by(by), CanaryEnd::Aborted).await;
        tracing::info!(%module, version = %serving.stable.hash(), "serves alone again, as {by} ended the trial");
        drop(turn);
        Ok(slot.status())
    }

    fn known(&self, module: &Name) -> Result<Arc<Slot>> {
        self.slots.load().get(module).cloned().ok_or_else(|| self.no_module(module))
    }

    /// That there is no module of this name, and which there are.
    pub fn no_module(&self, name: &Name) -> OrderError {
        let slots = self.slots.load();
        let mut known: Vec<&str> = slots.keys().map(|name| name.as_str()).collect();
        known.sort_unstable();
        OrderError::NoModule { name: name.clone(), advice: nearest::advice(name.as_str(), &known) }
    }
}

impl Slot {
    /// What somebody asks of this module, as it stands.
    fn asked<'a>(&'a self, by: &'a str, standing: &'a Standing, file: Option<ContentHash>) -> Asked<'a> {
        let serving = self.serving();
        let tried = serving.as_ref().and_then(|serving| serving.canary.as_ref()).map(|canary| canary.version.hash());
        let serving = serving.map(|serving| serving.stable.hash());
        Asked { module: &self.name, by, standing, serving, tried, file }
    }

    async fn roll_back(&self, by: &str) -> Result<()> {
        let standing = self.standing();
        let history = self.shared.versions.history(&self.name).await?;
        let file = Found::read(&self.component()).await.map(|found| found.hash).ok();
        let decision = self.asked(by, &standing, file).roll_back(&history)?;
        let Some((target, origin)) = decision.serves else { return Ok(()) };
        let version = self.load_kept(target, &self.spec()).await?;
        Ok(self.serve(version, origin, by, decision.facts).await?)
    }

    async fn pin(&self, hash: &str, by: &str) -> Result<()> {
        let standing = self.standing();
        let history = self.shared.versions.history(&self.name).await?;
        let file = Found::read(&self.component()).await.ok();
        let asked = self.asked(by, &standing, file.as_ref().map(|file| file.hash));
        let decision = asked.pin(hash, &history, clock::now())?;
        let Some((hash, origin)) = decision.serves else {
            self.shared.versions.note(&self.name, decision.facts).await?;
            tracing::info!(module = %self.name, version = asked.serving.map(tracing::field::display), "is pinned, as {by} asked");
            return Ok(());
        };
        let spec = self.spec();
        let version = match file.filter(|file| file.hash == hash) {
            Some(file) => {
                let version = self.shared.engine.load(file.bytes.clone(), &spec).await;
                self.keep(hash, file.bytes).await;
                version.map_err(|error| OrderError::CantServe(hash, error))?
            }
            None => self.load_kept(hash, &spec).await?,
        };
        Ok(self.serve(version, origin, by, decision.facts).await?)
    }

    async fn load_kept(&self, hash: ContentHash, spec: &Spec) -> Result<Version> {
        let bytes = self.shared.versions.component(hash).await.ok_or_else(|| Refusal::not_kept(hash))?;
        self.shared.engine.load(bytes, spec).await.map_err(|error| OrderError::CantServe(hash, error))
    }

    fn on_trial(&self) -> Result<Arc<Serving>> {
        let serving = self.serving().filter(|serving| serving.canary.is_some());
        Ok(serving.ok_or_else(|| Refusal::no_trial(&self.name))?)
    }
}

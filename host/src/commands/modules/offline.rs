//! Modules of a host that doesn't run: the record of versions in its data directory, looked at, and changed by what a
//! person asks. An operator whose host doesn't come up can go back from what keeps it from that.

use std::path::PathBuf;

use anyhow::{Context, anyhow};

use super::Order;
use modhost_config::{Module, Settings};
use modhost_core::clock;
use modhost_core::event::Name;
use modhost_runtime::engine::OrderError;
use modhost_server::admin_api::{ModuleView, VersionView};
use modhost_server::resolved_config;
use modhost_storage::versions::{
    self, AtRest, ContentHash, Decision, Fact, Keep, Origin, Refusal, VersionRequest, Versions,
};

/// A data directory at rest.
pub(super) struct Directory {
    /// Where it is.
    pub(super) data_dir: PathBuf,
    /// The settings of its host: orders want to know the module's file, and what a version has to fit.
    pub(super) config: PathBuf,
}

impl Directory {
    pub(super) async fn list(&self) -> anyhow::Result<Vec<ModuleView>> {
        let modules = self.look().await?.modules().await?;
        Ok(modules.into_iter().map(|(name, standing)| ModuleView::at_rest(&name, standing)).collect())
    }

    pub(super) async fn show(&self, name: &str) -> anyhow::Result<ModuleView> {
        let module = Name::from(name);
        let standing = self.look().await?.standing(&module).await?.ok_or_else(|| nobody(name))?;
        Ok(ModuleView::at_rest(&module, standing))
    }

    pub(super) async fn history(&self, name: &str) -> anyhow::Result<Vec<VersionView>> {
        let (record, module) = (self.look().await?, Name::from(name));
        let history = record.history(&module).await?;
        if history.is_empty() && record.standing(&module).await?.is_none() {
            return Err(nobody(name));
        }
        Ok(history.into_iter().map(VersionView::from).collect())
    }

    async fn look(&self) -> versions::Result<AtRest> {
        AtRest::open(self.data_dir.clone()).await
    }

    /// Does what somebody asks: the host does the rest when it starts. While this goes on, none can.
    pub(super) async fn order(&self, name: &str, order: Order<'_>, by: &str) -> anyhow::Result<ModuleView> {
        let settings = Settings::load(&self.config)?;
        let module = crate::commands::module(&settings, name)?;
        let keep =
            Keep { of_module: settings.server.retention.versions, bytes: settings.server.retention.versions_size };
        let opened = Versions::open_at_rest(self.data_dir.clone(), keep).await;
        let (_lock, versions) =
            opened.map_err(|error| anyhow!("{error}; a host that runs is asked without --data-dir"))?;

        let file = crate::commands::check::read(&module.component).ok();
        let decision = decide(&versions, &module.name, order, by, file.as_deref().map(ContentHash::of)).await?;
        // One that was on trial has shown that it can.
        if let Some((hash, Origin::Rollback | Origin::Pin)) = decision.serves {
            self.can_serve(&versions, &settings, module, hash, file).await?;
        }
        versions.note(&module.name, decision.facts).await?;
        Ok(ModuleView::at_rest(&module.name, versions.standing(&module.name)))
    }

    /// Makes sure that a version can serve, and that its component is kept.
    async fn can_serve(
        &self,
        versions: &Versions,
        settings: &Settings,
        module: &Module,
        hash: ContentHash,
        file: Option<Vec<u8>>,
    ) -> anyhow::Result<()> {
        let bytes = match file.filter(|file| ContentHash::of(file) == hash) {
            Some(file) => {
                versions.keep(hash, file.as_slice().into()).await?;
                file
            }
            None => versions.component(hash).await.ok_or_else(|| Refusal::not_kept(hash))?,
        };
        let engine = crate::commands::engine(1, settings.server.stack)?.with_cache(self.data_dir.join("components"));
        let loaded = engine.load(bytes, &resolved_config::spec(module)).await;
        loaded.map_err(|error| OrderError::CantServe(hash, error)).context("nothing is changed")?;
        Ok(())
    }
}

/// What becomes of what somebody asks, by the rules a host goes by.
async fn decide(
    versions: &Versions,
    module: &Name,
    order: Order<'_>,
    by: &str,
    file: Option<ContentHash>,
) -> anyhow::Result<Decision> {
    let (standing, now) = (versions.standing(module), clock::now());
    let [serving, tried] = [&standing.serving, &standing.canary].map(|entry| entry.as_ref().map(|entry| entry.hash));
    let asked = VersionRequest { module, by, standing: &standing, serving, tried, file };
    let only = |fact: Fact| Decision { serves: None, facts: vec![fact] };
    Ok(match order {
        Order::Rollback => asked.roll_back(&versions.history(module).await?)?,
        Order::Pin(hash) => asked.pin(asked.version(hash, &versions.history(module).await?)?, now),
        Order::Unpin => asked.unpin()?,
        Order::Retry => asked.retry()?,
        Order::Promote => asked.promote()?,
        Order::Abort => asked.abort()?,
        // Who paused it first stays in the record.
        Order::Pause => {
            let first = versions::Order { by: by.to_owned(), at: now };
            only(Fact::Paused(Some(standing.paused.clone().unwrap_or(first))))
        }
        Order::Resume => only(Fact::Paused(None)),
    })
}

fn nobody(name: &str) -> anyhow::Error {
    anyhow!("there is no module {name} in this data directory")
}

//! Modules of a stopped host: reads and changes the record of versions in its data directory. If a version prevents the host
//! from starting, an operator rolls it back here.

use std::path::PathBuf;

use anyhow::{Context, anyhow};

use super::Order;
use crate::commands::diagnostics::with_help;
use modhost_config::{Module, Settings};
use modhost_core::clock;
use modhost_core::event::Name;
use modhost_runtime::engine::AdminError;
use modhost_server::admin_api::{ModuleView, VersionView};
use modhost_server::resolved_config;
use modhost_storage::versions::{
    self, ContentHash, Decision, Fact, Keep, ModuleState, OfflineVersions, Origin, Refusal, VersionRequest, Versions,
};

/// The modules in the data directory of a stopped host.
pub(super) struct OfflineModules {
    pub(super) data_dir: PathBuf,
    /// The host's settings file. Commands need the module's file and its limits.
    pub(super) config: PathBuf,
}

impl OfflineModules {
    pub(super) async fn list(&self) -> anyhow::Result<Vec<ModuleView>> {
        let modules = self.open().await?.modules().await?;
        Ok(modules.into_iter().map(|(name, state)| ModuleView::offline(&name, state)).collect())
    }

    pub(super) async fn show(&self, name: &str) -> anyhow::Result<ModuleView> {
        let module = Name::from(name);
        let state = self.open().await?.module_state(&module).await?.ok_or_else(|| unknown_module(name))?;
        Ok(ModuleView::offline(&module, state))
    }

    pub(super) async fn history(&self, name: &str) -> anyhow::Result<Vec<VersionView>> {
        let (record, module) = (self.open().await?, Name::from(name));
        let history = record.history(&module).await?;
        if history.is_empty() && record.module_state(&module).await?.is_none() {
            return Err(unknown_module(name));
        }
        Ok(history.into_iter().map(VersionView::from).collect())
    }

    async fn open(&self) -> versions::Result<OfflineVersions> {
        OfflineVersions::open(self.data_dir.clone()).await
    }

    /// Records a command, which the host applies when it starts. Locks the data directory, so that no host starts meanwhile.
    pub(super) async fn order(&self, name: &str, order: Order<'_>, by: &str) -> anyhow::Result<ModuleView> {
        let settings = Settings::load(&self.config)?;
        let module = crate::commands::find_module(&settings, name)?;
        let keep =
            Keep { of_module: settings.server.retention.versions, bytes: settings.server.retention.versions_size };
        let opened = versions::Sqlite::open_offline(self.data_dir.clone(), keep).await;
        let (_lock, versions) =
            opened.map_err(|error| with_help(error, "to change modules of a running host, omit --data-dir"))?;

        let file = crate::commands::check::read(&module.component).ok();
        let state = versions.module_state(&module.name);
        let decision = decide(&versions, &module.name, &state, order, by, file.as_deref().map(ContentHash::of)).await?;
        // A canary that is promoted or aborted was loaded before; these versions may not have been.
        if let Some((hash, Origin::Rollback | Origin::Pin)) = decision.serves {
            self.ensure_can_serve(&versions, &settings, module, hash, file).await?;
        }
        versions.note(&module.name, state.epoch, decision.facts).await?;
        Ok(ModuleView::offline(&module.name, versions.module_state(&module.name)))
    }

    /// Checks that a version can serve, and stores its component.
    async fn ensure_can_serve(
        &self,
        versions: &dyn Versions,
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
            None => versions.component(hash).await?.ok_or_else(|| Refusal::not_kept(hash))?,
        };
        let engine = crate::commands::engine(1, settings.server.stack)?.with_cache(self.data_dir.join("components"));
        let loaded = engine.load(bytes, &resolved_config::spec(module)).await;
        loaded.map_err(|error| AdminError::CantServe(hash, error)).context("no change was made")?;
        Ok(())
    }
}

/// Decides on a command, by the same rules as a running host.
async fn decide(
    versions: &dyn Versions,
    module: &Name,
    state: &ModuleState,
    order: Order<'_>,
    by: &str,
    file: Option<ContentHash>,
) -> anyhow::Result<Decision> {
    let now = clock::now();
    let [serving, canary] = [&state.serving, &state.canary].map(|entry| entry.as_ref().map(|entry| entry.hash));
    let request = VersionRequest { module, by, state, serving, canary, file };
    let only = |fact: Fact| Decision { serves: None, facts: vec![fact] };
    Ok(match order {
        Order::Rollback => request.roll_back(&versions.history(module).await?)?,
        Order::Pin(hash) => request.pin(request.version(hash, &versions.history(module).await?)?, now),
        Order::Unpin => request.unpin()?,
        Order::Retry => request.retry()?,
        Order::Promote => request.promote()?,
        Order::Abort => request.abort()?,
        // If the module is paused already, the record keeps the first operator and time.
        Order::Pause => {
            let first = versions::OperatorAction { by: by.to_owned(), at: now };
            only(Fact::Paused(Some(state.paused.clone().unwrap_or(first))))
        }
        Order::Resume => only(Fact::Paused(None)),
    })
}

fn unknown_module(name: &str) -> anyhow::Error {
    anyhow!("there is no module {name} in this data directory")
}

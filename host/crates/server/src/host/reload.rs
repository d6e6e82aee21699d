//! Applies changed files to a running host: settings, the files they refer to, certificates and components.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::saved_settings::{SavedSettings, SettingsStore, is_older_than};
use super::{LoadSettings, Parts, log_ceilings, needs_restart};
use crate::resolved_config::ResolvedConfig;
use modhost_config::{ActiveSettings, ConfigErrors, Environment, GraceReason, LoadedSettings, Settings, read_failed};
use modhost_core::files::{self, READ_TIMEOUT};
use modhost_core::sync::lock;
use modhost_runtime::engine::{FileWatch, stamps};

/// How long the settings files must stay unchanged before they are read again. An editor that writes in place may
/// pause, and a newly added table can't be distinguished from a truncated one.
const STABLE_FOR: Duration = Duration::from_millis(400);

/// The maximum time to wait until the settings files stay unchanged.
const MAX_STABLE_WAIT: Duration = Duration::from_secs(5);

/// Reads the settings outside the runtime and with a time limit.
#[derive(Clone)]
pub(super) struct SettingsReader(Arc<LoadSettings>);

impl SettingsReader {
    pub(super) fn new(load: LoadSettings) -> Self {
        Self(Arc::new(load))
    }

    /// Reads the settings and their references from the current files.
    pub(super) async fn read(&self) -> Result<LoadedSettings, ConfigErrors> {
        let load = self.0.clone();
        in_time(move || {
            let settings = load(None)?;
            let environment = Arc::new(Environment::of(&settings)?);
            Ok(LoadedSettings { settings, environment, is_complete: false })
        })
        .await
    }

    /// Reads the settings at the start of a host and merges them with those saved by the previous run, in case the file
    /// is half written. Also returns the saved settings.
    pub(super) async fn read_at_start(&self) -> Result<(ActiveSettings, Option<SavedSettings>), ConfigErrors> {
        let mut loaded = self.read().await?;
        let load = self.0.clone();
        in_time(move || {
            let server = &loaded.settings.server;
            loaded.is_complete = is_older_than(&loaded.settings.file, server.removal_grace);
            let saved = SavedSettings::read(&server.data_dir, &loaded.settings.file);
            // The settings of an older version of the host may be invalid for this one.
            let before = saved.as_ref().and_then(|saved| load(Some(&saved.text)).ok());
            let (Some(before), Some(known)) = (before, &saved) else {
                return Ok((ActiveSettings::new(loaded), saved));
            };
            let environment = Arc::new(loaded.environment.with_files_of(&before));
            let before = ActiveSettings::new(LoadedSettings { settings: before, environment, is_complete: true });
            let now = Instant::now();
            let mut active = before.merge(loaded, now);
            let names: Vec<_> = active.settings().sources.iter().map(|source| source.name.clone()).collect();
            for name in names {
                if known.has_other_secrets(&name, active.current_secrets(&name)) {
                    active.mark_unconfirmed(&name, now);
                }
            }
            Ok((active, saved))
        })
        .await
    }
}

async fn in_time<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ConfigErrors> + Send + 'static,
) -> Result<T, ConfigErrors> {
    files::off_runtime(READ_TIMEOUT, work).await.unwrap_or_else(|error| Err(read_failed(&error).into()))
}

/// Applies changed files to a running host.
pub(super) struct SettingsWatcher {
    pub parts: Parts,
    pub reader: SettingsReader,
    pub active: ActiveSettings,
    pub settings_store: SettingsStore,
    /// Publishes the settings in effect.
    pub settings: watch::Sender<Arc<Settings>>,
    pub watched: Arc<Mutex<BTreeSet<PathBuf>>>,
    /// Whether the last attempt to apply the files failed.
    pub refused: bool,
    /// Retained parts aren't dropped before this time, because dropping them produced invalid settings.
    pub not_before: Option<Instant>,
}

/// The delay before the host tries again to drop retained parts, after dropping them produced invalid settings.
const DROP_RETRY_DELAY: Duration = Duration::from_secs(60);

/// The reason for applying the settings again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reason {
    /// One of their files changed, a reload was requested, or the grace period of a retained part ended.
    Settings,
    /// Only the files of the certificate changed.
    Certificate,
}

impl SettingsWatcher {
    /// Applies changed files for as long as the host runs, and all files whenever `reload_requests` is notified.
    pub(super) async fn run(mut self, mut watch: FileWatch, reload_requests: Arc<Notify>) {
        log_retained(None, &self.active);
        self.settings_store.save(&self.active).await;
        loop {
            let deadline = self.active.deadline().max(self.not_before.filter(|_| !self.active.is_settled()));
            let overdue = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = watch.changed() => self.changed(&changed, &watch).await,
                () = reload_requests.notified() => {
                    tracing::info!("reload requested");
                    self.reload(Reason::Settings, false).await;
                    let all = lock(&self.watched).clone();
                    self.parts.registry.refresh(&all);
                }
                () = overdue => {
                    let next = self.active.at(Instant::now());
                    self.apply(next, Reason::Settings);
                    self.not_before = self.refused.then(|| Instant::now() + DROP_RETRY_DELAY);
                }
            }
            watch.scan_now();
            self.settings_store.save(&self.active).await;
        }
    }

    async fn changed(&mut self, changed: &BTreeSet<PathBuf>, watch: &FileWatch) {
        let files = settings_files(&self.active);
        if files.iter().any(|file| changed.contains(file)) {
            // A file that was moved into place is complete.
            let is_complete =
                files.iter().filter(|file| changed.contains(*file)).all(|file| watch.was_renamed_into_place(file));
            if !is_complete {
                wait_until_stable(&files).await;
            }
            self.reload(Reason::Settings, is_complete).await;
        } else if certificate(self.active.settings()).any(|file| changed.contains(file)) {
            self.reload(Reason::Certificate, false).await;
        }
        self.parts.registry.refresh(changed);
    }

    /// Reads the settings and applies them, completely or not at all.
    async fn reload(&mut self, reason: Reason, is_complete: bool) {
        match self.reader.read().await {
            Ok(loaded) => {
                let next = self.active.merge(LoadedSettings { is_complete, ..loaded }, Instant::now());
                self.apply(next, reason);
            }
            Err(errors) => self.refuse(&errors, reason),
        }
    }

    fn refuse(&mut self, errors: &ConfigErrors, reason: Reason) {
        self.refused = true;
        match reason {
            Reason::Settings => {
                tracing::error!(error = %errors, "cannot reload the settings; the previous ones stay in effect")
            }
            Reason::Certificate => {
                tracing::error!(error = %errors, "cannot reload the certificate; the previous one stays in effect")
            }
        }
    }

    fn apply(&mut self, next: ActiveSettings, reason: Reason) {
        let config = match ResolvedConfig::of(&next, &self.parts.clients) {
            Ok(config) => config,
            Err(errors) => return self.refuse(&errors, reason),
        };
        if let Some(exposed) = self.parts.addresses.exposed(next.settings()) {
            return self.refuse(&ConfigErrors::from(exposed), reason);
        }
        let before = std::mem::replace(&mut self.active, next);
        let (was, is) = (before.settings(), self.active.settings());
        for name in needs_restart(was, is) {
            tracing::warn!(setting = name, "change in [server] takes effect after a restart");
        }
        *lock(&self.watched) = watched_files(&self.active);
        self.parts.apply(config);
        if is.server.ceilings != was.server.ceilings {
            log_ceilings(&is.server);
        }
        let refused = std::mem::take(&mut self.refused);
        let file = self.active.as_written().file.display();
        if before.as_written() != self.active.as_written() {
            tracing::info!(%file, "settings reloaded");
        } else if reason == Reason::Certificate {
            tracing::info!("certificate reloaded");
        } else if refused {
            tracing::info!(%file, "settings are valid again and unchanged");
        }
        log_retained(Some(&before), &self.active);
        if was != is {
            self.settings.send_replace(Arc::new(is.clone()));
        }
    }
}

/// Logs which parts are retained, were restored, or were dropped.
fn log_retained(before: Option<&ActiveSettings>, now: &ActiveSettings) {
    let at = Instant::now();
    for (part, why, left) in now.retained(at) {
        let is_known = before
            .is_some_and(|before| before.retained(at).any(|(known, for_what, _)| known == part && for_what == why));
        let grace = Duration::from_secs(left.as_secs() + u64::from(left.subsec_nanos() > 0));
        match why {
            _ if is_known => {}
            GraceReason::Removed => {
                tracing::warn!(%part, ?grace, "removed from the settings; its events wait, and it is dropped after the grace period")
            }
            GraceReason::Truncated => {
                tracing::warn!(%part, ?grace, "settings may be truncated; the previous ones stay in effect until the grace period ends")
            }
        }
    }
    let known: BTreeSet<String> = before.iter().flat_map(|before| before.truncated_values()).collect();
    for value in now.truncated_values().filter(|value| !known.contains(value)) {
        tracing::warn!(%value, "value may be truncated; the previous one stays in effect until the grace period ends");
    }
    for (part, why, _) in before.iter().flat_map(|before| before.retained(at)) {
        if now.retained(at).any(|(kept, ..)| kept == part) {
            continue;
        }
        match why {
            GraceReason::Removed if !now.has(part) => {
                tracing::info!(%part, "dropped after the grace period")
            }
            GraceReason::Removed => tracing::info!(%part, "back in the settings"),
            GraceReason::Truncated => tracing::info!(%part, "settings are complete again and in effect"),
        }
    }
}

/// Waits until the files stay unchanged, at most [`MAX_STABLE_WAIT`].
async fn wait_until_stable(files: &BTreeSet<PathBuf>) {
    let started = Instant::now();
    let look = || {
        let files = files.clone();
        files::off_runtime(READ_TIMEOUT, move || stamps(&files))
    };
    let mut before = look().await;
    while started.elapsed() < MAX_STABLE_WAIT {
        tokio::time::sleep(STABLE_FOR).await;
        let now = look().await;
        match (before, now) {
            (Ok(before), Ok(now)) if before == now => return,
            // Reading them will report the error.
            (_, Err(_)) => return,
            (_, now) => before = now,
        }
    }
}

/// Returns all files that the host watches.
pub(super) fn watched_files(active: &ActiveSettings) -> BTreeSet<PathBuf> {
    let modules = active.settings().modules.iter().chain(&active.as_written().modules);
    let components = modules.map(|module| module.component.clone());
    let certificate = certificate(active.settings()).map(Path::to_path_buf);
    components.chain(certificate).chain(settings_files(active)).collect()
}

/// Returns the files of the certificate.
fn certificate(settings: &Settings) -> impl Iterator<Item = &Path> {
    let files = settings.server.tls.as_ref().map(|tls| [Some(tls.certificate.as_path()), tls.key.file()]);
    files.into_iter().flatten().flatten()
}

/// Returns the files that the settings consist of. A change of one of them is a change of the settings.
fn settings_files(active: &ActiveSettings) -> BTreeSet<PathBuf> {
    let references = active.settings().references().chain(active.as_written().references());
    let secrets = references.filter_map(|reference| reference.file().map(Path::to_owned));
    let file = &active.as_written().file;
    secrets.chain([file.clone(), file.with_file_name(".env")]).collect()
}

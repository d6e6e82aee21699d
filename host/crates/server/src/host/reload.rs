//! Applies changed files to a running host: settings, the files they refer to, certificates and components.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use super::saved_settings::SettingsStore;
use super::settings_reader::{Before, Reading, Scope, SettingsReader, certificate, top_files};
use super::{Parts, identity, log_ceilings, needs_restart, settings_log};
use crate::admin_api::SettingsStatus;
use modhost_config::{ActiveHost, ConfigError, ConfigErrors, Environment, Include, Settings, included_files};
use modhost_core::files::{self, READ_TIMEOUT};
use modhost_core::sync::lock;
use modhost_runtime::engine::{FileWatch, stamps};

/// How long the settings files must stay unchanged before they are read again. An editor that writes in place may
/// pause, and a newly added table can't be distinguished from a truncated one.
const STABLE_FOR: Duration = Duration::from_millis(400);

/// The maximum time to wait until the settings files stay unchanged.
const MAX_STABLE_WAIT: Duration = Duration::from_secs(5);

/// Applies changed files to a running host.
pub(super) struct SettingsWatcher {
    pub parts: Parts,
    pub reader: SettingsReader,
    pub active: ActiveHost,
    /// The variables that were read last.
    pub variables: Environment,
    pub settings_store: SettingsStore,
    /// Publishes the settings in effect.
    pub settings: watch::Sender<Arc<Settings>>,
    pub watched: Arc<Mutex<Watched>>,
    /// Publishes the refused files.
    pub status: Arc<SettingsStatus>,
    /// Whether the last attempt to apply modules.toml failed.
    pub refused: bool,
    /// The files of a reading that failed.
    pub missed: BTreeSet<PathBuf>,
    /// The folders of included files that could not be listed.
    pub unlisted: Vec<ConfigError>,
    /// Retained parts aren't dropped before this time, because dropping them produced invalid settings.
    pub not_before: Option<Instant>,
}

/// The files that a host watches.
#[derive(Clone, Default)]
pub(super) struct Watched {
    files: BTreeSet<PathBuf>,
    include: Vec<Include>,
    top: PathBuf,
}

impl Watched {
    /// Returns the files that the host watches with these settings.
    pub(super) fn of(host: &ActiveHost) -> Self {
        let written = host.top().as_written();
        let include = host.top().settings().include.clone();
        let components = host.parts().flat_map(|part| part.settings().modules.iter().chain(&part.as_written().modules));
        let components = components.map(|module| module.component.clone());
        let secrets = host.files().values().flat_map(|file| file.references().iter().cloned());
        let secrets_in_effect = host.parts().skip(1).flat_map(|part| part.settings().references());
        let secrets_in_effect = secrets_in_effect.filter_map(|reference| reference.file().map(Path::to_owned));
        let files = components.chain(secrets).chain(secrets_in_effect).chain(top_files(host));
        // Even without files, the folder is watched for new ones.
        let folders = include.iter().map(Include::in_folder);
        Self { files: files.chain(folders).collect(), include, top: written.file.clone() }
    }

    /// Returns all files, with the included files that exist now.
    pub(super) fn list(&self) -> BTreeSet<PathBuf> {
        let mut files = self.files.clone();
        files.extend(included_files(&self.include, &self.top).files);
        files
    }
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
        settings_log::start(&self.active, &self.unlisted);
        self.settings_store.save(&self.active).await;
        loop {
            let deadline = self.active.deadline();
            let deadline = deadline.max(self.not_before.filter(|_| deadline.is_some()));
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
                    self.reload(Scope::All, Reason::Settings).await;
                    let all = lock(&self.watched).files.clone();
                    self.parts.registry.refresh(&all);
                }
                () = overdue => {
                    self.reload(Scope::Nothing, Reason::Settings).await;
                    let is_overdue = self.active.deadline().is_some_and(|deadline| deadline <= Instant::now());
                    self.not_before = (self.refused || is_overdue).then(|| Instant::now() + DROP_RETRY_DELAY);
                }
            }
            watch.scan_now();
            self.settings_store.save(&self.active).await;
        }
    }

    async fn changed(&mut self, changed: &BTreeSet<PathBuf>, watch: &FileWatch) {
        let settings: BTreeSet<PathBuf> = self.settings_files(changed);
        if !settings.is_empty() {
            // A file that was moved into place is complete.
            let complete: BTreeSet<PathBuf> =
                settings.iter().filter(|file| watch.was_renamed_into_place(file)).cloned().collect();
            if complete.len() < settings.len() {
                // What is changed together with them is read together with them.
                let files = settings.union(&top_files(&self.active)).cloned().collect();
                wait_until_stable(&files).await;
            }
            let only_certificate = settings.iter().all(|file| self.is_certificate(file));
            let reason = if only_certificate { Reason::Certificate } else { Reason::Settings };
            self.reload(Scope::Changed { files: settings, complete }, reason).await;
        }
        self.parts.registry.refresh(changed);
    }

    /// Returns those changed files that the settings consist of or refer to.
    fn settings_files(&self, changed: &BTreeSet<PathBuf>) -> BTreeSet<PathBuf> {
        let top = top_files(&self.active);
        let include = &self.active.top().settings().include;
        let known = self.active.files();
        let references: HashSet<&PathBuf> = known.values().flat_map(|file| file.references()).collect();
        let is_setting = |file: &&PathBuf| {
            top.contains(*file)
                || known.contains_key(*file)
                || references.contains(file)
                || include.iter().any(|entry| entry.names(file))
        };
        changed.iter().filter(is_setting).cloned().collect()
    }

    /// Whether a file is only part of the certificate, and not of the other settings.
    fn is_certificate(&self, file: &Path) -> bool {
        let written = self.active.top().as_written();
        let is_reference = written.references().any(|reference| reference.file() == Some(file));
        certificate(self.active.top().settings()).any(|part| part == file) && !is_reference
    }

    /// Reads the settings and applies them: those of each file completely or not at all.
    async fn reload(&mut self, mut scope: Scope, reason: Reason) {
        if let Scope::Changed { files, .. } = &mut scope {
            files.append(&mut self.missed);
        }
        let before = Before {
            host: self.active.clone(),
            variables: self.variables.clone(),
            addresses: self.parts.addresses.clone(),
            top_is_refused: self.refused,
        };
        match self.reader.read(&before, scope.clone()).await {
            Ok(reading) => self.apply(reading, reason),
            Err(errors) => {
                if let Scope::Changed { files, .. } = scope {
                    self.missed = files;
                }
                self.refuse(&errors, reason);
            }
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

    fn apply(&mut self, reading: Reading, reason: Reason) {
        let Reading { host, config, variables, refused, unlisted } = reading;
        let before = std::mem::replace(&mut self.active, host);
        self.variables = variables;
        let (was, is) = (before.top().settings(), self.active.top().settings());
        for name in needs_restart(was, is) {
            match name {
                "storage" => tracing::warn!("change in [storage] takes effect after a restart"),
                _ => tracing::warn!(setting = name, "change in [server] takes effect after a restart"),
            }
        }
        *lock(&self.watched) = Watched::of(&self.active);
        self.parts.apply(config);
        self.parts.dispatcher.describe_host(|info| identity::describe(info, &self.active));
        self.status.set(&self.active);
        if is.server.ceilings != was.server.ceilings {
            log_ceilings(&is.server);
        }
        if self.unlisted != unlisted {
            settings_log::unlisted(&unlisted);
            self.unlisted = unlisted;
        }
        let was_refused = std::mem::take(&mut self.refused);
        let file = self.active.top().as_written().file.display();
        if before.top().as_written() != self.active.top().as_written() {
            tracing::info!(%file, "settings reloaded");
        } else if refused.is_some() {
            // Said below.
        } else if reason == Reason::Certificate {
            tracing::info!("certificate reloaded");
        } else if was_refused {
            tracing::info!(%file, "settings are valid again and unchanged");
        }
        settings_log::retained(Some(before.top()), self.active.top());
        settings_log::included(&before, &self.active);
        let is_same = is_same(&before, &self.active);
        if !is_same {
            self.settings.send_replace(Arc::new(self.active.settings()));
        }
        if let Some(errors) = refused {
            self.refuse(&errors, reason);
        }
    }
}

/// Whether the settings in effect of all files are the same ones.
fn is_same(one: &ActiveHost, other: &ActiveHost) -> bool {
    one.parts().count() == other.parts().count()
        && one.parts().zip(other.parts()).all(|(one, other)| Arc::ptr_eq(one, other))
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

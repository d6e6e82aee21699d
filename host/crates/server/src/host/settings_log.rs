//! What the log says about changed settings. A change of a thousand files fills no log: of each kind of message, a
//! change logs a few, and then how many more there are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use modhost_config::{ActiveFile, ActiveHost, ActiveSettings, ConfigError, GraceReason};
use modhost_core::event::Name;

/// How many files a change logs by name, for each kind of message.
const MAX_LOGGED: usize = 10;

/// Logs the state of the included files at the start of a host.
pub(super) fn start(host: &ActiveHost, unlisted_folders: &[ConfigError]) {
    retained(None, host.top());
    unlisted(unlisted_folders);
    let files = host.files();
    if files.is_empty() {
        return;
    }
    let refused = files.values().filter(|file| file.refused().is_some()).count();
    tracing::info!(files = files.len(), refused, "included settings files read");
    log_included(&BTreeMap::new(), files, true);
}

/// Logs the folders of included files that could not be listed.
pub(super) fn unlisted(errors: &[ConfigError]) {
    for error in errors {
        tracing::error!(%error, "cannot list included settings files");
    }
}

/// Logs the changes of included files.
pub(super) fn included(before: &ActiveHost, now: &ActiveHost) {
    log_included(before.files(), now.files(), false);
}

fn log_included(before: &BTreeMap<PathBuf, ActiveFile>, now: &BTreeMap<PathBuf, ActiveFile>, is_start: bool) {
    let [mut refused, mut reloaded, mut removed, mut dropped] = [(); 4].map(|()| Counter::default());
    for (path, file) in now {
        let known = before.get(path);
        let errors = file.refused();
        if let Some(error) = errors.filter(|errors| known.and_then(ActiveFile::refused) != Some(*errors)) {
            let (path, tenant) = (path.display(), file.tenant().map(Name::as_str));
            refused.log(|| match tenant {
                Some(tenant) => tracing::error!(
                    file = %path, tenant, %error,
                    "cannot load an included settings file; its previous settings stay in effect"
                ),
                None => tracing::error!(file = %path, %error, "cannot load an included settings file"),
            });
        }
        let Some(active) = file.active() else { continue };
        let known_active = known.and_then(ActiveFile::active);
        if known_active.is_some_and(|known| Arc::ptr_eq(known, active)) {
            continue;
        }
        if file.is_removed() && known.is_none_or(|known| !known.is_removed()) {
            removed.log(|| log_removed(path, file));
        } else if !file.is_removed() {
            let is_changed = known_active.is_none_or(|known| !has_same_parts(known, active));
            let was_refused = known.is_some_and(|known| known.refused().is_some());
            if !is_start && errors.is_none() && (is_changed || was_refused) {
                let tenant = file.tenant().map(Name::as_str).unwrap_or_default();
                reloaded.log(|| tracing::info!(file = %path.display(), tenant, "included settings file loaded"));
            }
            if reloaded.count <= MAX_LOGGED {
                retained(known_active.map(|known| &**known), active);
            }
        }
    }
    for (path, file) in before.iter().filter(|(path, _)| !now.contains_key(*path)) {
        let tenant = file.tenant().map(Name::as_str).unwrap_or_default();
        dropped.log(|| tracing::info!(file = %path.display(), tenant, "removed settings file dropped"));
    }
    let more = [&refused, &reloaded, &removed, &dropped].map(Counter::more);
    if more != [0; 4] {
        let [refused, loaded, removed, dropped] = more;
        tracing::info!(refused, loaded, removed, dropped, "more included settings files changed");
    }
}

/// Whether a file has the same parts. Its settings also change with those of modules.toml that apply to it.
fn has_same_parts(one: &ActiveSettings, other: &ActiveSettings) -> bool {
    let (one, other) = (one.as_written(), other.as_written());
    one.sources == other.sources && one.tenants == other.tenants && one.modules == other.modules
}

fn log_removed(path: &Path, file: &ActiveFile) {
    let left = file.active().and_then(|active| active.deadline());
    let grace = rounded_up(left.unwrap_or_else(Instant::now).saturating_duration_since(Instant::now()));
    let tenant = file.tenant().map(Name::as_str).unwrap_or_default();
    tracing::warn!(
        file = %path.display(), tenant, ?grace,
        "included settings file is gone; the events of its tenant wait, and it is dropped after the grace period"
    );
}

fn rounded_up(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs() + u64::from(time.subsec_nanos() > 0))
}

/// Counts messages, and logs the first ones.
#[derive(Default)]
struct Counter {
    count: usize,
}

impl Counter {
    fn log(&mut self, message: impl FnOnce()) {
        self.count += 1;
        if self.count <= MAX_LOGGED {
            message();
        }
    }

    fn more(&self) -> usize {
        self.count.saturating_sub(MAX_LOGGED)
    }
}

/// Logs which parts of a file are retained, were restored, or were dropped.
pub(super) fn retained(before: Option<&ActiveSettings>, now: &ActiveSettings) {
    let at = Instant::now();
    for (part, why, left) in now.retained(at) {
        let is_known = before
            .is_some_and(|before| before.retained(at).any(|(known, for_what, _)| known == part && for_what == why));
        let grace = rounded_up(left);
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

//! The settings in effect of a host: those of modules.toml and those of each file that it includes.
//!
//! Each file has its own [`ActiveSettings`], and is accepted or refused by itself. A refused file leaves the settings in
//! effect that it had before, and no other file is affected. What only one file can have stays with the file that has
//! it: see [`arbitration`].
//!
//! A change is one pure function of the settings in effect, the texts that were read, and the time:
//! [`ActiveHost::update`]. It looks only at the files that changed, that are refused, or whose grace period ended, and
//! compares the claims of all files once.

mod arbitration;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::include::Include;
use super::settings::{self, IncludedFile};
use super::{ActiveSettings, ConfigError, ConfigErrors, Environment, LoadedSettings, Settings};
use arbitration::{Candidate, arbitrate};
use modhost_core::event::Name;

/// What was read of an included file.
#[derive(Clone, Debug)]
pub enum FileContent {
    /// Its text.
    Text {
        /// The text.
        text: Arc<str>,
        /// Whether the file is known to be complete, because it was moved into place.
        is_complete: bool,
    },
    /// It could not be read.
    Unreadable(ConfigError),
    /// It does not exist, and no entry of `include` names it without a wildcard.
    Missing,
}

impl FileContent {
    /// Reads an included file.
    pub fn read(file: &Path, include: &[Include]) -> Self {
        match settings::read_included(file) {
            Ok(Some(text)) => Self::Text { text: text.into(), is_complete: false },
            Ok(None) => match include.iter().find(|entry| entry.literal() == Some(file)) {
                Some(entry) => Self::Unreadable(entry.missing()),
                None => Self::Missing,
            },
            Err(error) => Self::Unreadable(error),
        }
    }
}

/// How a host makes settings of the text of an included file, and whether it can run with them.
pub trait LoadIncluded {
    /// Parses the text of an included file. `top` are the settings of modules.toml.
    ///
    /// # Errors
    ///
    /// Returns all errors of the file.
    fn parse(&self, file: &Path, text: &str, top: &Settings) -> Result<Settings, ConfigErrors> {
        Settings::parse_included(text, file, top)
    }

    /// Returns the values of the references of an included file.
    fn environment(&self, settings: &Settings) -> Arc<Environment>;

    /// Checks whether the host can run with the settings of an included file.
    ///
    /// # Errors
    ///
    /// Returns what it cannot run with, for example secrets that are not set.
    fn check(&self, active: &ActiveSettings) -> Result<(), ConfigErrors>;
}

/// What changed of the settings of a host.
#[derive(Default)]
pub struct Changes {
    /// The settings of modules.toml, if they were read again. They are valid and the host can run with them.
    pub top: Option<LoadedSettings>,
    /// The included files that were read again.
    pub files: BTreeMap<PathBuf, FileContent>,
    /// Whether values of references may have changed, so that all files have to be looked at.
    pub values: bool,
}

/// The settings in effect of a host.
#[derive(Clone)]
pub struct ActiveHost {
    top: Arc<ActiveSettings>,
    files: BTreeMap<PathBuf, ActiveFile>,
}

/// An included file.
#[derive(Clone)]
pub struct ActiveFile {
    /// The settings in effect; none if no text of the file was ever accepted.
    active: Option<Arc<ActiveSettings>>,
    /// What was read last.
    content: FileContent,
    /// The files that the references in the last text name, so that a change of one of them is noticed even if the
    /// text is refused.
    references: Vec<PathBuf>,
    /// Why the file is refused.
    refused: Option<Arc<ConfigErrors>>,
}

impl ActiveFile {
    /// Returns the settings in effect; none if no text of the file was ever accepted.
    pub fn active(&self) -> Option<&Arc<ActiveSettings>> {
        self.active.as_ref()
    }

    /// Whether the file is gone, and its settings are only kept for the grace period.
    pub fn is_removed(&self) -> bool {
        matches!(self.content, FileContent::Missing)
    }

    /// Returns the files that the references in the last text name.
    pub fn references(&self) -> &[PathBuf] {
        &self.references
    }

    /// Returns why the file is refused; none if it is accepted.
    pub fn refused(&self) -> Option<&ConfigErrors> {
        self.refused.as_deref()
    }

    /// Returns the tenant of the file, if any text of it was accepted.
    pub fn tenant(&self) -> Option<&Name> {
        self.active.as_ref()?.settings().tenants.first().map(|tenant| &tenant.name)
    }
}

impl ActiveHost {
    /// Returns the settings of a host without included files.
    pub fn new(top: ActiveSettings) -> Self {
        Self { top: Arc::new(top), files: BTreeMap::new() }
    }

    /// Returns the settings as far as they can be known without the values of references.
    pub(crate) fn offline(top: Settings, files: BTreeMap<PathBuf, FileContent>) -> Self {
        let top = LoadedSettings { settings: top, environment: Arc::default(), is_complete: true };
        let changes = Changes { files, ..Changes::default() };
        let updated = Self::new(ActiveSettings::new(top)).update(changes, &Offline, Instant::now());
        // Only new settings of modules.toml can be refused.
        updated.unwrap_or_else(|(host, _)| host)
    }

    /// Returns the settings of modules.toml.
    pub fn top(&self) -> &Arc<ActiveSettings> {
        &self.top
    }

    /// Marks the secrets of a source as new, because the previous process had others. `file` is the included file, if
    /// the source is in one.
    pub fn mark_unconfirmed(&mut self, file: Option<&Path>, source: &Name, now: Instant) {
        let active = match file {
            None => Some(&mut self.top),
            Some(file) => self.files.get_mut(file).and_then(|file| file.active.as_mut()),
        };
        if let Some(active) = active {
            Arc::make_mut(active).mark_unconfirmed(source, now);
        }
    }

    /// Returns the included files.
    pub fn files(&self) -> &BTreeMap<PathBuf, ActiveFile> {
        &self.files
    }

    /// Returns the settings in effect of all files, modules.toml first.
    pub fn parts(&self) -> impl Iterator<Item = &Arc<ActiveSettings>> + Clone {
        std::iter::once(&self.top).chain(self.files.values().filter_map(|file| file.active.as_ref()))
    }

    /// Returns when the next retained part or value expires.
    pub fn deadline(&self) -> Option<Instant> {
        self.parts().filter_map(|part| part.deadline()).min()
    }

    /// Returns the settings in effect of all files together, retained parts included.
    pub fn settings(&self) -> Settings {
        let mut all = self.top.settings().clone();
        for part in self.files.values().filter_map(|file| file.active.as_ref()) {
            let settings = part.settings();
            all.sources.extend(settings.sources.iter().cloned());
            all.tenants.extend(settings.tenants.iter().cloned());
            all.modules.extend(settings.modules.iter().cloned());
        }
        let included = self.files.iter().map(|(path, file)| IncludedFile {
            path: path.clone(),
            tenant: file.tenant().cloned(),
            refused: file.refused.as_deref().cloned(),
        });
        all.included = included.collect();
        all
    }

    /// Returns the settings in effect after `changes` were read at `now`.
    ///
    /// # Errors
    ///
    /// If the new settings of modules.toml claim what an included file has. Returns the settings in effect after all
    /// other changes, and the errors.
    pub fn update(
        &self,
        changes: Changes,
        load: &impl LoadIncluded,
        now: Instant,
    ) -> Result<Self, (Self, ConfigErrors)> {
        let Changes { top: new_top, files, values } = changes;
        let top = match new_top {
            Some(loaded) => Some(self.top.merge(loaded, now)),
            None if is_due(&self.top, now) => Some(self.top.at(now)),
            None => None,
        };
        match self.update_with(top.map(Arc::new), &files, values, load, now) {
            Ok(updated) => Ok(updated),
            Err(errors) => {
                let unchanged = Some(self.top.clone());
                // Without new claims of modules.toml this succeeds.
                let host = self.update_with(unchanged, &files, values, load, now).unwrap_or_else(|_| self.clone());
                Err((host, errors))
            }
        }
    }

    fn update_with(
        &self,
        top: Option<Arc<ActiveSettings>>,
        changed: &BTreeMap<PathBuf, FileContent>,
        values: bool,
        load: &impl LoadIncluded,
        now: Instant,
    ) -> Result<Self, ConfigErrors> {
        let new_top = top.filter(|top| !Arc::ptr_eq(top, &self.top));
        let top = new_top.as_ref().unwrap_or(&self.top);
        let all = values || !has_same_context(self.top.settings(), top.settings());
        let mut files = self.files.clone();
        let mut candidates: BTreeMap<&Path, Candidate> = BTreeMap::new();
        let mut still_refused: BTreeMap<&Path, Arc<ConfigErrors>> = BTreeMap::new();
        let paths: BTreeSet<&PathBuf> = self.files.keys().chain(changed.keys()).collect();
        for path in paths {
            let known = self.files.get(path);
            let is_refused = known.is_some_and(|file| file.refused.is_some());
            let active = known.and_then(|file| file.active.as_ref());
            let is_overdue = active.is_some_and(|active| is_due(active, now));
            if !(all || is_refused || is_overdue || changed.contains_key(path)) {
                continue;
            }
            let is_new_text = changed.contains_key(path);
            let Some(content) = changed.get(path).or(known.map(|file| &file.content)) else { continue };
            let file = files.entry(path.clone()).or_insert_with(|| ActiveFile {
                active: None,
                content: FileContent::Missing,
                references: Vec::new(),
                refused: None,
            });
            file.content = content.clone();
            let read = if is_overdue && !is_new_text && !all && !is_refused {
                Ok(active.map(|active| active.at(now)))
            } else {
                read(path, file, active.map(|active| &**active), top.settings(), load, now)
            };
            match read {
                Ok(Some(next)) => _ = candidates.insert(path, Candidate::new(next)),
                Ok(None) => _ = files.remove(path),
                Err(errors) => {
                    let errors = Arc::new(errors);
                    file.refused = Some(errors.clone());
                    // Even so, its grace periods end.
                    if let Some(active) = active.filter(|_| is_overdue) {
                        still_refused.insert(path, errors);
                        candidates.insert(path, Candidate::new(active.at(now)));
                    }
                }
            }
        }
        let decided = arbitrate(self, new_top.clone(), candidates)?;
        for (path, decision) in decided.files {
            let Some(file) = files.get_mut(&path) else { continue };
            let errors = still_refused.remove(path.as_path());
            match decision {
                Ok(next) => (file.active, file.refused) = (Some(next), errors),
                Err(conflicts) => file.refused = errors.or(Some(Arc::new(conflicts))),
            }
        }
        let mut host = Self { top: decided.top.unwrap_or_else(|| top.clone()), files };
        host.release(decided.released);
        host.files.retain(|_, file| {
            let is_empty = |active: &Arc<ActiveSettings>| {
                let settings = active.settings();
                settings.sources.is_empty() && settings.tenants.is_empty() && settings.modules.is_empty()
            };
            !(matches!(file.content, FileContent::Missing) && file.active.as_ref().is_none_or(is_empty))
        });
        Ok(host)
    }

    /// Drops what files only keep for a grace period and others claim.
    fn release(&mut self, released: Vec<(Option<PathBuf>, super::Claim)>) {
        for (path, claim) in released {
            let active = match path {
                None => Some(&mut self.top),
                Some(path) => self.files.get_mut(&path).and_then(|file| file.active.as_mut()),
            };
            if let Some(active) = active {
                Arc::make_mut(active).release(&claim);
            }
        }
    }
}

/// Returns the settings of an included file after its content was read; none if it is gone and nothing of it is in
/// effect.
fn read(
    path: &Path,
    file: &mut ActiveFile,
    active: Option<&ActiveSettings>,
    top: &Settings,
    load: &impl LoadIncluded,
    now: Instant,
) -> Result<Option<ActiveSettings>, ConfigErrors> {
    let loaded = match &file.content {
        FileContent::Text { text, is_complete } => {
            let settings = load.parse(path, text, top)?;
            file.references = settings.references().filter_map(|it| it.file().map(Path::to_owned)).collect();
            let environment = load.environment(&settings);
            LoadedSettings { settings, environment, is_complete: *is_complete }
        }
        FileContent::Unreadable(error) => return Err(error.clone().into()),
        FileContent::Missing => {
            let Some(active) = active else { return Ok(None) };
            let settings = Settings::empty_included(path, top);
            LoadedSettings { settings, environment: active.environment_arc(), is_complete: true }
        }
    };
    let next = match active {
        Some(active) => active.merge(loaded, now),
        None => ActiveSettings::new(loaded),
    };
    load.check(&next)?;
    Ok(Some(next))
}

/// Whether included files mean the same with both settings of modules.toml.
fn has_same_context(before: &Settings, after: &Settings) -> bool {
    let sources = |settings: &Settings| -> BTreeSet<(Name, Option<Name>)> {
        settings.sources.iter().map(|source| (source.name.clone(), source.tenant.clone())).collect()
    };
    before.server == after.server && before.file == after.file && sources(before) == sources(after)
}

fn is_due(active: &ActiveSettings, now: Instant) -> bool {
    active.deadline().is_some_and(|deadline| deadline <= now)
}

/// Reads included files without the values of their references.
struct Offline;

impl LoadIncluded for Offline {
    fn environment(&self, _: &Settings) -> Arc<Environment> {
        Arc::default()
    }

    fn check(&self, _: &ActiveSettings) -> Result<(), ConfigErrors> {
        Ok(())
    }
}

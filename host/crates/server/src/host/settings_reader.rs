//! Reads the settings of a host outside of the runtime: modules.toml, the files it includes, and the values of their
//! references.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use super::saved_settings::{Saved, SavedSettings, is_older_than};
use super::{Addresses, LoadSettings};
use crate::resolved_config::{ResolvedConfig, check_included};
use modhost_config::{
    ActiveHost, ActiveSettings, Changes, ConfigError, ConfigErrors, Environment, FileContent, IncludedFiles,
    LoadIncluded, LoadedSettings, Settings, included_files, read_failed,
};
use modhost_core::event::Name;
use modhost_core::files::{self, FileOpError, READ_TIMEOUT};
use modhost_platform::TenantHttpClients;

/// How many file systems that don't respond a reading works around. Each of them costs the time limit.
const MAX_UNRESPONSIVE: usize = 3;

/// Reads the settings outside the runtime and with a time limit.
#[derive(Clone)]
pub(super) struct SettingsReader {
    load: Arc<LoadSettings>,
    clients: Arc<TenantHttpClients>,
}

/// What to read again.
#[derive(Clone, Debug)]
pub(super) enum Scope {
    /// Everything.
    All,
    /// Nothing: only the time has passed.
    Nothing,
    /// These files, if the settings consist of them or refer to them.
    Changed {
        /// The files.
        files: BTreeSet<PathBuf>,
        /// Those that were moved into place, and so are complete.
        complete: BTreeSet<PathBuf>,
    },
}

/// Settings that were read and can be applied.
pub(super) struct Reading {
    pub host: ActiveHost,
    pub config: ResolvedConfig,
    /// The variables, without the contents of files.
    pub variables: Environment,
    /// Why changes of modules.toml are refused, if they are. The changes of other files are in `host`.
    pub refused: Option<ConfigErrors>,
    /// The folders of included files that could not be listed.
    pub unlisted: Vec<ConfigError>,
}

/// The state on which a reading is based.
#[derive(Clone)]
pub(super) struct Before {
    pub host: ActiveHost,
    pub variables: Environment,
    pub addresses: Addresses,
    /// Whether the last settings of modules.toml were refused. They may be accepted after other files change.
    pub top_is_refused: bool,
}

/// Settings at the start of a host.
pub(super) struct Start {
    pub host: ActiveHost,
    pub config: ResolvedConfig,
    pub variables: Environment,
    pub saved: Saved,
    pub unlisted: Vec<ConfigError>,
}

impl SettingsReader {
    pub(super) fn new(load: LoadSettings, clients: Arc<TenantHttpClients>) -> Self {
        Self { load: Arc::new(load), clients }
    }

    /// Reads the settings at the start of a host and merges them with those saved by the previous run, in case a file
    /// is half written or another file claims what one had.
    pub(super) async fn read_at_start(&self) -> Result<Start, ConfigErrors> {
        let reader = self.clone();
        work_around_unresponsive(move |unresponsive| reader.start(unresponsive)).await
    }

    /// Reads what may have changed.
    ///
    /// # Errors
    ///
    /// If the settings of modules.toml can't be read and no other file has changed.
    pub(super) async fn read(&self, before: &Before, scope: Scope) -> Result<Reading, ConfigErrors> {
        let (reader, before) = (self.clone(), before.clone());
        work_around_unresponsive(move |unresponsive| reader.reading(&before, &scope, unresponsive)).await
    }

    fn start(&self, unresponsive: &BTreeSet<PathBuf>) -> Result<Start, ConfigErrors> {
        let settings = (self.load.top)(None)?;
        let variables = variables(&settings)?;
        let loading = self.loading(&variables, unresponsive, None);
        let (server, file) = (settings.server.clone(), settings.file.clone());
        let is_complete = is_older_than(&file, server.removal_grace);
        let listed = included_files(&settings.include, &file);
        let saved = Saved {
            top: SavedSettings::read(&server.data_dir, &file),
            included: SavedSettings::read_included(&server.data_dir, &file, &listed.files),
        };
        // The settings of an older version of the host may be invalid for this one.
        let before = saved.top.as_ref().and_then(|saved| (self.load.top)(Some(&saved.text)).ok());
        let loaded = |settings: Settings, is_complete: bool| {
            let environment = loading.environment(&settings);
            LoadedSettings { settings, environment, is_complete }
        };
        let now = Instant::now();
        let (base, top) = match before {
            Some(before) => (loaded(before, true), Some(loaded(settings, is_complete))),
            None => (loaded(settings, is_complete), None),
        };
        let saved_files = saved.included.iter().map(|(path, saved)| {
            (path.clone(), FileContent::Text { text: saved.text.as_str().into(), is_complete: true })
        });
        let changes = Changes { files: saved_files.collect(), ..Changes::default() };
        let host = ActiveHost::new(ActiveSettings::new(base)).update(changes, &loading, now);
        // Nothing changed in modules.toml yet, so nothing of it is refused.
        let host = host.unwrap_or_else(|(host, _)| host);
        let next = top.as_ref().map_or(host.top().settings(), |top| &top.settings);
        let is_complete = |file: &Path| is_older_than(file, server.removal_grace);
        let files = contents(&host, next, &listed, |_| true, is_complete, unresponsive);
        let merged = host.update(Changes { top, files, values: false }, &loading, now);
        let mut host = merged.map_err(|(_, errors)| errors)?;
        for (path, source) in other_secrets(&host, &saved) {
            host.mark_unconfirmed(path.as_deref(), &source, now);
        }
        let config = ResolvedConfig::of_host(&host, &self.clients)?;
        Ok(Start { host, config, variables, saved, unlisted: listed.errors })
    }

    fn reading(
        &self,
        before: &Before,
        scope: &Scope,
        unresponsive: &BTreeSet<PathBuf>,
    ) -> Result<Reading, ConfigErrors> {
        let host = &before.host;
        let has_changed = |file: &Path| match scope {
            Scope::All => true,
            Scope::Nothing => false,
            Scope::Changed { files, .. } => files.contains(file),
        };
        let is_complete = |file: &Path| matches!(scope, Scope::Changed { complete, .. } if complete.contains(file));
        let (variables, mut refused) = match scope {
            Scope::Nothing => (before.variables.clone(), None),
            _ => match variables(host.top().as_written()) {
                Ok(variables) => (variables, None),
                // The files that don't need it change all the same.
                Err(errors) => (before.variables.clone(), Some(errors)),
            },
        };
        let values = matches!(scope, Scope::All) || !variables.has_same_variables(&before.variables);
        let loading = self.loading(&variables, unresponsive, Some(&before.addresses));
        let changed_top: Vec<PathBuf> = top_files(host).into_iter().filter(|file| has_changed(file)).collect();
        let reads_top = values || before.top_is_refused || !changed_top.is_empty();
        let top_is_complete = !changed_top.is_empty() && changed_top.iter().all(|file| is_complete(file));
        let top = match reads_top.then(|| self.top(host, &loading, top_is_complete)) {
            Some(Ok(top)) if refused.is_none() => Some(top),
            Some(Err(errors)) => {
                refused.get_or_insert(errors);
                None
            }
            _ => None,
        };
        let update = |top: Option<LoadedSettings>| {
            let next = top.as_ref().map_or(host.top().settings(), |top| &top.settings);
            let (files, unlisted) = if matches!(scope, Scope::Nothing) {
                (BTreeMap::new(), Vec::new())
            } else {
                let listed = included_files(&next.include, &next.file);
                (contents(host, next, &listed, has_changed, is_complete, unresponsive), listed.errors)
            };
            (host.update(Changes { top, files, values }, &loading, Instant::now()), unlisted)
        };
        let (host, unlisted) = match update(top) {
            (Ok(host), unlisted) => (host, unlisted),
            (Err((_, errors)), _) => {
                refused = Some(errors);
                // Without the changes of modules.toml, other files may be included.
                let (updated, unlisted) = update(None);
                (updated.unwrap_or_else(|(host, _)| host), unlisted)
            }
        };
        let config = ResolvedConfig::of_host(&host, &self.clients)?;
        Ok(Reading { host, config, variables, refused, unlisted })
    }

    /// Reads modules.toml, and checks that the host can run with it.
    fn top(&self, host: &ActiveHost, loading: &Loading<'_>, is_complete: bool) -> Result<LoadedSettings, ConfigErrors> {
        let settings = (self.load.top)(None)?;
        let environment = loading.environment(&settings);
        let loaded = LoadedSettings { settings, environment, is_complete };
        let next = host.top().merge(loaded.clone(), Instant::now());
        ResolvedConfig::of(&next, &self.clients)?;
        loading.check_addresses(next.settings())?;
        Ok(loaded)
    }

    fn loading<'a>(
        &'a self,
        variables: &Environment,
        unresponsive: &BTreeSet<PathBuf>,
        addresses: Option<&'a Addresses>,
    ) -> Loading<'a> {
        let mut variables = variables.clone();
        unresponsive.iter().for_each(|file| variables.set_unresponsive(file.clone()));
        Loading { reader: self, variables, addresses }
    }
}

/// Reads and checks the settings as a host would at its first start. Returns the settings, with the included files that
/// the host would refuse, and the errors of modules.toml.
///
/// # Errors
///
/// If modules.toml can't be read or is invalid.
pub fn examine_settings(file: &Path) -> Result<(Settings, Option<ConfigErrors>), ConfigErrors> {
    let path = file.to_owned();
    let load = LoadSettings {
        top: Box::new(move |text| match text {
            Some(text) => Settings::parse(text, &path),
            None => Settings::load_file(&path),
        }),
        included: Box::new(|settings| settings),
    };
    let reader = SettingsReader::new(load, Arc::default());
    let settings = (reader.load.top)(None)?;
    let (variables, mut errors) = match variables(&settings) {
        Ok(variables) => (variables, None),
        Err(errors) => (Environment::default(), Some(errors)),
    };
    let loading = reader.loading(&variables, &BTreeSet::new(), None);
    let environment = loading.environment(&settings);
    let listed = included_files(&settings.include, &settings.file);
    let top = ActiveSettings::new(LoadedSettings { settings, environment, is_complete: true });
    if errors.is_none() {
        errors = ResolvedConfig::of(&top, &reader.clients).err();
    }
    let host = ActiveHost::new(top);
    let files = contents(&host, host.top().settings(), &listed, |_| true, |_| true, &BTreeSet::new());
    let host = host.update(Changes { files, ..Changes::default() }, &loading, Instant::now());
    // Nothing changed in modules.toml, so nothing of it is refused.
    let mut settings = host.unwrap_or_else(|(host, _)| host).settings();
    settings.add_unlisted(listed.errors);
    Ok((settings, errors))
}

/// How the texts of included files become settings in this host.
struct Loading<'a> {
    reader: &'a SettingsReader,
    variables: Environment,
    /// The addresses of the host, if it runs.
    addresses: Option<&'a Addresses>,
}

impl Loading<'_> {
    fn check_addresses(&self, settings: &Settings) -> Result<(), ConfigErrors> {
        let exposed = self.addresses.and_then(|addresses| addresses.exposed(settings));
        exposed.map_or(Ok(()), |error| Err(error.into()))
    }
}

impl LoadIncluded for Loading<'_> {
    fn parse(&self, file: &Path, text: &str, top: &Settings) -> Result<Settings, ConfigErrors> {
        Settings::parse_included(text, file, top).map(|settings| (self.reader.load.included)(settings))
    }

    fn environment(&self, settings: &Settings) -> Arc<Environment> {
        Arc::new(self.variables.with_files_of(settings))
    }

    fn check(&self, active: &ActiveSettings) -> Result<(), ConfigErrors> {
        check_included(active, &self.reader.clients)?;
        self.check_addresses(active.settings())
    }
}

/// Reads the variables of the process and of the `.env` beside modules.toml.
fn variables(top: &Settings) -> Result<Environment, ConfigErrors> {
    Ok(Environment::load(top.file.parent().unwrap_or(Path::new("")))?)
}

/// Reads those included files that changed, that are new, or that are gone.
fn contents(
    host: &ActiveHost,
    top: &Settings,
    listed: &IncludedFiles,
    has_changed: impl Fn(&Path) -> bool,
    is_complete: impl Fn(&Path) -> bool,
    unresponsive: &BTreeSet<PathBuf>,
) -> BTreeMap<PathBuf, FileContent> {
    let mut contents = BTreeMap::new();
    for path in &listed.files {
        let is_known = host.files().get(path).is_some_and(|known| {
            !(known.is_removed() || has_changed(path) || known.references().iter().any(|file| has_changed(file)))
        });
        if is_known {
            continue;
        }
        let content = match unresponsive.contains(path) {
            true => FileContent::Unreadable(unresponsive_error(path)),
            false => FileContent::read(path, &top.include),
        };
        let content = match content {
            FileContent::Text { text, .. } => FileContent::Text { text, is_complete: is_complete(path) },
            other => other,
        };
        contents.insert(path.clone(), content);
    }
    let gone = host.files().iter().filter(|(path, known)| !known.is_removed() && !listed.files.contains(*path));
    for (path, _) in gone {
        // What a folder contains that can't be listed is unknown, not gone.
        let is_unlisted = top.include.iter().any(|entry| entry.names(path) && entry.is_unlisted(listed));
        if !is_unlisted {
            contents.insert(path.clone(), FileContent::Missing);
        }
    }
    contents
}

fn unresponsive_error(path: &Path) -> ConfigError {
    ConfigError::new(format!("reading {} took longer than {READ_TIMEOUT:?}", path.display()))
        .advice("check whether the file is on a network file system that does not respond")
}

/// Returns the sources whose secrets differ from those that the previous run saved.
fn other_secrets(host: &ActiveHost, saved: &Saved) -> Vec<(Option<PathBuf>, Name)> {
    let included = host
        .files()
        .iter()
        .filter_map(|(path, file)| Some((Some(path.clone()), file.active()?, saved.included.get(path)?)));
    let top = saved.top.iter().map(|saved| (None, host.top(), saved));
    let mut found = Vec::new();
    for (path, active, known) in top.chain(included) {
        let sources = active.settings().sources.iter();
        let others = sources.filter(|it| known.has_other_secrets(&it.name, active.current_secrets(&it.name)));
        found.extend(others.map(|source| (path.clone(), source.name.clone())));
    }
    found
}

/// Returns the files that the settings of modules.toml consist of.
pub(super) fn top_files(host: &ActiveHost) -> BTreeSet<PathBuf> {
    let top = host.top();
    let references = top.settings().references().chain(top.as_written().references());
    let secrets = references.filter_map(|reference| reference.file().map(Path::to_owned));
    let file = &top.as_written().file;
    let tls = certificate(top.settings()).map(Path::to_owned);
    secrets.chain(tls).chain([file.clone(), file.with_file_name(".env")]).collect()
}

/// Returns the files of the certificate.
pub(super) fn certificate(settings: &Settings) -> impl Iterator<Item = &Path> {
    let files = settings.server.tls.as_ref().map(|tls| [Some(tls.certificate.as_path()), tls.key.file()]);
    files.into_iter().flatten().flatten()
}

/// Runs work outside the runtime with a time limit. If a file system doesn't respond, runs it again without the file.
async fn work_around_unresponsive<T: Send + 'static>(
    work: impl Fn(&BTreeSet<PathBuf>) -> Result<T, ConfigErrors> + Send + Sync + 'static,
) -> Result<T, ConfigErrors> {
    let work = Arc::new(work);
    let mut unresponsive = BTreeSet::new();
    loop {
        let (work, skipped) = (work.clone(), unresponsive.clone());
        match files::off_runtime(READ_TIMEOUT, move || work(&skipped)).await {
            Ok(result) => return result,
            Err(FileOpError::TimedOut(blocked)) if unresponsive.len() < MAX_UNRESPONSIVE => match &blocked.file {
                Some(file) if unresponsive.insert(file.clone()) => {}
                _ => return Err(read_failed(&FileOpError::TimedOut(blocked)).into()),
            },
            Err(error) => return Err(read_failed(&error).into()),
        }
    }
}

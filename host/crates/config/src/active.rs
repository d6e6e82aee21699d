//! The settings in effect: the settings in the file, plus parts that were removed from the file recently.
//!
//! If the file is written in place, the host sooner or later reads it half written, and half a settings file is often
//! valid. The host therefore keeps a removed part for [`Server::removal_grace`](super::Server::removal_grace) and
//! drops it only if it is still missing after that time. It keeps:
//!
//! - A source, a tenant, a company of a tenant, or a module that was removed. The host accepts its events; its
//!   deliveries wait.
//! - Keys that were removed from the last table of the file, where a truncated file ends. That source, tenant or
//!   module (or `[server]`) stays as it was.
//! - A secret or certificate whose new value is a prefix of the old one. The old value stays.
//! - A secret of a source that was replaced. The host still accepts its signatures. During the same time the new
//!   secret may be incomplete, so the host does not count an unknown signature as a forgery.
//!
//! All of this is one pure function of the active settings, the settings that were read, and the time:
//! [`ActiveSettings::merge`].

mod claims;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reference::Origin;
use super::{Environment, Reference, Secret, Settings, Source, Tenant, WrittenKeys};
use modhost_core::event::Name;

/// Settings that were read from the file, with the values of their references.
#[derive(Clone)]
pub struct LoadedSettings {
    /// The settings.
    pub settings: Settings,
    /// The values of their references.
    pub environment: Arc<Environment>,
    /// Whether the file is known to be complete, because it was moved into place.
    pub is_complete: bool,
}

/// The settings in effect.
#[derive(Clone)]
pub struct ActiveSettings {
    /// The settings that were read last.
    loaded: LoadedSettings,
    /// The same settings, plus the retained parts.
    settings: Settings,
    /// The values of the references in `loaded`, retained values included.
    environment: Arc<Environment>,
    retained: BTreeMap<SettingsPart, RetainedPart>,
    /// Retained tenants whose events now belong to another tenant.
    without_events: BTreeSet<Name>,
    /// When each retained value expires, by its origin.
    values: HashMap<Origin, Instant>,
    certificate: Option<Instant>,
    /// The secrets of webhooks, by source.
    rotations: BTreeMap<Name, Rotation>,
    /// The file as it was when it was last complete.
    complete: CompleteText,
}

/// A part of the settings that can be removed on its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SettingsPart {
    /// Keys of `[server]`.
    Server,
    /// A `[[source]]`.
    Source(Name),
    /// A `[[tenant]]`.
    Tenant(Name),
    /// A company of a tenant.
    Company(Name, String),
    /// A `[[module]]`.
    Module(Name),
}

/// A part of the settings that is kept although it was removed.
#[derive(Clone)]
struct RetainedPart {
    reason: GraceReason,
    until: Instant,
    environment: Arc<Environment>,
}

/// Why a part of the settings is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraceReason {
    /// It was removed from the file.
    Removed,
    /// It is the last part of the file and keys of it are missing: the file may be truncated.
    Truncated,
}

/// The secrets of a source.
#[derive(Clone, Default)]
struct Rotation {
    current: Vec<Secret>,
    /// Replaced secrets, and when each expires.
    old: Vec<(Secret, Instant)>,
    /// Until when the current secrets may be incomplete.
    unconfirmed_until: Option<Instant>,
}

/// The text of a settings file, and its last part.
#[derive(Clone)]
struct CompleteText {
    text: Arc<str>,
    last: Option<SettingsPart>,
}

impl fmt::Display for SettingsPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server => f.write_str("[server]"),
            Self::Source(name) => write!(f, "the source \"{name}\""),
            Self::Tenant(name) => write!(f, "the tenant \"{name}\""),
            Self::Company(tenant, company) => write!(f, "the company \"{company}\" of the tenant \"{tenant}\""),
            Self::Module(name) => write!(f, "the module \"{name}\""),
        }
    }
}

impl ActiveSettings {
    /// Returns the settings of a host that had none before.
    pub fn new(loaded: LoadedSettings) -> Self {
        let rotations = secrets(&loaded.settings, |_| &loaded.environment);
        let rotations = rotations.map(|(name, current)| (name, Rotation { current, ..Rotation::default() })).collect();
        Self {
            settings: loaded.settings.clone(),
            environment: loaded.environment.clone(),
            retained: BTreeMap::new(),
            without_events: BTreeSet::new(),
            values: HashMap::new(),
            certificate: None,
            rotations,
            complete: CompleteText::of(&loaded.settings),
            loaded,
        }
    }

    /// Returns the active settings after `next` was read at `now`. The clock may stand still.
    pub fn merge(&self, next: LoadedSettings, now: Instant) -> Self {
        let mut truncated = if next.is_complete { Vec::new() } else { self.truncated_parts(&next.settings) };
        let written = if truncated.contains(&SettingsPart::Server) { &self.settings } else { &next.settings };
        let grace = written.server.removal_grace;
        let mut merge = Merge {
            before: self,
            now,
            until: now + grace.min(MAX_GRACE),
            settings: next.settings.clone(),
            retained: BTreeMap::new(),
            without_events: BTreeSet::new(),
        };
        truncated.retain(|part| merge.restore(part));
        merge.retain_sources(&next.settings);
        merge.retain_tenants(&next.settings);
        merge.retain_companies(&next.settings);
        merge.retain_modules(&next.settings);
        let until = merge.until;
        let Merge { settings, retained, without_events, .. } = merge;
        let mut merged = Self {
            complete: if !truncated.is_empty() || !retained.is_empty() {
                self.complete.clone()
            } else {
                CompleteText::of(&next.settings)
            },
            settings,
            environment: next.environment.clone(),
            retained,
            without_events,
            values: HashMap::new(),
            certificate: None,
            rotations: BTreeMap::new(),
            loaded: next,
        };
        merged.retain_values(self, now, until);
        merged.rotate(self, now, until);
        merged
    }

    /// Returns the same settings at a later time, without the parts whose grace has expired.
    pub fn at(&self, now: Instant) -> Self {
        self.merge(self.loaded.clone(), now)
    }

    /// Returns when the next retained part or value expires.
    pub fn deadline(&self) -> Option<Instant> {
        let parts = self.retained.values().map(|retained| retained.until);
        let secrets =
            self.rotations.values().flat_map(|it| it.old.iter().map(|(_, until)| *until).chain(it.unconfirmed_until));
        parts.chain(secrets).chain(self.values.values().copied()).chain(self.certificate).min()
    }

    /// Returns all settings in effect, retained parts included.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Returns the settings as they are in the file.
    pub fn as_written(&self) -> &Settings {
        &self.loaded.settings
    }

    /// Returns the values of the references.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(crate) fn environment_arc(&self) -> Arc<Environment> {
        self.environment.clone()
    }

    /// Returns the values of the references in one part.
    pub fn environment_of(&self, part: &SettingsPart) -> &Environment {
        self.retained.get(part).map_or(&self.environment, |retained| &retained.environment)
    }

    /// Whether a part was removed from the file and is not dropped yet.
    pub fn is_removed(&self, part: &SettingsPart) -> bool {
        self.retained.get(part).is_some_and(|retained| retained.reason == GraceReason::Removed)
    }

    /// Whether the file contains a part.
    pub fn has(&self, part: &SettingsPart) -> bool {
        let written = &self.loaded.settings;
        match part {
            SettingsPart::Server => true,
            SettingsPart::Source(name) => written.sources.iter().any(|source| source.name == *name),
            SettingsPart::Tenant(name) => written.tenants.iter().any(|tenant| tenant.name == *name),
            SettingsPart::Module(name) => written.modules.iter().any(|module| module.name == *name),
            SettingsPart::Company(_, company) => {
                written.tenants.iter().any(|tenant| tenant.companies.contains(company))
            }
        }
    }

    /// Returns the retained parts, each with the reason and the time until it expires.
    pub fn retained(&self, now: Instant) -> impl Iterator<Item = (&SettingsPart, GraceReason, Duration)> {
        self.retained
            .iter()
            .map(move |(part, retained)| (part, retained.reason, retained.until.saturating_duration_since(now)))
    }

    /// Returns the origins of values that look truncated. The old values stay in effect.
    pub fn truncated_values(&self) -> impl Iterator<Item = String> {
        self.values.keys().map(ToString::to_string).chain(self.certificate.map(|_| "the certificate".to_owned()))
    }

    /// Whether nothing is retained.
    pub fn is_settled(&self) -> bool {
        self.deadline().is_none()
    }

    /// Returns the tenants that receive events: all but those whose events now belong to another tenant.
    pub fn tenants_with_events(&self) -> impl Iterator<Item = &Tenant> + Clone {
        self.settings.tenants.iter().filter(|tenant| !self.without_events.contains(&tenant.name))
    }

    /// Returns the replaced secrets of a source that are still accepted.
    pub fn old_secrets(&self, source: &Name) -> impl Iterator<Item = &Secret> {
        self.rotations.get(source).into_iter().flat_map(|rotation| rotation.old.iter().map(|(secret, _)| secret))
    }

    /// Returns the current secrets of a source.
    pub fn current_secrets(&self, source: &Name) -> &[Secret] {
        self.rotations.get(source).map_or(&[], |rotation| &rotation.current)
    }

    /// Whether the current secrets of a source may still be incomplete.
    pub fn is_unconfirmed(&self, source: &Name) -> bool {
        self.rotations.get(source).is_some_and(|rotation| rotation.unconfirmed_until.is_some())
    }

    /// Marks the secrets of a source as new, because the previous process had others.
    pub fn mark_unconfirmed(&mut self, source: &Name, now: Instant) {
        let grace = self.settings.server.removal_grace;
        if let Some(rotation) = self.rotations.get_mut(source).filter(|_| !grace.is_zero()) {
            rotation.unconfirmed_until = Some(now + grace.min(MAX_GRACE));
        }
    }

    /// Returns the parts at which the file may be truncated: the last part, and the tables of `[server]` if they were
    /// last before.
    fn truncated_parts(&self, next: &Settings) -> Vec<SettingsPart> {
        let last = self.truncated_part(next);
        let was_last =
            self.complete.last == Some(SettingsPart::Server) && last_part(next) != Some(SettingsPart::Server);
        let is_truncated = was_last && next.server.written.is_missing_keys_of(&self.settings.server.written);
        last.into_iter().chain(is_truncated.then_some(SettingsPart::Server)).collect()
    }

    /// Returns the last part if the file may be truncated there: keys of it are missing, or its last line is
    /// incomplete. A new part cannot be checked.
    fn truncated_part(&self, next: &Settings) -> Option<SettingsPart> {
        let last = last_part(next)?;
        let (old, new) = (written(&self.settings, &last)?, written(next, &last)?);
        let (text, complete) = (next.text.as_str(), &*self.complete.text);
        let is_same = is_same(&self.settings, next, &last);
        let ends_within = text.len() < complete.len() && complete.starts_with(text);
        let ends_in_a_line = complete.ends_with('\n') && !text.ends_with('\n');
        if (ends_within || ends_in_a_line) && !is_same {
            return Some(last);
        }
        (new.is_missing_keys_of(old) && !self.complete.has_same_end(text, &last)).then_some(last)
    }

    /// Keeps the old value of each reference whose new value looks truncated.
    fn retain_values(&mut self, before: &Self, now: Instant, until: Instant) {
        let mut environment = (*self.environment).clone();
        // A reference that is new has no old value.
        let known: HashSet<&Origin> = before.loaded.settings.all_references().map(Reference::origin).collect();
        let settings = &self.loaded.settings;
        for reference in settings.all_references().filter(|reference| known.contains(reference.origin())) {
            let (read_before, read) = (&before.loaded.environment, &self.loaded.environment);
            let (Ok(old), Ok(new)) = (reference.resolve(&before.environment), reference.resolve(read)) else {
                continue;
            };
            let known_until = before.values.get(reference.origin()).copied();
            let until = known_until.unwrap_or(until);
            let is_still_truncated =
                known_until.is_some() && reference.resolve(read_before).is_ok_and(|before| before == new);
            let is_other_variable = reference.skipped_variables(read) > reference.skipped_variables(read_before);
            if until > now && old != new && (is_still_truncated || is_other_variable || is_proper_prefix(&new, &old)) {
                environment.overrides.insert(reference.origin().clone(), old);
                self.values.insert(reference.origin().clone(), until);
            }
        }
        if let (Some(old_tls), Some(tls)) = (&before.loaded.settings.server.tls, &settings.server.tls)
            && old_tls.certificate == tls.certificate
            && let (Ok(old), Ok(new)) =
                (before.environment.file(&old_tls.certificate), self.loaded.environment.file(&tls.certificate))
        {
            let until = before.certificate.unwrap_or(until);
            // A file without a complete certificate is rejected elsewhere.
            let has_certificate = new.windows(PEM_END.len()).any(|part| part == PEM_END);
            if until > now && has_certificate && new.len() < old.len() && old.starts_with(&new) {
                environment.set_file(tls.certificate.clone(), old);
                self.certificate = Some(until);
            }
        }
        self.environment = Arc::new(environment);
    }

    /// Keeps the replaced secrets of sources.
    fn rotate(&mut self, before: &Self, now: Instant, until: Instant) {
        let sources: Vec<_> = secrets(&self.settings, |part| self.environment_of(part)).collect();
        for (name, current) in sources {
            let mut rotation = Rotation { current, ..Rotation::default() };
            if let Some(before) = before.rotations.get(&name) {
                let is_new = rotation.current != before.current;
                let replaced = before.current.iter().map(|secret| (secret.clone(), until));
                let old = before.old.iter().cloned().chain(replaced).filter(|(secret, until)| {
                    // A prefix of a current secret was read from a truncated value. It is easily guessed, so it is
                    // never accepted.
                    *until > now
                        && !rotation.current.contains(secret)
                        && !rotation.current.iter().any(|it| is_proper_prefix(secret, it))
                });
                rotation.old = old.collect();
                rotation.unconfirmed_until = if is_new { Some(until) } else { before.unconfirmed_until };
            }
            // A truncated value may be the beginning of a new secret.
            let truncated = self.settings.sources.iter().filter(|source| source.name == name).flat_map(webhook_secrets);
            let truncated = truncated.filter_map(|reference| self.values.get(reference.origin())).max().copied();
            rotation.unconfirmed_until = rotation.unconfirmed_until.max(truncated).filter(|until| *until > now);
            self.rotations.insert(name, rotation);
        }
    }
}

/// The end of a certificate in PEM.
const PEM_END: &[u8] = b"-----END CERTIFICATE-----";

/// The maximum grace, so that computing a deadline never overflows.
const MAX_GRACE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A merge in progress.
struct Merge<'a> {
    before: &'a ActiveSettings,
    now: Instant,
    until: Instant,
    settings: Settings,
    retained: BTreeMap<SettingsPart, RetainedPart>,
    without_events: BTreeSet<Name>,
}

impl Merge<'_> {
    /// Retains a part unless its grace has expired. Returns whether it is retained.
    fn retain_part(&mut self, part: SettingsPart, reason: GraceReason) -> bool {
        let known = self.before.retained.get(&part);
        let until = known.filter(|retained| retained.reason == reason).map_or(self.until, |retained| retained.until);
        if until <= self.now {
            return false;
        }
        let environment = known.map_or(&self.before.environment, |retained| &retained.environment).clone();
        self.retained.insert(part, RetainedPart { reason, until, environment });
        true
    }

    /// Restores a part that is missing keys. Returns whether it was restored.
    fn restore(&mut self, part: &SettingsPart) -> bool {
        let before = &self.before.settings;
        // Another source may now use the path of this source.
        if let SettingsPart::Source(name) = part
            && let Some(source) = before.sources.iter().find(|source| source.name == *name)
            && self.settings.sources.iter().any(|other| other.name != *name && same_path(other, source))
        {
            return false;
        }
        if !self.retain_part(part.clone(), GraceReason::Truncated) {
            return false;
        }
        match part {
            SettingsPart::Server => self.settings.server = before.server.clone(),
            SettingsPart::Source(name) => {
                restore_item(&mut self.settings.sources, &before.sources, |source| source.name == *name);
            }
            SettingsPart::Tenant(name) => {
                restore_item(&mut self.settings.tenants, &before.tenants, |tenant| tenant.name == *name);
                let elsewhere = companies(self.settings.tenants.iter().filter(|tenant| tenant.name != *name));
                let tenant = self.settings.tenants.iter_mut().find(|tenant| tenant.name == *name);
                if let Some(tenant) = tenant.filter(|tenant| !tenant.companies.is_empty()) {
                    tenant.companies.retain(|company| !elsewhere.contains(company));
                    if tenant.companies.is_empty() {
                        self.without_events.insert(name.clone());
                    }
                }
            }
            SettingsPart::Module(name) => {
                restore_item(&mut self.settings.modules, &before.modules, |module| module.name == *name)
            }
            SettingsPart::Company(..) => {}
        }
        true
    }

    fn retain_sources(&mut self, next: &Settings) {
        for source in &self.before.settings.sources {
            let is_present = |other: &Source| other.name == source.name || same_path(other, source);
            if next.sources.iter().any(is_present)
                || !self.retain_part(SettingsPart::Source(source.name.clone()), GraceReason::Removed)
            {
                continue;
            }
            let mut source = source.clone();
            // It was the only tenant; there may be others now.
            let tenant = source.sole_tenant(self.before.tenants_with_events()).map(|tenant| tenant.name.clone());
            source.tenant = source.tenant.or(tenant);
            self.settings.sources.push(source);
        }
    }

    fn retain_tenants(&mut self, next: &Settings) {
        let elsewhere = companies(&next.tenants);
        let accepts_any = next.tenants.iter().any(|tenant| tenant.companies.is_empty());
        for tenant in &self.before.settings.tenants {
            let is_present = next.tenants.iter().any(|other| other.name == tenant.name);
            if is_present || !self.retain_part(SettingsPart::Tenant(tenant.name.clone()), GraceReason::Removed) {
                continue;
            }
            let mut tenant = tenant.clone();
            let accepted_any = tenant.companies.is_empty();
            tenant.companies.retain(|company| !elsewhere.contains(company));
            let is_replaced = if accepted_any { accepts_any } else { tenant.companies.is_empty() };
            if is_replaced || self.before.without_events.contains(&tenant.name) {
                self.without_events.insert(tenant.name.clone());
            }
            self.settings.tenants.push(tenant);
        }
    }

    fn retain_companies(&mut self, next: &Settings) {
        let elsewhere = companies(&next.tenants);
        for tenant in next.tenants.iter().filter(|tenant| !tenant.companies.is_empty()) {
            if self.retained.contains_key(&SettingsPart::Tenant(tenant.name.clone())) {
                continue;
            }
            let before = self.before.settings.tenants.iter().find(|before| before.name == tenant.name);
            let removed = before.iter().flat_map(|before| &before.companies).filter(|it| !elsewhere.contains(*it));
            for company in removed {
                if self.retain_part(SettingsPart::Company(tenant.name.clone(), company.clone()), GraceReason::Removed)
                    && let Some(tenant) = self.settings.tenants.iter_mut().find(|it| it.name == tenant.name)
                {
                    tenant.companies.push(company.clone());
                }
            }
        }
    }

    fn retain_modules(&mut self, next: &Settings) {
        for module in &self.before.settings.modules {
            let is_present = next.modules.iter().any(|other| other.name == module.name);
            if !is_present && self.retain_part(SettingsPart::Module(module.name.clone()), GraceReason::Removed) {
                self.settings.modules.push(module.clone());
            }
        }
    }
}

impl CompleteText {
    fn of(settings: &Settings) -> Self {
        Self { text: settings.text.as_str().into(), last: last_part(settings) }
    }

    /// Whether another text ends the same way. If so, the missing part was deleted, not cut off.
    fn has_same_end(&self, other: &str, last: &SettingsPart) -> bool {
        let line = |text: &str| text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned);
        let Some(line) = line(&self.text).filter(|it| Some(it) == line(other).as_ref()) else { return false };
        let count = |text: &str| text.lines().filter(|it| it.trim() == line).count();
        // The same line may occur several times, and the last one may be cut off.
        self.last.as_ref() == Some(last) && count(&self.text) <= count(other)
    }
}

/// Replaces an item with the one of the same name in `before`.
fn restore_item<T: Clone>(items: &mut [T], before: &[T], is_it: impl Fn(&T) -> bool) {
    if let (Some(item), Some(before)) = (items.iter_mut().find(|it| is_it(it)), before.iter().find(|it| is_it(it))) {
        *item = before.clone();
    }
}

fn same_path(one: &Source, other: &Source) -> bool {
    let path = |source: &Source| source.webhook().map(|webhook| webhook.path.clone());
    path(one).is_some_and(|path_of_one| Some(path_of_one) == path(other))
}

fn companies<'t>(tenants: impl IntoIterator<Item = &'t Tenant>) -> HashSet<String> {
    tenants.into_iter().flat_map(|tenant| tenant.companies.iter().cloned()).collect()
}

fn webhook_secrets(source: &Source) -> impl Iterator<Item = &Reference> {
    source.webhook().into_iter().flat_map(|webhook| &webhook.secrets)
}

/// Returns the secrets of each webhook that can be resolved.
fn secrets<'a>(
    settings: &'a Settings,
    environment: impl Fn(&SettingsPart) -> &'a Environment,
) -> impl Iterator<Item = (Name, Vec<Secret>)> {
    settings.sources.iter().filter(|source| source.webhook().is_some()).map(move |source| {
        let environment = environment(&SettingsPart::Source(source.name.clone()));
        let secrets = webhook_secrets(source).filter_map(|secret| secret.resolve(environment).ok());
        (source.name.clone(), secrets.collect())
    })
}

/// Whether a value is a prefix of another one, and shorter.
fn is_proper_prefix(value: &Secret, complete: &Secret) -> bool {
    value.expose().len() < complete.expose().len() && complete.expose().starts_with(value.expose())
}

/// Returns the last part of the file.
fn last_part(settings: &Settings) -> Option<SettingsPart> {
    let server = [(settings.server.written.end(), SettingsPart::Server)];
    let sources = settings.sources.iter().map(|it| (it.written.end(), SettingsPart::Source(it.name.clone())));
    let tenants = settings.tenants.iter().map(|it| (it.written.end(), SettingsPart::Tenant(it.name.clone())));
    let modules = settings.modules.iter().map(|it| (it.written.end(), SettingsPart::Module(it.name.clone())));
    let parts = server.into_iter().chain(sources).chain(tenants).chain(modules);
    parts.max_by_key(|(end, _)| *end).map(|(_, part)| part)
}

/// Returns the keys of a part that are in the file.
fn written<'s>(settings: &'s Settings, part: &SettingsPart) -> Option<&'s WrittenKeys> {
    match part {
        SettingsPart::Server => Some(&settings.server.written),
        SettingsPart::Source(name) => settings.sources.iter().find(|it| it.name == *name).map(|it| &it.written),
        SettingsPart::Tenant(name) => settings.tenants.iter().find(|it| it.name == *name).map(|it| &it.written),
        SettingsPart::Module(name) => settings.modules.iter().find(|it| it.name == *name).map(|it| &it.written),
        SettingsPart::Company(..) => None,
    }
}

/// Whether a part is equal in both.
fn is_same(one: &Settings, other: &Settings, part: &SettingsPart) -> bool {
    match part {
        SettingsPart::Server => one.server == other.server,
        SettingsPart::Source(name) => same_in(&one.sources, &other.sources, |it| it.name == *name),
        SettingsPart::Tenant(name) => same_in(&one.tenants, &other.tenants, |it| it.name == *name),
        SettingsPart::Module(name) => same_in(&one.modules, &other.modules, |it| it.name == *name),
        SettingsPart::Company(..) => true,
    }
}

fn same_in<T: PartialEq>(one: &[T], other: &[T], is_it: impl Fn(&T) -> bool) -> bool {
    one.iter().find(|it| is_it(it)) == other.iter().find(|it| is_it(it))
}

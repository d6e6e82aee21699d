//! The settings a host goes by: what the file says, and what has just disappeared from it.
//!
//! A file that is being written in place is read half written sooner or later, and half a settings file is often a valid one.
//! So what disappears stays for [`Server::removal_grace`](super::Server::removal_grace), and is dropped only when it stayed
//! away for as long:
//!
//! - A source, a tenant, a company of a tenant, or a module that is gone. Events for it are taken; its deliveries wait.
//! - Keys that are gone from the last table of the file, which is where a file is cut: that source, tenant or module (or
//!   `[server]`) stays as it was.
//! - The end of a secret or a certificate: the one before stays.
//! - A secret of a source that another one took the place of: what it signed is still taken. And for as long, nobody knows
//!   whether the new one is whole, so that what none of them signed is no forgery yet.
//!
//! All of it is one pure function of what was, what is read, and the time: [`ActiveSettings::merge`].

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::reference::Origin;
use super::{Environment, Reference, Secret, Settings, Source, Tenant, Written};
use modhost_core::event::Name;

/// Settings as they were read, with all they refer to.
#[derive(Clone)]
pub struct LoadedSettings {
    /// The settings.
    pub settings: Settings,
    /// What their references lead to.
    pub environment: Arc<Environment>,
    /// Whether the file is known to be whole, as it was moved to its place.
    pub is_whole: bool,
}

/// The settings a host goes by.
#[derive(Clone)]
pub struct ActiveSettings {
    /// What was read last.
    loaded: LoadedSettings,
    /// That, and what is kept.
    settings: Settings,
    /// What the references of what was read lead to, kept values included.
    environment: Arc<Environment>,
    kept: BTreeMap<Part, Kept>,
    /// Tenants that are kept and whose events are another tenant's by now.
    without_events: BTreeSet<Name>,
    /// Until when values are kept, by where they are.
    values: HashMap<Origin, Instant>,
    certificate: Option<Instant>,
    /// The secrets of webhooks, by source.
    rotations: BTreeMap<Name, Rotation>,
    /// The file when it was last not cut.
    whole: WholeText,
}

/// A part of the settings that can disappear by itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// `[server]`: keys of it.
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

/// How a part of the settings is kept.
#[derive(Clone)]
struct Kept {
    why: Why,
    until: Instant,
    environment: Arc<Environment>,
}

/// Why a part of the settings is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It is gone from the file.
    Gone,
    /// It is the last one in the file, and keys of it are gone.
    Cut,
}

/// The secrets of a source.
#[derive(Clone, Default)]
struct Rotation {
    current: Vec<Secret>,
    /// Those that others took the place of, and until when they are taken.
    old: Vec<(Secret, Instant)>,
    /// Until when nobody knows whether the current ones are whole.
    unsettled: Option<Instant>,
}

/// The text of a file, and what stands last in it.
#[derive(Clone)]
struct WholeText {
    text: Arc<str>,
    last: Option<Part>,
}

impl fmt::Display for Part {
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
    /// Settings that nothing was before.
    pub fn new(loaded: LoadedSettings) -> Self {
        let rotations = secrets(&loaded.settings, |_| &loaded.environment);
        let rotations = rotations.map(|(name, current)| (name, Rotation { current, ..Rotation::default() })).collect();
        Self {
            settings: loaded.settings.clone(),
            environment: loaded.environment.clone(),
            kept: BTreeMap::new(),
            without_events: BTreeSet::new(),
            values: HashMap::new(),
            certificate: None,
            rotations,
            whole: WholeText::of(&loaded.settings),
            loaded,
        }
    }

    /// These settings after others were read at this time; the clock may stand still.
    pub fn merge(&self, next: LoadedSettings, now: Instant) -> Self {
        let mut cut = if next.is_whole { Vec::new() } else { self.cut_parts(&next.settings) };
        let written = if cut.contains(&Part::Server) { &self.settings } else { &next.settings };
        let grace = written.server.removal_grace;
        let mut merge = Merge {
            before: self,
            now,
            until: now + grace.min(MAX_GRACE),
            settings: next.settings.clone(),
            kept: BTreeMap::new(),
            without_events: BTreeSet::new(),
        };
        cut.retain(|part| merge.restore(part));
        merge.keep_sources(&next.settings);
        merge.keep_tenants(&next.settings);
        merge.keep_companies(&next.settings);
        merge.keep_modules(&next.settings);
        let until = merge.until;
        let Merge { settings, kept, without_events, .. } = merge;
        let mut merged = Self {
            whole: if !cut.is_empty() || !kept.is_empty() { self.whole.clone() } else { WholeText::of(&next.settings) },
            settings,
            environment: next.environment.clone(),
            kept,
            without_events,
            values: HashMap::new(),
            certificate: None,
            rotations: BTreeMap::new(),
            loaded: next,
        };
        merged.keep_values(self, now, until);
        merged.rotate(self, now, until);
        merged
    }

    /// The same settings at a later time: what has stayed away long enough is dropped.
    pub fn at(&self, now: Instant) -> Self {
        self.merge(self.loaded.clone(), now)
    }

    /// When something is to be dropped next.
    pub fn deadline(&self) -> Option<Instant> {
        let parts = self.kept.values().map(|kept| kept.until);
        let secrets = self.rotations.values().flat_map(|it| it.old.iter().map(|(_, until)| *until).chain(it.unsettled));
        parts.chain(secrets).chain(self.values.values().copied()).chain(self.certificate).min()
    }

    /// All settings that count, what is kept included.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The settings as the file has them.
    pub fn as_written(&self) -> &Settings {
        &self.loaded.settings
    }

    /// What the references of the settings lead to.
    pub fn environment(&self) -> &Environment {
        &self.environment
    }

    /// What the references of a part lead to.
    pub fn environment_of(&self, part: &Part) -> &Environment {
        self.kept.get(part).map_or(&self.environment, |kept| &kept.environment)
    }

    /// Whether a part is gone from the file, and not dropped yet.
    pub fn is_gone(&self, part: &Part) -> bool {
        self.kept.get(part).is_some_and(|kept| kept.why == Why::Gone)
    }

    /// Whether the file has a part.
    pub fn has(&self, part: &Part) -> bool {
        let written = &self.loaded.settings;
        match part {
            Part::Server => true,
            Part::Source(name) => written.sources.iter().any(|source| source.name == *name),
            Part::Tenant(name) => written.tenants.iter().any(|tenant| tenant.name == *name),
            Part::Module(name) => written.modules.iter().any(|module| module.name == *name),
            Part::Company(_, company) => written.tenants.iter().any(|tenant| tenant.companies.contains(company)),
        }
    }

    /// What is kept, why, and for how long from now.
    pub fn kept(&self, now: Instant) -> impl Iterator<Item = (&Part, Why, Duration)> {
        self.kept.iter().map(move |(part, kept)| (part, kept.why, kept.until.saturating_duration_since(now)))
    }

    /// Where the values are that seem to be cut off from those before, which are kept.
    pub fn cut_values(&self) -> impl Iterator<Item = String> {
        self.values.keys().map(ToString::to_string).chain(self.certificate.map(|_| "the certificate".to_owned()))
    }

    /// Whether nothing at all is kept for a while.
    pub fn is_settled(&self) -> bool {
        self.deadline().is_none()
    }

    /// The tenants whose events come: all but those whose events are another's by now.
    pub fn tenants_with_events(&self) -> impl Iterator<Item = &Tenant> + Clone {
        self.settings.tenants.iter().filter(|tenant| !self.without_events.contains(&tenant.name))
    }

    /// The secrets that a source had before, and that still count.
    pub fn old_secrets(&self, source: &Name) -> impl Iterator<Item = &Secret> {
        self.rotations.get(source).into_iter().flat_map(|rotation| rotation.old.iter().map(|(secret, _)| secret))
    }

    /// The secrets of a source that count now.
    pub fn current_secrets(&self, source: &Name) -> &[Secret] {
        self.rotations.get(source).map_or(&[], |rotation| &rotation.current)
    }

    /// Whether nobody knows yet if the secrets of a source are whole.
    pub fn is_unsettled(&self, source: &Name) -> bool {
        self.rotations.get(source).is_some_and(|rotation| rotation.unsettled.is_some())
    }

    /// Takes the secrets of a source for new ones: they are others than those of the host before this one.
    pub fn unsettle(&mut self, source: &Name, now: Instant) {
        let grace = self.settings.server.removal_grace;
        if let Some(rotation) = self.rotations.get_mut(source).filter(|_| !grace.is_zero()) {
            rotation.unsettled = Some(now + grace.min(MAX_GRACE));
        }
    }

    /// The parts at which the file seems to be cut: the last one, and the tables of `[server]` where they stood last.
    fn cut_parts(&self, next: &Settings) -> Vec<Part> {
        let last = self.cut_part(next);
        let was_last = self.whole.last == Some(Part::Server) && last_part(next) != Some(Part::Server);
        let is_cut = was_last && next.server.written.lacks_any_of(&self.settings.server.written);
        last.into_iter().chain(is_cut.then_some(Part::Server)).collect()
    }

    /// The part at which the file seems to be cut, if it does: the last one, when keys of it are missing or its last line is
    /// not whole. One that is new can't be told.
    fn cut_part(&self, next: &Settings) -> Option<Part> {
        let last = last_part(next)?;
        let (was, is) = (written(&self.settings, &last)?, written(next, &last)?);
        let (text, whole) = (next.text.as_str(), &*self.whole.text);
        let is_same = is_same(&self.settings, next, &last);
        let ends_within = text.len() < whole.len() && whole.starts_with(text);
        let ends_in_a_line = whole.ends_with('\n') && !text.ends_with('\n');
        if (ends_within || ends_in_a_line) && !is_same {
            return Some(last);
        }
        (is.lacks_any_of(was) && !self.whole.ends_as(text, &last)).then_some(last)
    }

    /// Keeps the values that another file or variable seems to be cut off from.
    fn keep_values(&mut self, before: &Self, now: Instant, until: Instant) {
        let mut environment = (*self.environment).clone();
        // What was not asked for before was not read before.
        let known: HashSet<&Origin> = before.loaded.settings.all_references().map(Reference::origin).collect();
        let settings = &self.loaded.settings;
        for reference in settings.all_references().filter(|reference| known.contains(reference.origin())) {
            let (read_before, read) = (&before.loaded.environment, &self.loaded.environment);
            let (Ok(was), Ok(is)) = (reference.resolve(&before.environment), reference.resolve(read)) else { continue };
            let known_until = before.values.get(reference.origin()).copied();
            let until = known_until.unwrap_or(until);
            let is_still = known_until.is_some() && reference.resolve(read_before).is_ok_and(|before| before == is);
            let is_another = reference.passed_over(read) > reference.passed_over(read_before);
            if until > now && was != is && (is_still || is_another || is_half(&is, &was)) {
                environment.kept.insert(reference.origin().clone(), was);
                self.values.insert(reference.origin().clone(), until);
            }
        }
        if let (Some(was), Some(is)) = (&before.loaded.settings.server.tls, &settings.server.tls)
            && was.certificate == is.certificate
            && let (Ok(old), Ok(new)) =
                (before.environment.file(&was.certificate), self.loaded.environment.file(&is.certificate))
        {
            let until = before.certificate.unwrap_or(until);
            // Without a whole certificate it is refused.
            let has_one = new.windows(END.len()).any(|part| part == END);
            if until > now && has_one && new.len() < old.len() && old.starts_with(&new) {
                environment.set_file(is.certificate.clone(), old);
                self.certificate = Some(until);
            }
        }
        self.environment = Arc::new(environment);
    }

    /// Keeps the secrets of sources that others took the place of.
    fn rotate(&mut self, before: &Self, now: Instant, until: Instant) {
        let sources: Vec<_> = secrets(&self.settings, |part| self.environment_of(part)).collect();
        for (name, current) in sources {
            let was = before.rotations.get(&name);
            let mut rotation = Rotation { current, ..Rotation::default() };
            if let Some(was) = was {
                let is_new = rotation.current != was.current;
                let replaced = was.current.iter().map(|secret| (secret.clone(), until));
                let old = was.old.iter().cloned().chain(replaced).filter(|(secret, until)| {
                    // One that was cut off from a new one was never anybody's, and is easily guessed.
                    *until > now
                        && !rotation.current.contains(secret)
                        && !rotation.current.iter().any(|it| is_half(secret, it))
                });
                rotation.old = old.collect();
                rotation.unsettled = if is_new { Some(until) } else { was.unsettled };
            }
            // One that is cut may be the first half of a new one.
            let cut = self.settings.sources.iter().filter(|source| source.name == name).flat_map(webhook_secrets);
            let cut = cut.filter_map(|reference| self.values.get(reference.origin())).max().copied();
            rotation.unsettled = rotation.unsettled.max(cut).filter(|until| *until > now);
            self.rotations.insert(name, rotation);
        }
    }
}

/// What a certificate ends with in PEM.
const END: &[u8] = b"-----END CERTIFICATE-----";

/// The longest grace: a deadline can always be told.
const MAX_GRACE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What is being put together.
struct Merge<'a> {
    before: &'a ActiveSettings,
    now: Instant,
    until: Instant,
    settings: Settings,
    kept: BTreeMap<Part, Kept>,
    without_events: BTreeSet<Name>,
}

impl Merge<'_> {
    /// Notes that a part is kept, unless its time is up.
    fn keep(&mut self, part: Part, why: Why) -> bool {
        let known = self.before.kept.get(&part);
        let until = known.filter(|kept| kept.why == why).map_or(self.until, |kept| kept.until);
        if until <= self.now {
            return false;
        }
        let environment = known.map_or(&self.before.environment, |kept| &kept.environment).clone();
        self.kept.insert(part, Kept { why, until, environment });
        true
    }

    /// Puts a part of which keys are gone back as it was.
    fn restore(&mut self, part: &Part) -> bool {
        let before = &self.before.settings;
        // The path of a source may have become another's.
        if let Part::Source(name) = part
            && let Some(source) = before.sources.iter().find(|source| source.name == *name)
            && self.settings.sources.iter().any(|other| other.name != *name && same_path(other, source))
        {
            return false;
        }
        if !self.keep(part.clone(), Why::Cut) {
            return false;
        }
        match part {
            Part::Server => self.settings.server = before.server.clone(),
            Part::Source(name) => {
                put(&mut self.settings.sources, &before.sources, |source| source.name == *name);
            }
            Part::Tenant(name) => {
                put(&mut self.settings.tenants, &before.tenants, |tenant| tenant.name == *name);
                let elsewhere = companies(self.settings.tenants.iter().filter(|tenant| tenant.name != *name));
                let tenant = self.settings.tenants.iter_mut().find(|tenant| tenant.name == *name);
                if let Some(tenant) = tenant.filter(|tenant| !tenant.companies.is_empty()) {
                    tenant.companies.retain(|company| !elsewhere.contains(company));
                    if tenant.companies.is_empty() {
                        self.without_events.insert(name.clone());
                    }
                }
            }
            Part::Module(name) => put(&mut self.settings.modules, &before.modules, |module| module.name == *name),
            Part::Company(..) => {}
        }
        true
    }

    fn keep_sources(&mut self, next: &Settings) {
        for source in &self.before.settings.sources {
            let is_there = |other: &Source| other.name == source.name || same_path(other, source);
            if next.sources.iter().any(is_there) || !self.keep(Part::Source(source.name.clone()), Why::Gone) {
                continue;
            }
            let mut source = source.clone();
            // The only tenant there was; there may be others now.
            let tenant = source.sole_tenant(self.before.tenants_with_events()).map(|tenant| tenant.name.clone());
            source.tenant = source.tenant.or(tenant);
            self.settings.sources.push(source);
        }
    }

    fn keep_tenants(&mut self, next: &Settings) {
        let elsewhere = companies(&next.tenants);
        let takes_any = next.tenants.iter().any(|tenant| tenant.companies.is_empty());
        for tenant in &self.before.settings.tenants {
            let is_there = next.tenants.iter().any(|other| other.name == tenant.name);
            if is_there || !self.keep(Part::Tenant(tenant.name.clone()), Why::Gone) {
                continue;
            }
            let mut tenant = tenant.clone();
            let took_any = tenant.companies.is_empty();
            tenant.companies.retain(|company| !elsewhere.contains(company));
            let is_replaced = if took_any { takes_any } else { tenant.companies.is_empty() };
            if is_replaced || self.before.without_events.contains(&tenant.name) {
                self.without_events.insert(tenant.name.clone());
            }
            self.settings.tenants.push(tenant);
        }
    }

    fn keep_companies(&mut self, next: &Settings) {
        let elsewhere = companies(&next.tenants);
        for tenant in next.tenants.iter().filter(|tenant| !tenant.companies.is_empty()) {
            if self.kept.contains_key(&Part::Tenant(tenant.name.clone())) {
                continue;
            }
            let before = self.before.settings.tenants.iter().find(|before| before.name == tenant.name);
            let gone = before.iter().flat_map(|before| &before.companies).filter(|it| !elsewhere.contains(*it));
            for company in gone {
                if self.keep(Part::Company(tenant.name.clone(), company.clone()), Why::Gone)
                    && let Some(tenant) = self.settings.tenants.iter_mut().find(|it| it.name == tenant.name)
                {
                    tenant.companies.push(company.clone());
                }
            }
        }
    }

    fn keep_modules(&mut self, next: &Settings) {
        for module in &self.before.settings.modules {
            let is_there = next.modules.iter().any(|other| other.name == module.name);
            if !is_there && self.keep(Part::Module(module.name.clone()), Why::Gone) {
                self.settings.modules.push(module.clone());
            }
        }
    }
}

impl WholeText {
    fn of(settings: &Settings) -> Self {
        Self { text: settings.text.as_str().into(), last: last_part(settings) }
    }

    /// Whether another text goes on to the same end: what is missing of this one was taken out, and not cut off.
    fn ends_as(&self, other: &str, last: &Part) -> bool {
        let line = |text: &str| text.lines().map(str::trim).rfind(|line| !line.is_empty()).map(str::to_owned);
        let Some(line) = line(&self.text).filter(|it| Some(it) == line(other).as_ref()) else { return false };
        let count = |text: &str| text.lines().filter(|it| it.trim() == line).count();
        // The same line may stand there more than once, and the last one be cut off.
        self.last.as_ref() == Some(last) && count(&self.text) <= count(other)
    }
}

/// Puts one item in the place of another one of the same name.
fn put<T: Clone>(items: &mut [T], before: &[T], is_it: impl Fn(&T) -> bool) {
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

/// The secrets of each webhook that lead anywhere.
fn secrets<'a>(
    settings: &'a Settings,
    environment: impl Fn(&Part) -> &'a Environment,
) -> impl Iterator<Item = (Name, Vec<Secret>)> {
    settings.sources.iter().filter(|source| source.webhook().is_some()).map(move |source| {
        let environment = environment(&Part::Source(source.name.clone()));
        let secrets = webhook_secrets(source).filter_map(|secret| secret.resolve(environment).ok());
        (source.name.clone(), secrets.collect())
    })
}

/// Whether a value is the beginning of another one, and not all of it.
fn is_half(value: &Secret, whole: &Secret) -> bool {
    value.expose().len() < whole.expose().len() && whole.expose().starts_with(value.expose())
}

/// What stands last in the file.
fn last_part(settings: &Settings) -> Option<Part> {
    let server = [(settings.server.written.end(), Part::Server)];
    let sources = settings.sources.iter().map(|it| (it.written.end(), Part::Source(it.name.clone())));
    let tenants = settings.tenants.iter().map(|it| (it.written.end(), Part::Tenant(it.name.clone())));
    let modules = settings.modules.iter().map(|it| (it.written.end(), Part::Module(it.name.clone())));
    let parts = server.into_iter().chain(sources).chain(tenants).chain(modules);
    parts.max_by_key(|(end, _)| *end).map(|(_, part)| part)
}

/// What is written down of a part.
fn written<'s>(settings: &'s Settings, part: &Part) -> Option<&'s Written> {
    match part {
        Part::Server => Some(&settings.server.written),
        Part::Source(name) => settings.sources.iter().find(|it| it.name == *name).map(|it| &it.written),
        Part::Tenant(name) => settings.tenants.iter().find(|it| it.name == *name).map(|it| &it.written),
        Part::Module(name) => settings.modules.iter().find(|it| it.name == *name).map(|it| &it.written),
        Part::Company(..) => None,
    }
}

/// Whether a part means the same in both.
fn is_same(one: &Settings, other: &Settings, part: &Part) -> bool {
    match part {
        Part::Server => one.server == other.server,
        Part::Source(name) => same_in(&one.sources, &other.sources, |it| it.name == *name),
        Part::Tenant(name) => same_in(&one.tenants, &other.tenants, |it| it.name == *name),
        Part::Module(name) => same_in(&one.modules, &other.modules, |it| it.name == *name),
        Part::Company(..) => true,
    }
}

fn same_in<T: PartialEq>(one: &[T], other: &[T], is_it: impl Fn(&T) -> bool) -> bool {
    one.iter().find(|it| is_it(it)) == other.iter().find(|it| is_it(it))
}

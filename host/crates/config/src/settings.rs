//! The validated settings of a host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use toml::Spanned;
use toml::de::DeTable;

use super::active_host::{ActiveHost, FileContent};
use super::document::Document;
use super::environment::{describe_read_error, not_regular};
use super::http::HttpEntry;
use super::include::Include;
use super::include::claims::ClaimSpans;
use super::listener::{ListenerLimits, Proxies, Tls};
use super::platform::{CompletionSettings, PlatformSettings};
use super::source::{Source, SourceKind};
use super::{ConfigError, ConfigErrors, Reference, SourceLocation, WrittenKeys, check, file, include, suggest};
use modhost_core::backoff::RetryPolicy;
use modhost_core::browser_guard::HostName;
use modhost_core::event::Name;
use modhost_core::event::event_filter::{EventFilter, ModuleId};
use modhost_core::files::{self, FileOpError, NotRegular, ReadError};
use modhost_core::limits::{DEFAULT_CPU_WEIGHT, DEFAULT_STACK, LimitAmounts, Limits, Resource};
use modhost_core::system_memory;
use modhost_sandbox::SandboxMode;

/// The maximum size of a settings file, in bytes: about ten thousand modules.
const MAX_SIZE: u64 = 4 << 20;

/// The advice on an empty modules.toml.
const EMPTY_TOP: &str = "add at least a [[source]], a [[tenant]] and a [[module]]";

/// The advice on an empty included file.
const EMPTY_INCLUDED: &str = "add a [[tenant]] with its sources and modules, or remove the file";

/// All settings of modules.toml, validated, with defaults filled in.
///
/// Two settings are equal if they mean the same, regardless of their lines: a reload compares them to find changes.
/// The values of references are not compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The file the settings were read from.
    pub file: PathBuf,
    /// `include`: the files of tenants.
    pub include: Vec<Include>,
    /// `[server]`: the host.
    pub server: Server,
    /// `[[source]]`: where events come from.
    pub sources: Vec<Source>,
    /// `[[tenant]]`: the tenants.
    pub tenants: Vec<Tenant>,
    /// `[[module]]`: the modules that handle events.
    pub modules: Vec<Module>,
    /// The text the settings were read from.
    pub text: Text,
    /// The included files that were read, whether or not they are valid. Empty if only one file was read.
    pub included: Vec<IncludedFile>,
    pub(crate) claims: ClaimSpans,
}

/// A file that modules.toml includes.
#[derive(Clone, Debug, PartialEq)]
pub struct IncludedFile {
    /// The path.
    pub path: PathBuf,
    /// Its tenant, if it is known.
    pub tenant: Option<Name>,
    /// Why the file is refused. The host keeps the settings of the file that it accepted last.
    pub refused: Option<ConfigErrors>,
}

/// The text of a settings file. All texts are equal, so that settings compare equal if only their text differs.
#[derive(Clone)]
pub struct Text(Arc<str>);

impl Text {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Text {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// The settings of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// The address of the public listener, which receives events. Default `127.0.0.1:8080`. Port 0 selects a free
    /// port.
    pub listen: SocketAddr,
    /// The address of the admin listener. Default `127.0.0.1:8081`. Port 0 selects a free port.
    pub admin_listen: SocketAddr,
    /// The token of the admin listener. Required if other machines can reach `admin_listen`.
    pub admin_token: Option<Reference>,
    /// The host names of the admin listener, besides those of this machine.
    pub admin_hosts: Vec<HostName>,
    /// The folder for the data of the host. Default `.modhost` next to the file.
    pub data_dir: PathBuf,
    /// The maximum size of the body of an event, in bytes. Default 1 MiB.
    pub max_body: u64,
    /// The maximum number of unfinished deliveries. Beyond it, the host rejects events with 503. Default 1,000,000.
    pub max_deliveries: u64,
    /// The maximum number of deliveries that run concurrently on the whole host. Default 256.
    pub concurrency: usize,
    /// The maximum total memory of the running deliveries of all tenants, in bytes. Default: half of the memory that
    /// the host can use.
    pub guest_memory: u64,
    /// The stack size for calls inside a component, in bytes. Default 512 KiB.
    pub stack: u64,
    /// The message to the user if a module failed without its own message.
    pub apology: String,
    /// The message to the user while a failed delivery waits for its next attempt.
    pub retry_notice: String,
    /// How long finished deliveries stay in the journal.
    pub retention: Retention,
    /// The limits of compiling a component.
    pub compiler: CompilerSettings,
    /// Whether the host and the processes that compile restrict themselves. Default: as far as the system allows.
    pub sandbox: SandboxMode,
    /// `[server.ceilings]`: upper bounds for the limits of all modules and tenants.
    pub ceilings: Ceilings,
    /// The limits for the clients of the public listener.
    pub limits: ListenerLimits,
    /// The trusted proxies in front of the host.
    pub proxies: Proxies,
    /// The TLS certificate of the public listener, or `None` for plain HTTP.
    pub tls: Option<Tls>,
    /// How long a part must be missing from the file before the host drops it, and how long a replaced secret is
    /// still accepted. Default 30 s.
    pub removal_grace: Duration,
    /// The maximum number of tenants with a label of their own in metrics. Default 200.
    pub max_tenant_labels: usize,
    /// The name of the host among those that share its storage, or `None` for that of the machine.
    pub name: Option<String>,
    /// `[storage]`: where deliveries, values and versions are kept. Default: in files of `data_dir`.
    pub storage: StorageSettings,
    /// The keys that are in the file.
    pub written: WrittenKeys,
}

/// Where deliveries, values and versions are kept.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StorageSettings {
    /// The URL of a PostgreSQL database, which several hosts may share; `None` for files in the data directory.
    pub url: Option<Reference>,
    /// Further databases, each with the deliveries and values of some tenants.
    pub shards: Vec<Shard>,
}

/// A database with the deliveries and values of some tenants.
#[derive(Clone, Debug, PartialEq)]
pub struct Shard {
    /// The name.
    pub name: String,
    /// The URL of the database.
    pub url: Reference,
    /// The tenants.
    pub tenants: Vec<Name>,
}

impl StorageSettings {
    /// Returns the references to the databases.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.url.iter().chain(self.shards.iter().map(|shard| &shard.url))
    }
}

/// Upper bounds for the limits of all modules and tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ceilings {
    /// The upper bounds for one delivery.
    pub delivery: LimitAmounts,
    /// The maximum number of concurrent deliveries of a module, and of a tenant, or `None` for no upper bound.
    pub concurrency: Option<usize>,
}

/// A tenant of the host.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenant {
    /// The name.
    pub name: Name,
    /// Its companies, as ids of the platform. Empty: any company of its source.
    pub companies: Vec<String>,
    /// The platform that its modules answer on.
    pub platform: PlatformSettings,
    /// The model that replaces the model of the platform, or `None` to use the platform's.
    pub completion: Option<CompletionSettings>,
    /// Its limits.
    pub limits: TenantLimits,
    /// The location in the file.
    pub location: SourceLocation,
    /// The keys that are in the file.
    pub written: WrittenKeys,
}

/// The limits of a tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct TenantLimits {
    /// The maximum number of its unfinished deliveries. Default 100,000.
    pub max_deliveries: u64,
    /// The maximum number of its events per second, or `None` for no limit.
    pub events_per_second: Option<u32>,
    /// The maximum number of its deliveries that run concurrently. Default 32.
    pub concurrency: usize,
    /// The maximum memory of all its running deliveries together, in bytes, or `None` for only the limit of each.
    pub total_memory: Option<u64>,
    /// The maximum size of its records in the journal, in bytes, or `None` for only that of the whole journal.
    pub total_journal: Option<u64>,
    /// What its modules may write to the host's log, in bytes per second. Default 1 MiB.
    pub log_rate: u32,
    /// The weight of its share of the CPU time while other tenants have work. Default 100.
    pub cpu_weight: u32,
    /// The upper bounds for each of its deliveries, whatever the module allows.
    pub delivery: LimitAmounts,
}

/// A module, which handles events.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// The name, which identifies the module in this host. In an included file it begins with the tenant.
    pub name: Name,
    /// The tenant whose included file has the module. `None`: it is in modules.toml.
    pub owner: Option<Name>,
    /// The path of the component, resolved against the folder of the file. The component does not have to exist yet.
    pub component: PathBuf,
    /// The location of the component's path in the file.
    pub component_location: SourceLocation,
    /// The folder of its source code, resolved against the folder of the file. Default: the folder of the file.
    pub folder: Option<PathBuf>,
    /// The command that builds the component. It runs in `folder`.
    pub build: Option<String>,
    /// The files and folders of its source code, resolved against the folder of the file. `dev` rebuilds the
    /// component when one of them changes. Default: `folder`, if it is set.
    pub watch: Vec<PathBuf>,
    /// The events that it handles. Default: `unique.chat.external-module.chosen`, of any source and tenant.
    pub wants: EventFilter,
    /// Its configuration: strings unchanged, all other values as JSON.
    pub config: BTreeMap<String, String>,
    /// Where it may send HTTP requests. Empty: nowhere.
    pub http: Vec<HttpEntry>,
    /// The limits of its deliveries.
    pub limits: ModuleLimits,
    /// How its failed deliveries are retried.
    pub retry: RetryPolicy,
    /// The checks a new version must pass before it serves. Default: only that it loads.
    pub swap: Swap,
    /// Whether the deliveries of one chat run one at a time, in the order of their events.
    pub ordered_by_chat: bool,
    /// Whether a delivery that restarts gets the recorded answers of its earlier calls. Default `true`.
    pub resume: bool,
    /// The message to the user if the module failed, or `None` to use [`Server::apology`].
    pub apology: Option<String>,
    /// The location in the file.
    pub location: SourceLocation,
    /// The keys that are in the file.
    pub written: WrittenKeys,
}

/// The limits of the deliveries of a module.
#[derive(Clone, Debug, PartialEq)]
pub struct ModuleLimits {
    /// The limits of one delivery. The ceilings of its tenant apply in addition.
    pub delivery: Limits,
    /// The maximum number of its deliveries that run concurrently. Default 16.
    pub concurrency: usize,
}

/// The limits of compiling a component.
#[derive(Clone, Debug, PartialEq)]
pub struct CompilerSettings {
    /// How long compiling may take. Default 5 min.
    pub timeout: Duration,
    /// The maximum memory of a compiler process, in bytes. Default 2 GiB.
    pub memory: u64,
    /// The maximum number of components that are compiled concurrently. Default 2.
    pub processes: usize,
}

/// How long finished deliveries stay in the journal.
#[derive(Clone, Debug, PartialEq)]
pub struct Retention {
    /// How long completed and dropped deliveries are kept. Default 7 days.
    pub completed: Duration,
    /// How long dead deliveries are kept. Default 30 days.
    pub dead: Duration,
    /// How long the ids of events are kept, by which redeliveries are detected. Default 30 days.
    pub ids: Duration,
    /// The maximum size of the journal, in bytes. Default 10 GiB.
    pub max_size: u64,
    /// How many versions of a component are kept per module, including the one that serves. Default 10.
    pub versions: usize,
    /// The maximum size of all kept components together, in bytes. Default 2 GiB.
    pub versions_size: u64,
}

/// The checks a new version of a module must pass before it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Swap {
    /// On how many of the last completed deliveries it is dry-run. 0: none.
    pub replay: u32,
    /// The canary, if a share of the deliveries runs on the new version first.
    pub canary: Option<Canary>,
}

/// The settings of a canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// The percentage of deliveries that run on the new version.
    pub percent: u8,
    /// How long the canary runs. Default 5 min.
    pub period: Duration,
    /// How many deliveries must end on the new version before it can take over. Default 5.
    pub min_deliveries: u32,
}

impl Module {
    /// Returns the module as events name it.
    pub fn id(&self) -> ModuleId<'_> {
        ModuleId { platform_name: self.platform_name(), is_own: self.owner.is_some() }
    }

    /// Returns the name on the platform: the one in its file.
    pub fn platform_name(&self) -> &str {
        let name = self.name.as_str();
        let local =
            self.owner.as_ref().and_then(|owner| name.strip_prefix(owner.as_str())?.strip_prefix(Name::SEPARATOR));
        local.unwrap_or(name)
    }
}

impl Default for Server {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 8081)),
            admin_token: None,
            admin_hosts: Vec::new(),
            data_dir: ".modhost".into(),
            max_body: 1 << 20,
            max_deliveries: 1_000_000,
            concurrency: 256,
            guest_memory: system_memory::total().map_or(u64::MAX, |total| total / 2),
            stack: DEFAULT_STACK,
            apology: "Sorry, something went wrong and this can't be answered right now. Please try again later.".into(),
            retry_notice: "This is taking longer than usual. Another attempt follows automatically.".into(),
            retention: Retention::default(),
            compiler: CompilerSettings::default(),
            sandbox: SandboxMode::default(),
            ceilings: Ceilings::default(),
            limits: ListenerLimits::default(),
            proxies: Proxies::default(),
            tls: None,
            removal_grace: Duration::from_secs(30),
            max_tenant_labels: 200,
            name: None,
            storage: StorageSettings::default(),
            written: WrittenKeys::default(),
        }
    }
}

impl Ceilings {
    /// Returns the given concurrency, capped at the ceiling.
    pub fn concurrency_below(&self, concurrency: usize) -> usize {
        self.concurrency.map_or(concurrency, |ceiling| ceiling.min(concurrency))
    }

    /// Returns the defaults that a ceiling lowers, each as text for display.
    pub fn below_defaults(&self) -> Vec<String> {
        let of_delivery = Resource::ALL.into_iter().filter_map(|resource| {
            let (ceiling, default) = (self.delivery.get(resource)?, resource.default_amount());
            let (lowered, normal) = (resource.format_amount(ceiling), resource.format_amount(default));
            (ceiling < default).then(|| format!("`{}` is {lowered} instead of {normal}", resource.key()))
        });
        let (module, tenant) = (ModuleLimits::default().concurrency, TenantLimits::default().concurrency);
        let concurrency = [("module", module), ("tenant", tenant)].into_iter().filter_map(|(of, default)| {
            let ceiling = self.concurrency.filter(|ceiling| *ceiling < default)?;
            Some(format!("`concurrency` of a {of} is {ceiling} instead of {default}"))
        });
        of_delivery.chain(concurrency).collect()
    }
}

impl Default for TenantLimits {
    fn default() -> Self {
        Self {
            concurrency: 32,
            max_deliveries: 100_000,
            events_per_second: None,
            total_memory: None,
            total_journal: None,
            log_rate: 1 << 20,
            cpu_weight: DEFAULT_CPU_WEIGHT,
            delivery: LimitAmounts::default(),
        }
    }
}

impl Default for ModuleLimits {
    fn default() -> Self {
        Self { delivery: Limits::default(), concurrency: 16 }
    }
}

impl Default for CompilerSettings {
    /// The largest interpreters compile in five seconds on two idle cores, with a fifth of this memory. A busy
    /// machine needs a minute.
    fn default() -> Self {
        Self { timeout: Duration::from_secs(300), memory: 2 << 30, processes: 2 }
    }
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            completed: Duration::from_secs(7 * DAY),
            dead: Duration::from_secs(30 * DAY),
            ids: Duration::from_secs(30 * DAY),
            max_size: 10 << 30,
            versions: 10,
            versions_size: 2 << 30,
        }
    }
}

impl Settings {
    /// Reads and validates a file and the files that it includes. An included file that is invalid is left out, and
    /// [`included`](Self::included) has its errors.
    ///
    /// # Errors
    ///
    /// Returns all errors of the file if it cannot be read, is not TOML, or is invalid.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        let top = Self::load_file(path)?;
        if top.include.is_empty() {
            return Ok(top);
        }
        let listed = include::included_files(&top.include, &top.file);
        let changed = listed.files.iter().map(|file| (file.clone(), FileContent::read(file, &top.include))).collect();
        let mut settings = ActiveHost::offline(top, changed).settings();
        settings.add_unlisted(listed.errors);
        Ok(settings)
    }

    /// Adds the errors of folders of included files that could not be listed, as errors of modules.toml.
    pub fn add_unlisted(&mut self, errors: Vec<ConfigError>) {
        let path = &self.file;
        let unlisted = errors.into_iter().map(|error| IncludedFile {
            path: path.clone(),
            tenant: None,
            refused: Some(error.into()),
        });
        self.included.extend(unlisted);
    }

    /// Reads and validates a file, without the files that it includes.
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load).
    pub fn load_file(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        let path = path.as_ref();
        let bytes = files::read(path, MAX_SIZE).map_err(|error| unreadable(path, &error))?;
        Self::parse(decode(path, &bytes)?, path)
    }

    /// Reads and validates a file with a timeout, for callers without an async runtime: a file system may not
    /// respond.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Settings::load`], and an error on timeout.
    pub fn load_in_time(path: &Path) -> Result<Self, ConfigErrors> {
        let owned = path.to_owned();
        files::blocking_with_timeout(files::READ_TIMEOUT, move || Self::load(owned))
            .unwrap_or_else(|error| Err(read_failed(&error).into()))
    }

    /// Like [`load_in_time`](Self::load_in_time), without the files that the file includes.
    ///
    /// # Errors
    ///
    /// As [`load_in_time`](Self::load_in_time).
    pub fn load_file_in_time(path: &Path) -> Result<Self, ConfigErrors> {
        let owned = path.to_owned();
        files::blocking_with_timeout(files::READ_TIMEOUT, move || Self::load_file(owned))
            .unwrap_or_else(|error| Err(read_failed(&error).into()))
    }

    /// Returns the text of a settings file, or `None` if the file does not exist.
    ///
    /// # Errors
    ///
    /// Returns an error if the file cannot be read or is not UTF-8.
    pub fn text(path: &Path) -> Result<Option<String>, ConfigError> {
        match files::read(path, MAX_SIZE) {
            Ok(bytes) => Ok(Some(decode(path, &bytes)?.to_owned())),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(unreadable(path, &error)),
        }
    }

    /// Validates the text of a file. `path` names the file in errors, and relative paths are resolved against its
    /// folder.
    ///
    /// # Errors
    ///
    /// Returns all errors if the text is not TOML or is invalid.
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        Self::parse_with(text, path.as_ref(), EMPTY_TOP, |document, root| {
            let parts = file::read(document, root);
            check::check(document, &parts);
            parts
        })
    }

    /// Validates the text of a file that `top`, the settings of modules.toml, includes. Its sources and modules get
    /// their full names, and its tenant.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn parse_included(text: &str, path: &Path, top: &Self) -> Result<Self, ConfigErrors> {
        Self::parse_with(text, path, EMPTY_INCLUDED, |document, root| {
            let mut parts = file::read_included(document, root, &top.server, &top.file);
            check::check_included(document, &mut parts, top);
            parts
        })
    }

    fn parse_with(
        text: &str,
        path: &Path,
        if_empty: &str,
        read: impl FnOnce(&Document<'_>, &Spanned<DeTable<'_>>) -> file::Parts,
    ) -> Result<Self, ConfigErrors> {
        // Some editors on Windows add a byte order mark.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            let error = ConfigError::new(format!("{} is empty", path.display()));
            return Err(error.advice(if_empty).into());
        }
        let document = Document::new(path, text);
        let root = DeTable::parse(text).map_err(|error| {
            let end = text.len();
            document.error(error.span().unwrap_or(end..end), format!("this is not TOML: {}", error.message()))
        })?;
        let parts = read(&document, &root);
        ConfigErrors::ok_if_empty(document.into_errors())?;
        let claims = ClaimSpans::of(&parts);
        Ok(Self {
            file: path.to_owned(),
            include: parts.include,
            server: parts.server,
            sources: parts.sources.into_iter().map(|source| source.part).collect(),
            tenants: parts.tenants.into_iter().map(|tenant| tenant.part).collect(),
            modules: parts.modules.into_iter().map(|module| module.part).collect(),
            text: Text(text.into()),
            included: Vec::new(),
            claims,
        })
    }

    /// Returns the settings of an included file that has nothing, because it was removed.
    pub(crate) fn empty_included(path: &Path, top: &Self) -> Self {
        Self {
            file: path.to_owned(),
            include: Vec::new(),
            server: Server { written: WrittenKeys::default(), ..top.server.clone() },
            sources: Vec::new(),
            tenants: Vec::new(),
            modules: Vec::new(),
            text: Text("".into()),
            included: Vec::new(),
            claims: ClaimSpans::default(),
        }
    }

    /// Returns all references to values outside the file, except the key of the certificate, which is renewed
    /// together with it.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        let of_sources = self.sources.iter().flat_map(|source| match &source.kind {
            SourceKind::Webhook(webhook) => webhook.secrets.iter().collect(),
            SourceKind::EventSocket(socket) => socket.url.iter().chain(&socket.company).collect::<Vec<_>>(),
        });
        let of_tenants = self.tenants.iter().flat_map(|tenant| {
            let of_completion = tenant.completion.iter().flat_map(|completion| completion.references());
            tenant.platform.references().into_iter().chain(of_completion)
        });
        let headers = self.modules.iter().flat_map(|module| &module.http).flat_map(|entry| &entry.headers);
        let of_modules = headers.map(|header| &header.secret);
        let of_server = self.server.admin_token.iter().chain(self.server.storage.references());
        of_sources.chain(of_tenants).chain(of_modules).chain(of_server)
    }

    /// Returns all references, including the key of the certificate.
    pub(crate) fn all_references(&self) -> impl Iterator<Item = &Reference> {
        self.references().chain(self.server.tls.iter().map(|tls| &tls.key))
    }

    /// Returns the error text for an unknown source, with a suggestion.
    pub fn unknown_source(&self, name: &str) -> String {
        let names: Vec<_> = self.sources.iter().map(|source| source.name.as_str()).collect();
        let advice =
            if names.is_empty() { "the file has no [[source]]".to_owned() } else { suggest::advice(name, &names) };
        format!("there is no [[source]] named \"{name}\" in {}; {advice}", self.file.display())
    }

    /// Returns the error for a component path that is not a regular file.
    pub fn invalid_component(module: &Module, kind: NotRegular) -> ConfigError {
        check::invalid_component(module, kind)
    }

    /// Returns the names on the platform of the modules in a tenant's own file.
    pub fn own_modules(&self, tenant: &Name) -> BTreeSet<String> {
        let own = self.modules.iter().filter(|module| module.owner.as_ref() == Some(tenant));
        own.map(|module| module.platform_name().to_owned()).collect()
    }

    /// Returns the warnings: mistakes the host can run with.
    pub fn warnings(&self) -> Vec<ConfigError> {
        check::warnings(self)
    }
}

/// Reads an included file; `None` if it does not exist.
pub(crate) fn read_included(path: &Path) -> Result<Option<String>, ConfigError> {
    match files::read(path, MAX_SIZE) {
        Ok(bytes) => Ok(Some(decode(path, &bytes)?.to_owned())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(ReadError::NotRegular(kind)) => Err(not_regular(path, kind)),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// Returns the error for a file that cannot be read.
fn unreadable(path: &Path, error: &ReadError) -> ConfigError {
    use std::io::ErrorKind;

    let shown = path.display();
    match error {
        error if error.is_not_found() => ConfigError::new(format!("there is no file {shown}"))
            .advice(match find_in_parents(path) {
            Some(found) => {
                format!("a parent folder has one: run the command there, or pass --config {}", found.display())
            }
            None => {
                "run the command in the folder of your modules.toml, or pass --config path/to/modules.toml; `modhost \
                     new NAME` creates a module, and the file if it does not exist"
                    .to_owned()
            }
        }),
        ReadError::NotRegular(kind @ NotRegular::Folder) => ConfigError::new(format!("{shown} {}", kind.description()))
            .advice(format!("use the file in it: {shown}/modules.toml")),
        ReadError::NotRegular(kind) => not_regular(path, *kind),
        ReadError::Io(io) if io.kind() == ErrorKind::PermissionDenied => {
            ConfigError::new(format!("{shown} {}", describe_read_error(error)))
                .advice("change the owner or the permissions of the file, or run as a user who may read it")
        }
        _ => ConfigError::new(format!("{shown} {}", describe_read_error(error))),
    }
}

/// Returns the error for settings, or a file they refer to, that could not be read in time.
pub fn read_failed(error: &FileOpError) -> ConfigError {
    const ADVICE: &str = "check whether the file is on a network file system that does not respond";
    match error {
        FileOpError::TimedOut(blocked) => {
            let file = blocked.file.as_ref().map_or("a file of the settings".into(), |file| file.display().to_string());
            ConfigError::new(format!("reading {file} took longer than {:?}", files::READ_TIMEOUT)).advice(ADVICE)
        }
        FileOpError::TooMany => {
            ConfigError::new("cannot read the settings: too many earlier reads still wait for a file system")
                .advice("check the file system that does not respond")
        }
        FileOpError::Failed => {
            ConfigError::new("reading the settings failed unexpectedly; please report this as a bug")
        }
    }
}

/// Returns the relative path of a file of this name in a parent folder: users often run a command in the folder of
/// one module. A path with a folder is taken as given.
fn find_in_parents(path: &Path) -> Option<PathBuf> {
    path.parent().filter(|folder| folder.as_os_str().is_empty())?;
    let here = std::env::current_dir().ok()?;
    let levels = here.ancestors().skip(1).position(|folder| folder.join(path).is_file())?;
    Some(std::iter::repeat_n("..", levels + 1).collect::<PathBuf>().join(path))
}

/// Decodes the text of a file.
///
/// # Errors
///
/// Returns an error if the text is not UTF-8.
pub fn decode<'b>(path: &Path, bytes: &'b [u8]) -> Result<&'b str, ConfigError> {
    let fail = |message: String| Err(ConfigError::new(message).advice("save the file as UTF-8"));
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return fail(format!("{} is UTF-16", path.display()));
    }
    str::from_utf8(bytes).or_else(|error| {
        let line = bytes[..error.valid_up_to()].iter().filter(|byte| **byte == b'\n').count() + 1;
        fail(format!("{}:{line}: this line is not UTF-8", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn load(name: &str, bytes: &[u8]) -> Result<Settings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        Settings::load(&path).map_err(|errors| errors.to_string().replace(folder.path().to_str().unwrap(), "…"))
    }

    #[test]
    fn reports_why_file_cannot_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Settings::load(folder.path().join("modules.toml")).unwrap_err().to_string();
        assert!(missing.starts_with("there is no file ") && missing.contains("--config"), "{missing}");
        let directory = Settings::load(folder.path()).unwrap_err().to_string();
        assert!(directory.contains("is a folder, not a file"), "{directory}");
        fs::File::create(folder.path().join("large.toml")).unwrap().set_len(1 << 40).unwrap();
        let large = Settings::load(folder.path().join("large.toml")).unwrap_err().to_string();
        assert!(large.contains("is larger than the limit of 4.0 MiB"), "{large}");
    }

    #[cfg(unix)]
    #[test]
    fn rejects_special_files_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [pipe.as_path(), Path::new("/dev/zero")] {
            let error = Settings::load_in_time(path).unwrap_err().to_string();
            assert!(error.contains("is not a regular file"), "{error}");
        }
    }

    #[test]
    fn reports_unreadable_text() {
        let empty = load("m.toml", b" \n").unwrap_err();
        assert_eq!(empty, "…/m.toml is empty\n  = help: add at least a [[source]], a [[tenant]] and a [[module]]");
        let latin = load("m.toml", b"a = 1\nb = \"\xfc\"\n").unwrap_err();
        assert_eq!(latin, "…/m.toml:2: this line is not UTF-8\n  = help: save the file as UTF-8");
        let wide = load("m.toml", b"\xff\xfea\0").unwrap_err();
        assert_eq!(wide, "…/m.toml is UTF-16\n  = help: save the file as UTF-8");
    }

    #[test]
    fn skips_byte_order_mark() {
        let error = load("m.toml", b"\xef\xbb\xbfnonsense = 1\n").unwrap_err();
        assert!(error.contains("m.toml:1:1: unknown setting `nonsense` in the file"), "{error}");
    }
}

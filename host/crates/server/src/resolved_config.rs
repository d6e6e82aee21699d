//! The settings of each part of the host, with all references resolved. Resolving succeeds for all settings or for
//! none.

mod event_socket;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use modhost_config as config;
use modhost_config::http::{HttpEntry, HttpHeader};
use modhost_config::{
    ActiveHost, ActiveSettings, CompletionSettings, ConfigError, ConfigErrors, Environment, LoadedSettings,
    NexusPlatform, PlatformSettings, Reference, Settings, SettingsPart, SourceKind, StorageSettings, UniquePlatform,
};
use modhost_core::browser_guard::HostName;
use modhost_core::event::Name;
use modhost_core::platform_urls::{NEXUS_API_BASE, OPENAI_API_BASE, UNIQUE_API_BASE};
use modhost_core::secret::Secret;
use modhost_ingress::listener::{self, ListenerRules};
use modhost_ingress::sources::event_socket::EventSocket;
use modhost_ingress::sources::schemes::{self, Key, Scheme};
use modhost_ingress::sources::{Reader, Source, TenantResolver};
use modhost_platform::nexus::{Nexus, NexusSettings};
use modhost_platform::openai::{OpenAi, OpenAiSettings};
use modhost_platform::unique::{Unique, UniqueSettings};
use modhost_platform::{HttpClients, NullPlatform, Platform, SetupError, TenantHttpClients, WithModel};
use modhost_runtime::capabilities::{Grants, HttpGrant, HttpGrants};
use modhost_runtime::dispatch::{RouteSpec, TenantSpec};
use modhost_runtime::engine::{CanaryPolicy, Spec, SwapPolicy};

/// The minimum length of the admin API's token, in characters.
const MIN_TOKEN: usize = 16;

/// The resolved settings of each part of the host.
pub struct ResolvedConfig {
    /// The webhooks, for the public listener.
    pub webhooks: Vec<Source>,
    /// The webhooks whose secrets changed recently, so that the new secrets may be incomplete.
    pub unconfirmed: HashSet<Name>,
    /// The event sockets.
    pub sockets: Vec<EventSocket>,
    /// The largest request body in bytes, for the public listener.
    pub max_body: u64,
    /// The limits, proxies and certificate, for the public listener.
    pub rules: ListenerRules,
    /// The tenants, for dispatch.
    pub tenants: Vec<TenantSpec>,
    /// The routes, for dispatch.
    pub routes: Vec<RouteSpec>,
    /// The maximum number of tenants with a label of their own in metrics.
    pub max_tenant_labels: usize,
    /// The message to users whose module was removed, for dispatch.
    pub apology: Arc<str>,
    /// The modules, for the engine.
    pub specs: Vec<Spec>,
    /// The token of the admin API, for the admin listener.
    pub admin_token: Option<Secret>,
    /// Additional host names of the admin API, for the admin listener.
    pub admin_hosts: Vec<HostName>,
    /// The databases, for the start of a host; `None` for files in the data directory.
    pub databases: Option<Databases>,
}

/// The databases that hosts share, with their passwords.
pub struct Databases {
    /// The URL of the main one: it has everything that no shard has.
    pub main: Secret,
    /// The shards.
    pub shards: Vec<ShardDatabase>,
}

/// The database of some tenants.
pub struct ShardDatabase {
    /// The name of the shard.
    pub name: String,
    /// The URL.
    pub url: Secret,
    /// The tenants.
    pub tenants: Vec<Name>,
}

impl ResolvedConfig {
    /// Resolves settings without earlier ones to retain. References are looked up in the environment and in the `.env`
    /// next to the file.
    ///
    /// # Errors
    ///
    /// Returns all references that can't be resolved, each with its location.
    pub fn new(settings: &Settings, clients: &TenantHttpClients) -> Result<Self, ConfigErrors> {
        let environment = Arc::new(Environment::of(settings)?);
        let loaded = LoadedSettings { settings: settings.clone(), environment, is_complete: true };
        Self::of(&ActiveSettings::new(loaded), clients)
    }

    /// Resolves the settings in effect of a host without included files.
    ///
    /// # Errors
    ///
    /// As [`of_host`](Self::of_host).
    pub fn of(active: &ActiveSettings, clients: &TenantHttpClients) -> Result<Self, ConfigErrors> {
        Self::of_host(&ActiveHost::new(active.clone()), clients)
    }

    /// Resolves the settings in effect. A retained part that can no longer be resolved is omitted and logged.
    ///
    /// # Errors
    ///
    /// Returns all references that can't be resolved, each with its location. Included files have none: they were
    /// [checked](check_included) before they came into effect.
    pub fn of_host(host: &ActiveHost, clients: &TenantHttpClients) -> Result<Self, ConfigErrors> {
        let all = AllTenants::of(host);
        let top = host.top();
        let (settings, environment) = (top.settings(), top.environment());
        let mut errors = Vec::new();
        let mut resolved = ResolvedParts::default();
        for part in host.parts() {
            resolved.add(part, &all, clients, &mut errors);
        }
        let admin_token = settings.server.admin_token.as_ref().map(|token| self::admin_token(token, environment));
        let admin_token = admin_token.transpose().unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        let databases = databases(&settings.server.storage, environment).unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        let rules = rules(settings, environment).unwrap_or_else(|error| {
            errors.push(error);
            ListenerRules::default()
        });
        ConfigErrors::ok_if_empty(errors)?;
        let ResolvedParts { webhooks, unconfirmed, sockets, tenants, routes, specs } = resolved;
        Ok(Self {
            webhooks,
            unconfirmed,
            sockets,
            max_body: settings.server.max_body,
            rules,
            tenants,
            routes,
            max_tenant_labels: settings.server.max_tenant_labels,
            apology: settings.server.apology.as_str().into(),
            specs,
            admin_token,
            admin_hosts: settings.server.admin_hosts.clone(),
            databases,
        })
    }
}

/// Resolves the URLs of the databases.
fn databases(storage: &StorageSettings, environment: &Environment) -> Result<Option<Databases>, ConfigError> {
    let Some(url) = &storage.url else { return Ok(None) };
    let shards = storage.shards.iter().map(|shard| {
        let (name, tenants) = (shard.name.clone(), shard.tenants.clone());
        Ok(ShardDatabase { name, url: shard.url.resolve(environment)?, tenants })
    });
    let shards = shards.collect::<Result<_, ConfigError>>()?;
    Ok(Some(Databases { main: url.resolve(environment)?, shards }))
}

/// Checks that the settings of an included file can be resolved.
///
/// # Errors
///
/// Returns all references that can't be resolved, each with its location.
pub fn check_included(active: &ActiveSettings, clients: &TenantHttpClients) -> Result<(), ConfigErrors> {
    let mut errors = Vec::new();
    let all = AllTenants::of_file(active);
    ResolvedParts::default().add(active, &all, clients, &mut errors);
    ConfigErrors::ok_if_empty(errors)
}

/// What the parts of one file must know of the other files.
struct AllTenants<'a> {
    /// The settings of modules.toml.
    top: &'a ActiveSettings,
    tenants: HashMap<&'a Name, &'a config::Tenant>,
    /// The tenant of each company.
    owners: Arc<HashMap<String, Name>>,
    /// The tenants of included files, by their companies.
    included: Arc<HashMap<String, Name>>,
}

impl<'a> AllTenants<'a> {
    fn of(host: &'a ActiveHost) -> Self {
        let top: &ActiveSettings = host.top();
        let parts = host.parts().map(|part| &**part);
        let tenants =
            parts.clone().flat_map(|part| part.settings().tenants.iter()).map(|tenant| (&tenant.name, tenant));
        let included = Arc::new(companies(parts.clone().skip(1)));
        let owners = if included.is_empty() { Arc::new(companies(parts)) } else { with(&included, companies([top])) };
        Self { top, tenants: tenants.collect(), owners, included }
    }

    /// Returns what is known of a file by itself.
    fn of_file(active: &'a ActiveSettings) -> Self {
        let tenants = active.settings().tenants.iter().map(|tenant| (&tenant.name, tenant)).collect();
        Self { top: active, tenants, owners: Arc::new(companies([active])), included: Arc::default() }
    }
}

/// Returns the tenant of each company.
fn companies<'a>(parts: impl IntoIterator<Item = &'a ActiveSettings>) -> HashMap<String, Name> {
    let tenants = parts.into_iter().flat_map(|part| part.tenants_with_events());
    tenants.flat_map(|tenant| tenant.companies.iter().map(|company| (company.clone(), tenant.name.clone()))).collect()
}

fn with(all: &HashMap<String, Name>, others: HashMap<String, Name>) -> Arc<HashMap<String, Name>> {
    let mut all = all.clone();
    all.extend(others);
    Arc::new(all)
}

/// The resolved parts of all files.
#[derive(Default)]
struct ResolvedParts {
    webhooks: Vec<Source>,
    unconfirmed: HashSet<Name>,
    sockets: Vec<EventSocket>,
    tenants: Vec<TenantSpec>,
    routes: Vec<RouteSpec>,
    specs: Vec<Spec>,
}

impl ResolvedParts {
    /// Adds the parts of one file.
    fn add(
        &mut self,
        active: &ActiveSettings,
        all: &AllTenants<'_>,
        clients: &TenantHttpClients,
        errors: &mut Vec<ConfigError>,
    ) {
        let settings = active.settings();
        let mut resolver = Resolver { active, errors };
        let of_source = |source: &config::Source| SettingsPart::Source(source.name.clone());
        let webhooks = settings.sources.iter().filter_map(|it| Some((it, it.webhook()?)));
        self.webhooks.extend(resolver.each(
            webhooks,
            |(source, _)| of_source(source),
            |(source, webhook), environment| self::webhook(source, webhook, active, all, environment),
        ));
        let sockets = settings.sources.iter().filter_map(|it| Some((it, it.event_socket()?)));
        let sockets = resolver.each(
            sockets,
            |(source, _)| of_source(source),
            |(source, socket), environment| {
                event_socket::event_socket(source, socket, active, all, clients, environment)
            },
        );
        // A socket without subscriptions receives nothing; a warning about the settings reports it.
        self.sockets.extend(sockets.into_iter().flatten());
        let of_tenant = |tenant: &&config::Tenant| SettingsPart::Tenant(tenant.name.clone());
        self.tenants.extend(resolver.each(&settings.tenants, of_tenant, |tenant, environment| {
            self::tenant(tenant, active, all, clients, environment)
        }));
        let of_module = |module: &&config::Module| SettingsPart::Module(module.name.clone());
        let specs = resolver.each(&settings.modules, of_module, serving_spec);
        let made: HashSet<&Name> = specs.iter().map(|spec| &spec.name).collect();
        let modules = settings.modules.iter().filter(|module| made.contains(&module.name));
        let server = &all.top.settings().server;
        self.routes.extend(modules.map(|module| route(module, active, server)));
        self.specs.extend(specs);
        let names = settings.sources.iter().map(|source| &source.name);
        self.unconfirmed.extend(names.filter(|name| active.is_unconfirmed(name)).cloned());
    }
}

/// Resolves the token of the admin API. It must be hard to guess, because nothing limits the number of attempts.
fn admin_token(reference: &Reference, environment: &Environment) -> Result<Secret, ConfigError> {
    let token = reference.resolve(environment)?;
    let text = token.expose();
    if text.chars().count() < MIN_TOKEN {
        let message = format!("the token that `admin_token` names has fewer than {MIN_TOKEN} characters");
        return Err(reference.error(message).advice("make a random one, for example with: openssl rand -hex 32"));
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        let message =
            "the token that `admin_token` names has white space around it or contains control characters".to_owned();
        return Err(reference.error(message).advice("remove them: an HTTP header can't contain them"));
    }
    Ok(token)
}

/// Returns the rules for the clients of the public listener, with the certificate as it was read last.
fn rules(settings: &Settings, environment: &Environment) -> Result<ListenerRules, ConfigError> {
    let server = &settings.server;
    let tls = server.tls.as_ref().map(|tls| listener::load_certificate(tls, environment)).transpose()?;
    Ok(ListenerRules { limits: server.limits.clone(), proxies: server.proxies.clone(), tls })
}

/// Resolves parts of the settings, each in its own environment, and collects the errors.
struct Resolver<'a> {
    active: &'a ActiveSettings,
    errors: &'a mut Vec<ConfigError>,
}

impl Resolver<'_> {
    /// Resolves each item. Collects all errors instead of stopping at the first.
    fn each<A, B>(
        &mut self,
        from: impl IntoIterator<Item = A>,
        part: impl Fn(&A) -> SettingsPart,
        make: impl Fn(A, &Environment) -> Result<B, Vec<ConfigError>>,
    ) -> Vec<B> {
        let mut made = Vec::new();
        for item in from {
            let part = part(&item);
            match make(item, self.active.environment_of(&part)) {
                Ok(value) => made.push(value),
                Err(errors) if self.active.is_removed(&part) => {
                    let errors = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n\n");
                    tracing::error!(%part, %errors, "cannot keep what was removed from the settings");
                }
                Err(errors) => self.errors.extend(errors),
            }
        }
        made
    }
}

/// Converts each item. Collects all errors instead of stopping at the first.
fn collect<A, B>(
    errors: &mut Vec<ConfigError>,
    from: &[A],
    make: impl Fn(&A) -> Result<B, Vec<ConfigError>>,
) -> Vec<B> {
    let made = from.iter().filter_map(|item| make(item).map_err(|item_errors| errors.extend(item_errors)).ok());
    made.collect()
}

fn webhook(
    source: &config::Source,
    webhook: &config::Webhook,
    active: &ActiveSettings,
    all: &AllTenants<'_>,
    environment: &Environment,
) -> Result<Source, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let reader = active_reader(source, active, all).map_err(|error| errors.push(error)).ok();
    let scheme = schemes::scheme(&webhook.scheme);
    let mut keys = collect(&mut errors, &webhook.secrets, |secret| {
        key(source, &*scheme, secret, environment).map_err(|error| vec![error])
    });
    // If the scheme has changed, an old secret may not be valid for it.
    keys.extend(active.old_secrets(&source.name).filter_map(|secret| scheme.key(secret).ok()));
    match reader {
        Some(reader) if errors.is_empty() => {
            let (path, events_per_second) = (webhook.path.clone(), webhook.events_per_second);
            Ok(Source { path, scheme, keys, reader, events_per_second })
        }
        _ => Err(errors),
    }
}

/// Resolves a secret of a source to a key of its scheme.
///
/// # Errors
///
/// Fails if the secret can't be resolved or its format is wrong. The error gives its location and the expected format.
pub fn key(
    source: &config::Source,
    scheme: &dyn Scheme,
    secret: &Reference,
    environment: &Environment,
) -> Result<Key, ConfigError> {
    let value = secret.resolve(environment)?;
    scheme.key(&value).map_err(|form| {
        secret.error(format!("a secret of the source \"{}\" can't be used with its scheme", source.name)).advice(form)
    })
}

/// The tenants of settings, as sources find them.
pub struct TenantsOfSources<'a> {
    settings: &'a Settings,
    /// The tenants of modules.toml.
    top: Vec<&'a config::Tenant>,
    owners: Arc<HashMap<String, Name>>,
    included: Arc<HashMap<String, Name>>,
}

impl<'a> TenantsOfSources<'a> {
    /// Finds the tenants of settings that were read with all included files.
    pub fn of(settings: &'a Settings) -> Self {
        let names: HashSet<&Name> = settings.included.iter().filter_map(|file| file.tenant.as_ref()).collect();
        let (included, top): (Vec<_>, Vec<_>) =
            settings.tenants.iter().partition(|tenant| names.contains(&tenant.name));
        let of_company = |tenants: &[&config::Tenant]| -> HashMap<String, Name> {
            let pairs = |tenant: &config::Tenant| {
                let name = tenant.name.clone();
                tenant.companies.clone().into_iter().map(move |company| (company, name.clone()))
            };
            tenants.iter().copied().flat_map(pairs).collect()
        };
        let included = of_company(&included);
        let owners = with(&included, of_company(&top));
        Self { settings, top, owners, included: Arc::new(included) }
    }
}

/// Returns the reader that turns the requests of a source into events, without verifying them.
///
/// # Errors
///
/// Fails if nothing determines the tenant of the events.
pub fn reader(source: &config::Source, tenants: &TenantsOfSources<'_>) -> Result<Reader, ConfigError> {
    let TenantsOfSources { settings, top, owners, included } = tenants;
    let sole = match &source.tenant {
        Some(name) => settings.tenants.iter().find(|tenant| tenant.name == *name),
        None => top.first().copied().filter(|_| top.len() == 1),
    };
    make_reader(source, top.iter().copied(), |_| sole, owners, included)
}

/// Like [`reader`], for the settings in effect, which may retain tenants that were removed from the file.
fn active_reader(
    source: &config::Source,
    active: &ActiveSettings,
    all: &AllTenants<'_>,
) -> Result<Reader, ConfigError> {
    let sole = |names_companies| match names_companies {
        true if source.tenant.is_none() => source.sole_tenant(active.tenants_with_events()),
        _ => sole_tenant(source, active, all),
    };
    make_reader(source, active.tenants_with_events(), sole, &all.owners, &all.included)
}

/// Returns the tenant of all events of a source, if they don't name a company: the one that the source names, or the
/// only one in the file, even if others are retained.
fn sole_tenant<'a>(
    source: &config::Source,
    active: &ActiveSettings,
    all: &AllTenants<'a>,
) -> Option<&'a config::Tenant> {
    let only = match &source.tenant {
        Some(named) => Some(named),
        None => source.sole_tenant(&active.as_written().tenants).map(|tenant| &tenant.name),
    };
    all.tenants.get(only?).copied()
}

fn make_reader<'t>(
    source: &config::Source,
    mut tenants: impl Iterator<Item = &'t config::Tenant>,
    sole: impl FnOnce(bool) -> Option<&'t config::Tenant>,
    owners: &Arc<HashMap<String, Name>>,
    included: &Arc<HashMap<String, Name>>,
) -> Result<Reader, ConfigError> {
    let envelope = match &source.kind {
        SourceKind::Webhook(webhook) => schemes::scheme(&webhook.scheme).envelope().with(&webhook.event),
        SourceKind::EventSocket(_) => schemes::unique::envelope(),
    };
    // How the tenant of an event is determined: the source's own tenant, the only tenant, or the tenant of the event's
    // company.
    let owners = match sole(envelope.company.is_some()) {
        Some(tenant) => TenantResolver::One {
            tenant: tenant.name.clone(),
            companies: tenant.companies.clone(),
            owners: owners.clone(),
            also: if source.tenant.is_none() { included.clone() } else { Arc::default() },
        },
        None => TenantResolver::ByCompany {
            tenants: owners.clone(),
            // At most one tenant has no companies: the settings were checked for that.
            others: tenants.find(|tenant| tenant.companies.is_empty()).map(|tenant| tenant.name.clone()),
        },
    };
    if envelope.company.is_none() && matches!(owners, TenantResolver::ByCompany { .. }) {
        let error = ConfigError::new(format!("the events of the source \"{}\" don't name a tenant", source.name));
        return Err(error
            .at(Some(source.location.clone()))
            .advice("add tenant = \"…\" to it, or set the field of the company: [source.event] company = \"body:…\""));
    }
    Ok(Reader { name: source.name.clone(), envelope, owners })
}

fn tenant(
    tenant: &config::Tenant,
    active: &ActiveSettings,
    all: &AllTenants<'_>,
    clients: &TenantHttpClients,
    environment: &Environment,
) -> Result<TenantSpec, Vec<ConfigError>> {
    let clients = || clients.of(&tenant.name);
    let platform = match &tenant.platform {
        PlatformSettings::Unique(settings) => unique(settings, clients, environment),
        PlatformSettings::Nexus(settings) => nexus(settings, clients, environment),
        PlatformSettings::None => Ok(Arc::new(NullPlatform) as Arc<dyn Platform>),
    };
    let model = tenant.completion.as_ref().map(|settings| openai(settings, clients, environment)).transpose();
    let (platform, model) = match (platform, model) {
        (Ok(platform), Ok(model)) => (platform, model),
        (platform, model) => {
            let of_platform = platform.err().map(|error| error.into_errors(tenant, ""));
            let of_model = model.err().map(|error| error.into_errors(tenant, "[tenant.completion] "));
            return Err(of_platform.into_iter().chain(of_model).flatten().collect());
        }
    };
    let platform = match model {
        Some(model) => Arc::new(WithModel::new(platform, model)),
        None => platform,
    };
    Ok(TenantSpec {
        name: tenant.name.clone(),
        platform,
        concurrency: all.top.settings().server.ceilings.concurrency_below(tenant.limits.concurrency),
        max_deliveries: tenant.limits.max_deliveries,
        events_per_second: tenant.limits.events_per_second,
        total_memory: tenant.limits.total_memory,
        total_journal: tenant.limits.total_journal,
        log_rate: tenant.limits.log_rate,
        cpu_weight: tenant.limits.cpu_weight,
        ceilings: tenant.limits.delivery,
        is_removed: active.is_removed(&SettingsPart::Tenant(tenant.name.clone())),
    })
}

/// The reason why the client of a platform can't be created.
enum ClientError {
    /// References that can't be resolved.
    References(Vec<ConfigError>),
    /// Resolved settings that are invalid.
    Settings(SetupError),
}

impl ClientError {
    /// Converts the reason to errors for the operator. `title` names the table of the settings.
    fn into_errors(self, tenant: &config::Tenant, title: &str) -> Vec<ConfigError> {
        match self {
            Self::References(errors) => errors,
            Self::Settings(error) => {
                vec![ConfigError::new(format!("{title}{error}")).at(Some(tenant.location.clone()))]
            }
        }
    }
}

impl From<SetupError> for ClientError {
    fn from(error: SetupError) -> Self {
        Self::Settings(error)
    }
}

fn unique(
    settings: &UniquePlatform,
    clients: impl Fn() -> Result<HttpClients, SetupError>,
    environment: &Environment,
) -> Result<Arc<dyn Platform>, ClientError> {
    let (base, app_id, key) = (
        settings.api_base.resolve_url(environment, UNIQUE_API_BASE),
        settings.app_id.resolve(environment),
        settings.api_key.resolve(environment),
    );
    let (api_base, app_id, api_key) = match (base, app_id, key) {
        (Ok(base), Ok(app_id), Ok(key)) => (base, app_id, key),
        (base, app_id, key) => {
            return Err(ClientError::References([base.err(), app_id.err(), key.err()].into_iter().flatten().collect()));
        }
    };
    let mut unique = UniqueSettings::new(api_base, app_id.expose(), api_key);
    unique.model.clone_from(&settings.model);
    unique.timeout = settings.timeout;
    unique.idempotency_header.clone_from(&settings.idempotency_header);
    Ok(Arc::new(Unique::new(unique, clients()?)?))
}

fn nexus(
    settings: &NexusPlatform,
    clients: impl Fn() -> Result<HttpClients, SetupError>,
    environment: &Environment,
) -> Result<Arc<dyn Platform>, ClientError> {
    let base = settings.api_base.resolve_url(environment, NEXUS_API_BASE);
    let (api_base, api_key) = match (base, settings.api_key.resolve(environment)) {
        (Ok(base), Ok(key)) => (base, key),
        (base, key) => return Err(ClientError::References([base.err(), key.err()].into_iter().flatten().collect())),
    };
    let mut nexus = NexusSettings::new(api_base, api_key);
    nexus.timeout = settings.timeout;
    nexus.idempotency_header.clone_from(&settings.idempotency_header);
    Ok(Arc::new(Nexus::new(nexus, clients()?)?))
}

fn openai(
    settings: &CompletionSettings,
    clients: impl Fn() -> Result<HttpClients, SetupError>,
    environment: &Environment,
) -> Result<OpenAi, ClientError> {
    let base = settings.api_base.resolve_url(environment, OPENAI_API_BASE);
    let key = settings.api_key.as_ref().map(|key| key.resolve(environment)).transpose();
    let (api_base, api_key) = match (base, key) {
        (Ok(base), Ok(key)) => (base, key),
        (base, key) => return Err(ClientError::References([base.err(), key.err()].into_iter().flatten().collect())),
    };
    let mut openai = OpenAiSettings::new(api_base, &settings.model);
    openai.api_key = api_key;
    openai.timeout = settings.timeout;
    openai.idempotency_header.clone_from(&settings.idempotency_header);
    Ok(OpenAi::new(openai, clients()?)?)
}

fn route(module: &config::Module, active: &ActiveSettings, server: &config::Server) -> RouteSpec {
    RouteSpec {
        is_removed: active.is_removed(&SettingsPart::Module(module.name.clone())),
        module: module.name.clone(),
        platform_name: module.platform_name().into(),
        owner: module.owner.clone(),
        wants: module.wants.clone(),
        // The settings of a refused file may be older than the ceilings.
        concurrency: server.ceilings.concurrency_below(module.limits.concurrency),
        ordered_by_chat: module.ordered_by_chat,
        resume: module.resume,
        retry: module.retry,
        retry_notice: server.retry_notice.as_str().into(),
        apology: module.apology.as_ref().unwrap_or(&server.apology).as_str().into(),
        limits: module.limits.delivery.for_server(&server.ceilings.delivery),
    }
}

/// Returns the requests that a module may send, with the headers that the host adds to them.
fn http_grants(module: &config::Module, environment: &Environment) -> Result<HttpGrants, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let allowed = collect(&mut errors, &module.http, |entry| {
        let mut errors = Vec::new();
        let headers = collect(&mut errors, &entry.headers, |header| {
            http_header(header, environment).map_err(|error| vec![error])
        });
        if errors.is_empty() { Ok(http_grant(entry, headers)) } else { Err(errors) }
    });
    if !errors.is_empty() {
        return Err(errors);
    }
    let location = Some(module.location.clone());
    Ok(HttpGrants { allowed: allowed.into(), location })
}

/// Returns the grant of one entry of `http`, with the resolved headers.
pub fn http_grant(entry: &HttpEntry, headers: Vec<(HeaderName, HeaderValue)>) -> HttpGrant {
    let HttpEntry { origin, methods, private, location, .. } = entry.clone();
    HttpGrant { origin, methods, private, location, headers }
}

fn http_header(header: &HttpHeader, environment: &Environment) -> Result<(HeaderName, HeaderValue), ConfigError> {
    let secret = header.secret.resolve(environment)?;
    let value = HeaderValue::from_str(&format!("{}{}", header.prefix, secret.expose()));
    let mut value = value.map_err(|_| {
        let message = format!("the value of the header `{}` contains a control character", header.name);
        header.secret.error(message).advice("remove it; it is often a line break at the end")
    })?;
    value.set_sensitive(true);
    Ok((header.name.clone(), value))
}

/// Resolves the settings of a module that serves.
fn serving_spec(module: &config::Module, environment: &Environment) -> Result<Spec, Vec<ConfigError>> {
    let mut spec = spec(module);
    spec.grants.http = http_grants(module, environment)?;
    Ok(spec)
}

/// Returns the settings of a module for a dry run: no secrets are resolved, and no HTTP requests are sent.
pub fn spec(module: &config::Module) -> Spec {
    let allowed = module.http.iter().map(|entry| http_grant(entry, Vec::new())).collect();
    let location = Some(module.location.clone());
    let http = HttpGrants { allowed, location };
    let mut tenants = module.wants.tenants.clone();
    tenants.sort();
    Spec {
        name: module.name.clone(),
        tenants,
        component: module.component.clone(),
        limits: module.limits.delivery,
        grants: Grants { config: Arc::new(module.config.clone()), http },
        swap: swap(&module.swap),
    }
}

fn swap(swap: &config::Swap) -> SwapPolicy {
    let canary = swap.canary.as_ref().map(|it| CanaryPolicy {
        percent: it.percent,
        period: it.period,
        min_deliveries: it.min_deliveries,
    });
    SwapPolicy { replay: swap.replay, canary }
}

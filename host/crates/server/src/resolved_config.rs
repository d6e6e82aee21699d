//! What the settings mean for each part of the host, with every reference resolved: made whole or not at all.

mod event_socket;

use std::collections::HashSet;
use std::sync::Arc;

use http::{HeaderName, HeaderValue};
use reqwest::Client;

use modhost_config as config;
use modhost_config::http::{HttpEntry, HttpHeader};
use modhost_config::{
    ActiveSettings, CompletionSettings, ConfigError, ConfigErrors, Environment, LoadedSettings, NexusPlatform,
    PlatformSettings, Reference, Settings, SettingsPart, SourceKind, UniquePlatform,
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
use modhost_platform::{NullPlatform, Platform, SetupError, WithModel};
use modhost_runtime::capabilities::{Grants, HttpGrant, HttpGrants};
use modhost_runtime::dispatch::{RouteSpec, TenantSpec};
use modhost_runtime::engine::{CanaryPolicy, Spec, SwapPolicy};

/// The fewest characters of the admin API's token.
const MIN_TOKEN: usize = 16;

/// What each part of the host is to do.
pub struct ResolvedConfig {
    /// For the public listener: the webhooks.
    pub webhooks: Vec<Source>,
    /// The webhooks whose secrets have just changed, so that nobody knows yet if they are whole.
    pub unsettled: HashSet<Name>,
    /// The event sockets.
    pub sockets: Vec<EventSocket>,
    /// For the public listener: the largest body in bytes.
    pub max_body: u64,
    /// For the public listener: what its clients may use.
    pub rules: ListenerRules,
    /// For dispatch.
    pub tenants: Vec<TenantSpec>,
    /// For dispatch.
    pub routes: Vec<RouteSpec>,
    /// For dispatch: what users read whose module is gone.
    pub apology: Arc<str>,
    /// For the engine.
    pub specs: Vec<Spec>,
    /// For the admin listener.
    pub admin_token: Option<Secret>,
    /// For the admin listener.
    pub admin_hosts: Vec<HostName>,
}

impl ResolvedConfig {
    /// Makes a plan of settings that nothing was before; references are looked up in the environment and in the `.env` beside
    /// the file.
    ///
    /// # Errors
    ///
    /// All references that lead nowhere, each with its place.
    pub fn new(settings: &Settings, client: &Client) -> Result<Self, ConfigErrors> {
        let environment = Arc::new(Environment::of(settings)?);
        let loaded = LoadedSettings { settings: settings.clone(), environment, is_complete: true };
        Self::of(&ActiveSettings::new(loaded), client)
    }

    /// Makes a plan of the settings in force. What they keep although it is gone from the file, and can't be made any more, is left out,
    /// and the log says so.
    ///
    /// # Errors
    ///
    /// All references that lead nowhere, each with its place.
    pub fn of(active: &ActiveSettings, client: &Client) -> Result<Self, ConfigErrors> {
        let (settings, environment) = (active.settings(), active.environment());
        let mut errors = Vec::new();
        let mut making = Making { active, errors: &mut errors };
        let of_source = |source: &config::Source| SettingsPart::Source(source.name.clone());
        let webhooks = settings.sources.iter().filter_map(|it| Some((it, it.webhook()?)));
        let webhooks = making.each(
            webhooks,
            |(source, _)| of_source(source),
            |(source, webhook), environment| self::webhook(source, webhook, active, environment),
        );
        let sockets = settings.sources.iter().filter_map(|it| Some((it, it.event_socket()?)));
        let sockets = making.each(
            sockets,
            |(source, _)| of_source(source),
            |(source, socket), environment| event_socket::event_socket(source, socket, active, client, environment),
        );
        let of_tenant = |tenant: &&config::Tenant| SettingsPart::Tenant(tenant.name.clone());
        let tenants = making.each(&settings.tenants, of_tenant, |tenant, environment| {
            self::tenant(tenant, active, client, environment)
        });
        let of_module = |module: &&config::Module| SettingsPart::Module(module.name.clone());
        let specs = making.each(&settings.modules, of_module, serving_spec);
        let admin_token = settings.server.admin_token.as_ref().map(|token| self::admin_token(token, environment));
        let admin_token = admin_token.transpose().unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        let rules = rules(settings, environment).unwrap_or_else(|error| {
            errors.push(error);
            ListenerRules::default()
        });
        ConfigErrors::ok_if_empty(errors)?;
        let made: HashSet<&Name> = specs.iter().map(|spec| &spec.name).collect();
        let modules = settings.modules.iter().filter(|module| made.contains(&module.name));
        let names = settings.sources.iter().map(|source| &source.name);
        Ok(Self {
            webhooks,
            unsettled: names.filter(|name| active.is_unconfirmed(name)).cloned().collect(),
            // One without subscriptions has nothing to wait for; the warnings say so.
            sockets: sockets.into_iter().flatten().collect(),
            max_body: settings.server.max_body,
            rules,
            tenants,
            routes: modules.map(|module| route(module, active)).collect(),
            apology: settings.server.apology.as_str().into(),
            specs,
            admin_token,
            admin_hosts: settings.server.admin_hosts.clone(),
        })
    }
}

/// The token of the admin API, which has to be hard to guess: nothing limits how often one may try.
fn admin_token(reference: &Reference, environment: &Environment) -> Result<Secret, ConfigError> {
    let token = reference.resolve(environment)?;
    let text = token.expose();
    if text.chars().count() < MIN_TOKEN {
        let message = format!("the token that `admin_token` names has fewer than {MIN_TOKEN} characters");
        return Err(reference.error(message).advice("make a random one, say with: openssl rand -hex 32"));
    }
    if text.trim() != text || text.chars().any(char::is_control) {
        let message = "the token that `admin_token` names has spaces around it or control characters in it".to_owned();
        return Err(reference.error(message).advice("remove them: no header can carry them"));
    }
    Ok(token)
}

/// What the clients of the public listener may use, with the certificate as it was read last.
fn rules(settings: &Settings, environment: &Environment) -> Result<ListenerRules, ConfigError> {
    let server = &settings.server;
    let tls = server.tls.as_ref().map(|tls| listener::load_certificate(tls, environment)).transpose()?;
    Ok(ListenerRules { limits: server.limits.clone(), proxies: server.proxies.clone(), tls })
}

/// The making of a plan: each part with what its references lead to.
struct Making<'a> {
    active: &'a ActiveSettings,
    errors: &'a mut Vec<ConfigError>,
}

impl Making<'_> {
    /// Makes one of each, and gathers all errors rather than stopping at the first.
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
                Ok(one) => made.push(one),
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

/// Makes one of each, and gathers all errors rather than stopping at the first.
fn collect<A, B>(
    errors: &mut Vec<ConfigError>,
    from: &[A],
    make: impl Fn(&A) -> Result<B, Vec<ConfigError>>,
) -> Vec<B> {
    let made = from.iter().filter_map(|item| make(item).map_err(|more| errors.extend(more)).ok());
    made.collect()
}

fn webhook(
    source: &config::Source,
    webhook: &config::Webhook,
    active: &ActiveSettings,
    environment: &Environment,
) -> Result<Source, Vec<ConfigError>> {
    let mut errors = Vec::new();
    let reader = active_reader(source, active).map_err(|error| errors.push(error)).ok();
    let scheme = schemes::scheme(&webhook.scheme);
    let mut keys = collect(&mut errors, &webhook.secrets, |secret| {
        key(source, &*scheme, secret, environment).map_err(|error| vec![error])
    });
    // Under another scheme than before they may make no key.
    keys.extend(active.old_secrets(&source.name).filter_map(|secret| scheme.key(secret).ok()));
    match reader {
        Some(reader) if errors.is_empty() => {
            let (path, events_per_second) = (webhook.path.clone(), webhook.events_per_second);
            Ok(Source { path, scheme, keys, reader, events_per_second })
        }
        _ => Err(errors),
    }
}

/// A key of a source, in the form its scheme works with.
///
/// # Errors
///
/// When the secret can't be looked up, or is written in another form; says where and which.
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

/// What makes events of what a source brings, and verifies nothing.
///
/// # Errors
///
/// When nothing says whose its events are.
pub fn reader(source: &config::Source, settings: &Settings) -> Result<Reader, ConfigError> {
    let sole = source.sole_tenant(&settings.tenants);
    make_reader(source, settings.tenants.iter(), |_| sole)
}

/// The same for settings that keep tenants which are gone from the file.
fn active_reader(source: &config::Source, active: &ActiveSettings) -> Result<Reader, ConfigError> {
    make_reader(source, active.tenants_with_events(), |names_companies| match names_companies {
        true if source.tenant.is_none() => source.sole_tenant(active.tenants_with_events()),
        _ => sole_tenant(source, active),
    })
}

/// The tenant all events of a source belong to, if they don't say whose they are: the one it names, or the only one in the
/// file, whoever else is kept.
fn sole_tenant<'a>(source: &config::Source, active: &'a ActiveSettings) -> Option<&'a config::Tenant> {
    let only = match &source.tenant {
        Some(named) => Some(named),
        None => source.sole_tenant(&active.as_written().tenants).map(|tenant| &tenant.name),
    };
    active.settings().tenants.iter().find(|tenant| Some(&tenant.name) == only)
}

fn make_reader<'t>(
    source: &config::Source,
    tenants: impl Iterator<Item = &'t config::Tenant> + Clone,
    sole: impl FnOnce(bool) -> Option<&'t config::Tenant>,
) -> Result<Reader, ConfigError> {
    let envelope = match &source.kind {
        SourceKind::Webhook(webhook) => schemes::scheme(&webhook.scheme).envelope().with(&webhook.event),
        SourceKind::EventSocket(_) => schemes::unique::envelope(),
    };
    let owners = owners(tenants, sole(envelope.company.is_some()));
    if envelope.company.is_none() && matches!(owners, TenantResolver::ByCompany { .. }) {
        let error = ConfigError::new(format!("the events of the source \"{}\" don't say whose they are", source.name));
        return Err(error.at(Some(source.location.clone())).advice(
            "add tenant = \"…\" to it, or say where its events name a company: [source.event] company = \"body:…\"",
        ));
    }
    Ok(Reader { name: source.name.clone(), envelope, owners })
}

/// Whose events a source brings: its own tenant's, the only tenant's, or that of the event's company.
fn owners<'t>(
    tenants: impl Iterator<Item = &'t config::Tenant> + Clone,
    sole: Option<&'t config::Tenant>,
) -> TenantResolver {
    if let Some(tenant) = sole {
        let others = tenants.filter(|other| other.name != tenant.name);
        return TenantResolver::One {
            tenant: tenant.name.clone(),
            companies: tenant.companies.clone(),
            of_others: others.flat_map(|other| other.companies.iter().cloned()).collect(),
        };
    }
    let companies = tenants
        .clone()
        .flat_map(|tenant| tenant.companies.iter().map(|company| (company.clone(), tenant.name.clone())));
    TenantResolver::ByCompany {
        tenants: companies.collect(),
        // Not more than one: the settings were checked for that.
        others: tenants.clone().find(|tenant| tenant.companies.is_empty()).map(|tenant| tenant.name.clone()),
    }
}

fn tenant(
    tenant: &config::Tenant,
    active: &ActiveSettings,
    client: &Client,
    environment: &Environment,
) -> Result<TenantSpec, Vec<ConfigError>> {
    let platform = match &tenant.platform {
        PlatformSettings::Unique(settings) => unique(settings, client, environment),
        PlatformSettings::Nexus(settings) => nexus(settings, client, environment),
        PlatformSettings::None => Ok(Arc::new(NullPlatform) as Arc<dyn Platform>),
    };
    let model = tenant.completion.as_ref().map(|settings| openai(settings, client, environment)).transpose();
    let (platform, model) = match (platform, model) {
        (Ok(platform), Ok(model)) => (platform, model),
        (platform, model) => {
            let of_platform = platform.err().map(|wrong| wrong.into_errors(tenant, ""));
            let of_model = model.err().map(|wrong| wrong.into_errors(tenant, "[tenant.completion] "));
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
        concurrency: tenant.limits.concurrency,
        max_deliveries: tenant.limits.max_deliveries,
        events_per_second: tenant.limits.events_per_second,
        total_memory: tenant.limits.total_memory,
        ceilings: tenant.limits.delivery,
        is_gone: active.is_removed(&SettingsPart::Tenant(tenant.name.clone())),
    })
}

/// Why there can be no client of a platform.
enum Wrong {
    /// References lead nowhere.
    References(Vec<ConfigError>),
    /// What they lead to can't be right.
    Settings(SetupError),
}

impl Wrong {
    /// What to tell the operator; `title` says which table's settings they are.
    fn into_errors(self, tenant: &config::Tenant, title: &str) -> Vec<ConfigError> {
        match self {
            Self::References(errors) => errors,
            Self::Settings(error) => {
                vec![ConfigError::new(format!("{title}{error}")).at(Some(tenant.location.clone()))]
            }
        }
    }
}

impl From<SetupError> for Wrong {
    fn from(error: SetupError) -> Self {
        Self::Settings(error)
    }
}

fn unique(settings: &UniquePlatform, client: &Client, environment: &Environment) -> Result<Arc<dyn Platform>, Wrong> {
    let (base, app_id, key) = (
        settings.api_base.resolve_url(environment, UNIQUE_API_BASE),
        settings.app_id.resolve(environment),
        settings.api_key.resolve(environment),
    );
    let (api_base, app_id, api_key) = match (base, app_id, key) {
        (Ok(base), Ok(app_id), Ok(key)) => (base, app_id, key),
        (base, app_id, key) => {
            return Err(Wrong::References([base.err(), app_id.err(), key.err()].into_iter().flatten().collect()));
        }
    };
    let mut unique = UniqueSettings::new(api_base, app_id.expose(), api_key);
    unique.model.clone_from(&settings.model);
    unique.timeout = settings.timeout;
    unique.idempotency_header.clone_from(&settings.idempotency_header);
    Ok(Arc::new(Unique::new(unique, client.clone())?))
}

fn nexus(settings: &NexusPlatform, client: &Client, environment: &Environment) -> Result<Arc<dyn Platform>, Wrong> {
    let base = settings.api_base.resolve_url(environment, NEXUS_API_BASE);
    let (api_base, api_key) = match (base, settings.api_key.resolve(environment)) {
        (Ok(base), Ok(key)) => (base, key),
        (base, key) => return Err(Wrong::References([base.err(), key.err()].into_iter().flatten().collect())),
    };
    let mut nexus = NexusSettings::new(api_base, api_key);
    nexus.timeout = settings.timeout;
    nexus.idempotency_header.clone_from(&settings.idempotency_header);
    Ok(Arc::new(Nexus::new(nexus, client.clone())?))
}

fn openai(settings: &CompletionSettings, client: &Client, environment: &Environment) -> Result<OpenAi, Wrong> {
    let base = settings.api_base.resolve_url(environment, OPENAI_API_BASE);
    let key = settings.api_key.as_ref().map(|key| key.resolve(environment)).transpose();
    let (api_base, api_key) = match (base, key) {
        (Ok(base), Ok(key)) => (base, key),
        (base, key) => return Err(Wrong::References([base.err(), key.err()].into_iter().flatten().collect())),
    };
    let mut openai = OpenAiSettings::new(api_base, &settings.model);
    openai.api_key = api_key;
    openai.timeout = settings.timeout;
    openai.idempotency_header.clone_from(&settings.idempotency_header);
    Ok(OpenAi::new(openai, client.clone())?)
}

fn route(module: &config::Module, active: &ActiveSettings) -> RouteSpec {
    let settings = active.settings();
    RouteSpec {
        is_gone: active.is_removed(&SettingsPart::Module(module.name.clone())),
        module: module.name.clone(),
        wants: module.wants.clone(),
        concurrency: module.limits.concurrency,
        ordered_by_chat: module.ordered_by_chat,
        resume: module.resume,
        retry: module.retry,
        retry_notice: settings.server.retry_notice.as_str().into(),
        apology: module.apology.as_ref().unwrap_or(&settings.server.apology).as_str().into(),
        limits: module.limits.delivery,
    }
}

/// Where a module may send requests, with what the host adds to them.
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
    let place = Some(module.location.clone());
    Ok(HttpGrants { allowed: allowed.into(), place })
}

/// What an entry of `http` allows, with the values of its headers.
pub fn http_grant(entry: &HttpEntry, headers: Vec<(HeaderName, HeaderValue)>) -> HttpGrant {
    let HttpEntry { origin, methods, private, location, .. } = entry.clone();
    HttpGrant { origin, methods, private, location, headers }
}

fn http_header(header: &HttpHeader, environment: &Environment) -> Result<(HeaderName, HeaderValue), ConfigError> {
    let secret = header.secret.resolve(environment)?;
    let value = HeaderValue::from_str(&format!("{}{}", header.prefix, secret.expose()));
    let mut value = value.map_err(|_| {
        let message = format!("what the header `{}` is to hold has a control character in it", header.name);
        header.secret.error(message).advice("a line break at its end, perhaps?")
    })?;
    value.set_sensitive(true);
    Ok((header.name.clone(), value))
}

/// What the engine is to know of a module that serves.
fn serving_spec(module: &config::Module, environment: &Environment) -> Result<Spec, Vec<ConfigError>> {
    let mut spec = spec(module);
    spec.grants.http = http_grants(module, environment)?;
    Ok(spec)
}

/// What the engine is to know of a module that is only tried out: no secret is looked up for it, and none of its HTTP
/// requests is sent.
pub fn spec(module: &config::Module) -> Spec {
    let allowed = module.http.iter().map(|entry| http_grant(entry, Vec::new())).collect();
    let place = Some(module.location.clone());
    let http = HttpGrants { allowed, place };
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

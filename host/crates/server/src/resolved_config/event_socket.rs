//! Resolves the settings of an event socket, together with those of its tenant's platform.

use url::Url;

use super::{AllTenants, active_reader, sole_tenant};
use modhost_config as config;
use modhost_config::{ActiveSettings, ConfigError, Environment, SettingsPart, Tenant, UniquePlatform};
use modhost_core::platform_urls::UNIQUE_API_BASE;
use modhost_core::secret::Secret;
use modhost_ingress::sources::TenantResolver;
use modhost_ingress::sources::event_socket::{EventSocket, SocketSettings, stream_of};
use modhost_platform::TenantHttpClients;

/// Resolves an event socket. Returns `None` if no module subscribes to its events.
pub(super) fn event_socket(
    source: &config::Source,
    socket: &config::EventSocket,
    active: &ActiveSettings,
    all: &AllTenants<'_>,
    clients: &TenantHttpClients,
    environment: &Environment,
) -> Result<Option<EventSocket>, Vec<ConfigError>> {
    let at_source = |message: String| vec![ConfigError::new(message).at(Some(source.location.clone()))];
    let tenant = sole_tenant(source, active, all);
    let Some((tenant, platform)) = tenant.and_then(|tenant| Some((tenant, tenant.platform.unique()?))) else {
        return Err(at_source(format!("the event socket \"{}\" has no tenant whose key it could use", source.name)));
    };
    // The tenant has its own environment if it is retained.
    let of_tenant = active.environment_of(&SettingsPart::Tenant(tenant.name.clone()));
    let modules = &active.settings().modules;
    let shared = match std::ptr::eq(active, all.top) {
        true => &[],
        // Modules of modules.toml may be for any tenant.
        false => all.top.settings().modules.as_slice(),
    };
    let subscriptions = source.subscriptions(tenant, modules.iter().chain(shared));
    if subscriptions.is_empty() {
        return Ok(None);
    }
    let company = company(socket, tenant, environment);
    let (app_id, api_key) = (platform.app_id.resolve(of_tenant), platform.api_key.resolve(of_tenant));
    let url = url(socket, platform, environment, of_tenant);
    let (company, app_id, api_key, url) = match (company, app_id, api_key, url) {
        (Ok(company), Ok(app_id), Ok(api_key), Ok(url)) => (company, app_id, api_key, url),
        // Errors in the platform's settings are reported for the tenant.
        (company, _, _, url) => {
            let own = socket.url.is_some().then(|| url.err()).flatten();
            return Err([company.err(), own].into_iter().flatten().collect());
        }
    };
    let company = company.expose().to_owned();
    let mut reader = active_reader(source, active, all).map_err(|error| vec![error])?;
    // A tenant without companies accepts events of any company, but from this socket only those of the subscribed
    // company.
    if let TenantResolver::One { companies, owners, also, .. } = &mut reader.owners {
        if companies.is_empty() {
            companies.push(company.clone());
        }
        // All other companies are refused anyway, and with them a change of any tenant would change every socket.
        (*owners, *also) = Default::default();
    }
    let made = SocketSettings {
        reader,
        url,
        app_id: app_id.expose().to_owned(),
        api_key,
        company,
        subscriptions,
        max_event: all.top.settings().server.max_body,
        reconnect_after: socket.reconnect_after,
        silence: socket.silence,
    };
    let clients = clients.of(&tenant.name).map_err(|error| at_source(error.to_string()))?;
    EventSocket::new(made, clients.streams().clone()).map(Some).map_err(|error| at_source(error.to_string()))
}

fn company(socket: &config::EventSocket, tenant: &Tenant, environment: &Environment) -> Result<Secret, ConfigError> {
    match (&socket.company, tenant.companies.first()) {
        (Some(company), _) => company.resolve(environment),
        // The settings were checked: if `company` is missing, the tenant has a company.
        (None, first) => Ok(Secret::new(first.map(String::as_str).unwrap_or_default())),
    }
}

fn url(
    socket: &config::EventSocket,
    platform: &UniquePlatform,
    environment: &Environment,
    of_tenant: &Environment,
) -> Result<Url, ConfigError> {
    match &socket.url {
        Some(url) => {
            url.resolve_url(environment, "https://gateway.<tenant>.unique.app/public/event-socket/events/stream")
        }
        None => platform.api_base.resolve_url(of_tenant, UNIQUE_API_BASE).map(|api_base| stream_of(&api_base)),
    }
}

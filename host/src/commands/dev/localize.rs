//! Changes the settings of a host to use the local platform.

use std::path::Path;

use url::Url;

use modhost_config::{
    ConfigErrors, Environment, EventSocket, PlatformSettings, Reference, Scheme, Settings, Source, SourceKind,
    StorageSettings, Webhook,
};
use modhost_core::event::Name;
use modhost_core::secret::Secret;
use modhost_emulator as local;
use modhost_emulator::AssistantTenant;
use modhost_ingress::sources::schemes;

/// The base URLs of the local platform.
#[derive(Clone)]
pub(super) struct Bases {
    /// The API of Unique AI.
    pub(super) api: Url,
    /// The API of NexusGPT.
    pub(super) threads: Url,
    /// The completion API of OpenAI.
    pub(super) completions: Url,
}

/// Replaces every platform and language model in the settings of modules.toml with the local platform.
///
/// # Errors
///
/// If the `.env` beside the file cannot be read.
pub(super) fn use_local_platform(settings: Settings, bases: &Bases) -> Result<Settings, ConfigErrors> {
    let environment = Environment::load(settings.file.with_file_name(""))?;
    let mut settings = localize(settings, bases, &environment);
    // The local platform delivers over plain HTTP.
    settings.server.tls = None;
    // A host for authors must not take the deliveries of those that share the database.
    settings.server.storage = StorageSettings::default();
    // The only company of the local platform belongs to the first tenant.
    if let Some(first) = settings.tenants.first_mut()
        && !first.companies.is_empty()
    {
        first.companies = vec![local::COMPANY_ID.to_owned()];
    }
    Ok(settings)
}

/// Replaces every platform and language model in the settings of an included file with the local platform. `folder` is
/// that of modules.toml. The tenant keeps its companies: the local platform sends them its events.
pub(super) fn use_local_platform_in_included(mut settings: Settings, bases: &Bases, folder: &Path) -> Settings {
    // A `.env` that cannot be read is an error of modules.toml.
    let environment = Environment::load(folder).unwrap_or_default();
    settings.sources.retain(|source| {
        let is_webhook = source.webhook().is_some();
        if !is_webhook {
            tracing::warn!(
                source = %source.name,
                "source disabled: the event socket of the local platform is for the tenants of modules.toml"
            );
        }
        is_webhook
    });
    localize(settings, bases, &environment)
}

/// Returns the tenant of an included file as the local platform knows it, for its own modules. `base` is the address
/// of the host, once it is known.
pub(super) fn assistant_tenant(settings: &Settings, tenant: &Name, base: Option<&Url>) -> AssistantTenant {
    let own = settings.tenants.iter().find(|it| it.name == *tenant);
    let company = own.and_then(|own| own.companies.first().cloned());
    let sources = settings.sources.iter().filter(|source| source.tenant.as_ref() == Some(tenant));
    let mut webhooks = sources.filter(|source| is_from_unique(source)).filter_map(|source| source.webhook());
    let endpoint = base.zip(webhooks.next()).and_then(|(base, webhook)| base.join(&webhook.path).ok());
    // No other tenant has this company, so a tenant of any company accepts it.
    let company = company.unwrap_or_else(|| format!("company_{tenant}"));
    AssistantTenant { name: tenant.to_string(), company, endpoint }
}

fn localize(mut settings: Settings, bases: &Bases, environment: &Environment) -> Settings {
    let first = settings.tenants.first().map(|tenant| tenant.name.clone());
    settings.sources.retain_mut(|source| match &mut source.kind {
        SourceKind::Webhook(webhook) => {
            let secrets = local_secrets(webhook, environment);
            if secrets.is_empty() && !webhook.secrets.is_empty() {
                tracing::warn!(source = %source.name, "source disabled: none of its secrets is set");
                return false;
            }
            webhook.secrets = secrets;
            true
        }
        SourceKind::EventSocket(socket) => {
            (socket.url, socket.company) = (None, Some(Reference::given(local::COMPANY_ID)));
            let is_first_tenant = source.tenant.is_none() || source.tenant == first;
            if !is_first_tenant {
                tracing::warn!(
                    source = %source.name,
                    "source disabled: the company of the local platform belongs to the first tenant"
                );
            }
            is_first_tenant
        }
    });
    for tenant in &mut settings.tenants {
        match &mut tenant.platform {
            PlatformSettings::Unique(unique) => {
                unique.api_base = Reference::given(bases.api.as_str());
                unique.app_id = Reference::given(local::APP_ID);
                unique.api_key = Reference::given(local::API_KEY);
            }
            PlatformSettings::Nexus(nexus) => {
                nexus.api_base = Reference::given(bases.threads.as_str());
                nexus.api_key = Reference::given(local::API_KEY);
            }
            PlatformSettings::None => {}
        }
        if let Some(completion) = &mut tenant.completion {
            completion.api_base = Reference::given(bases.completions.as_str());
            completion.api_key = Some(Reference::given(local::API_KEY));
        }
    }
    settings
}

/// Replaces the webhook of Unique AI with an event socket, unless there is one already.
pub(super) fn use_event_socket(mut settings: Settings) -> Settings {
    if settings.sources.iter().any(|source| source.event_socket().is_some()) {
        settings.sources.retain(|source| !is_from_unique(source) || source.event_socket().is_some());
        return settings;
    }
    let first = settings.tenants.first().map(|tenant| tenant.name.clone());
    if let Some(source) = settings.sources.iter_mut().find(|source| is_from_unique(source)) {
        source.tenant = source.tenant.take().or(first);
        source.kind = SourceKind::EventSocket(EventSocket {
            // All events of the local platform, because modules may subscribe by pattern.
            subscriptions: Some(local::EVENTS.map(str::to_owned).into()),
            ..EventSocket::default()
        });
    }
    settings
}

/// Returns whether a source receives events from Unique AI.
pub(super) fn is_from_unique(source: &Source) -> bool {
    source.webhook().is_none_or(|webhook| matches!(webhook.scheme, Scheme::Unique(_)))
}

/// Returns the secrets of a source that are set, and that of the local platform if it signs these events or none is set.
fn local_secrets(webhook: &Webhook, environment: &Environment) -> Vec<Reference> {
    let mut secrets = webhook.secrets.clone();
    secrets.retain(|secret| secret.resolve(environment).is_ok());
    let local = Secret::new(local::ENDPOINT_SECRET);
    let is_usable = || schemes::scheme(&webhook.scheme).key(&local).is_ok();
    let is_signed_locally = matches!(webhook.scheme, Scheme::Unique(_));
    if !webhook.secrets.is_empty() && (is_signed_locally || secrets.is_empty()) && is_usable() {
        secrets.push(Reference::given(local::ENDPOINT_SECRET));
    }
    secrets
}

//! The settings of a host, with the local platform in place of any other.

use url::Url;

use modhost_config::{
    ConfigErrors, Environment, EventSocket, PlatformSettings, Reference, Scheme, Settings, Source, SourceKind, Webhook,
};
use modhost_core::secret::Secret;
use modhost_emulator as local;
use modhost_ingress::sources::schemes;

/// Where the parts of the local platform are.
#[derive(Clone)]
pub(super) struct Bases {
    /// The base of its API.
    pub(super) api: Url,
    /// The base of what it has of NexusGPT's.
    pub(super) threads: Url,
    /// The base of what it has of OpenAI's.
    pub(super) completions: Url,
}

/// The same settings with the local platform in place of any other, and of any model.
///
/// # Errors
///
/// When the `.env` beside the file can't be read.
pub(super) fn localized(mut settings: Settings, bases: &Bases) -> Result<Settings, ConfigErrors> {
    let environment = Environment::load(settings.file.with_file_name(""))?;
    // It delivers over plain HTTP, and needs no certificate for that.
    settings.server.tls = None;
    let first = settings.tenants.first().map(|tenant| tenant.name.clone());
    settings.sources.retain_mut(|source| match &mut source.kind {
        SourceKind::Webhook(webhook) => {
            let secrets = local_secrets(webhook, &environment);
            if secrets.is_empty() && !webhook.secrets.is_empty() {
                tracing::warn!("the source \"{}\" is left out: none of its secrets is set", source.name);
                return false;
            }
            webhook.secrets = secrets;
            true
        }
        SourceKind::EventSocket(socket) => {
            (socket.url, socket.company) = (None, Some(Reference::given(local::COMPANY_ID)));
            let is_of_first = source.tenant.is_none() || source.tenant == first;
            if !is_of_first {
                tracing::warn!(
                    "the source \"{}\" is left out: the local platform has one company, and that is the first tenant's",
                    source.name
                );
            }
            is_of_first
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
    // The local platform has one company; it belongs to the first tenant.
    if let Some(first) = settings.tenants.first_mut()
        && !first.companies.is_empty()
    {
        first.companies = vec![local::COMPANY_ID.to_owned()];
    }
    Ok(settings)
}

/// The same settings with an event socket in the place of the webhook of Unique's, if there is none yet.
pub(super) fn fetching(mut settings: Settings) -> Settings {
    if settings.sources.iter().any(|source| source.event_socket().is_some()) {
        settings.sources.retain(|source| !is_of_unique(source) || source.event_socket().is_some());
        return settings;
    }
    let first = settings.tenants.first().map(|tenant| tenant.name.clone());
    if let Some(source) = settings.sources.iter_mut().find(|source| is_of_unique(source)) {
        source.tenant = source.tenant.take().or(first);
        source.kind = SourceKind::EventSocket(EventSocket {
            // All that the local platform sends: modules may want them by a pattern.
            subscriptions: Some(local::EVENTS.map(str::to_owned).into()),
            ..EventSocket::default()
        });
    }
    settings
}

/// Whether a source brings events of Unique AI's.
pub(super) fn is_of_unique(source: &Source) -> bool {
    source.webhook().is_none_or(|webhook| matches!(webhook.scheme, Scheme::Unique(_)))
}

/// The secrets of a source that are set; and the local platform's, where it signs itself or none is set.
fn local_secrets(webhook: &Webhook, environment: &Environment) -> Vec<Reference> {
    let mut secrets = webhook.secrets.clone();
    secrets.retain(|secret| secret.resolve(environment).is_ok());
    let local = Secret::new(local::ENDPOINT_SECRET);
    let is_usable = || schemes::scheme(&webhook.scheme).key(&local).is_ok();
    let signs_itself = matches!(webhook.scheme, Scheme::Unique(_));
    if !webhook.secrets.is_empty() && (signs_itself || secrets.is_empty()) && is_usable() {
        secrets.push(Reference::given(local::ENDPOINT_SECRET));
    }
    secrets
}

//! Checks of event sockets: their tenants and their subscriptions.

use crate::document::Document;
use crate::file::{Located, Parts};
use crate::settings::Settings;
use crate::source::{EventSocket, Source};
use crate::{ConfigError, Reference, Tenant};

/// Reports event sockets that contradict the tenants and modules.
pub(super) fn check(document: &Document<'_>, parts: &Parts) {
    let tenants = || parts.tenants.iter().map(|tenant| &tenant.part);
    for (source, socket) in sockets(&parts.sources) {
        match source.part.sole_tenant(tenants()) {
            Some(tenant) if tenant.platform.unique().is_none() => document.report(
                source.name.clone(),
                format!(
                    "the platform of the tenant \"{}\" has no event socket: only platforms of kind \"unique\" have one",
                    tenant.name
                ),
                "use another tenant, or receive its events by webhook",
            ),
            Some(tenant) => {
                check_company(document, source, socket, tenant);
                check_patterns(document, source, parts, tenant);
            }
            // A missing tenant was reported before.
            None if source.part.tenant.is_none() && parts.tenants.len() > 1 => document.report(
                source.name.clone(),
                "the tenant of this event socket is ambiguous: there is more than one [[tenant]]",
                "add tenant = \"…\" to the source; the host connects with the key of that tenant's platform",
            ),
            None => {}
        }
    }
    check_unique_companies(document, parts);
}

/// Returns the warnings about event sockets.
pub(super) fn warnings(settings: &Settings) -> Vec<ConfigError> {
    let mut warnings = Vec::new();
    for source in &settings.sources {
        let Some(tenant) = source.event_socket().and_then(|_| source.sole_tenant(&settings.tenants)) else { continue };
        let at = Some(source.location.clone());
        if source.subscriptions(tenant, &settings.modules).is_empty() {
            let message =
                format!("the source \"{}\" has no subscriptions, so the host does not connect it", source.name);
            let advice = format!("no module of the tenant \"{}\" handles an event of Unique AI", tenant.name);
            warnings.push(ConfigError::new(message).at(at.clone()).advice(advice));
        }
        let delivers_same_events =
            |other: &&Source| other.webhook().is_some() && other.tenant.as_ref().is_none_or(|it| *it == tenant.name);
        if let Some(other) = settings.sources.iter().find(delivers_same_events) {
            let message = format!("the sources \"{}\" and \"{}\" may deliver the same events", other.name, source.name);
            let advice = "an event that arrives through both is answered twice: use only one of them per tenant";
            warnings.push(ConfigError::new(message).at(at).advice(advice));
        }
    }
    warnings
}

fn sockets(sources: &[Located<Source>]) -> impl Iterator<Item = (&Located<Source>, &EventSocket)> {
    sources.iter().filter_map(|source| Some((source, source.part.event_socket()?)))
}

/// Reports an event socket whose company is unknown or ambiguous: a subscription is for one company.
fn check_company(document: &Document<'_>, source: &Located<Source>, socket: &EventSocket, tenant: &Tenant) {
    let written = socket.company.as_ref().and_then(Reference::literal);
    match (written, tenant.companies.as_slice()) {
        (Some(company), [_, ..]) if !tenant.companies.iter().any(|own| own == company) => document.report(
            source.path.clone(),
            format!("the company \"{company}\" does not belong to the tenant \"{}\"", tenant.name),
            format!("its companies are: {}", tenant.companies.join(", ")),
        ),
        (None, [] | [_, _, ..]) if socket.company.is_none() => document.report(
            source.name.clone(),
            format!(
                "the company of this event socket is ambiguous: the tenant \"{}\" does not have exactly one",
                tenant.name
            ),
            "add company = \"…\" to the source, or list one company in `companies` of the tenant",
        ),
        _ => {}
    }
}

/// Reports modules with event patterns: the platform accepts whole names only, so patterns cannot be subscribed to
/// automatically.
fn check_patterns(document: &Document<'_>, source: &Located<Source>, parts: &Parts, tenant: &Tenant) {
    if source.part.event_socket().is_some_and(|socket| socket.subscriptions.is_some()) {
        return;
    }
    for module in parts.modules.iter().map(|module| &module.part) {
        if let Some(pattern) = source.part.unique_prefix_pattern(tenant, module) {
            let message = format!(
                "an event socket needs whole event names, but the module \"{}\" has the pattern \"{pattern}\"",
                module.name
            );
            document.report(source.name.clone(), message, "add subscriptions = [\"…\"] with the names of all events");
        }
    }
}

/// Reports two event sockets for one company: every event would arrive twice, each time from another source.
fn check_unique_companies(document: &Document<'_>, parts: &Parts) {
    let tenants = || parts.tenants.iter().map(|tenant| &tenant.part);
    let mut seen: Vec<(&Located<Source>, &EventSocket, &Tenant)> = Vec::new();
    for (source, socket) in sockets(&parts.sources) {
        let Some(tenant) = source.part.sole_tenant(tenants()) else { continue };
        let is_same = |(_, other, of): &&(&Located<Source>, &EventSocket, &Tenant)| {
            of.name == tenant.name && is_same_company(other, socket, tenant)
        };
        if let Some((first, ..)) = seen.iter().find(is_same) {
            document.report(
                source.name.clone(),
                format!("the source \"{}\" already receives the events of this company", first.part.name),
                "every event would be answered twice: merge both into one source with the subscriptions of both",
            );
        }
        seen.push((source, socket, tenant));
    }
}

/// Whether two event sockets of a tenant are for the same company, as far as the file says.
fn is_same_company(one: &EventSocket, other: &EventSocket, tenant: &Tenant) -> bool {
    match (&one.company, &other.company) {
        (None, None) => true,
        (Some(one), Some(other)) => one == other,
        (Some(named), None) | (None, Some(named)) => named.literal() == tenant.companies.first().map(String::as_str),
    }
}

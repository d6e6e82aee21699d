//! Event sockets: whose they are, and what comes over them.

use crate::document::Document;
use crate::file::{Located, Parts};
use crate::settings::Settings;
use crate::source::{EventSocket, Source};
use crate::{ConfigError, Reference, Tenant};

/// Reports event sockets that don't fit to the tenants and modules there are.
pub(super) fn check(document: &Document<'_>, parts: &Parts) {
    let tenants = || parts.tenants.iter().map(|tenant| &tenant.part);
    for (source, socket) in sockets(&parts.sources) {
        match source.part.sole_tenant(tenants()) {
            Some(tenant) if tenant.platform.unique().is_none() => document.report(
                source.name.clone(),
                format!(
                    "the platform of the tenant \"{}\" has no event socket: it is not of the kind \"unique\"",
                    tenant.name
                ),
                "name another tenant, or let its events come by a webhook",
            ),
            Some(tenant) => {
                one_company(document, source, socket, tenant);
                whole_names(document, source, parts, tenant);
            }
            // One that isn't there was reported.
            None if source.part.tenant.is_none() && parts.tenants.len() > 1 => document.report(
                source.name.clone(),
                "whose event socket is this? There is more than one tenant",
                "add tenant = \"…\" to the source: it is connected to with the key of that tenant's platform",
            ),
            None => {}
        }
    }
    one_socket_a_company(document, parts);
}

/// What is worth telling about event sockets.
pub(super) fn warnings(settings: &Settings) -> Vec<ConfigError> {
    let mut warnings = Vec::new();
    for source in &settings.sources {
        let Some(tenant) = source.event_socket().and_then(|_| source.sole_tenant(&settings.tenants)) else { continue };
        let at = Some(source.place.clone());
        if source.subscriptions(tenant, &settings.modules).is_empty() {
            let message = format!("the source \"{}\" has nothing to subscribe to, and isn't connected", source.name);
            let advice = format!("no module of the tenant \"{}\" wants an event of Unique's", tenant.name);
            warnings.push(ConfigError::new(message).at(at.clone()).advice(advice));
        }
        let brings_the_same =
            |other: &&Source| other.webhook().is_some() && other.tenant.as_ref().is_none_or(|it| *it == tenant.name);
        if let Some(other) = settings.sources.iter().find(brings_the_same) {
            let message = format!("the sources \"{}\" and \"{}\" may bring the same events", other.name, source.name);
            let advice = "an event that comes by both is answered twice: use one of them for each tenant";
            warnings.push(ConfigError::new(message).at(at).advice(advice));
        }
    }
    warnings
}

fn sockets(sources: &[Located<Source>]) -> impl Iterator<Item = (&Located<Source>, &EventSocket)> {
    sources.iter().filter_map(|source| Some((source, source.part.event_socket()?)))
}

/// The platform is asked for the events of one company.
fn one_company(document: &Document<'_>, source: &Located<Source>, socket: &EventSocket, tenant: &Tenant) {
    let written = socket.company.as_ref().and_then(Reference::literal);
    match (written, tenant.companies.as_slice()) {
        (Some(company), [_, ..]) if !tenant.companies.iter().any(|own| own == company) => document.report(
            source.path.clone(),
            format!("the company \"{company}\" is none of the tenant \"{}\"", tenant.name),
            format!("its companies are: {}", tenant.companies.join(", ")),
        ),
        (None, [] | [_, _, ..]) if socket.company.is_none() => document.report(
            source.name.clone(),
            format!("which company's events does this source fetch? The tenant \"{}\" doesn't say", tenant.name),
            "add company = \"…\" to the source, or companies = [\"…\"] with one company to the tenant",
        ),
        _ => {}
    }
}

/// What modules want by a pattern can't be subscribed to by itself.
fn whole_names(document: &Document<'_>, source: &Located<Source>, parts: &Parts, tenant: &Tenant) {
    if source.part.event_socket().is_some_and(|socket| socket.subscriptions.is_some()) {
        return;
    }
    for module in parts.modules.iter().map(|module| &module.part) {
        if let Some(pattern) = source.part.wanted_pattern(tenant, module) {
            let message = "an event socket brings events by their whole names, and the module";
            document.report(
                source.name.clone(),
                format!("{message} \"{}\" wants \"{pattern}\"", module.name),
                "add subscriptions = [\"…\"] with every name that is to come",
            );
        }
    }
}

/// Two sockets for one company would bring every event twice, each time as another source's.
fn one_socket_a_company(document: &Document<'_>, parts: &Parts) {
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
                format!("the source \"{}\" fetches the events of this company already", first.part.name),
                "every event would be answered twice: make one source of the two, with the subscriptions of both",
            );
        }
        seen.push((source, socket, tenant));
    }
}

/// Whether two sockets of a tenant are for the same company, as far as the file tells.
fn is_same_company(one: &EventSocket, other: &EventSocket, tenant: &Tenant) -> bool {
    match (&one.company, &other.company) {
        (None, None) => true,
        (Some(one), Some(other)) => one == other,
        (Some(named), None) | (None, Some(named)) => named.literal() == tenant.companies.first().map(String::as_str),
    }
}

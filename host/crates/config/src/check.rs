//! Holds the parts of the settings against each other.

mod event_socket;

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use super::document::Document;
use super::file::{Located, Parts};
use super::settings::{Module, Settings, Tenant};
use super::source::{Scheme, SignedPart, Source, Webhook};
use super::{ConfigError, SourceLocation, suggest};
use modhost_core::event::Name;
use modhost_core::files::{self, NotRegular};

/// How long it may take to find out what kind of files the components are.
const COMPONENTS_LOOKED_AT_WITHIN: Duration = Duration::from_secs(2);

/// Reports everything that doesn't fit together. What couldn't be read was reported before; it stands here as an
/// empty name, and is passed over.
pub(super) fn check(document: &Document<'_>, parts: &Parts) {
    unique(document, "[[source]]", parts.sources.iter().map(|it| (it.part.name.as_str(), &it.name, &it.part.place)));
    unique(document, "[[tenant]]", parts.tenants.iter().map(|it| (it.part.name.as_str(), &it.name, &it.part.place)));
    unique(document, "[[module]]", parts.modules.iter().map(|it| (it.part.name.as_str(), &it.name, &it.part.place)));
    one_source_a_path(document, &parts.sources);
    one_tenant_a_company(document, &parts.tenants);
    known_tenants(document, parts);
    known_sources(document, parts);
    some_tenant(document, parts);
    check_distinct(document, parts);
    unverified(document, parts);
    event_socket::check(document, parts);
}

/// No two of a kind have the same name.
fn unique<'p>(
    document: &Document<'_>,
    title: &str,
    parts: impl Iterator<Item = (&'p str, &'p Range<usize>, &'p SourceLocation)>,
) {
    let mut seen: HashMap<&str, &SourceLocation> = HashMap::new();
    for (name, span, place) in parts.filter(|(name, ..)| !name.is_empty()) {
        if let Some(first) = seen.get(name) {
            let message = format!("there is a {title} named \"{name}\" already, at line {}", first.line);
            document.report(span.clone(), message, "give one of them another name");
        } else {
            seen.insert(name, place);
        }
    }
}

fn one_source_a_path(document: &Document<'_>, sources: &[Located<Source>]) {
    let mut seen: HashMap<&str, &Name> = HashMap::new();
    for (source, webhook) in webhooks(sources).filter(|(_, webhook)| !webhook.path.is_empty()) {
        if let Some(first) = seen.get(webhook.path.as_str()) {
            let message = format!("the source \"{first}\" listens on \"{}\" already", webhook.path);
            document.report(source.path.clone(), message, "give each source a path of its own");
        } else {
            seen.insert(&webhook.path, &source.part.name);
        }
    }
}

fn webhooks(sources: &[Located<Source>]) -> impl Iterator<Item = (&Located<Source>, &Webhook)> {
    sources.iter().filter_map(|source| Some((source, source.part.webhook()?)))
}

fn one_tenant_a_company(document: &Document<'_>, tenants: &[Located<Tenant>]) {
    let mut seen: HashMap<&str, &Name> = HashMap::new();
    for tenant in tenants {
        for (company, span) in
            tenant.part.companies.iter().zip(&tenant.companies).filter(|(company, _)| !company.is_empty())
        {
            let first = *seen.entry(company).or_insert(&tenant.part.name);
            if *first != tenant.part.name {
                let message = format!("the company \"{company}\" belongs to the tenant \"{first}\" already");
                document.report(span.clone(), message, "list each company with one tenant only");
            }
        }
    }
}

fn known_tenants(document: &Document<'_>, parts: &Parts) {
    let names: Vec<&str> = parts.tenants.iter().map(|tenant| tenant.part.name.as_str()).collect();
    if names.is_empty() || names.contains(&"") {
        // Reported already, and any name may be the missing one.
        return;
    }
    let of_sources = parts.sources.iter().flat_map(|source| source.part.tenant.iter().zip(&source.tenants));
    let of_modules = parts.modules.iter().flat_map(|module| module.part.wants.tenants.iter().zip(&module.tenants));
    for (name, span) in of_sources.chain(of_modules).filter(|(name, _)| !name.as_str().is_empty()) {
        if !names.contains(&name.as_str()) {
            let message = format!("there is no [[tenant]] named \"{name}\"");
            document.report(span.clone(), message, suggest::advice(name.as_str(), &names));
        }
    }
}

fn known_sources(document: &Document<'_>, parts: &Parts) {
    let names: Vec<&str> = parts.sources.iter().map(|source| source.part.name.as_str()).collect();
    if names.contains(&"") {
        // Reported already, and any name may be the missing one.
        return;
    }
    let of_modules = parts.modules.iter().flat_map(|module| module.part.wants.sources.iter().zip(&module.sources));
    for (name, span) in of_modules.filter(|(name, _)| !name.as_str().is_empty()) {
        if !names.contains(&name.as_str()) {
            let message = format!("there is no [[source]] named \"{name}\"");
            let advice = if names.is_empty() { "add one".into() } else { suggest::advice(name.as_str(), &names) };
            document.report(span.clone(), message, advice);
        }
    }
}

fn some_tenant(document: &Document<'_>, parts: &Parts) {
    if parts.tenants.is_empty() {
        document.report_whole(
            "there is no [[tenant]]: nobody to work for, and no platform to answer on",
            "add one, with name = \"default\" and its platform",
        );
    }
}

/// A source without a tenant leaves it to the event's company; that fails when two tenants take any company.
fn check_distinct(document: &Document<'_>, parts: &Parts) {
    let any_company: Vec<&str> =
        parts.tenants.iter().filter(|it| it.companies.is_empty()).map(|it| it.part.name.as_str()).collect();
    if any_company.len() < 2 {
        return;
    }
    for (source, _) in webhooks(&parts.sources).filter(|(source, _)| source.part.tenant.is_none()) {
        document.report(
            source.name.clone(),
            format!("whose events does this source bring? The tenants {} all take any company", any_company.join(", ")),
            "add tenant = \"…\" to the source, or companies = [\"…\"] to all of these tenants but one",
        );
    }
}

/// A source that verifies nothing is for this machine only, unless it says otherwise.
fn unverified(document: &Document<'_>, parts: &Parts) {
    for (source, webhook) in webhooks(&parts.sources) {
        if webhook.scheme == (Scheme::None { from_anywhere: false }) && !parts.server.listen.ip().is_loopback() {
            document.report(
                source.name.clone(),
                "this source verifies nothing, and other machines can reach it: anybody could send events",
                "listen on 127.0.0.1, name a scheme, or add from_anywhere = true if the network sees to it",
            );
        }
    }
}

/// A company that is read from where nobody signs.
fn company_in_a_header(source: &Source) -> Option<ConfigError> {
    let webhook = source.webhook()?;
    let company = webhook.event.company.as_ref()?.as_ref()?;
    let mut headers = Vec::new();
    company.headers(&mut headers);
    headers.retain(|header| match &webhook.scheme {
        Scheme::Hmac(rules) => !rules.signed.contains(&SignedPart::Header(header.clone())),
        // It has been said already that nothing is signed.
        Scheme::None { .. } | Scheme::Nexus { .. } => false,
        _ => true,
    });
    let header = headers.first()?;
    let warning = ConfigError::new(format!(
        "the source \"{}\" reads the company from the header {header}, which is not signed",
        source.name
    ));
    Some(warning.at(Some(source.place.clone())).advice(
        "whoever gets hold of a signed request can send it again for another company: name a part of the body if you can",
    ))
}

/// Components that are there and no regular files. One that isn't there may come; a folder never becomes a component.
fn components(settings: &Settings) -> Vec<ConfigError> {
    let paths: Vec<_> = settings.modules.iter().map(|module| module.component.clone()).collect();
    // A file system that doesn't answer keeps nobody from the other modules.
    let kinds = files::within(COMPONENTS_LOOKED_AT_WITHIN, move || {
        paths.iter().map(|path| NotRegular::at(path)).collect::<Vec<_>>()
    });
    let modules = settings.modules.iter().zip(kinds.unwrap_or_default());
    modules.filter_map(|(module, kind)| Some(no_component(module, kind?))).collect()
}

/// That what stands in the place of a module's component can never be one.
pub(super) fn no_component(module: &Module, kind: NotRegular) -> ConfigError {
    let message = format!("the component {} {}", module.component.display(), kind.described());
    let error = ConfigError::new(message).at(Some(module.component_place.clone()));
    error.advice("name a .wasm file; it need not exist yet")
}

/// What is worth telling, though the host can work with it.
pub(super) fn warnings(settings: &Settings) -> Vec<ConfigError> {
    let mut warnings = Vec::new();
    let file = settings.file.display();
    if settings.modules.is_empty() {
        let warning =
            ConfigError::new(format!("{file} has no [[module]]: events are taken in, and nobody answers them"));
        warnings.push(warning.advice("add one, with a name and a component"));
    }
    if settings.sources.is_empty() {
        let warning = ConfigError::new(format!("{file} has no [[source]]: no events come in"));
        warnings.push(warning.advice("add one, with name, path, scheme and secrets"));
        warnings.extend(components(settings));
        return warnings;
    }
    for source in &settings.sources {
        if let Some(Webhook { scheme: Scheme::None { from_anywhere }, .. }) = source.webhook() {
            let who = if *from_anywhere { "whoever reaches the host" } else { "every program on this machine" };
            let warning =
                ConfigError::new(format!("the source \"{}\" verifies nothing: {who} can send events", source.name));
            warnings.push(warning.at(Some(source.place.clone())).advice("name the scheme its platform signs with"));
        }
    }
    warnings.extend(settings.sources.iter().filter_map(company_in_a_header));
    warnings.extend(event_socket::warnings(settings));
    warnings.extend(components(settings));
    // A source without a tenant brings events of them all.
    let is_served =
        |tenant: &Name| settings.sources.iter().any(|it| it.tenant.as_ref().is_none_or(|name| name == tenant));
    for tenant in settings.tenants.iter().filter(|tenant| !is_served(&tenant.name)) {
        let warning = ConfigError::new(format!("no source brings events of the tenant \"{}\"", tenant.name));
        warnings.push(warning.at(Some(tenant.place.clone())).advice("add a [[source]] with this tenant"));
    }
    for module in
        settings.modules.iter().filter(|it| !it.wants.tenants.is_empty() && !it.wants.tenants.iter().any(is_served))
    {
        let warning = ConfigError::new(format!("nobody delivers to the module \"{}\"", module.name));
        let advice = "none of its tenants has a [[source]]: add one, or change its `tenants`";
        warnings.push(warning.at(Some(module.place.clone())).advice(advice));
    }
    warnings
}

//! Sources of events: webhook paths with their signature schemes, and event sockets. A source verifies a request and
//! reads an [`Event`] from it. The sink decides how the event is processed.

pub mod envelope;
pub mod event_socket;
mod http;
pub mod schemes;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use bytes::Bytes;

use envelope::{Envelope, NotAnEvent, ParsedRequest, json_of};
pub use http::router;
use modhost_core::event::{Event, Name};
use modhost_core::metrics::{self, EventOutcome};
use modhost_core::rate::RateLimiter;
use modhost_storage::unreadable::Unreadable;
use schemes::{Key, Request, Scheme, SignatureError};

/// The webhooks of this host by path. They can be replaced while requests are served.
#[derive(Default)]
pub struct Sources {
    by_path: ArcSwap<HashMap<String, Arc<RouteEntry>>>,
    /// Sources whose secrets have just changed.
    unconfirmed: ArcSwap<HashSet<Name>>,
    max_body: ArcSwap<u64>,
}

/// A source with its rate limit.
struct RouteEntry {
    source: Source,
    rate: Option<Arc<RateLimiter>>,
}

/// A configured webhook.
pub struct Source {
    /// The path.
    pub path: String,
    /// Verifies signatures.
    pub scheme: Box<dyn Scheme>,
    /// The keys that signatures are verified with.
    pub keys: Vec<Key>,
    /// Reads events from verified requests.
    pub reader: Reader,
    /// Maximum number of events per second; `None`: no limit.
    pub events_per_second: Option<u32>,
}

/// Reads the events of a source, whether they arrive by webhook or over an event socket.
#[derive(Clone, Debug, PartialEq)]
pub struct Reader {
    /// The source's name.
    pub name: Name,
    /// Where the parts of an event are: headers and fields of the body.
    pub envelope: Envelope,
    /// Resolves the tenant of an event.
    pub owners: TenantResolver,
}

/// Resolves the tenant of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantResolver {
    /// All events are one tenant's; if it has companies, only theirs.
    One {
        /// The tenant.
        tenant: Name,
        /// The tenant's companies, by the platform's ids; empty: every company that is not another tenant's.
        companies: Vec<String>,
        /// The tenant of each company, also of other tenants.
        owners: Arc<HashMap<String, Name>>,
        /// The tenants in included files whose events the source delivers too, by their companies.
        also: Arc<HashMap<String, Name>>,
    },
    /// The event's company decides.
    ByCompany {
        /// The tenant of each company.
        tenants: Arc<HashMap<String, Name>>,
        /// The tenant of all other companies; `None`: their events are rejected.
        others: Option<Name>,
    },
}

/// The content of a verified request.
pub enum Received {
    /// An event.
    Event(Box<Event>),
    /// A challenge to the endpoint itself, with its answer.
    Challenge(Response),
}

/// Why no event was read from a request.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// The signature is missing, invalid or outdated.
    #[error("{0}")]
    SignatureError(#[from] SignatureError),
    /// The signature is valid, but the body is not an event.
    #[error("this is not an event: {0}")]
    NotAnEvent(#[from] NotAnEvent),
    /// The event belongs to a company that no tenant of this host has. The request is valid: a platform whose app is
    /// installed in many companies signs for all of them with one key.
    #[error("no tenant has the company {}", .0.as_ref().map_or("it doesn't name".into(), |company| format!("`{company}`")))]
    UnclaimedCompany(Option<String>),
    /// The event belongs to a company of another tenant.
    #[error("this source may not send events of company `{0}`")]
    ForeignCompany(String),
}

impl Rejection {
    /// Returns the status to answer with, by the rules of the scheme's platform.
    pub fn status(&self, scheme: &dyn Scheme) -> StatusCode {
        match self {
            Self::SignatureError(signature_error) => scheme.rejection_status(signature_error),
            Self::ForeignCompany(_) => StatusCode::FORBIDDEN,
            Self::UnclaimedCompany(_) => scheme.unclaimed_status(),
            Self::NotAnEvent(why) => scheme.unreadable_status(why),
        }
    }
}

impl Sources {
    /// Returns the name and path of each source.
    pub fn paths(&self) -> Vec<(Name, String)> {
        let by_path = self.by_path.load();
        let mut paths: Vec<_> =
            by_path.values().map(|route| (route.source.reader.name.clone(), route.source.path.clone())).collect();
        paths.sort();
        paths
    }

    /// Replaces the sources; `max_body` is the maximum size of a body in bytes.
    pub fn set(&self, sources: impl IntoIterator<Item = Source>, max_body: u64) {
        let before = self.by_path.load();
        let routes = sources.into_iter().map(|source| {
            // An unchanged rate limit keeps its count across reloads.
            let known = before.get(&source.path).and_then(|route| route.rate.clone());
            let rate = source.events_per_second.map(|per_second| match known {
                Some(rate) if rate.per_second() == f64::from(per_second) => rate,
                _ => Arc::new(RateLimiter::new(per_second)),
            });
            (source.path.clone(), Arc::new(RouteEntry { source, rate }))
        });
        let by_path: HashMap<_, _> = routes.collect();
        self.by_path.store(Arc::new(by_path));
        self.max_body.store(Arc::new(max_body));
    }
}

impl Sources {
    /// Sets the sources whose secrets have just changed and may be half written: an invalid signature there gets a
    /// status that makes the platform retry.
    pub fn set_unconfirmed(&self, sources: HashSet<Name>) {
        self.unconfirmed.store(Arc::new(sources));
    }

    /// Returns the status for a rejected request.
    fn status(&self, rejection: &Rejection, source: &Source) -> StatusCode {
        let is_unsigned = matches!(rejection, Rejection::SignatureError(SignatureError::WrongSignature));
        if is_unsigned && self.unconfirmed.load().contains(&source.reader.name) {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        rejection.status(&*source.scheme)
    }
}

impl Source {
    /// Verifies a request and reads its event.
    ///
    /// # Errors
    ///
    /// If the signature is invalid, the body is not an event, or the event is another tenant's.
    pub fn receive(&self, request: &Request<'_>, body: &Bytes) -> Result<Received, Rejection> {
        self.scheme.verify(request, &self.keys)?;
        if let Some(answer) = self.scheme.challenge(request) {
            return Ok(Received::Challenge(answer));
        }
        Ok(Received::Event(self.reader.read(request.headers, body)?.into()))
    }
}

impl Reader {
    /// Reads an event from a body and its headers, without verifying them.
    ///
    /// # Errors
    ///
    /// If the body is not an event, or the event is another tenant's.
    pub fn read(&self, headers: &HeaderMap, body: &Bytes) -> Result<Event, Rejection> {
        let json = json_of(&self.envelope, body)?;
        let parsed = ParsedRequest::new(headers, body, &json)?;
        let company_id = parsed.company(&self.envelope)?;
        if let (None, Some(place), true) = (&company_id, &self.envelope.company, self.needs_company()) {
            return Err(NotAnEvent::Missing { what: "company", place: place.clone() }.into());
        }
        let names_one = self.envelope.company.is_some();
        let tenant = self.owners.tenant_of(names_one.then_some(company_id.as_deref()))?;
        Ok(parsed.event(&self.envelope, &self.name, tenant, company_id)?)
    }

    /// Counts a request that makes no delivery. For a source of several tenants the tenant label is empty.
    fn count(&self, outcome: EventOutcome) {
        let tenant = match &self.owners {
            TenantResolver::One { tenant, .. } => tenant.as_str(),
            TenantResolver::ByCompany { .. } => "",
        };
        metrics::event(&self.name, &Name::from(tenant), outcome);
    }

    /// Returns the record of an unreadable request for operators.
    pub fn unreadable(&self, headers: &HeaderMap, body: &Bytes, why: &NotAnEvent, status: Option<u16>) -> Unreadable {
        Unreadable {
            source: self.name.clone(),
            tenant: match &self.owners {
                TenantResolver::One { tenant, .. } => Some(tenant.clone()),
                TenantResolver::ByCompany { .. } => None,
            },
            reason: why.to_string(),
            status,
            headers: self.envelope.headers_of(headers),
            body: body.clone(),
        }
    }

    /// Returns whether an event without a company cannot be assigned, although the platform always sends one.
    fn needs_company(&self) -> bool {
        let tells_tenant = match &self.owners {
            TenantResolver::One { companies, .. } => !companies.is_empty(),
            TenantResolver::ByCompany { .. } => true,
        };
        self.envelope.always_names_company && tells_tenant
    }
}

impl TenantResolver {
    /// Returns the tenant of an event. `company` is the company it names; `None` if the source's events never name one.
    fn tenant_of(&self, company: Option<Option<&str>>) -> Result<Name, Rejection> {
        let named = company.flatten();
        let unclaimed = || Rejection::UnclaimedCompany(named.map(str::to_owned));
        match self {
            Self::One { tenant, companies, owners, also } => match (company, named) {
                (None, _) => Ok(tenant.clone()),
                (_, Some(company)) if owners.get(company).is_some_and(|owner| owner != tenant) => {
                    let foreign = || Rejection::ForeignCompany(company.to_owned());
                    also.get(company).cloned().ok_or_else(foreign)
                }
                (_, _) if companies.is_empty() => Ok(tenant.clone()),
                (_, Some(named)) if companies.iter().any(|own| own == named) => Ok(tenant.clone()),
                _ => Err(unclaimed()),
            },
            Self::ByCompany { tenants, others } => {
                let tenant = named.and_then(|company| tenants.get(company).or(others.as_ref()));
                tenant.cloned().ok_or_else(unclaimed)
            }
        }
    }
}

//! The ways in: webhook paths, each with its signature scheme, and event sockets. A source verifies what comes and makes
//! an [`Event`] of it; what happens to the event is not its business.

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

use envelope::{Envelope, NotAnEvent, Opened, json_of};
pub use http::router;
use modhost_core::event::{Event, Name};
use modhost_core::metrics::{self, EventOutcome};
use modhost_core::rate::Rate;
use modhost_storage::unreadable::Unreadable;
use schemes::{Key, Request, Scheme, SignatureError};

/// The webhooks of this host, by path.
///
/// They can be replaced while requests are served.
#[derive(Default)]
pub struct Sources {
    by_path: ArcSwap<HashMap<String, Arc<RouteEntry>>>,
    /// Those whose secrets have just changed.
    unsettled: ArcSwap<HashSet<Name>>,
    max_body: ArcSwap<u64>,
}

/// A source, and how fast its events may come.
struct RouteEntry {
    source: Source,
    rate: Option<Arc<Rate>>,
}

/// A configured webhook.
pub struct Source {
    /// The path.
    pub path: String,
    /// How real events are told from forged ones.
    pub scheme: Box<dyn Scheme>,
    /// With which keys.
    pub keys: Vec<Key>,
    /// Makes events of what was verified.
    pub reader: Reader,
    /// How many of its events are taken a second; none: as many as come.
    pub events_per_second: Option<u32>,
}

/// Makes events of what a source brings, however it brings it.
#[derive(Clone, Debug, PartialEq)]
pub struct Reader {
    /// The source's name.
    pub name: Name,
    /// Where the parts of an event stand.
    pub envelope: Envelope,
    /// Whose events the source brings.
    pub owners: TenantResolver,
}

/// Whose events a source brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TenantResolver {
    /// One tenant's; if companies are named, theirs and no other's.
    One {
        /// The tenant.
        tenant: Name,
        /// Its companies, in the platform's ids; empty: whichever the source brings, but for those of others.
        companies: Vec<String>,
        /// The companies of other tenants.
        of_others: HashSet<String>,
    },
    /// Several tenants', told apart by the event's company.
    ByCompany {
        /// Whose each company is.
        tenants: HashMap<String, Name>,
        /// Whose all other companies are; none: nobody's.
        others: Option<Name>,
    },
}

/// What a verified request brought.
pub enum Received {
    /// An event.
    Event(Box<Event>),
    /// A question for the endpoint itself, which this answers.
    Challenge(Response),
}

/// Why a request brought no event.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// It is not from whom it should be.
    #[error("{0}")]
    SignatureError(#[from] SignatureError),
    /// It is signed, but no event.
    #[error("this is not an event: {0}")]
    NotAnEvent(#[from] NotAnEvent),
    /// It is of a company that no tenant of this host has. Nothing is wrong with the request: a platform whose app is
    /// installed in many companies signs for all of them alike.
    #[error("no tenant has the company {}", .0.as_ref().map_or("it doesn't name".into(), |company| format!("`{company}`")))]
    UnclaimedCompany(Option<String>),
    /// It names a company of another tenant.
    #[error("this source may not bring events of company `{0}`")]
    ForeignCompany(String),
}

impl Rejection {
    /// The status it is answered with, as the platform of this scheme reads it.
    pub fn status(&self, scheme: &dyn Scheme) -> StatusCode {
        match self {
            Self::SignatureError(signature_error) => scheme.refusal(signature_error),
            Self::ForeignCompany(_) => StatusCode::FORBIDDEN,
            Self::UnclaimedCompany(_) => scheme.unclaimed(),
            Self::NotAnEvent(why) => scheme.unreadable(why),
        }
    }
}

impl Sources {
    /// The name and the path of each.
    pub fn paths(&self) -> Vec<(Name, String)> {
        let by_path = self.by_path.load();
        let mut paths: Vec<_> =
            by_path.values().map(|way| (way.source.reader.name.clone(), way.source.path.clone())).collect();
        paths.sort();
        paths
    }

    /// Takes events from these sources from now on; `max_body` is the largest body in bytes.
    pub fn set(&self, sources: impl IntoIterator<Item = Source>, max_body: u64) {
        let before = self.by_path.load();
        let ways = sources.into_iter().map(|source| {
            // A rate that stays goes on counting: a reload is no new start.
            let known = before.get(&source.path).and_then(|way| way.rate.clone());
            let rate = source.events_per_second.map(|per_second| match known {
                Some(rate) if rate.per_second() == f64::from(per_second) => rate,
                _ => Arc::new(Rate::new(per_second)),
            });
            (source.path.clone(), Arc::new(RouteEntry { source, rate }))
        });
        let by_path: HashMap<_, _> = ways.collect();
        self.by_path.store(Arc::new(by_path));
        self.max_body.store(Arc::new(max_body));
    }
}

impl Sources {
    /// Says of which sources nobody knows yet if their secrets are whole, as they have just changed: what none of them signed
    /// may be brought again.
    pub fn set_unsettled(&self, sources: HashSet<Name>) {
        self.unsettled.store(Arc::new(sources));
    }

    /// The status that answers what a source refuses.
    fn status(&self, rejection: &Rejection, source: &Source) -> StatusCode {
        let is_unsigned = matches!(rejection, Rejection::SignatureError(SignatureError::WrongSignature));
        if is_unsigned && self.unsettled.load().contains(&source.reader.name) {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        rejection.status(&*source.scheme)
    }
}

impl Source {
    /// Verifies a request and makes an event of it.
    ///
    /// # Errors
    ///
    /// When it is forged, no event, or another tenant's.
    pub fn receive(&self, request: &Request<'_>, body: &Bytes) -> Result<Received, Rejection> {
        self.scheme.verify(request, &self.keys)?;
        if let Some(answer) = self.scheme.challenge(request) {
            return Ok(Received::Challenge(answer));
        }
        Ok(Received::Event(self.reader.read(request.headers, body)?.into()))
    }
}

impl Reader {
    /// Makes an event of a body and the headers it came with, whoever it is from.
    ///
    /// # Errors
    ///
    /// When it is no event, or another tenant's.
    pub fn read(&self, headers: &HeaderMap, body: &Bytes) -> Result<Event, Rejection> {
        let json = json_of(&self.envelope, body)?;
        let opened = Opened::new(headers, body, &json)?;
        let company_id = opened.company(&self.envelope)?;
        if let (None, Some(place), true) = (&company_id, &self.envelope.company, self.needs_company()) {
            return Err(NotAnEvent::Missing { what: "company", place: place.clone() }.into());
        }
        let names_one = self.envelope.company.is_some();
        let tenant = self.owners.tenant_of(names_one.then_some(company_id.as_deref()))?;
        Ok(opened.event(&self.envelope, &self.name, tenant, company_id)?)
    }

    /// Counts what makes no delivery. Whose it is, a source of several tenants can't tell.
    fn count(&self, outcome: EventOutcome) {
        let tenant = match &self.owners {
            TenantResolver::One { tenant, .. } => tenant.as_str(),
            TenantResolver::ByCompany { .. } => "",
        };
        metrics::event(&self.name, &Name::from(tenant), outcome);
    }

    /// What of a request is kept for operators that can't be read.
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

    /// Whether nothing can be done with an event that names no company, though all of its platform's do.
    fn needs_company(&self) -> bool {
        let tells_tenant = match &self.owners {
            TenantResolver::One { companies, .. } => !companies.is_empty(),
            TenantResolver::ByCompany { .. } => true,
        };
        self.envelope.always_names_company && tells_tenant
    }
}

impl TenantResolver {
    /// Whose an event is; `company` is what it names, and none if events of its source never name one.
    fn tenant_of(&self, company: Option<Option<&str>>) -> Result<Name, Rejection> {
        let named = company.flatten();
        let unclaimed = || Rejection::UnclaimedCompany(named.map(str::to_owned));
        match self {
            Self::One { tenant, companies, of_others } => match (company, named) {
                (None, _) => Ok(tenant.clone()),
                (_, Some(foreign)) if of_others.contains(foreign) => Err(Rejection::ForeignCompany(foreign.to_owned())),
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

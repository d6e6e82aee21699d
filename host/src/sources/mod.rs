//! The ways in: webhook paths, each with its signature scheme. A source verifies what comes and makes an [`Event`] of
//! it; what happens to the event is not its business.

mod envelope;
mod http;
pub mod schemes;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use axum::http::HeaderMap;
use bytes::Bytes;

use crate::event::{Event, Name};
pub use http::router;
use schemes::{Forgery, unique::Unique};

/// The sources of this host, by path.
///
/// They can be replaced while requests are served.
#[derive(Default)]
pub struct Sources {
    by_path: ArcSwap<HashMap<String, Arc<Source>>>,
    max_body: ArcSwap<u64>,
}

/// One configured way in.
pub struct Source {
    /// Its name.
    pub name: Name,
    /// The path of its webhook.
    pub path: String,
    /// How real events are told from forged ones.
    pub scheme: Unique,
    /// Whose events it brings.
    pub owners: Owners,
}

/// Whose events a source brings.
pub enum Owners {
    /// One tenant's; if companies are named, theirs and no other's.
    One {
        /// The tenant.
        tenant: Name,
        /// Its companies, in the platform's ids; empty: whichever the source brings.
        companies: Vec<String>,
    },
    /// Several tenants', told apart by the event's company.
    ByCompany(HashMap<String, Name>),
}

/// What an event is handed to once it is verified.
pub trait Sink: Send + Sync + 'static {
    /// Takes the event: when this returns well, it is safe. Or says when to bring it again.
    fn take(&self, event: Event) -> impl Future<Output = Result<(), ComeBack>> + Send;
}

/// The host can't take an event now; it should be brought again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ComeBack {
    /// After this time.
    pub after: Duration,
    /// Whether it is the sender who is too fast, and not the host that has too much to do.
    pub too_fast: bool,
}

/// Why a request brought no event.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// It is not from whom it should be.
    #[error("{0}")]
    Forgery(#[from] Forgery),
    /// It is signed, but no event.
    #[error("the body is not an event: {0}")]
    NotAnEvent(#[from] serde_json::Error),
    /// It names a company this source may not speak for.
    #[error("this source may not bring events of company `{0}`")]
    ForeignCompany(String),
}

impl Sources {
    /// Takes events from these sources from now on; `max_body` is the largest body in bytes.
    pub fn set(&self, sources: impl IntoIterator<Item = Source>, max_body: u64) {
        let by_path = sources.into_iter().map(|source| (source.path.clone(), Arc::new(source)));
        self.by_path.store(Arc::new(by_path.collect()));
        self.max_body.store(Arc::new(max_body));
    }
}

impl Source {
    /// Verifies a request and makes an event of it.
    ///
    /// # Errors
    ///
    /// When it is forged, no event, or another tenant's.
    pub fn receive(&self, headers: &HeaderMap, body: &Bytes, now: SystemTime) -> Result<Event, Rejection> {
        self.scheme.verify(headers, body, now)?;
        let envelope = envelope::open(body)?;
        let tenant = self.owners.tenant_of(envelope.company_id.as_deref())?;
        Ok(envelope.into_event(self.name.clone(), tenant, body))
    }
}

impl Owners {
    fn tenant_of(&self, company: Option<&str>) -> Result<Name, Rejection> {
        let foreign = || Rejection::ForeignCompany(company.unwrap_or_default().to_owned());
        match self {
            Self::One { tenant, companies } => {
                let owned = companies.is_empty() || companies.iter().any(|own| Some(own.as_str()) == company);
                if owned { Ok(tenant.clone()) } else { Err(foreign()) }
            }
            Self::ByCompany(tenants) => company.and_then(|company| tenants.get(company)).cloned().ok_or_else(foreign),
        }
    }
}

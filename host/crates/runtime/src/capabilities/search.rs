//! `search`: the knowledge base, with the permissions of the event's user.

use std::sync::Arc;

use wasmtime::component::{HasData, Linker};

use super::bindings::modhost::module::search::{Hit, Host as Imports, Kind, Query, add_to_linker};
use super::types::{Error, object};
use super::{CallSpec, Capability, Delivery, Grants, Host};
use crate::call_log::CallEffect;
use modhost_core::import::Import;
use modhost_platform as platform;
use modhost_platform::{Platform, SearchKind};

/// Maximum number of hits a search may request: the platform's own limit.
const MAX_HITS: u32 = 1000;

/// The call that searches.
const SEARCH: CallSpec = CallSpec::new(Import::SearchSearch, CallEffect::Read);

/// The capability.
pub(super) struct Search {
    delivery: Arc<Delivery>,
}

impl HasData for Search {
    type Data<'a> = &'a mut Search;
}

impl Capability for Search {
    const CALLS: &'static [CallSpec] = &[SEARCH];
    type Prepared = ();

    fn link<T: Host>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
        add_to_linker::<T, Self>(linker, |data| &mut data.capabilities().search)
    }

    fn prepare(_: &Grants) {}

    fn begin((): &(), delivery: &Arc<Delivery>) -> Self {
        Self { delivery: delivery.clone() }
    }
}

impl Imports for Search {
    async fn search(&mut self, query: Query) -> wasmtime::Result<Result<Vec<Hit>, Error>> {
        Ok(search(&self.delivery, query).await)
    }
}

async fn search(delivery: &Arc<Delivery>, query: Query) -> Result<Vec<Hit>, Error> {
    let query = platform::Query::try_from(query)?;
    let chat_id = delivery.event.chat_id().map(str::to_owned);
    let call = delivery.request(&SEARCH, &query)?;
    let make =
        |platform: Arc<dyn Platform>, caller| async move { platform.search(&caller, chat_id.as_deref(), &query).await };
    let hits: Vec<platform::Hit> = delivery.make(call, make, |_, _| {}).await?;
    Ok(hits.into_iter().map(Hit::from).collect())
}

impl TryFrom<Query> for platform::Query {
    type Error = Error;

    fn try_from(query: Query) -> Result<Self, Error> {
        if query.limit.is_some_and(|limit| !(1..=MAX_HITS).contains(&limit)) {
            return Err(Error::Invalid(format!("`limit` has to be from 1 to {MAX_HITS}")));
        }
        if query.page == Some(0) {
            return Err(Error::Invalid("`page` counts from 1".into()));
        }
        if query.score_threshold.is_some_and(|score| !score.is_finite()) {
            return Err(Error::Invalid("`score-threshold` has to be a number".into()));
        }
        Ok(Self {
            text: query.text,
            kind: match query.kind {
                Kind::Combined => SearchKind::Combined,
                Kind::Vector => SearchKind::Vector,
                Kind::FullText => SearchKind::FullText,
            },
            limit: query.limit,
            page: query.page,
            scope_ids: query.scope_ids,
            content_ids: query.content_ids,
            chat_only: query.chat_only,
            language: query.language,
            score_threshold: query.score_threshold,
            metadata_filter: object("metadata-filter", query.metadata_filter)?,
            reranker: query.reranker,
        })
    }
}

impl From<platform::Hit> for Hit {
    fn from(hit: platform::Hit) -> Self {
        Self {
            id: hit.id,
            chunk_id: hit.chunk_id,
            text: hit.text,
            title: hit.title,
            key: hit.key,
            url: hit.url,
            order: hit.order,
            start_page: hit.start_page,
            end_page: hit.end_page,
            metadata: hit.metadata.map(|metadata| metadata.to_string()),
        }
    }
}

impl TryFrom<Hit> for platform::Hit {
    type Error = Error;

    fn try_from(hit: Hit) -> Result<Self, Error> {
        Ok(Self {
            id: hit.id,
            chunk_id: hit.chunk_id,
            text: hit.text,
            title: hit.title,
            key: hit.key,
            url: hit.url,
            order: hit.order,
            start_page: hit.start_page,
            end_page: hit.end_page,
            metadata: object("metadata", hit.metadata)?,
        })
    }
}

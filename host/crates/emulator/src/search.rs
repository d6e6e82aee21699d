//! `POST /search/search` and `POST /search/search-string`.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::LocalState;
use super::documents::Document;
use super::error::{ApiError, Body};
use super::filter::Filter;
use super::library::Hit;
use super::stemmer::significant_words;
use super::wire::{Object, Role, Stamp};

/// The platform's default and maximum.
const DEFAULT_LIMIT: usize = 20;
const MAX_LIMIT: usize = 1000;

/// A search, as the official Python SDK sends it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SearchRequest {
    search_string: String,
    /// Parsed only to reject unknown types; every type uses the full-text index.
    #[serde(rename = "searchType")]
    _search_type: SearchType,
    chat_id: Option<String>,
    scope_ids: Option<Vec<String>>,
    chat_only: Option<bool>,
    limit: Option<usize>,
    page: Option<usize>,
    reranker: Option<Object>,
    #[serde(rename = "metaDataFilter")]
    metadata_filter: Option<Object>,
    content_ids: Option<Vec<String>>,
    score_threshold: Option<f64>,
    include_scores: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum SearchType {
    Vector,
    Combined,
    FullText,
    PostgresFullText,
}

/// A hit in the platform's form.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SearchHit {
    id: String,
    chunk_id: String,
    text: String,
    created_at: Stamp,
    updated_at: Stamp,
    url: String,
    title: String,
    key: String,
    order: u32,
    start_page: u32,
    end_page: u32,
    metadata: Value,
}

impl From<Hit> for SearchHit {
    fn from(Hit { document, passage, url }: Hit) -> Self {
        Self {
            metadata: document.metadata(),
            id: document.id.clone(),
            chunk_id: passage.id,
            text: passage.text,
            created_at: document.created_at,
            updated_at: document.updated_at,
            url: url.into(),
            title: document.title.clone(),
            key: document.key.clone(),
            order: passage.order,
            start_page: passage.start_page,
            end_page: passage.end_page,
        }
    }
}

/// `POST /search/search`: returns a plain array of hits, best first.
pub async fn search(
    State(state): State<Arc<LocalState>>,
    Body(request): Body<SearchRequest>,
) -> Result<Json<Vec<SearchHit>>, ApiError> {
    request.reject_unsupported()?;
    if let Some(chat_id) = &request.chat_id {
        state.chat(chat_id)?;
    }
    let limit = request.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::invalid(format!("limit is {limit}, but must be from 1 to {MAX_LIMIT}")));
    }
    let page = request
        .page
        .unwrap_or(1)
        .checked_sub(1)
        .ok_or_else(|| ApiError::invalid("page is 0, but pages are counted from 1"))?;
    if request.chat_only == Some(true) {
        // The local platform has no uploads to chats.
        return Ok(Json(Vec::new()));
    }
    let query = SearchQuery::new(&request)?;
    let hits = state.search(request.search_string, move |document| query.matches(document)).await?;
    Ok(Json(hits.into_iter().skip(page.saturating_mul(limit)).take(limit).map(SearchHit::from).collect()))
}

impl SearchRequest {
    fn reject_unsupported(&self) -> Result<(), ApiError> {
        if self.search_string.is_empty() {
            return Err(ApiError::invalid("searchString is empty: name what to search for"));
        }
        let ranks = "the local platform ranks with a full-text index, which has no scores from 0 to 1";
        if self.score_threshold.is_some_and(|threshold| threshold > 0.0) {
            return Err(ApiError::invalid(format!(
                "scoreThreshold is not supported: {ranks}; leave it out, or send 0"
            )));
        }
        if self.include_scores == Some(true) {
            return Err(ApiError::invalid(format!("includeScores is not supported: {ranks}")));
        }
        if self.reranker.is_some() {
            return Err(ApiError::invalid(
                "reranker is not supported: the local platform has no reranker deployments; leave it out",
            ));
        }
        Ok(())
    }
}

/// The restrictions of a search.
struct SearchQuery {
    contents: Vec<String>,
    scopes: Vec<String>,
    filter: Option<Filter>,
}

impl SearchQuery {
    fn new(request: &SearchRequest) -> Result<Self, ApiError> {
        let read =
            |filter| Filter::read(filter).map_err(|reason| ApiError::invalid(format!("metaDataFilter: {reason}")));
        Ok(Self {
            contents: request.content_ids.clone().unwrap_or_default(),
            scopes: request.scope_ids.clone().unwrap_or_default(),
            filter: request.metadata_filter.as_ref().filter(|filter| !filter.is_empty()).map(read).transpose()?,
        })
    }

    /// Returns whether a document satisfies the restrictions. An empty list doesn't restrict; a scope is a folder with
    /// all its subfolders.
    fn matches(&self, document: &Document) -> bool {
        (self.contents.is_empty() || self.contents.contains(&document.id))
            && (self.scopes.is_empty() || self.scopes.iter().any(|scope| document.scopes.contains(scope)))
            && self.filter.as_ref().is_none_or(|filter| filter.passes(&document.metadata()))
    }
}

/// The body of `POST /search/search-string`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SearchStringRequest {
    prompt: String,
    chat_id: Option<String>,
    messages: Option<Vec<HistoryMessage>>,
}

#[derive(Deserialize)]
struct HistoryMessage {
    role: String,
    text: String,
}

/// `POST /search/search-string`: returns what to search for to answer a prompt. The platform asks a language model;
/// this implementation returns the prompt's significant words. If there is only one ("and in Paris?"), it adds those of
/// the previous question.
pub async fn search_string(
    State(state): State<Arc<LocalState>>,
    Body(request): Body<SearchStringRequest>,
) -> Result<Json<Value>, ApiError> {
    let mut words = significant_words(&request.prompt);
    let earlier = match (request.messages, &request.chat_id) {
        (Some(messages), _) => last_question(
            messages.into_iter().map(|message| (message.role.to_lowercase() == "user", message.text)),
            &request.prompt,
        ),
        (None, Some(chat_id)) => {
            state.chat(chat_id)?;
            let messages = state.chats.messages(chat_id)?.into_iter();
            last_question(
                messages.filter_map(|message| Some((message.role == Role::User, message.text?))),
                &request.prompt,
            )
        }
        (None, None) => None,
    };
    if words.len() < 2 {
        words.extend(earlier.iter().flat_map(|text| significant_words(text)));
    }
    Ok(Json(json!({ "object": "search.search-string", "searchString": words.join(" ") })))
}

fn last_question(messages: impl DoubleEndedIterator<Item = (bool, String)>, prompt: &str) -> Option<String> {
    messages.rev().find_map(|(by_user, text)| (by_user && text != prompt).then_some(text))
}

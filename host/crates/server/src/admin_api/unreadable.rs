//! Verified requests that can't be parsed as events, as the admin API returns them.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::{self, Admin, ApiError, ApiResult, Body};
use super::view::rfc3339;
use modhost_storage::unreadable::UnreadableRecord;

/// A request in a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnreadableView {
    /// Its id, which is the same for the same body of the same source.
    pub id: String,
    /// The source that received it.
    pub source: String,
    /// The tenant of the source, if it has one.
    pub tenant: Option<String>,
    /// The reason why it can't be parsed.
    pub reason: String,
    /// The status of the response. `None` if it came over an event socket.
    pub status: Option<u16>,
    /// Headers that help to diagnose it, without secrets and signatures.
    pub headers: BTreeMap<String, String>,
    /// The size of its body, in bytes.
    pub size: u64,
    /// Whether the stored body was truncated.
    pub cut: bool,
    /// When it was first received (RFC 3339).
    pub first_at: String,
    /// When it was last received since the host started (RFC 3339).
    pub last_at: String,
    /// The number of times it was received since the host started.
    pub times: u64,
}

/// A request with its body.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UnreadableDetailsView {
    /// The same fields as in a list.
    #[serde(flatten)]
    pub request: UnreadableView,
    /// The body, if it is text.
    pub body: Option<String>,
    /// The body in base64.
    pub body_base64: String,
}

impl From<UnreadableRecord> for UnreadableView {
    fn from(record: UnreadableRecord) -> Self {
        let time = |milliseconds: u64| {
            let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds));
            rfc3339(time.unwrap_or(SystemTime::UNIX_EPOCH))
        };
        Self {
            first_at: time(record.first_at),
            last_at: time(record.last_at),
            id: record.id,
            source: record.source,
            tenant: record.tenant,
            reason: record.reason,
            status: record.status,
            headers: record.headers.into_iter().collect(),
            size: record.size,
            cut: record.truncated,
            times: record.times,
        }
    }
}

impl UnreadableDetailsView {
    /// Returns a request with its body.
    pub fn new(record: UnreadableRecord, body: Vec<u8>) -> Self {
        let body_base64 = BASE64.encode(&body);
        Self { request: record.into(), body: String::from_utf8(body).ok(), body_base64 }
    }
}

/// The filter of a list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct UnreadableFilter {
    source: Option<String>,
}

pub(super) async fn list(State(admin): State<Admin>, Query(filter): Query<UnreadableFilter>) -> Json<Value> {
    let mut records = admin.unreadable.list();
    records.retain(|record| filter.source.as_ref().is_none_or(|source| record.source == *source));
    let unreadable: Vec<UnreadableView> = records.into_iter().map(UnreadableView::from).collect();
    Json(json!({ "unreadable": unreadable }))
}

pub(super) async fn show(State(admin): State<Admin>, Path(id): Path<String>) -> ApiResult<UnreadableDetailsView> {
    let (record, body) = find(&admin, &id).await?;
    Ok(Json(UnreadableDetailsView::new(record, body)))
}

pub(super) async fn body(State(admin): State<Admin>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let (_, body) = find(&admin, &id).await?;
    // The content is untrusted, so no browser may render it as a page.
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    Ok((headers, body).into_response())
}

/// An empty JSON object. It is required because no web page can send one without a CORS preflight.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EmptyRequest {}

pub(super) async fn remove(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    request: Body<EmptyRequest>,
) -> ApiResult<Value> {
    let EmptyRequest {} = api::body(request)?;
    match admin.unreadable.remove(&id).await {
        Ok(true) => Ok(Json(json!({ "id": id, "state": "dropped" }))),
        Ok(false) => Err(unknown(&id)),
        Err(error) => Err(ApiError(StatusCode::SERVICE_UNAVAILABLE, format!("cannot remove {id}: {error}"))),
    }
}

async fn find(admin: &Admin, id: &str) -> Result<(UnreadableRecord, Vec<u8>), ApiError> {
    match admin.unreadable.read(id).await {
        Ok(found) => found.ok_or_else(|| unknown(id)),
        Err(error) => Err(ApiError(StatusCode::SERVICE_UNAVAILABLE, format!("cannot read {id}: {error}"))),
    }
}

fn unknown(id: &str) -> ApiError {
    ApiError(
        StatusCode::NOT_FOUND,
        format!("there is no unreadable request {id}; the oldest are removed when there are too many"),
    )
}

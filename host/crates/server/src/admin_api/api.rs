//! The admin API: health, deliveries, and the operations on them. `openapi.json` describes it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::{self, Access};
use super::module_view::WaitingView;
use super::view::{DeliveryView, DetailsView, SandboxView, SourceView, TotalsView};
use super::{SettingsStatus, hosts, keyvalue, modules, tenants, unreadable};
use crate::telemetry::{self};
use modhost_core::event::{DeliveryId, Name};
use modhost_core::metrics;
use modhost_core::tenant_meter;
use modhost_ingress::health::{self, Health, Report};
use modhost_ingress::sources::Sources;
use modhost_ingress::sources::event_socket::EventSockets;
use modhost_runtime::dispatch::Dispatcher;
use modhost_runtime::engine::Registry;
use modhost_storage::cluster::Cluster;
use modhost_storage::journal::{self, Filter, Journal, JournalError};
use modhost_storage::keyvalue::{KeyValue, KeyValueError};
use modhost_storage::unreadable::UnreadableStore;

/// The default number of deliveries in a list.
const DEFAULT_LIMIT: u32 = 100;

/// The largest `limit` of a list.
const MAX_LIMIT: u32 = 10_000;

/// The longest error text of the HTTP library that is passed on, in bytes.
const MAX_ERROR: usize = 8 << 10;

/// The parts of the host that the admin API works on.
#[derive(Clone)]
pub struct Admin {
    /// The modules.
    pub registry: Arc<Registry>,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// The key-value store.
    pub keyvalue: Arc<dyn KeyValue>,
    /// The hosts that share the storage.
    pub cluster: Arc<dyn Cluster>,
    /// The kind of the storage: `sqlite` or `postgresql`.
    pub storage: &'static str,
    /// Dispatch.
    pub dispatcher: Dispatcher,
    /// The webhooks.
    pub sources: Arc<Sources>,
    /// The event sockets.
    pub sockets: Arc<EventSockets>,
    /// The health of the host.
    pub health: Arc<Health>,
    /// What restricts the processes of the host.
    pub sandbox: Arc<SandboxView>,
    /// The access rules.
    pub access: Arc<Access>,
    /// Verified requests that can't be parsed as events.
    pub unreadable: UnreadableStore,
    /// The included settings files that the host refuses.
    pub settings: Arc<SettingsStatus>,
}

/// Returns the routes of the admin listener. The probes are open to everyone. If a token is configured and a request
/// lacks it, `/health` returns no more than the probes, and everything else is rejected.
pub fn router(admin: Admin) -> Router {
    let access = admin.access.clone();
    let api = Router::new()
        .route("/totals", get(totals))
        .route("/sources", get(sources))
        .route("/deliveries", get(list))
        .route("/deliveries/{id}", get(show))
        .route("/deliveries/{id}/retry", post(retry))
        .route("/deliveries/{id}/drop", post(drop_waiting))
        .route("/unreadable", get(unreadable::list))
        .route("/unreadable/{id}", get(unreadable::show))
        .route("/unreadable/{id}/body", get(unreadable::body))
        .route("/unreadable/{id}/drop", post(unreadable::remove))
        .route("/modules", get(modules::list))
        .route("/hosts", get(hosts::list))
        .route("/tenants", get(tenants::list))
        .route("/tenants/{name}", get(tenants::show))
        .route("/keyvalue/{tenant}/{module}", get(keyvalue::buckets))
        .route("/keyvalue/{tenant}/{module}/{bucket}", get(keyvalue::keys))
        .route("/keyvalue/{tenant}/{module}/{bucket}/value", get(keyvalue::value))
        .route("/openapi.json", get(openapi))
        .merge(module_routes("/modules/{name}"))
        // The slash in the name of a module of a tenant's own file may be written as it is.
        .merge(module_routes("/modules/{name}/{local}"))
        .layer(middleware::from_fn_with_state(access.clone(), access::authorize));
    let metrics = Router::new()
        .route("/metrics", get(metrics))
        .layer(middleware::from_fn_with_state(access.clone(), access::authorize));
    let guarded = Router::new()
        .route("/health", get(show_health))
        .merge(metrics)
        .nest("/api", api)
        .fallback(not_found)
        .layer(middleware::map_response(errors_as_json))
        .layer(middleware::from_fn_with_state(access, access::guard));
    // No middleware runs for the probes.
    let probes = Router::new().route("/livez", get(health::live)).route("/readyz", get(ready));
    guarded.merge(probes).with_state(admin)
}

/// Returns the routes of one module, below the path of its name.
fn module_routes(module: &str) -> Router<Admin> {
    let at = |action: &str| format!("{module}/{action}");
    Router::new()
        .route(module, get(modules::show))
        .route(&at("versions"), get(modules::history))
        .route(&at("rollback"), post(modules::rollback))
        .route(&at("pin"), post(modules::pin))
        .route(&at("unpin"), post(modules::unpin))
        .route(&at("retry"), post(modules::retry))
        .route(&at("pause"), post(modules::pause))
        .route(&at("resume"), post(modules::resume))
        .route(&at("promote"), post(modules::promote))
        .route(&at("abort"), post(modules::abort))
}

/// An error response: its status and its message.
pub(super) struct ApiError(pub(super) StatusCode, pub(super) String);

impl ApiError {
    /// Returns the error of a storage that can't be used now.
    pub(super) fn unavailable(message: String) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<JournalError> for ApiError {
    fn from(error: JournalError) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<KeyValueError> for ApiError {
    fn from(error: KeyValueError) -> Self {
        let status = match error {
            KeyValueError::Refused(_) => StatusCode::BAD_REQUEST,
            KeyValueError::Storage(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }
}

pub(super) type ApiResult<T> = Result<Json<T>, ApiError>;

/// Converts errors of the HTTP library, which are plain text or empty, to the JSON of all other errors: an invalid
/// query, or a method that the path doesn't support.
async fn errors_as_json(response: Response) -> Response {
    let status = response.status();
    let is_json = response.headers().get(header::CONTENT_TYPE).is_some_and(|it| it == "application/json");
    if is_json || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, MAX_ERROR).await.unwrap_or_default();
    let text = match (status, str::from_utf8(&text)) {
        (StatusCode::METHOD_NOT_ALLOWED, _) => {
            "this path doesn't support the method; the Allow header lists those it supports"
        }
        (_, Ok(text)) if !text.is_empty() => text,
        _ => status.canonical_reason().unwrap_or("refused"),
    };
    let mut response = ApiError(status, text.to_owned()).into_response();
    // Keeps all other headers, except those that describe the old body.
    let others = parts.headers.into_iter().filter_map(|(name, value)| Some((name?, value)));
    let is_kept = |name: &HeaderName| ![header::CONTENT_TYPE, header::CONTENT_LENGTH].contains(name);
    response.headers_mut().extend(others.filter(|(name, _)| is_kept(name)));
    response
}

async fn not_found() -> ApiError {
    ApiError(StatusCode::NOT_FOUND, "no such path; /api/openapi.json describes the API".into())
}

/// Returns whether the host is ready, and for authorized requests also the modules that wait for a component. These
/// don't make the host unready, because other tenants' modules don't depend on them.
async fn ready(State(admin): State<Admin>, request: Request) -> Response {
    if !admin.access.permits_unchecked(&request) {
        return health::ready(State(admin.health)).await;
    }
    let (code, Report { status, checks, reasons }) = admin.health.report(true);
    let waiting = admin.registry.waiting().into_iter().map(|module| {
        let WaitingView { since, reason } = module.waiting.into();
        json!({ "module": module.name, "coming_up": module.coming_up, "since": since, "reason": reason })
    });
    let waiting: Vec<Value> = waiting.collect();
    let answer = json!({ "status": status, "checks": checks, "reasons": reasons, "waiting": waiting });
    health::no_store(code, Json(answer))
}

/// Returns whether the host is ready, and for authorized requests also the state of each module, the restrictions of the
/// host's processes, and which storage it uses with how many hosts.
async fn show_health(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    if !admin.access.permits(&headers) {
        return health::public_report(&admin.health);
    }
    let modules = admin.registry.status().into_iter().map(|module| {
        json!({
            "name": module.name,
            "version": module.version.map(|version| version.to_string()),
            "coming_up": module.coming_up,
            "waiting": module.waiting.map(WaitingView::from),
            "refused": module.refused,
            "paused": module.paused.is_some(),
        })
    });
    let modules: Vec<Value> = modules.collect();
    let (code, Report { status, checks, reasons }) = admin.health.report(true);
    let mut answer = json!({
        "status": status, "checks": checks, "reasons": reasons, "modules": modules, "sandbox": &*admin.sandbox,
        "storage": admin.storage, "hosts": admin.dispatcher.live_hosts().alive
    });
    let refused = admin.settings.refused();
    if !refused.is_empty() {
        answer["refused_files"] = json!(*refused);
    }
    health::no_store(code, Json(answer))
}

async fn totals(State(admin): State<Admin>) -> ApiResult<TotalsView> {
    let totals = admin.journal.totals().await?;
    Ok(Json(TotalsView::new(&totals, admin.dispatcher.repeated_calls())))
}

async fn sources(State(admin): State<Admin>) -> Json<Value> {
    let webhooks = admin.sources.paths().into_iter();
    let webhooks = webhooks.map(|(name, path)| SourceView::Webhook { name: name.to_string(), path });
    let sockets = admin.sockets.report().into_iter().map(SourceView::from);
    Json(json!({ "sources": webhooks.chain(sockets).collect::<Vec<_>>() }))
}

/// Counters are updated where they change; gauges are read here, when they are requested.
async fn metrics(State(admin): State<Admin>) -> Result<Response, ApiError> {
    let checks = Health::checks(admin.health.not_ready().as_ref());
    metrics::ready(&checks.map(|(check, is_well)| (check.name(), is_well)));
    let totals = admin.journal.totals().await?;
    metrics::journal(journal::State::ALL.map(|state| (state.name(), totals.of(state))), totals.bytes);
    let hosts = admin.dispatcher.live_hosts();
    metrics::cluster_hosts(hosts.alive, hosts.with_other_settings);
    metrics::settings_files_refused(admin.settings.refused().len());
    metrics::log_lines_dropped(telemetry::dropped_lines());
    for module in admin.registry.status() {
        let (serves, paused) = (module.version.is_some(), module.paused.is_some());
        metrics::module(&module.name, serves, paused, module.loaded);
    }
    let format = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    let of_tenants = tenant_meter::render(&tenants::gauges(&admin).await?);
    Ok((format, metrics::render() + &of_tenants).into_response())
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()
}

/// The filter of a list of deliveries.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    state: Option<String>,
    module: Option<String>,
    tenant: Option<String>,
    event: Option<String>,
    /// Milliseconds since 1970.
    since: Option<u64>,
    limit: Option<u32>,
}

impl TryFrom<ListQuery> for Filter {
    type Error = ApiError;

    fn try_from(query: ListQuery) -> Result<Self, ApiError> {
        let bad = |error: String| ApiError(StatusCode::BAD_REQUEST, error);
        let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(bad(format!("`limit` must be from 1 to {MAX_LIMIT}")));
        }
        Ok(Self {
            state: query.state.map(|state| state.parse()).transpose().map_err(bad)?,
            module: query.module.map(Name::from),
            tenant: query.tenant.map(Name::from),
            event: query.event,
            since: query.since.map(|ms| SystemTime::UNIX_EPOCH + Duration::from_millis(ms)),
            limit: Some(limit),
        })
    }
}

async fn list(State(admin): State<Admin>, Query(query): Query<ListQuery>) -> ApiResult<Value> {
    let deliveries = admin.journal.list(query.try_into()?).await?;
    let deliveries: Vec<DeliveryView> = deliveries.into_iter().map(DeliveryView::from).collect();
    Ok(Json(json!({ "deliveries": deliveries })))
}

async fn show(State(admin): State<Admin>, Path(id): Path<String>) -> ApiResult<DetailsView> {
    let details = admin.journal.show(&DeliveryId::from_text(&id)).await?;
    details.map(|details| Json(details.into())).ok_or_else(|| unknown(&id))
}

/// The options of sending a delivery again.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryOptions {
    /// Whether to discard the recorded answers of its calls.
    #[serde(default)]
    fresh: bool,
}

// A body that must be JSON: a web page can't send one to this address without a CORS preflight.
pub(super) type Body<T> = Result<Json<T>, JsonRejection>;

pub(super) fn body<T>(body: Body<T>) -> Result<T, ApiError> {
    body.map(|Json(body)| body).map_err(|error| ApiError(error.status(), error.body_text()))
}

/// Runs an operation to completion, even if the client disconnects: a committed change must be applied.
pub(super) async fn complete<T: Send + 'static>(
    admin: &Admin,
    operation: impl Future<Output = ApiResult<T>> + Send + 'static,
) -> ApiResult<T> {
    let busy = || ApiError(StatusCode::SERVICE_UNAVAILABLE, "too many operations are running; try again".into());
    admin.dispatcher.run_to_completion(operation).await.unwrap_or_else(|| Err(busy()))
}

async fn retry(State(admin): State<Admin>, Path(id): Path<String>, options: Body<RetryOptions>) -> ApiResult<Value> {
    let options = body(options)?;
    let id = DeliveryId::from_text(id);
    complete(&admin.clone(), async move {
        let known = admin.journal.show(&id).await?.ok_or_else(|| unknown(id.as_str()))?;
        if !admin.dispatcher.resend(&known, options.fresh).await? {
            return Err(conflict(&known.summary.state, &id, "only a delivery that has ended can be sent again"));
        }
        Ok(Json(json!({ "id": id.as_str(), "state": "waiting" })))
    })
    .await
}

/// The options of dropping a delivery.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DropOptions {
    #[serde(default)]
    reason: Option<String>,
}

async fn drop_waiting(
    State(admin): State<Admin>,
    Path(id): Path<String>,
    options: Body<DropOptions>,
) -> ApiResult<Value> {
    let reason = body(options)?.reason.unwrap_or_else(|| "dropped by an operator".into());
    let id = DeliveryId::from_text(id);
    complete(&admin.clone(), async move {
        let known = admin.journal.show(&id).await?.ok_or_else(|| unknown(id.as_str()))?;
        if !admin.dispatcher.drop_waiting(&known, &reason).await? {
            return Err(conflict(&known.summary.state, &id, "only a waiting delivery can be dropped"));
        }
        Ok(Json(json!({ "id": id.as_str(), "state": "dropped" })))
    })
    .await
}

fn unknown(id: &str) -> ApiError {
    ApiError(
        StatusCode::NOT_FOUND,
        format!("there is no delivery {id}; it may have been removed, see [server.retention]"),
    )
}

fn conflict(state: &modhost_storage::journal::State, id: &DeliveryId, why: &str) -> ApiError {
    ApiError(StatusCode::CONFLICT, format!("delivery {id} is {state}; {why}"))
}

//! Modules and their versions: their state, and the operators' actions.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;
use serde_json::{Value, json};

use super::api::{Admin, ApiError, ApiResult, Body, body, complete};
use super::module_view::{ModuleView, VersionView};
use modhost_core::event::Name;
use modhost_runtime::engine::{AdminError, Status};
use modhost_storage::error::StorageError;
use modhost_storage::versions::Refusal;

/// The default name of the operator.
const DEFAULT_OPERATOR: &str = "an operator";

/// The maximum length of an operator's name, in characters.
const MAX_NAME: usize = 100;

impl From<StorageError> for ApiError {
    fn from(error: StorageError) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

impl From<AdminError> for ApiError {
    fn from(error: AdminError) -> Self {
        let status = match error {
            AdminError::NoModule { .. } | AdminError::Refused(Refusal::NoVersion(_)) => StatusCode::NOT_FOUND,
            AdminError::Refused(Refusal::Unclear(_)) => StatusCode::BAD_REQUEST,
            AdminError::Refused(Refusal::NotNow(_)) | AdminError::CantServe(..) => StatusCode::CONFLICT,
            AdminError::Versions(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self(status, error.to_string())
    }
}

/// The name of a module in a path: `Mine`, or `acme%2FMine` or `acme/Mine` for a module of a tenant's own file.
pub(super) struct ModuleName(Name);

impl<S: Send + Sync> FromRequestParts<S> for ModuleName {
    type Rejection = PathRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, PathRejection> {
        let Path(segments) = Path::<Vec<(String, String)>>::from_request_parts(parts, state).await?;
        let segments: Vec<String> = segments.into_iter().map(|(_, segment)| segment).collect();
        Ok(Self(segments.join("/").into()))
    }
}

/// Returns all modules.
pub(super) async fn list(State(admin): State<Admin>) -> Json<Value> {
    let modules: Vec<ModuleView> = admin.registry.status().into_iter().map(|status| view(&admin, status)).collect();
    Json(json!({ "modules": modules }))
}

/// Returns one module.
pub(super) async fn show(State(admin): State<Admin>, name: ModuleName) -> ApiResult<ModuleView> {
    let name = name.0;
    let status = admin.registry.status_of(&name).ok_or_else(|| admin.registry.no_module(&name))?;
    Ok(Json(view(&admin, status)))
}

/// Returns the history of a module's versions, also if the module is no longer in `modules.toml`.
pub(super) async fn history(State(admin): State<Admin>, name: ModuleName) -> ApiResult<Value> {
    let name = name.0;
    let history = admin.registry.history(&name).await?;
    if history.is_empty() && admin.registry.status_of(&name).is_none() {
        return Err(admin.registry.no_module(&name).into());
    }
    let versions: Vec<VersionView> = history.into_iter().map(VersionView::from).collect();
    Ok(Json(json!({ "versions": versions })))
}

/// The operator who requests an action.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OperatorRequest {
    #[serde(default)]
    by: Option<String>,
}

/// The operator and the version to pin.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PinRequest {
    version: String,
    #[serde(default)]
    by: Option<String>,
}

pub(super) async fn rollback(
    admin: State<Admin>,
    name: ModuleName,
    request: Body<OperatorRequest>,
) -> ApiResult<ModuleView> {
    let by = by(body(request)?.by)?;
    operate(admin, name, move |admin, name| async move { admin.registry.rollback(&name, &by).await }).await
}

pub(super) async fn pin(admin: State<Admin>, name: ModuleName, request: Body<PinRequest>) -> ApiResult<ModuleView> {
    let pinning = body(request)?;
    let by = by(pinning.by)?;
    operate(admin, name, move |admin, name| async move { admin.registry.pin(&name, &pinning.version, &by).await }).await
}

pub(super) async fn unpin(
    admin: State<Admin>,
    name: ModuleName,
    request: Body<OperatorRequest>,
) -> ApiResult<ModuleView> {
    let by = by(body(request)?.by)?;
    operate(admin, name, move |admin, name| async move { admin.registry.unpin(&name, &by).await }).await
}

pub(super) async fn retry(
    admin: State<Admin>,
    name: ModuleName,
    request: Body<OperatorRequest>,
) -> ApiResult<ModuleView> {
    let by = by(body(request)?.by)?;
    operate(admin, name, move |admin, name| async move { admin.registry.retry(&name, &by).await }).await
}

pub(super) async fn pause(
    admin: State<Admin>,
    name: ModuleName,
    request: Body<OperatorRequest>,
) -> ApiResult<ModuleView> {
    let by = by(body(request)?.by)?;
    operate(admin, name, move |admin, name| async move { admin.registry.pause(&name, &by).await }).await
}

pub(super) async fn resume(
    admin: State<Admin>,
    name: ModuleName,
    request: Body<OperatorRequest>,
) -> ApiResult<ModuleView> {
    let by = by(body(request)?.by)?;
    operate(admin, name, move |admin, name| async move {
        let resumed = admin.registry.resume(&name, &by).await;
        admin.dispatcher.rescan();
        resumed
    })
    .await
}

pub(super) async fn promote(
    admin: State<Admin>,
    name: ModuleName,
    request: Body<OperatorRequest>,
) -> ApiResult<ModuleView> {
    let by = by(body(request)?.by)?;
    operate(admin, name, move |admin, name| async move { admin.registry.promote(&name, &by).await }).await
}

pub(super) async fn abort(
    admin: State<Admin>,
    name: ModuleName,
    request: Body<OperatorRequest>,
) -> ApiResult<ModuleView> {
    let by = by(body(request)?.by)?;
    operate(admin, name, move |admin, name| async move { admin.registry.abort(&name, &by).await }).await
}

/// Runs an operation on a module to completion, and returns the module's new state.
async fn operate<F>(
    State(admin): State<Admin>,
    ModuleName(name): ModuleName,
    operation: impl FnOnce(Arc<Admin>, Name) -> F + Send + 'static,
) -> ApiResult<ModuleView>
where
    F: Future<Output = Result<Status, AdminError>> + Send + 'static,
{
    let shared = Arc::new(admin.clone());
    complete(&admin, async move {
        let status = operation(shared.clone(), name).await?;
        Ok(Json(view(&shared, status)))
    })
    .await
}

fn view(admin: &Admin, status: Status) -> ModuleView {
    let in_flight = admin.dispatcher.in_flight(&status.name);
    ModuleView::new(status, in_flight)
}

fn by(name: Option<String>) -> Result<String, ApiError> {
    operator_name(name).map_err(|error| ApiError(StatusCode::BAD_REQUEST, error))
}

/// Returns the operator's name, which the log and the history contain.
///
/// # Errors
///
/// Fails if the name is empty, too long or contains control characters.
pub fn operator_name(name: Option<String>) -> Result<String, String> {
    let name = name.unwrap_or_else(|| DEFAULT_OPERATOR.into());
    if name.trim().is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(format!("`by` must be a name of at most {MAX_NAME} characters, without line breaks"));
    }
    Ok(name)
}

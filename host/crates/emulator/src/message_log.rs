//! `/message-log`: the steps of a message.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::{Deserialize, Serialize};

use super::LocalState;
use super::error::{ApiError, Body};
use super::wire::{Object, Reference, Stamp, Step, StepStatus, new_id};

/// A new step, as the official Python SDK sends it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewStep {
    message_id: String,
    text: String,
    status: StepStatus,
    order: i64,
    details: Option<Object>,
    uncited_references: Option<Object>,
    references: Option<Vec<Reference>>,
}

/// Changes of a step; missing or null fields stay unchanged.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepChange {
    text: Option<String>,
    status: Option<StepStatus>,
    order: Option<i64>,
    details: Option<Object>,
    uncited_references: Option<Object>,
    references: Option<Vec<Reference>>,
}

impl StepChange {
    fn apply(self, step: &mut Step) {
        fn set<T>(field: &mut T, change: Option<T>) {
            if let Some(change) = change {
                *field = change;
            }
        }
        set(&mut step.text, self.text);
        set(&mut step.status, self.status);
        set(&mut step.order, self.order);
        set(&mut step.details, self.details);
        set(&mut step.uncited_references, self.uncited_references);
        set(&mut step.references, self.references);
    }
}

/// A step in the platform's form.
#[derive(Serialize)]
pub struct StepAnswer {
    object: &'static str,
    #[serde(flatten)]
    step: Step,
}

impl From<Step> for StepAnswer {
    fn from(step: Step) -> Self {
        Self { object: "message_log", step }
    }
}

/// `POST /message-log`.
pub async fn create(
    State(state): State<Arc<LocalState>>,
    Body(new): Body<NewStep>,
) -> Result<Json<StepAnswer>, ApiError> {
    state.chats.message(&new.message_id)?.ok_or_else(|| ApiError::not_found("message", &new.message_id))?;
    let now = Stamp::now();
    let step = Step {
        id: new_id("message_log"),
        message_id: new.message_id,
        status: new.status,
        text: new.text,
        details: new.details.unwrap_or_default(),
        uncited_references: new.uncited_references.unwrap_or_default(),
        order: new.order,
        references: new.references.unwrap_or_default(),
        created_at: now,
        updated_at: now,
    };
    state.chats.add_step(&step)?;
    Ok(Json(step.into()))
}

/// `PATCH /message-log/{id}`.
pub async fn update(
    State(state): State<Arc<LocalState>>,
    Path(id): Path<String>,
    Body(change): Body<StepChange>,
) -> Result<Json<StepAnswer>, ApiError> {
    let changed = state.chats.change_step(&id, |step| change.apply(step))?;
    Ok(Json(changed.ok_or_else(|| ApiError::not_found("message log", &id))?.into()))
}

//! `/space`: assistants and their chats, as users and their clients call them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::LocalState;
use super::chats::Chat;
use super::error::{ApiError, Body, Params};
use super::events;
use super::messages::is_true;
use super::settings::Assistant;
use super::wire::{Correlation, Message, Object, Role, SpaceMessage};

/// A user's message, as the official Python SDK sends it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewSpaceMessage {
    chat_id: Option<String>,
    assistant_id: String,
    text: Option<String>,
    language_model: Option<String>,
    tool_choices: Option<Vec<String>>,
    skill_choices: Option<Vec<Object>>,
    available_skills: Option<Vec<Object>>,
    scope_rules: Option<Object>,
    correlation: Option<Correlation>,
}

impl NewSpaceMessage {
    /// Returns the optional fields that the payload of a chosen module carries.
    fn choices(&self) -> Object {
        let given = [
            ("toolChoices", self.tool_choices.as_ref().map(|choices| json!(choices))),
            ("skillChoices", self.skill_choices.as_ref().map(|choices| json!(choices))),
            ("availableSkills", self.available_skills.as_ref().map(|skills| json!(skills))),
            ("rawScopeRules", self.scope_rules.as_ref().map(|rules| json!(rules))),
            ("modelChoice", self.language_model.as_ref().map(|model| json!(model))),
            ("correlation", self.correlation.as_ref().map(|correlation| json!(correlation))),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }
}

/// `POST /space/message`: stores the user's message and returns it. By then the empty assistant message exists and the
/// events are being delivered.
pub async fn create_message(
    State(state): State<Arc<LocalState>>,
    Body(new): Body<NewSpaceMessage>,
) -> Result<Json<SpaceMessage>, ApiError> {
    let assistant = state.assistant(&new.assistant_id)?;
    let chat = chat_for(&state, &assistant, new.chat_id.as_deref())?;
    let choices = new.choices();
    let question = Message {
        correlation: new.correlation,
        ..Message::new(&chat.id, Role::User, Some(new.text.unwrap_or_default()))
    };
    state.chats.add_message(&question)?;
    let mut events = vec![events::user_message_created(&assistant, &question)];
    if assistant.chooses {
        let answer = Message::new(&chat.id, Role::Assistant, None);
        state.chats.add_message(&answer)?;
        events.push(events::module_chosen(&assistant, &question, &answer, choices));
    }
    state.deliverer.deliver(events);
    Ok(Json(question.into()))
}

fn chat_for(state: &LocalState, assistant: &Assistant, chat_id: Option<&str>) -> Result<Chat, ApiError> {
    let Some(chat_id) = chat_id else {
        return Ok(state.chats.create_chat(&assistant.id, None)?);
    };
    let chat = state.chat(chat_id)?;
    if chat.assistant_id != assistant.id {
        let message = format!("assistantId is {:?}, but the chat belongs to {:?}", assistant.id, chat.assistant_id);
        return Err(ApiError::invalid(message));
    }
    Ok(chat)
}

/// The body of `POST /space/chat`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NewChat {
    title: String,
    assistant_id: String,
}

/// `POST /space/chat`: creates an empty chat.
pub async fn create_chat(
    State(state): State<Arc<LocalState>>,
    Body(new): Body<NewChat>,
) -> Result<Json<Value>, ApiError> {
    let assistant = state.assistant(&new.assistant_id)?;
    Ok(Json(chat_answer(&state.chats.create_chat(&assistant.id, Some(&new.title))?)))
}

/// The body of `PATCH /space/chat/{chatId}`.
#[derive(Deserialize)]
pub struct Rename {
    title: String,
}

/// `PATCH /space/chat/{chatId}`: renames a chat.
pub async fn rename_chat(
    State(state): State<Arc<LocalState>>,
    Path(id): Path<String>,
    Body(rename): Body<Rename>,
) -> Result<Json<Value>, ApiError> {
    if rename.title.is_empty() {
        return Err(ApiError::invalid("title is empty"));
    }
    let chat = state.chats.rename_chat(&id, &rename.title)?.ok_or_else(|| ApiError::not_found("chat", &id))?;
    Ok(Json(chat_answer(&chat)))
}

fn chat_answer(chat: &Chat) -> Value {
    json!({ "id": chat.id, "title": chat.title, "createdAt": chat.created_at })
}

/// `DELETE /space/chat/{chatId}`.
pub async fn delete_chat(
    State(state): State<Arc<LocalState>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    if !state.chats.delete_chat(&id)? {
        return Err(ApiError::not_found("chat", &id));
    }
    Ok(Json(json!({ "chat_id": id })))
}

/// The pagination of a list.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Page {
    skip: Option<usize>,
    take: Option<usize>,
    exclude_gpt_request: Option<String>,
    name: Option<String>,
}

impl Page {
    /// Returns how many items to skip and to take, with the platform's default and maximum.
    fn range(&self, default: usize, max: usize) -> Result<(usize, usize), ApiError> {
        let take = self.take.unwrap_or(default);
        if !(1..=max).contains(&take) {
            return Err(ApiError::invalid(format!("take is {take}, but must be from 1 to {max}")));
        }
        Ok((self.skip.unwrap_or(0), take))
    }
}

/// `GET /space/chat/{chatId}/messages`: returns a page of a chat's messages, oldest first, and their total number.
pub async fn messages(
    State(state): State<Arc<LocalState>>,
    Path(id): Path<String>,
    Params(page): Params<Page>,
) -> Result<Json<Value>, ApiError> {
    state.chat(&id)?;
    let (skip, take) = page.range(10, 100)?;
    let mut messages = state.chats.messages(&id)?;
    let total = messages.len();
    if is_true(page.exclude_gpt_request.as_deref()) {
        messages.iter_mut().for_each(|message| message.gpt_request = None);
    }
    let messages: Vec<SpaceMessage> = messages.into_iter().skip(skip).take(take).map(SpaceMessage::from).collect();
    Ok(Json(json!({ "messages": messages, "totalCount": total })))
}

/// `GET /space/{chatId}/messages/latest`: returns the newest message; clients poll it while they wait for an answer.
pub async fn latest_message(
    State(state): State<Arc<LocalState>>,
    Path(id): Path<String>,
) -> Result<Json<SpaceMessage>, ApiError> {
    state.chat(&id)?;
    let latest = state.chats.latest_message(&id)?;
    Ok(Json(latest.ok_or_else(|| ApiError::not_found("message in the empty chat", &id))?.into()))
}

/// `GET /space/{spaceId}`: returns an assistant.
pub async fn get_space(State(state): State<Arc<LocalState>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    Ok(Json(space_answer(&state, &*state.assistant(&id)?)))
}

/// `GET /space`: returns the assistants whose name contains `name`.
pub async fn list_spaces(
    State(state): State<Arc<LocalState>>,
    Params(page): Params<Page>,
) -> Result<Json<Value>, ApiError> {
    let (skip, take) = page.range(50, 1000)?;
    let name = page.name.unwrap_or_default().to_lowercase();
    let assistants = state.assistants.load();
    let named = assistants.iter().filter(|assistant| assistant.name.to_lowercase().contains(&name));
    let spaces: Vec<Value> = named.skip(skip).take(take).map(|assistant| space_answer(&state, assistant)).collect();
    Ok(Json(json!({ "data": spaces })))
}

/// Builds an assistant with every field that the official Python SDK names; fields that the local platform doesn't use
/// are empty.
fn space_answer(state: &LocalState, assistant: &Assistant) -> Value {
    json!({
        "id": assistant.id,
        "name": assistant.name,
        "defaultForCompanyId": null,
        "title": assistant.name,
        "subtitle": null,
        "explanation": null,
        "alert": null,
        "inputLimit": null,
        "inputPlaceholder": null,
        "chatUpload": "DISABLED",
        "goals": [],
        "languageModel": null,
        "allowModelSwitching": false,
        "switchableLanguageModels": null,
        "fallbackModule": assistant.module,
        "access": [],
        "isExternal": !assistant.chooses,
        "isPinned": false,
        "isSubAgent": false,
        "subAgentSettings": null,
        "uiType": "UNIQUE_CUSTOM",
        "settings": null,
        "subAgents": [],
        "assistantMcpServers": [],
        "modules": [{
            "id": format!("module_{}", assistant.module),
            "name": assistant.module,
            "description": assistant.name,
            "toolDefinition": null,
            "configuration": assistant.configuration,
            "assistantId": assistant.id,
            "weight": 1,
            "isExternal": true,
            "isCustomInstructionEnabled": false,
            "moduleTemplateId": null,
            "createdAt": state.started,
            "updatedAt": state.started,
        }],
        "scopeRules": [],
        "assistantAccess": [{
            "id": format!("access_{}", assistant.module),
            "entityId": assistant.company(),
            "entityType": "GROUP",
            "type": "USE",
        }],
        "createdAt": state.started,
        "updatedAt": state.started,
    })
}

//! Stores chats, their messages and the steps of messages, in a SQLite file or in memory.
//!
//! Objects are stored as the JSON of the API, beside the columns for queries, so that people can read the file.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::wire::{Message, Stamp, Step, new_id};
use modhost_core::sync::lock;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS chats (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        assistant_id TEXT NOT NULL,
        title TEXT,
        created_at TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS messages (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        chat_id TEXT NOT NULL REFERENCES chats (id) ON DELETE CASCADE,
        body TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS messages_by_chat ON messages (chat_id, place);
    CREATE TABLE IF NOT EXISTS steps (
        place INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        message_id TEXT NOT NULL REFERENCES messages (id) ON DELETE CASCADE,
        body TEXT NOT NULL
    );
    CREATE INDEX IF NOT EXISTS steps_by_message ON steps (message_id, place);
";

/// Why chats could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite failed.
    #[error("the chats could not be read or written: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The file contains an object that this version can't parse.
    #[error("a stored object can't be read, another version may have written it: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// The file contains an invalid time.
    #[error("the chat {0:?} is stored with an invalid time")]
    Time(String),
}

type Result<T> = std::result::Result<T, StoreError>;

/// A chat.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Chat {
    /// `chat_…`.
    pub id: String,
    /// The assistant (space) it belongs to.
    pub assistant_id: String,
    /// The title that its owner gave it.
    pub title: Option<String>,
    /// When it was created.
    pub created_at: Stamp,
}

/// All chats.
pub struct Chats {
    connection: Mutex<Connection>,
    /// The texts that viewers see in place of a message's text; not stored.
    shown: Mutex<HashMap<String, String>>,
    /// By message id, why the module that should have filled the message failed; not stored.
    failures: Mutex<HashMap<String, String>>,
}

impl Chats {
    /// Opens the chats in this file; without one, the chats are in memory.
    pub fn open(file: Option<&Path>) -> Result<Self> {
        let connection = match file {
            Some(file) => Connection::open(file)?,
            None => Connection::open_in_memory()?,
        };
        // Enough for a development tool: a power failure may lose the last second, a crash of the process loses
        // nothing.
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self { connection: Mutex::new(connection), shown: Mutex::default(), failures: Mutex::default() })
    }

    /// Creates a chat.
    pub fn create_chat(&self, assistant_id: &str, title: Option<&str>) -> Result<Chat> {
        let chat = Chat {
            id: new_id("chat"),
            assistant_id: assistant_id.to_owned(),
            title: title.map(str::to_owned),
            created_at: Stamp::now(),
        };
        self.connection().execute(
            "INSERT INTO chats (id, assistant_id, title, created_at) VALUES (?1, ?2, ?3, ?4)",
            params![chat.id, chat.assistant_id, chat.title, chat.created_at.to_string()],
        )?;
        Ok(chat)
    }

    /// Returns the chat with this id.
    pub fn chat(&self, id: &str) -> Result<Option<Chat>> {
        let row = self
            .connection()
            .query_row("SELECT id, assistant_id, title, created_at FROM chats WHERE id = ?1", [id], chat_columns)
            .optional()?;
        row.map(read_chat).transpose()
    }

    /// Returns all chats, newest first.
    pub fn chats(&self) -> Result<Vec<Chat>> {
        let connection = self.connection();
        let mut statement =
            connection.prepare_cached("SELECT id, assistant_id, title, created_at FROM chats ORDER BY place DESC")?;
        let rows = statement.query_map([], chat_columns)?;
        rows.map(|row| read_chat(row?)).collect()
    }

    /// Renames a chat; returns `None` if it doesn't exist.
    pub fn rename_chat(&self, id: &str, title: &str) -> Result<Option<Chat>> {
        self.connection().execute("UPDATE chats SET title = ?2 WHERE id = ?1", [id, title])?;
        self.chat(id)
    }

    /// Deletes a chat with its messages and steps; returns `false` if it doesn't exist.
    pub fn delete_chat(&self, id: &str) -> Result<bool> {
        let messages = self.messages(id)?;
        let deleted = self.connection().execute("DELETE FROM chats WHERE id = ?1", [id])?;
        messages.iter().for_each(|message| self.forget(&message.id));
        Ok(deleted > 0)
    }

    /// Appends a message to its chat.
    pub fn add_message(&self, message: &Message) -> Result<()> {
        self.connection().execute(
            "INSERT INTO messages (id, chat_id, body) VALUES (?1, ?2, ?3)",
            params![message.id, message.chat_id, serde_json::to_string(message)?],
        )?;
        Ok(())
    }

    /// Returns the message with this id.
    pub fn message(&self, id: &str) -> Result<Option<Message>> {
        read_one(&self.connection(), "SELECT body FROM messages WHERE id = ?1", id)
    }

    /// Returns the messages of a chat, oldest first.
    pub fn messages(&self, chat_id: &str) -> Result<Vec<Message>> {
        read_all(&self.connection(), "SELECT body FROM messages WHERE chat_id = ?1 ORDER BY place", chat_id)
    }

    /// Returns the newest message of a chat.
    pub fn latest_message(&self, chat_id: &str) -> Result<Option<Message>> {
        let sql = "SELECT body FROM messages WHERE chat_id = ?1 ORDER BY place DESC LIMIT 1";
        read_one(&self.connection(), sql, chat_id)
    }

    /// Changes a message of a chat; returns `None` if the chat has no such message.
    pub fn change_message(
        &self,
        chat_id: &str,
        id: &str,
        change: impl FnOnce(&mut Message),
    ) -> Result<Option<Message>> {
        let connection = self.connection();
        let found: Option<Message> = read_one(&connection, "SELECT body FROM messages WHERE id = ?1", id)?;
        let Some(mut message) = found.filter(|message| message.chat_id == chat_id) else {
            return Ok(None);
        };
        let text_before = message.text.clone();
        change(&mut message);
        message.updated_at = Stamp::now();
        connection
            .execute("UPDATE messages SET body = ?2 WHERE id = ?1", params![id, serde_json::to_string(&message)?])?;
        if message.text != text_before {
            // The stored text is newer than the shown one.
            self.forget(id);
        }
        Ok(Some(message))
    }

    /// Deletes a message with its steps.
    pub fn delete_message(&self, id: &str) -> Result<()> {
        self.connection().execute("DELETE FROM messages WHERE id = ?1", [id])?;
        self.forget(id);
        Ok(())
    }

    /// Shows a text in place of a message's text until the stored text changes.
    pub fn show(&self, message_id: &str, text: &str) {
        self.shown().insert(message_id.to_owned(), text.to_owned());
    }

    /// Returns the text shown in place of a message's text.
    pub fn shown_text(&self, message_id: &str) -> Option<String> {
        self.shown().get(message_id).cloned()
    }

    /// Removes the state of a message that isn't stored.
    fn forget(&self, id: &str) {
        self.shown().remove(id);
        self.failures().remove(id);
    }

    /// Records why the module that should have filled a message failed.
    pub fn note_failure(&self, message_id: &str, reason: &str) {
        self.failures().insert(message_id.to_owned(), reason.to_owned());
    }

    /// Returns why the module that should have filled a message failed, if it did.
    pub fn failure(&self, message_id: &str) -> Option<String> {
        self.failures().get(message_id).cloned()
    }

    /// Adds a step to its message.
    pub fn add_step(&self, step: &Step) -> Result<()> {
        self.connection().execute(
            "INSERT INTO steps (id, message_id, body) VALUES (?1, ?2, ?3)",
            params![step.id, step.message_id, serde_json::to_string(step)?],
        )?;
        Ok(())
    }

    /// Changes a step; returns `None` if it doesn't exist.
    pub fn change_step(&self, id: &str, change: impl FnOnce(&mut Step)) -> Result<Option<Step>> {
        let connection = self.connection();
        let found: Option<Step> = read_one(&connection, "SELECT body FROM steps WHERE id = ?1", id)?;
        let Some(mut step) = found else { return Ok(None) };
        change(&mut step);
        step.updated_at = Stamp::now();
        connection.execute("UPDATE steps SET body = ?2 WHERE id = ?1", params![id, serde_json::to_string(&step)?])?;
        Ok(Some(step))
    }

    /// Returns the steps of a message by `order`, then by creation.
    pub fn steps(&self, message_id: &str) -> Result<Vec<Step>> {
        let sql = "SELECT body FROM steps WHERE message_id = ?1 ORDER BY place";
        let mut steps: Vec<Step> = read_all(&self.connection(), sql, message_id)?;
        steps.sort_by_key(|step| step.order);
        Ok(steps)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // A panic elsewhere leaves SQLite's state consistent.
        lock(&self.connection)
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<String, String>> {
        lock(&self.failures)
    }

    fn shown(&self) -> MutexGuard<'_, HashMap<String, String>> {
        lock(&self.shown)
    }
}

type ChatColumns = (String, String, Option<String>, String);

fn chat_columns(row: &rusqlite::Row<'_>) -> rusqlite::Result<ChatColumns> {
    Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
}

fn read_chat((id, assistant_id, title, created_at): ChatColumns) -> Result<Chat> {
    let created_at = serde_json::from_value(created_at.into()).map_err(|_| StoreError::Time(id.clone()))?;
    Ok(Chat { id, assistant_id, title, created_at })
}

fn read_one<T: DeserializeOwned>(connection: &Connection, sql: &str, id: &str) -> Result<Option<T>> {
    let body: Option<String> = connection.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional()?;
    Ok(body.map(|body| serde_json::from_str(&body)).transpose()?)
}

fn read_all<T: DeserializeOwned>(connection: &Connection, sql: &str, id: &str) -> Result<Vec<T>> {
    let mut statement = connection.prepare_cached(sql)?;
    let bodies = statement.query_map([id], |row| row.get::<_, String>(0))?;
    bodies.map(|body| Ok(serde_json::from_str(&body?)?)).collect()
}

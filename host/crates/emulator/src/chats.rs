//! Chats, their messages and the steps under them: in a SQLite file, or in memory.
//!
//! Objects are kept as the JSON they are answered with, beside the columns they are found by, so that a person can
//! open the file and read it.

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
    /// SQLite says no.
    #[error("the chats could not be read or written: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The file holds something this version didn't write.
    #[error("a stored object is not as this version writes it: {0}")]
    Unreadable(#[from] serde_json::Error),
    /// A time in the file is none.
    #[error("the chat {0:?} was stored with a time nobody can read")]
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
    /// What its owner called it.
    pub title: Option<String>,
    /// When it was begun.
    pub created_at: Stamp,
}

/// All chats.
pub struct Chats {
    connection: Mutex<Connection>,
    /// What viewers see in a message's place for the moment; nothing of it is stored.
    shown: Mutex<HashMap<String, String>>,
    /// Why the module failed that was to fill a message, by the message's id; not stored either.
    failures: Mutex<HashMap<String, String>>,
}

impl Chats {
    /// Opens the chats of this file; without one, chats that live as long as the process.
    pub fn open(file: Option<&Path>) -> Result<Self> {
        let connection = match file {
            Some(file) => Connection::open(file)?,
            None => Connection::open_in_memory()?,
        };
        // A development tool: a power cut may cost the last second, a crash of the process costs nothing.
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self { connection: Mutex::new(connection), shown: Mutex::default(), failures: Mutex::default() })
    }

    /// Begins a chat.
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

    /// The chat of this id.
    pub fn chat(&self, id: &str) -> Result<Option<Chat>> {
        let row = self
            .connection()
            .query_row("SELECT id, assistant_id, title, created_at FROM chats WHERE id = ?1", [id], chat_columns)
            .optional()?;
        row.map(read_chat).transpose()
    }

    /// Every chat, the newest first.
    pub fn chats(&self) -> Result<Vec<Chat>> {
        let connection = self.connection();
        let mut statement =
            connection.prepare_cached("SELECT id, assistant_id, title, created_at FROM chats ORDER BY place DESC")?;
        let rows = statement.query_map([], chat_columns)?;
        rows.map(|row| read_chat(row?)).collect()
    }

    /// Gives a chat another title; none if there is no such chat.
    pub fn rename_chat(&self, id: &str, title: &str) -> Result<Option<Chat>> {
        self.connection().execute("UPDATE chats SET title = ?2 WHERE id = ?1", [id, title])?;
        self.chat(id)
    }

    /// Deletes a chat with all that is in it; false if there was none.
    pub fn delete_chat(&self, id: &str) -> Result<bool> {
        let messages = self.messages(id)?;
        let deleted = self.connection().execute("DELETE FROM chats WHERE id = ?1", [id])?;
        messages.iter().for_each(|message| self.forget(&message.id));
        Ok(deleted > 0)
    }

    /// Adds a message at the end of its chat.
    pub fn add_message(&self, message: &Message) -> Result<()> {
        self.connection().execute(
            "INSERT INTO messages (id, chat_id, body) VALUES (?1, ?2, ?3)",
            params![message.id, message.chat_id, serde_json::to_string(message)?],
        )?;
        Ok(())
    }

    /// The message of this id.
    pub fn message(&self, id: &str) -> Result<Option<Message>> {
        read_one(&self.connection(), "SELECT body FROM messages WHERE id = ?1", id)
    }

    /// The messages of a chat, oldest first.
    pub fn messages(&self, chat_id: &str) -> Result<Vec<Message>> {
        read_all(&self.connection(), "SELECT body FROM messages WHERE chat_id = ?1 ORDER BY place", chat_id)
    }

    /// The newest message of a chat.
    pub fn latest_message(&self, chat_id: &str) -> Result<Option<Message>> {
        let sql = "SELECT body FROM messages WHERE chat_id = ?1 ORDER BY place DESC LIMIT 1";
        read_one(&self.connection(), sql, chat_id)
    }

    /// Changes a message of a chat; none if the chat has no such message.
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
            // What is stored from now on is newer.
            self.forget(id);
        }
        Ok(Some(message))
    }

    /// Deletes a message with the steps under it.
    pub fn delete_message(&self, id: &str) -> Result<()> {
        self.connection().execute("DELETE FROM messages WHERE id = ?1", [id])?;
        self.forget(id);
        Ok(())
    }

    /// Shows a text in a message's place until its stored text changes.
    pub fn show(&self, message_id: &str, text: &str) {
        self.shown().insert(message_id.to_owned(), text.to_owned());
    }

    /// What is shown in a message's place.
    pub fn shown_text(&self, message_id: &str) -> Option<String> {
        self.shown().get(message_id).cloned()
    }

    /// Forgets what of a message isn't stored.
    fn forget(&self, id: &str) {
        self.shown().remove(id);
        self.failures().remove(id);
    }

    /// Notes why the module failed that was to fill a message.
    pub fn note_failure(&self, message_id: &str, reason: &str) {
        self.failures().insert(message_id.to_owned(), reason.to_owned());
    }

    /// Why the module failed that was to fill a message, if it did.
    pub fn failure(&self, message_id: &str) -> Option<String> {
        self.failures().get(message_id).cloned()
    }

    /// Adds a step under its message.
    pub fn add_step(&self, step: &Step) -> Result<()> {
        self.connection().execute(
            "INSERT INTO steps (id, message_id, body) VALUES (?1, ?2, ?3)",
            params![step.id, step.message_id, serde_json::to_string(step)?],
        )?;
        Ok(())
    }

    /// Changes a step; none if there is no such step.
    pub fn change_step(&self, id: &str, change: impl FnOnce(&mut Step)) -> Result<Option<Step>> {
        let connection = self.connection();
        let found: Option<Step> = read_one(&connection, "SELECT body FROM steps WHERE id = ?1", id)?;
        let Some(mut step) = found else { return Ok(None) };
        change(&mut step);
        step.updated_at = Stamp::now();
        connection.execute("UPDATE steps SET body = ?2 WHERE id = ?1", params![id, serde_json::to_string(&step)?])?;
        Ok(Some(step))
    }

    /// The steps under a message, by their order; those of the same order as they were made.
    pub fn steps(&self, message_id: &str) -> Result<Vec<Step>> {
        let sql = "SELECT body FROM steps WHERE message_id = ?1 ORDER BY place";
        let mut steps: Vec<Step> = read_all(&self.connection(), sql, message_id)?;
        steps.sort_by_key(|step| step.order);
        Ok(steps)
    }

    fn connection(&self) -> MutexGuard<'_, Connection> {
        // SQLite's own state is whole after a panic elsewhere.
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

//! The one thread that writes. Changes that wait are committed together; each is answered after its commit.

use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::millis;
use super::tables::{self, Fault};
use crate::keyvalue::{Bucket, Change, Changed, Result, StoreError};
use crate::sqlite::{Database, Mark, StorageError};
use modhost_core::limits::Limit;

/// How much may wait for the writer.
const MAX_QUEUED: usize = 1024;

/// How many changes are committed together at the most.
const MAX_BATCH: usize = 256;

/// How long changes are gathered before they are committed, at the most. Only those that wait already are gathered: one
/// that comes alone is committed at once.
const MAX_BATCH_DELAY: Duration = Duration::from_millis(2);

/// How long it is known of a change that it was done, if nobody says that it is no longer needed: far longer than a host
/// that was cut off stays down.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A change somebody asks for.
#[derive(Debug)]
pub(super) struct WriteJob {
    pub(super) bucket: Bucket,
    pub(super) change: Change,
    /// How many bytes the space may have.
    pub(super) quota: Limit,
    /// What the change is known by.
    pub(super) once: String,
    /// When it is asked for, in milliseconds since 1970.
    pub(super) at: i64,
}

type Reply = oneshot::Sender<Result<Changed>>;

enum Command {
    Change(Box<WriteJob>, Reply),
    Forget(String),
    Close(oneshot::Sender<Result<()>>),
}

/// The writer, as the store has hold of it.
pub(super) struct Writer {
    /// None once the store is being dropped.
    commands: Option<mpsc::Sender<Command>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts it on a file that is ready.
    pub(super) fn start(database: Database) -> Result<Self> {
        let connection = connect(&database).map_err(|error| database.explain(&error))?;
        let mark = Mark::open(&database, &connection)?;
        let (commands, inbox) = mpsc::channel(MAX_QUEUED);
        let thread = std::thread::Builder::new()
            .name("keyvalue".into())
            .spawn(move || Thread { database, connection, mark, answered: Vec::new() }.run(inbox))
            .map_err(|error| StorageError::no_thread(&error))?;
        Ok(Self { commands: Some(commands), thread: Some(thread) })
    }

    /// Has a change made, and waits until it is on disk.
    pub(super) async fn ask(&self, asked: WriteJob) -> Result<Changed> {
        let (reply, answer) = oneshot::channel();
        self.commands()?.send(Command::Change(Box::new(asked), reply)).await.map_err(|_| StorageError::closed())?;
        answer.await.map_err(|_| StorageError::closed())?
    }

    /// Has it forgotten that a change was made, when something is written next.
    pub(super) fn forget(&self, once: &str) {
        if let Ok(commands) = self.commands() {
            // If too much waits, it is forgotten when it is old.
            let _ = commands.try_send(Command::Forget(once.to_owned()));
        }
    }

    /// Does what was asked before, writes everything out and ends.
    pub(super) async fn close(&self) -> Result<()> {
        let (reply, closed) = oneshot::channel();
        self.commands()?.send(Command::Close(reply)).await.map_err(|_| StorageError::closed())?;
        closed.await.map_err(|_| StorageError::closed())?
    }

    fn commands(&self) -> Result<&mpsc::Sender<Command>> {
        Ok(self.commands.as_ref().ok_or_else(StorageError::closed)?)
    }
}

impl Drop for Writer {
    /// Waits until what was asked is done: the file is another's only then.
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it ended anyway
        }
    }
}

fn connect(database: &Database) -> rusqlite::Result<Connection> {
    let connection = database.connect()?;
    let old = millis(SystemTime::now() - KNOWN_FOR);
    connection.execute("DELETE FROM done WHERE at < ?1", [old])?;
    // What was deleted goes back to the disk.
    connection.execute_batch("PRAGMA incremental_vacuum")?;
    Ok(connection)
}

/// The thread's own side.
struct Thread {
    database: Database,
    connection: Connection,
    /// The high-water mark beside the file.
    mark: Mark,
    /// Changes that need not be known any more. They go along with the next commit rather than make one.
    answered: Vec<String>,
}

impl Thread {
    fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        while let Some(command) = inbox.blocking_recv() {
            let closing = match command {
                Command::Change(asked, reply) => self.together(asked, reply, &mut inbox),
                Command::Forget(once) => {
                    self.answered.push(once);
                    None
                }
                Command::Close(reply) => Some(reply),
            };
            if let Some(reply) = closing {
                let _ = reply.send(self.close());
                return;
            }
        }
        if let Err(error) = self.close() {
            tracing::debug!(%error, "the key-value store was not closed well; it loses nothing by that");
        }
    }

    /// Makes a change and those that wait behind it, as one transaction. Answers with who asked to close, if that came up.
    fn together(
        &mut self,
        asked: Box<WriteJob>,
        reply: Reply,
        inbox: &mut mpsc::Receiver<Command>,
    ) -> Option<oneshot::Sender<Result<()>>> {
        let mut batch = vec![(asked, reply)];
        let mut closing = None;
        let began = Instant::now();
        while batch.len() < MAX_BATCH && began.elapsed() < MAX_BATCH_DELAY {
            match inbox.try_recv() {
                Ok(Command::Change(asked, reply)) => batch.push((asked, reply)),
                Ok(Command::Forget(once)) => self.answered.push(once),
                Ok(Command::Close(reply)) => {
                    closing = Some(reply);
                    break;
                }
                Err(_) => break,
            }
        }
        self.commit(batch);
        closing
    }

    /// Commits changes together, and if that fails each by itself: what can be done is done.
    fn commit(&mut self, batch: Vec<(Box<WriteJob>, Reply)>) {
        let alone = batch.len() == 1;
        let outcomes = self.transaction(batch.iter().map(|(asked, _)| &**asked));
        match outcomes {
            Ok(outcomes) => {
                self.answered.clear();
                for ((_, reply), outcome) in batch.into_iter().zip(outcomes) {
                    let _ = reply.send(outcome); // an asker that is gone needs no answer
                }
            }
            Err(error) if alone => {
                let trouble = self.database.explain(&error);
                for (_, reply) in batch {
                    let _ = reply.send(Err(trouble.clone().into()));
                }
            }
            Err(error) => {
                tracing::debug!(%error, changes = batch.len(), "a transaction of the key-value store failed");
                batch.into_iter().for_each(|change| self.commit(vec![change]));
            }
        }
    }

    /// Makes changes in one transaction, and says what each came to; all of it is on disk then.
    fn transaction<'a>(
        &mut self,
        changes: impl Iterator<Item = &'a WriteJob>,
    ) -> rusqlite::Result<Vec<Result<Changed>>> {
        let changed_before = self.connection.total_changes();
        let mut transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for once in &self.answered {
            tables::forget(&transaction, once)?;
        }
        let mut outcomes = Vec::new();
        for asked in changes {
            let savepoint = transaction.savepoint()?;
            outcomes.push(match tables::change(&savepoint, asked) {
                Ok(changed) => {
                    savepoint.commit()?;
                    Ok(changed)
                }
                // What it did so far is taken back when the savepoint is dropped, and nothing else.
                Err(Fault::Refused(why)) => Err(StoreError::Refused(why)),
                Err(Fault::Storage(error)) => return Err(error),
            });
        }
        let written = transaction.total_changes() > changed_before;
        if written {
            self.mark.count(&transaction)?;
        }
        transaction.commit()?;
        if written {
            self.mark.raise();
        }
        Ok(outcomes)
    }

    fn close(mut self) -> Result<()> {
        let sql = |error: rusqlite::Error| self.database.explain(&error);
        let forgotten = self.connection.transaction().and_then(|transaction| {
            self.answered.iter().try_for_each(|once| tables::forget(&transaction, once))?;
            transaction.commit()
        });
        forgotten.map_err(sql)?;
        self.connection.wal_checkpoint_v2(Some("main"), CheckpointMode::TRUNCATE).map_err(sql)?;
        self.connection.close().map_err(|(_, error)| self.database.explain(&error).into())
    }
}

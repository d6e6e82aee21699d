//! Group commit: one thread writes to a database, commits queued jobs in one transaction, and reports the result of each
//! job after the commit. Tenants take turns, and what a client
//! waits for goes first: see [`FairQueue`].

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::wal::CheckpointMode;
use rusqlite::{CachedStatement, Connection};
use tokio::sync::{mpsc, oneshot};

use super::fair_queue::{FairQueue, JobClass, Next, Pop};
use super::health::Health;
use super::{Database, Mark};
use crate::error::StorageError;

/// Maximum time for which a transaction collects jobs. Only jobs that are already queued are collected; a single job is
/// committed at once.
const MAX_BATCH_DELAY: Duration = Duration::from_millis(2);

/// The size of the jobs at which a transaction collects no more, in bytes: what comes next waits for the commit.
const MAX_BATCH_BYTES: usize = 512 * 1024;

/// The limits of a writer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WriterLimits {
    /// Maximum number of queued jobs.
    pub(crate) queued: usize,
    /// Maximum number of jobs in a transaction.
    pub(crate) batch: usize,
}

/// A connection that can write. It counts its commits in the high-water mark.
pub(crate) struct WriteConnection {
    connection: Connection,
    database: Database,
    mark: Mark,
    /// The number of rows that the connection had changed when the open transaction began.
    changed_before: u64,
    /// The statements that were used.
    #[cfg(test)]
    pub(crate) used: std::cell::RefCell<std::collections::BTreeSet<String>>,
}

impl WriteConnection {
    /// Wraps a connection to an existing database with the current schema.
    pub(crate) fn new(connection: Connection, database: Database) -> Result<Self, StorageError> {
        let mark = Mark::open(&database, &connection)?;
        Ok(Self {
            changed_before: connection.total_changes(),
            connection,
            database,
            mark,
            #[cfg(test)]
            used: std::cell::RefCell::default(),
        })
    }

    /// Returns the database.
    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Returns a cached prepared statement.
    pub(crate) fn sql(&self, sql: &str) -> rusqlite::Result<CachedStatement<'_>> {
        #[cfg(test)]
        self.used.borrow_mut().insert(sql.to_owned());
        self.connection.prepare_cached(sql)
    }

    /// Begins a transaction.
    pub(crate) fn begin(&mut self) -> rusqlite::Result<()> {
        self.changed_before = self.connection.total_changes();
        self.sql("BEGIN IMMEDIATE")?.execute([]).map(drop)
    }

    /// Commits the open transaction durably. Returns whether it wrote anything.
    pub(crate) fn commit(&mut self) -> rusqlite::Result<bool> {
        let written = self.connection.total_changes() > self.changed_before;
        if written {
            self.mark.count(&self.connection)?;
        }
        self.sql("COMMIT")?.execute([])?;
        if written {
            self.mark.raise();
        }
        Ok(written)
    }

    /// Rolls the open transaction back.
    pub(crate) fn roll_back(&self) {
        // After some errors, SQLite has rolled back already.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::debug!(store = self.database.name(), %error, "cannot roll back");
        }
    }

    /// Runs work in a transaction and commits it durably. Rolls back if the work or the commit fails.
    pub(crate) fn transact<T>(&mut self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
        let done = self.begin().and_then(|()| work(&self.connection)).and_then(|done| {
            self.commit()?;
            Ok(done)
        });
        if done.is_err() {
            self.roll_back();
        }
        done
    }

    /// Checkpoints the whole log into the file and closes the connection.
    pub(crate) fn close(self) -> Result<(), StorageError> {
        let Self { connection, database, .. } = self;
        let checkpointed = connection.wal_checkpoint_v2(Some("main"), CheckpointMode::TRUNCATE);
        let closed = checkpointed.and_then(|_| connection.close().map_err(|(_, error)| error));
        closed.map_err(|error| database.explain(&error))
    }
}

impl std::ops::Deref for WriteConnection {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl std::ops::DerefMut for WriteConnection {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// The state of a writer thread, on which its jobs work.
pub(crate) trait WriteStore: Send + Sized + 'static {
    /// The error type of jobs.
    type Error: From<StorageError> + Clone + fmt::Debug + Send + 'static;

    /// Returns the connection of the writer.
    fn connection(&mut self) -> &mut WriteConnection;

    /// Runs at the beginning of every transaction.
    fn on_begin(&mut self) -> rusqlite::Result<()> {
        Ok(())
    }

    /// Runs before a transaction is committed, and may write. If it fails, the transaction is rolled back.
    fn before_commit(&mut self) -> rusqlite::Result<()> {
        Ok(())
    }

    /// Runs after a transaction was committed.
    fn on_commit(&mut self) {}

    /// Runs after a transaction was rolled back.
    fn on_rollback(&mut self) {}

    /// Runs after each batch of jobs, once their results are reported.
    fn after_batch(&mut self) {}

    /// Checkpoints and closes the database.
    fn close(self) -> Result<(), StorageError>;
}

/// The error of a job.
#[derive(Debug)]
pub(crate) enum Fault<E> {
    /// SQLite failed. The transaction must be rolled back, including the changes of earlier jobs in it.
    Storage(rusqlite::Error),
    /// The job panicked. The transaction must be rolled back.
    Panicked(String),
    /// The job was rejected and changed nothing. The transaction can continue.
    Refused(E),
}

impl<E> Fault<E> {
    fn panicked(panic: &(dyn Any + Send)) -> Self {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Self::Panicked(format!("internal error in the host: {text}; please report it"))
    }
}

impl<E> From<rusqlite::Error> for Fault<E> {
    fn from(error: rusqlite::Error) -> Self {
        Self::Storage(error)
    }
}

/// A unit of work of the writer.
pub(crate) trait Job<S: WriteStore>: Send {
    /// Returns the tenant of the job and the size of what it writes.
    fn class(&self) -> JobClass;

    /// Does the work in the open transaction. Called again if that transaction was rolled back.
    fn run(&mut self, store: &mut S) -> Result<(), Fault<S::Error>>;

    /// Reports the result. On success the changes are durable.
    fn finish(self: Box<Self>, store: &mut S, result: Result<(), S::Error>);
}

/// A job whose caller waits for the result.
struct AskJob<F, T, E> {
    class: JobClass,
    work: F,
    answer: Option<T>,
    reply: oneshot::Sender<Result<T, E>>,
}

impl<S, F, T> Job<S> for AskJob<F, T, S::Error>
where
    S: WriteStore,
    F: FnMut(&mut S) -> Result<T, Fault<S::Error>> + Send,
    T: Send,
{
    fn class(&self) -> JobClass {
        self.class.clone()
    }

    fn run(&mut self, store: &mut S) -> Result<(), Fault<S::Error>> {
        self.answer = Some((self.work)(store)?);
        Ok(())
    }

    fn finish(self: Box<Self>, store: &mut S, result: Result<(), S::Error>) {
        let Self { answer, reply, .. } = *self;
        let closed = || store.connection().database().closed().into();
        let _ = reply.send(result.and_then(|()| answer.ok_or_else(closed))); // the caller may have stopped waiting
    }
}

enum Command<S: WriteStore> {
    Do(Box<dyn Job<S>>),
    Note(Box<dyn FnOnce(&mut S) + Send>),
    Close(oneshot::Sender<Result<(), StorageError>>),
}

/// The reply channel of a request to close the writer, if one was received.
type Closing = Option<oneshot::Sender<Result<(), StorageError>>>;

/// The handle of a writer thread. Dropping it waits until all queued jobs are done.
pub(crate) struct Writer<S: WriteStore> {
    /// `None` while the handle is being dropped.
    commands: Option<mpsc::Sender<Command<S>>>,
    database: Database,
    limits: WriterLimits,
    health: Health,
    thread: Option<JoinHandle<()>>,
}

impl<S: WriteStore> Writer<S> {
    /// Starts a writer thread with a name.
    pub(crate) fn start(mut store: S, thread: &str, limits: WriterLimits) -> Result<Self, StorageError> {
        let (commands, inbox) = mpsc::channel(limits.queued);
        let (health, database) = (Health::default(), store.connection().database().clone());
        let batch = Vec::with_capacity(limits.batch);
        let worker = Thread { store, limits, queue: FairQueue::new(), closing: None, batch, health: health.clone() };
        let thread = std::thread::Builder::new()
            .name(thread.to_owned())
            .spawn(move || worker.run(inbox))
            .map_err(|error| database.no_thread(&error))?;
        Ok(Self { commands: Some(commands), database, limits, health, thread: Some(thread) })
    }

    /// Runs work of the host in a transaction and waits until it is durable. The work may run twice, if its first
    /// transaction failed.
    pub(crate) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut S) -> Result<T, Fault<S::Error>> + Send + 'static,
    ) -> Result<T, S::Error> {
        self.ask_in(JobClass::HOST, work).await
    }

    /// Runs work as [`Writer::ask`] does, when it is the turn of its class.
    pub(crate) async fn ask_in<T: Send + 'static>(
        &self,
        class: JobClass,
        work: impl FnMut(&mut S) -> Result<T, Fault<S::Error>> + Send + 'static,
    ) -> Result<T, S::Error> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(AskJob { class, work, answer: None, reply });
        self.commands()?.send(Command::Do(job)).await.map_err(|_| self.database.closed())?;
        self.wake();
        answer.await.map_err(|_| self.database.closed())?
    }

    /// Queues a job without waiting.
    pub(crate) fn submit(&self, job: Box<dyn Job<S>>) -> Result<(), StorageError> {
        let sent = self.commands()?.try_send(Command::Do(job));
        self.wake();
        sent.map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StorageError::full(
                self.database.name(),
                format!("{} changes are already waiting to be written; try again later", self.limits.queued),
            ),
            mpsc::error::TrySendError::Closed(_) => self.database.closed(),
        })
    }

    /// Queues a change of the state in memory and returns at once. Does nothing if the queue is full.
    pub(crate) fn note(&self, change: impl FnOnce(&mut S) + Send + 'static) {
        if let Ok(commands) = self.commands() {
            let _ = commands.try_send(Command::Note(Box::new(change)));
        }
    }

    /// Checks whether the thread is running and the last write succeeded.
    pub(crate) fn health(&self) -> Result<(), StorageError> {
        // The thread drops the receiver when it ends or panics.
        if self.commands()?.is_closed() { Err(self.database.closed()) } else { self.health.read() }
    }

    /// Runs all queued jobs, closes the database and ends the thread.
    pub(crate) async fn close(&self) -> Result<(), StorageError> {
        let (reply, closed) = oneshot::channel();
        self.commands()?.send(Command::Close(reply)).await.map_err(|_| self.database.closed())?;
        self.wake();
        closed.await.map_err(|_| self.database.closed())?
    }

    /// Wakes the thread if it waits because of what tenants have written.
    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    fn commands(&self) -> Result<&mpsc::Sender<Command<S>>, StorageError> {
        self.commands.as_ref().ok_or_else(|| self.database.closed())
    }
}

impl<S: WriteStore> Drop for Writer<S> {
    /// Waits until the queued jobs are done, because another process may open the files only then.
    fn drop(&mut self) {
        self.commands = None;
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // also ends if the thread panicked
        }
    }
}

type BoxedJob<S> = Box<dyn Job<S>>;

/// The state of the writer thread.
struct Thread<S: WriteStore> {
    store: S,
    limits: WriterLimits,
    /// The jobs that were received and wait for their turn.
    queue: FairQueue<BoxedJob<S>>,
    /// The request to close, if one was received. The queued jobs run first.
    closing: Closing,
    /// The jobs of the open transaction, each with its error if it was rejected.
    batch: Vec<(BoxedJob<S>, Option<S::Error>)>,
    health: Health,
}

impl<S: WriteStore> Thread<S> {
    fn run(mut self, mut inbox: mpsc::Receiver<Command<S>>) {
        loop {
            self.receive(&mut inbox);
            match self.pop(&inbox, Pop::InTurn) {
                Next::Job(bytes, job) => {
                    self.run_batch(bytes, job, &mut inbox);
                    self.store.after_batch();
                }
                // A new job ends the wait.
                Next::Wait(wait) => std::thread::park_timeout(wait),
                Next::Empty => match self.closing.take() {
                    Some(reply) => {
                        let _ = reply.send(self.store.close());
                        return;
                    }
                    None => match inbox.blocking_recv() {
                        Some(command) => self.accept(command),
                        None => break,
                    },
                },
            }
        }
        if let Err(error) = self.store.close() {
            tracing::debug!(%error, "cannot close a database; no data is lost");
        }
    }

    /// Takes the next job. Nobody has to wait once the handle is closed or dropped.
    fn pop(&mut self, inbox: &mpsc::Receiver<Command<S>>, pop: Pop) -> Next<BoxedJob<S>> {
        let is_closing = self.closing.is_some() || inbox.is_closed();
        self.queue.pop(Instant::now(), if is_closing { Pop::AtOnce } else { pop })
    }

    /// Queues the jobs that were sent, unless as many wait already as the channel holds.
    fn receive(&mut self, inbox: &mut mpsc::Receiver<Command<S>>) {
        while self.closing.is_none() && self.queue.len() < self.limits.queued {
            let Ok(command) = inbox.try_recv() else { return };
            self.accept(command);
        }
    }

    fn accept(&mut self, command: Command<S>) {
        match command {
            Command::Do(job) => self.queue.push(job.class(), job, Instant::now()),
            Command::Note(change) => change(&mut self.store),
            Command::Close(reply) => self.closing = Some(reply),
        }
    }

    /// Runs a job of this size, and those whose turn is next, in one transaction.
    fn run_batch(&mut self, bytes: usize, first: BoxedJob<S>, inbox: &mut mpsc::Receiver<Command<S>>) {
        let done = self.gather(bytes, first, inbox).and_then(|()| self.commit());
        match done {
            Ok(()) => {
                for (job, refused) in self.batch.drain(..) {
                    job.finish(&mut self.store, refused.map_or(Ok(()), Err));
                }
            }
            Err(fault) => {
                self.roll_back();
                self.run_one_by_one(fault);
            }
        }
    }

    fn gather(
        &mut self,
        mut bytes: usize,
        first: BoxedJob<S>,
        inbox: &mut mpsc::Receiver<Command<S>>,
    ) -> Result<(), Fault<S::Error>> {
        self.batch.push((first, None));
        self.begin()?;
        let began = Instant::now();
        loop {
            if let Some((job, refused)) = self.batch.last_mut() {
                match run(job.as_mut(), &mut self.store) {
                    Ok(()) => {}
                    Err(Fault::Refused(error)) => *refused = Some(error),
                    Err(fault) => return Err(fault),
                }
            }
            let is_full = self.batch.len() >= self.limits.batch || bytes >= MAX_BATCH_BYTES;
            if is_full || began.elapsed() >= MAX_BATCH_DELAY {
                return Ok(());
            }
            self.receive(inbox);
            let Next::Job(size, job) = self.pop(inbox, Pop::IntoTransaction) else { return Ok(()) };
            bytes += size;
            self.batch.push((job, None));
        }
    }

    /// Runs the jobs of a failed transaction again, each in its own transaction, so that only the faulty job fails.
    fn run_one_by_one(&mut self, fault: Fault<S::Error>) {
        let mut batch = std::mem::take(&mut self.batch);
        if batch.len() > 1 {
            let store = self.store.connection().database().name();
            tracing::debug!(store, ?fault, jobs = batch.len(), "transaction failed; its jobs run one by one");
            for (mut job, _) in batch.drain(..) {
                let result = self.run_alone(job.as_mut());
                job.finish(&mut self.store, result);
            }
        } else if let Some((job, _)) = batch.pop() {
            let result = Err(self.explain(fault));
            job.finish(&mut self.store, result);
        }
        self.batch = batch;
    }

    fn run_alone(&mut self, job: &mut dyn Job<S>) -> Result<(), S::Error> {
        let done = self.begin().and_then(|()| run(job, &mut self.store)).and_then(|()| self.commit());
        done.map_err(|fault| {
            self.roll_back();
            self.explain(fault)
        })
    }

    fn begin(&mut self) -> Result<(), Fault<S::Error>> {
        self.store.connection().begin()?;
        Ok(self.store.on_begin()?)
    }

    fn commit(&mut self) -> Result<(), Fault<S::Error>> {
        self.store.before_commit()?;
        if self.store.connection().commit()? {
            self.health.succeeded();
        }
        self.store.on_commit();
        Ok(())
    }

    fn roll_back(&mut self) {
        self.store.connection().roll_back();
        self.store.on_rollback();
    }

    fn explain(&mut self, fault: Fault<S::Error>) -> S::Error {
        let database = self.store.connection().database();
        match fault {
            Fault::Refused(error) => error,
            Fault::Panicked(text) => database.broken(text).into(),
            Fault::Storage(error) => {
                let explained = database.explain(&error);
                self.health.failed(&error, &explained);
                explained.into()
            }
        }
    }
}

/// Runs a job in the open transaction. Catches a panic of the job, so that the writer continues.
fn run<S: WriteStore>(job: &mut dyn Job<S>, store: &mut S) -> Result<(), Fault<S::Error>> {
    let ran = catch_unwind(AssertUnwindSafe(|| job.run(store)));
    ran.unwrap_or_else(|panic| Err(Fault::panicked(&*panic)))
}

//! The one thread that writes. Jobs that wait are committed together; each is answered after its commit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::calls::{CallJob, Change, PendingBytes};
use super::checkpoint::Checkpoints;
use super::fault::Fault;
use super::health::Health;
use super::open::Opened;
use super::store::Store;
use crate::journal::{CommitHandle, JournalError, Result};
use crate::sqlite::{DirectoryLock, StorageError};
use modhost_core::event::DeliveryId;

/// How many jobs may wait for the writer.
const MAX_QUEUED: usize = 4096;

/// How many jobs are committed together at the most.
const MAX_BATCH: usize = 1024;

/// How long jobs are gathered before they are committed, at the most. Only jobs that wait already are gathered: one
/// that comes alone is committed at once.
const MAX_BATCH_DELAY: Duration = Duration::from_millis(2);

/// Something to be done by the writer.
pub(super) trait Job: Send {
    /// Does it, in an open transaction. Called again if that had to be taken back.
    fn run(&mut self, store: &mut Store) -> std::result::Result<(), Fault>;

    /// Says how it ended; what it wrote is on disk if it ended well.
    fn finish(self: Box<Self>, store: &mut Store, ended: Result<()>);
}

/// A job whose asker waits for an answer.
struct WriteJob<F, T> {
    work: F,
    answer: Option<T>,
    reply: oneshot::Sender<Result<T>>,
}

impl<F, T> Job for WriteJob<F, T>
where
    F: FnMut(&mut Store) -> std::result::Result<T, Fault> + Send,
    T: Send,
{
    fn run(&mut self, store: &mut Store) -> std::result::Result<(), Fault> {
        self.answer = Some((self.work)(store)?);
        Ok(())
    }

    fn finish(self: Box<Self>, _: &mut Store, ended: Result<()>) {
        let Self { answer, reply, .. } = *self;
        let _ = reply.send(ended.and_then(|()| answer.ok_or_else(stopped))); // an asker that is gone needs no answer
    }
}

enum Command {
    Do(Box<dyn Job>),
    Close(oneshot::Sender<Result<()>>),
}

/// The writer, as the journal has hold of it.
pub(super) struct Writer {
    /// None once the journal is being dropped.
    commands: Option<mpsc::Sender<Command>>,
    on_the_way: PendingBytes,
    health: Health,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Starts it.
    pub(super) fn start(opened: Opened) -> Result<Self> {
        let (commands, inbox) = mpsc::channel(MAX_QUEUED);
        let health = Health::default();
        let noted = health.clone();
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || Thread::new(opened, noted).run(inbox))
            .map_err(|error| StorageError::no_thread(&error))?;
        Ok(Self { commands: Some(commands), on_the_way: PendingBytes::default(), health, thread: Some(thread) })
    }

    /// Has something done, and waits until it is on disk. The work is done again if the commit it was part of failed.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Store) -> std::result::Result<T, Fault> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(WriteJob { work, answer: None, reply });
        self.commands()?.send(Command::Do(job)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Has the calls of a delivery changed, without waiting.
    pub(super) fn change_calls(&self, delivery: &DeliveryId, change: Change) -> Result<CommitHandle> {
        let (done, written) = oneshot::channel();
        let job: CallJob = self.on_the_way.job(delivery, change, done)?;
        self.commands()?.try_send(Command::Do(Box::new(job))).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                JournalError::Full(format!("{MAX_QUEUED} changes wait for the disk already"))
            }
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        Ok(CommitHandle::when(written))
    }

    /// Whether what is asked of it reaches the disk.
    pub(super) fn health(&self) -> Result<()> {
        // Its end of the channel is gone once it has closed, or has panicked.
        if self.commands()?.is_closed() { Err(stopped()) } else { self.health.read() }
    }

    /// Does what was asked before, writes everything out and ends.
    pub(super) async fn close(&self) -> Result<()> {
        let (reply, closed) = oneshot::channel();
        self.commands()?.send(Command::Close(reply)).await.map_err(|_| stopped())?;
        closed.await.map_err(|_| stopped())?
    }

    fn commands(&self) -> Result<&mpsc::Sender<Command>> {
        self.commands.as_ref().ok_or_else(stopped)
    }
}

impl Drop for Writer {
    /// Waits until what was asked is done: the files are another's only then.
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // it ended anyway
        }
    }
}

/// Runs a job in the open transaction. One that panics fails as others do, and takes none of them with it: a writer that is gone
/// would be everyone's loss.
fn run(job: &mut dyn Job, store: &mut Store) -> std::result::Result<(), Fault> {
    let ran = catch_unwind(AssertUnwindSafe(|| job.run(store)));
    ran.unwrap_or_else(|panic| Err(Fault::panicked(&*panic)))
}

pub(super) fn stopped() -> JournalError {
    StorageError::closed().into()
}

/// The thread's own side.
struct Thread {
    store: Store,
    checkpoints: Checkpoints,
    /// Held for as long as anything may be written.
    lock: DirectoryLock,
    /// The jobs of the open transaction, with why they were refused.
    batch: Vec<(Box<dyn Job>, Option<JournalError>)>,
    health: Health,
}

impl Thread {
    fn new(opened: Opened, health: Health) -> Self {
        let Opened { store, checkpoints, lock, .. } = opened;
        Self { store, checkpoints, lock, batch: Vec::with_capacity(MAX_BATCH), health }
    }

    fn run(mut self, mut inbox: mpsc::Receiver<Command>) {
        while let Some(command) = inbox.blocking_recv() {
            let closing = match command {
                Command::Do(job) => self.do_together(job, &mut inbox),
                Command::Close(reply) => Some(reply),
            };
            self.checkpoints.after_commit(self.store.connection());
            if let Some(reply) = closing {
                let _ = reply.send(self.close());
                return;
            }
        }
        if let Err(error) = self.close() {
            tracing::debug!(%error, "the journal was not closed well; it loses nothing by that");
        }
    }

    /// Does a job and those that wait behind it, as one transaction. Answers with who asked to close, if that came up.
    fn do_together(
        &mut self,
        first: Box<dyn Job>,
        inbox: &mut mpsc::Receiver<Command>,
    ) -> Option<oneshot::Sender<Result<()>>> {
        let mut closing = None;
        let done = self.gather(first, inbox, &mut closing).and_then(|()| self.store.commit());
        match done {
            Ok(written) => {
                if written {
                    self.health.succeeded();
                }
                for (job, refused) in self.batch.drain(..) {
                    job.finish(&mut self.store, refused.map_or(Ok(()), Err));
                }
            }
            Err(error) => {
                tracing::debug!(%error, jobs = self.batch.len(), "a transaction of the journal failed");
                self.store.roll_back();
                self.do_singly(&error);
            }
        }
        closing
    }

    fn gather(
        &mut self,
        first: Box<dyn Job>,
        inbox: &mut mpsc::Receiver<Command>,
        closing: &mut Option<oneshot::Sender<Result<()>>>,
    ) -> rusqlite::Result<()> {
        self.batch.push((first, None));
        self.store.begin()?;
        let began = Instant::now();
        loop {
            if let Some((job, refused)) = self.batch.last_mut() {
                match run(job.as_mut(), &mut self.store) {
                    Ok(()) => {}
                    Err(Fault::Refused(error)) => *refused = Some(error),
                    Err(Fault::Storage(error)) => return Err(error),
                }
            }
            if self.batch.len() >= MAX_BATCH || began.elapsed() >= MAX_BATCH_DELAY {
                return Ok(());
            }
            match inbox.try_recv() {
                Ok(Command::Do(job)) => self.batch.push((job, None)),
                Ok(Command::Close(reply)) => {
                    *closing = Some(reply);
                    return Ok(());
                }
                Err(_) => return Ok(()),
            }
        }
    }

    /// Does the jobs of a transaction that failed again, each in one of its own: what can be done is done.
    fn do_singly(&mut self, failed: &rusqlite::Error) {
        let mut batch = std::mem::take(&mut self.batch);
        let alone = batch.len() == 1;
        for (mut job, _) in batch.drain(..) {
            let ended = if alone { Err(self.explain(failed)) } else { self.do_alone(job.as_mut()) };
            job.finish(&mut self.store, ended);
        }
        self.batch = batch;
    }

    fn do_alone(&mut self, job: &mut dyn Job) -> Result<()> {
        let done = self.store.begin().map_err(Fault::Storage).and_then(|()| run(job, &mut self.store));
        match done.and_then(|()| self.store.commit().map_err(Fault::Storage)) {
            Ok(written) => {
                if written {
                    self.health.succeeded();
                }
                Ok(())
            }
            Err(fault) => {
                self.store.roll_back();
                Err(match fault {
                    Fault::Refused(error) => error,
                    Fault::Storage(error) => self.explain(&error),
                })
            }
        }
    }

    /// A failure of the storage, told to whoever asked for something.
    fn explain(&self, error: &rusqlite::Error) -> JournalError {
        let explained = self.store.database.explain(error).into();
        self.health.failed(error, &explained);
        explained
    }

    fn close(self) -> Result<()> {
        let Self { store, checkpoints, lock, .. } = self;
        checkpoints.stop();
        let database = store.database.clone();
        let connection = store.into_connection();
        let closed = super::checkpoint::write_out(&connection)
            .and_then(|()| connection.close().map_err(|(_, error)| error))
            .map_err(|error| database.explain(&error).into());
        drop(lock);
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Sqlite, SqliteSettings};
    use super::*;
    use crate::journal::Journal;

    #[tokio::test]
    async fn a_job_that_panics_fails_alone() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Sqlite::open(SqliteSettings { directory: directory.path().to_owned() }).await.unwrap();
        let broken = journal.writer.ask(|store| -> std::result::Result<(), Fault> {
            store.touch()?;
            panic!("at the disco")
        });
        let good = (0..20).map(|_| journal.probe());
        let (broken, good) = futures::future::join(broken, futures::future::join_all(good)).await;
        assert!(matches!(&broken, Err(JournalError::Broken(why)) if why.contains("at the disco")), "{broken:?}");
        assert!(good.iter().all(Result::is_ok), "{good:?}");
        journal.health().unwrap();
        journal.close().await.unwrap();
    }
}

//! A pool of connections for one role of a store.
//!
//! Connections are made when they are needed. After a failure to connect, the pool waits before the next attempt, with
//! exponential backoff, and callers wait with it, up to a limit: a failover looks like a slow statement to them.

use std::ops::Deref;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::database::Shared;
use super::failure::Failure;
use super::session::Session;
use crate::error::StorageError;
use modhost_core::backoff::Backoff;
use modhost_core::sync::lock;

/// How long a caller waits for a connection.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The time limit for asking the server to cancel a statement.
const CANCEL_DEADLINE: Duration = Duration::from_secs(1);

/// The delays between attempts to connect.
const CONNECT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2));

/// Connections for one role of a store. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pool(Arc<PoolState>);

struct PoolState {
    shared: Arc<Shared>,
    store: &'static str,
    role: &'static str,
    /// One for each connection.
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Arc<Session>>>,
    outage: Mutex<Option<Outage>>,
}

/// Failures to connect, since the last success.
#[derive(Clone)]
struct Outage {
    failures: u32,
    /// When to try again.
    next: Instant,
    error: StorageError,
}

impl Pool {
    pub(super) fn new(shared: Arc<Shared>, store: &'static str, role: &'static str, size: usize) -> Self {
        let permits = Arc::new(Semaphore::new(size.max(1)));
        Self(Arc::new(PoolState { shared, store, role, permits, idle: Mutex::default(), outage: Mutex::default() }))
    }

    /// Returns the name of the store in messages.
    pub(crate) fn store(&self) -> &'static str {
        self.0.store
    }

    /// Creates an error that names the database.
    pub(super) fn unavailable(&self, detail: &str) -> StorageError {
        StorageError::unavailable(self.0.store, format!("{}: {detail}", self.0.shared.settings))
    }

    /// Takes a connection; waits until one is free, and through a short outage.
    ///
    /// # Errors
    ///
    /// [`Failure::Disconnected`] if there is none in time; [`Failure::Refused`] if the database can't be used.
    pub(crate) async fn get(&self) -> Result<PooledSession, Failure> {
        let deadline = Instant::now() + MAX_WAIT;
        let acquired = tokio::time::timeout(MAX_WAIT, Arc::clone(&self.0.permits).acquire_owned()).await;
        let permit = match acquired {
            Ok(Ok(permit)) => permit,
            Ok(Err(_)) => return Err(Failure::Refused(StorageError::closed(self.0.store))),
            Err(_) => {
                let (settings, role) = (&self.0.shared.settings, self.0.role);
                let detail =
                    format!("{settings}: all connections for {role} are busy; the server is too slow or too far away");
                return Err(Failure::Disconnected(StorageError::unavailable(self.0.store, detail)));
            }
        };
        let session = loop {
            let idle = lock(&self.0.idle).pop();
            match idle {
                Some(session) if session.is_closed() => {}
                Some(session) => break session,
                None => {
                    if let Some(session) = self.connect(deadline).await? {
                        break Arc::new(session);
                    }
                }
            }
        };
        Ok(PooledSession { session, pool: self.clone(), is_dirty: false, is_cancelable: false, _permit: permit })
    }

    /// Makes one attempt to connect, after the delay that earlier failures require. Returns `None` if it failed and there is
    /// time for another.
    async fn connect(&self, deadline: Instant) -> Result<Option<Session>, Failure> {
        let outage = lock(&self.0.outage).clone();
        if let Some(outage) = outage {
            if outage.next >= deadline {
                return Err(Failure::Disconnected(outage.error));
            }
            tokio::time::sleep_until(outage.next.into()).await;
        }
        match Session::connect(&self.0.shared, self.0.store).await {
            Ok(session) => {
                if let Some(outage) = lock(&self.0.outage).take() {
                    tracing::info!(role = self.0.role, failures = outage.failures, "connected to PostgreSQL again");
                }
                Ok(Some(session))
            }
            Err(Failure::Refused(error)) => Err(Failure::Refused(error)),
            Err(Failure::Disconnected(error) | Failure::Conflict(error)) => {
                let mut outage = lock(&self.0.outage);
                let failures = outage.as_ref().map_or(0, |outage| outage.failures);
                if failures == 0 {
                    tracing::warn!(role = self.0.role, %error, "cannot connect to PostgreSQL");
                }
                let next = Instant::now() + CONNECT_BACKOFF.equal_jitter(failures);
                *outage = Some(Outage { failures: failures + 1, next, error: error.clone() });
                match next < deadline {
                    true => Ok(None),
                    false => Err(Failure::Disconnected(error)),
                }
            }
        }
    }

    /// Closes the pool: idle connections now, others when they are returned. Later operations fail.
    pub(crate) fn close(&self) {
        self.0.permits.close();
        lock(&self.0.idle).clear();
    }
}

/// A connection of a pool. It is returned to the pool unless its state is unknown.
pub(crate) struct PooledSession {
    session: Arc<Session>,
    pool: Pool,
    /// Whether a statement or a transaction is under way.
    is_dirty: bool,
    /// Whether what is under way changes nothing, and is canceled if nobody waits for it any more.
    is_cancelable: bool,
    _permit: OwnedSemaphorePermit,
}

impl PooledSession {
    /// Says whether a statement or a transaction is under way. If the caller is canceled then, the connection is closed.
    pub(crate) fn set_dirty(&mut self, is_dirty: bool) {
        self.is_dirty = is_dirty;
    }

    /// Says that what runs until [`PooledSession::set_dirty`] changes nothing, and can be canceled.
    pub(super) fn set_cancelable(&mut self) {
        self.is_cancelable = true;
        self.is_dirty = true;
    }
}

impl Deref for PooledSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Drop for PooledSession {
    fn drop(&mut self) {
        if self.is_dirty && self.is_cancelable && !self.session.is_closed() {
            let canceler = self.session.canceler();
            tokio::spawn(tokio::time::timeout(CANCEL_DEADLINE, canceler.cancel()));
        }
        if !self.is_dirty && !self.session.is_closed() && !self.pool.0.permits.is_closed() {
            lock(&self.pool.0.idle).push(Arc::clone(&self.session));
        }
    }
}

//! Operations that are repeated after conflicts and broken connections.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::failure::Failure;
use super::pool::{Pool, PooledSession};
use crate::error::StorageError;
use modhost_core::backoff::Backoff;

/// The time limit of queries. They are canceled then.
const READ_DEADLINE: Duration = Duration::from_secs(10);

/// How long a caller waits for a change. A commit that waits for a synchronous standby is never canceled; its caller gets an
/// error, and the outcome is unknown.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);

/// The number of times that an operation is repeated if others are in conflict with it.
const MAX_CONFLICTS: u32 = 12;

/// The delays after a conflict.
const CONFLICT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(200));

/// The number of times that an operation is repeated after its connection broke.
const MAX_BROKEN: u32 = 5;

/// Runs an operation that changes nothing: `read!(pool, session => { … Ok(result) })`, where the block is that of an async
/// function which returns a `Result<_, Failure>`. The result is a `Result<_, StorageError>`.
///
/// The operation is repeated on another connection if its own one breaks, and canceled if it takes longer than ten seconds or the
/// caller is canceled.
macro_rules! read {
    ($pool:expr, $session:ident => $body:expr) => {
        $crate::postgres::tries!(Read, $pool, $session, $body)
    };
}
pub(crate) use read;

/// Runs a single statement that changes something, and commits it in the same round trip; otherwise like [`transaction!`]. If the
/// connection breaks, it is unknown whether the change was made.
macro_rules! statement {
    ($pool:expr, $session:ident => $body:expr) => {
        $crate::postgres::tries!(Statement, $pool, $session, $body)
    };
}
pub(crate) use statement;

/// Runs a single statement of which a repetition changes nothing more; otherwise like [`statement!`]. It is repeated if the
/// connection breaks.
macro_rules! repeatable {
    ($pool:expr, $session:ident => $body:expr) => {
        $crate::postgres::tries!(Repeatable, $pool, $session, $body)
    };
}
pub(crate) use repeatable;

/// Runs statements in a transaction and commits it: `transaction!(pool, session => { … Ok(result) })`, where the block is that of
/// an async function which returns a `Result<_, Failure>`. The result is a `Result<_, StorageError>`.
///
/// Everything is repeated if it is in conflict with other transactions (40001, 40P01), or if the connection breaks before the
/// commit, so the block must have no effects of its own. If it returns an error or the caller is canceled, the transaction is
/// rolled back. If the connection breaks during the commit, the outcome is unknown, and the error says so.
macro_rules! transaction {
    ($pool:expr, $session:ident => $body:expr) => {
        $crate::postgres::tries!(Transaction, $pool, $session, $body)
    };
}
pub(crate) use transaction;

/// A macro, because the compiler can't prove that the future of an async closure which borrows from its caller is `Send`.
macro_rules! tries {
    ($kind:ident, $pool:expr, $session:ident, $body:expr) => {{
        let pool: &$crate::postgres::Pool = &$pool;
        let mut tries = $crate::postgres::Tries::new($crate::postgres::Kind::$kind);
        loop {
            let attempt = async {
                let held = tries.begin(pool).await?;
                let result = {
                    let $session: &$crate::postgres::Session = &held;
                    async { $body }.await
                };
                tries.end(held, result).await
            };
            let result = tries.limit(pool, attempt).await;
            if let Some(result) = tries.next(result).await {
                break result;
            }
        }
    }};
}
pub(crate) use tries;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It changes nothing.
    Read,
    /// It is a single statement.
    Statement,
    /// It is a single statement of which a repetition changes nothing more.
    Repeatable,
    /// It is several statements in a transaction.
    Transaction,
}

/// The tries of an operation.
pub(crate) struct Tries {
    kind: Kind,
    conflicts: u32,
    broken: u32,
    /// Whether the change may have been committed.
    may_be_committed: AtomicBool,
}

impl Tries {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, conflicts: 0, broken: 0, may_be_committed: AtomicBool::new(false) }
    }

    /// Takes a connection, and begins a transaction if necessary.
    pub(crate) async fn begin(&self, pool: &Pool) -> Result<PooledSession, Failure> {
        let mut session = pool.get().await?;
        match self.kind {
            Kind::Read => session.set_cancelable(),
            Kind::Statement => {
                session.set_dirty(true);
                self.may_be_committed.store(true, Ordering::Relaxed);
            }
            Kind::Repeatable => session.set_dirty(true),
            Kind::Transaction => {
                session.set_dirty(true);
                // Each statement sees what was committed before it, so that it sees everything of the transactions whose locks it
                // waited for.
                session.batch("BEGIN ISOLATION LEVEL READ COMMITTED").await?;
            }
        }
        Ok(session)
    }

    /// Commits a transaction, unless the operation failed.
    pub(crate) async fn end<T>(&self, mut session: PooledSession, result: Result<T, Failure>) -> Result<T, Failure> {
        if self.kind == Kind::Transaction {
            // After an error, the connection is closed when the session is dropped, and the server rolls back.
            let value = result?;
            self.may_be_committed.store(true, Ordering::Relaxed);
            session.batch("COMMIT").await?;
            session.set_dirty(false);
            return Ok(value);
        }
        session.set_dirty(matches!(result, Err(Failure::Disconnected(_))));
        result
    }

    /// Waits for an attempt, up to the time limit.
    pub(crate) async fn limit<T>(
        &self,
        pool: &Pool,
        attempt: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let limit = if self.kind == Kind::Read { READ_DEADLINE } else { WRITE_DEADLINE };
        tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| {
            let may_be_committed = self.may_be_committed.load(Ordering::Relaxed);
            let outcome = if may_be_committed { "; whether it was committed is unknown" } else { "" };
            Err(Failure::Refused(pool.unavailable(&format!("an operation took longer than {limit:?}{outcome}"))))
        })
    }

    /// Returns the result, unless the operation is to be repeated.
    pub(crate) async fn next<T>(&mut self, result: Result<T, Failure>) -> Option<Result<T, StorageError>> {
        let may_be_committed = self.may_be_committed.swap(false, Ordering::Relaxed);
        match result {
            Ok(value) => Some(Ok(value)),
            Err(Failure::Conflict(_)) if self.conflicts < MAX_CONFLICTS => {
                tokio::time::sleep(CONFLICT_BACKOFF.full_jitter(self.conflicts)).await;
                self.conflicts += 1;
                None
            }
            Err(Failure::Disconnected(error)) if may_be_committed => {
                let detail =
                    format!("the connection broke, and whether a change was committed is unknown: {}", error.detail);
                Some(Err(StorageError { detail, ..error }))
            }
            Err(Failure::Disconnected(_)) if self.broken < MAX_BROKEN => {
                self.broken += 1;
                None
            }
            Err(failure) => Some(Err(failure.into_error())),
        }
    }
}

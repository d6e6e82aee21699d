//! Checkpoints: they move commits from the write-ahead log into the file, so that the log does not grow without bound.
//!
//! A separate thread does most of the work while the writer goes on. Under a steady load it never catches up completely, and
//! SQLite restarts the log only once it has; so when the log is long, the writer moves the small rest itself.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

use super::open;
use crate::error::StorageError;
use crate::sqlite::{BUSY, Database};
use modhost_core::sync::lock;

/// The number of pages in the log from which it is checkpointed in the background (4 MiB).
const WORTHWHILE: u32 = 1024;

/// The number of pages in the log from which the writer restarts it (32 MiB).
const LONG: u32 = 8192;

/// The number of pages in the log from which the writer first waits for a running checkpoint (64 MiB).
const TOO_LONG: u32 = 2 * LONG;

/// The number of further pages before the next try, by the thread and by the writer.
const STEPS: (u32, u32) = (1024, 256);

/// The writer's side of the checkpoints.
pub(super) struct Checkpoints {
    /// The number of pages in the log, as of the last commit.
    pages: Arc<AtomicU32>,
    /// The number of pages when the thread was last woken.
    woken_at: u32,
    /// The number of pages when the writer last tried.
    tried_at: u32,
    wake: SyncSender<()>,
    /// Held by the thread while it runs a checkpoint.
    work: Arc<Mutex<()>>,
    thread: JoinHandle<()>,
}

impl Checkpoints {
    /// Starts the thread, and watches the log of a connection that writes.
    pub(super) fn start(connection: &mut Connection, database: &Database) -> Result<Self, StorageError> {
        let sql = |error: rusqlite::Error| database.explain(&error);
        let pages = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&pages);
        let hooked = connection.wal_hook(Some(move |_: &mut rusqlite::hooks::Wal, in_log: std::ffi::c_int| {
            counted.store(in_log.unsigned_abs(), Ordering::Relaxed);
            Ok(())
        }));
        hooked.map_err(sql)?;
        let second = open::connect(database).map_err(sql)?;
        let (wake, woken) = sync_channel(1);
        let work = Arc::new(Mutex::new(()));
        let held = Arc::clone(&work);
        let thread = std::thread::Builder::new()
            .name("checkpoints".into())
            .spawn(move || run_checkpoints(&second, &woken, &held))
            .map_err(|error| database.no_thread(&error))?;
        Ok(Self { pages, woken_at: 0, tried_at: 0, wake, work, thread })
    }

    /// Checkpoints the log after a commit, if it is long enough.
    pub(super) fn after_commit(&mut self, connection: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        // Fewer than before: the log was restarted.
        self.woken_at = self.woken_at.min(pages);
        self.tried_at = self.tried_at.min(pages);
        // A long log is left to the writer: the two would keep each other from finishing.
        if (WORTHWHILE..LONG).contains(&pages) && pages >= self.woken_at + STEPS.0 {
            self.woken_at = pages;
            let _ = self.wake.try_send(()); // a running thread has been woken already
        }
        if pages >= LONG && pages >= self.tried_at + STEPS.1 {
            self.tried_at = pages;
            if pages >= TOO_LONG {
                drop(lock(&self.work));
            }
            if let Err(error) = restart_log(connection) {
                tracing::debug!(%error, pages, "cannot restart the journal's write-ahead log yet");
            }
        }
    }

    /// Ends the thread.
    pub(super) fn stop(self) {
        drop(self.wake);
        let _ = self.thread.join(); // it has no result
    }
}

fn run_checkpoints(connection: &Connection, woken: &Receiver<()>, work: &Mutex<()>) {
    while woken.recv().is_ok() {
        let _running = lock(work);
        if let Err(error) = connection.wal_checkpoint_v2(Some("main"), CheckpointMode::PASSIVE) {
            tracing::debug!(%error, "cannot checkpoint the journal");
        }
    }
}

/// Moves the rest of the log into the file, so that the next commit restarts the log. Fails instead of waiting for a long
/// read or the other thread.
fn restart_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::ZERO)?;
    let begun = connection.wal_checkpoint_v2(Some("main"), CheckpointMode::RESTART);
    connection.busy_timeout(BUSY)?;
    begun.map(drop)
}

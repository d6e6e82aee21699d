//! Checkpoints: they copy commits from the write-ahead log into the database file, so that the log stays bounded.
//!
//! A background thread does most of the work while the writer continues. Under a steady load, the thread never catches
//! up completely, and SQLite restarts the log from its beginning only after a complete checkpoint. Therefore, when the
//! log is long, the writer thread checkpoints the small rest itself.

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

/// The length of the log, in pages, from which the background thread checkpoints it (4 MiB).
const BACKGROUND_PAGES: u32 = 1024;

/// The length of the log, in pages, from which the writer tries to restart it (32 MiB).
const RESTART_PAGES: u32 = 8192;

/// The length of the log, in pages, from which the writer waits for a running background checkpoint first (64 MiB).
const BLOCKING_PAGES: u32 = 2 * RESTART_PAGES;

/// How many pages the log must grow before the next try, of the background thread and of the writer.
const RETRY_PAGES: (u32, u32) = (1024, 256);

/// The writer's handle of the checkpoints.
pub(super) struct Checkpoints {
    /// The length of the log as of the last commit, in pages.
    pages: Arc<AtomicU32>,
    /// The length of the log when the background thread was last woken.
    woken_at: u32,
    /// The length of the log when the writer last tried to restart it.
    tried_at: u32,
    wake: SyncSender<()>,
    /// Locked by the background thread during a checkpoint.
    work: Arc<Mutex<()>>,
    thread: JoinHandle<()>,
}

impl Checkpoints {
    /// Starts the background thread, and a hook that observes the log of the writer's connection.
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
        // The log is shorter than before if it was restarted.
        self.woken_at = self.woken_at.min(pages);
        self.tried_at = self.tried_at.min(pages);
        // A long log is left to the writer: two concurrent checkpoints would keep each other from completing.
        if (BACKGROUND_PAGES..RESTART_PAGES).contains(&pages) && pages >= self.woken_at + RETRY_PAGES.0 {
            self.woken_at = pages;
            let _ = self.wake.try_send(()); // if the channel is full, the thread has been woken already
        }
        if pages >= RESTART_PAGES && pages >= self.tried_at + RETRY_PAGES.1 {
            self.tried_at = pages;
            if pages >= BLOCKING_PAGES {
                drop(lock(&self.work));
            }
            if let Err(error) = restart_log(connection) {
                tracing::debug!(%error, pages, "cannot restart the journal's write-ahead log yet");
            }
        }
    }

    /// Stops the background thread and waits until it has ended.
    pub(super) fn stop(self) {
        drop(self.wake);
        let _ = self.thread.join(); // it returns nothing
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

/// Checkpoints the rest of the log, so that the next commit restarts the log. Fails instead of waiting for a long read
/// or the background thread.
fn restart_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::ZERO)?;
    let restarted = connection.wal_checkpoint_v2(Some("main"), CheckpointMode::RESTART);
    connection.busy_timeout(BUSY)?;
    restarted.map(drop)
}

//! Checkpoints: they copy commits from the write-ahead log into the database file, so that the log stays bounded.
//!
//! A background thread does most of the work while the writer continues, in passes: each copies what was in the log when it
//! began. Under a steady load it never catches up completely, and SQLite restarts the log from its beginning only after a
//! complete checkpoint. Therefore the writer thread restarts a long log itself, when a pass has left little to copy: the
//! writer must not copy megabytes and wait for the disk while clients wait for their commits.

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

/// The number of pages in the log that were not copied from which the background thread makes a pass (4 MiB).
const PASS_PAGES: u32 = 1024;

/// The length of the log, in pages, from which the writer restarts it, when there is little to copy (16 MiB).
const RESTART_PAGES: u32 = 4096;

/// The number of pages that the writer copies at most to restart the log (2 MiB).
const MAX_REST_PAGES: u32 = 512;

/// The length of the log, in pages, from which the writer waits for the background thread and copies whatever is left
/// (256 MiB).
const BLOCKING_PAGES: u32 = 64 * 1024;

/// How many pages the log must grow before the writer tries again to restart it.
const RETRY_PAGES: u32 = 256;

/// The writer's handle of the checkpoints.
pub(super) struct Checkpoints {
    /// The length of the log as of the last commit, in pages.
    pages: Arc<AtomicU32>,
    /// The length of the log that was copied as of the last pass, in pages.
    copied: Arc<AtomicU32>,
    /// The length of the log after the commit before, in pages.
    pages_before: u32,
    /// The length of the log when the writer last tried to restart it.
    tried_at: u32,
    wake: SyncSender<()>,
    /// Locked by the background thread during a pass.
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
        let (work, copied) = (Arc::new(Mutex::new(())), Arc::new(AtomicU32::new(0)));
        let (held, reported) = (Arc::clone(&work), Arc::clone(&copied));
        let thread = std::thread::Builder::new()
            .name("checkpoints".into())
            .spawn(move || run_passes(&second, &woken, &held, &reported))
            .map_err(|error| database.no_thread(&error))?;
        Ok(Self { pages, copied, pages_before: 0, tried_at: 0, wake, work, thread })
    }

    /// Checkpoints the log after a commit, if it is long enough.
    pub(super) fn after_commit(&mut self, connection: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.pages_before {
            // The log was restarted.
            self.copied.store(0, Ordering::Relaxed);
            self.tried_at = 0;
        }
        self.pages_before = pages;
        let rest = pages.saturating_sub(self.copied.load(Ordering::Relaxed));
        if rest >= PASS_PAGES {
            let _ = self.wake.try_send(()); // if the channel is full, the thread has been woken already
        }
        let is_blocking = pages >= BLOCKING_PAGES;
        let can_restart = pages >= RESTART_PAGES && rest <= MAX_REST_PAGES || is_blocking;
        if can_restart && pages >= self.tried_at + RETRY_PAGES {
            self.tried_at = pages;
            if is_blocking {
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

/// Makes a pass whenever it is woken. `copied` is set to the length of the log that was copied.
fn run_passes(connection: &Connection, woken: &Receiver<()>, work: &Mutex<()>, copied: &AtomicU32) {
    while woken.recv().is_ok() {
        let _running = lock(work);
        match connection.wal_checkpoint_v2(Some("main"), CheckpointMode::PASSIVE) {
            Ok((_, pages)) => copied.store(u32::try_from(pages).unwrap_or_default(), Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "cannot checkpoint the journal"),
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

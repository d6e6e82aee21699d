//! Bringing what was committed from the write-ahead log into the file, so that the log does not grow without bound.
//!
//! A thread of its own does most of it while the writer goes on. Under a steady load it never catches up for good, and
//! the log is only begun anew once it has; so when the log is long the writer does the rest itself, which is little.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::wal::CheckpointMode;

use super::open;
use crate::journal::Result;
use crate::sqlite::{BUSY, Database, StorageError};

/// From how many pages in the log on it is brought into the file in the background (4 MiB).
const WORTHWHILE: u32 = 1024;

/// From how many pages in the log on the writer sees to it that the log is begun anew (32 MiB).
const LONG: u32 = 8192;

/// From how many pages in the log on the writer waits for the thread first, should it be at work (64 MiB).
const TOO_LONG: u32 = 2 * LONG;

/// How many more pages there are before it is tried again, by the thread and by the writer.
const STEPS: (u32, u32) = (1024, 256);

/// The writer's hold on the log.
pub(super) struct Checkpoints {
    /// How many pages are in the log, as of the last commit.
    pages: Arc<AtomicU32>,
    /// How many there were when the thread was woken last.
    woken_at: u32,
    /// How many there were when the writer tried last.
    tried_at: u32,
    wake: SyncSender<()>,
    /// Held by the thread while it is at work.
    work: Arc<Mutex<()>>,
    thread: JoinHandle<()>,
}

impl Checkpoints {
    /// Watches the log behind a connection that writes.
    pub(super) fn start(connection: &mut Connection, database: &Database) -> Result<Self> {
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
            .spawn(move || in_the_background(&second, &woken, &held))
            .map_err(|error| StorageError::no_thread(&error))?;
        Ok(Self { pages, woken_at: 0, tried_at: 0, wake, work, thread })
    }

    /// Sees to the log after a commit, if there is need.
    pub(super) fn after_commit(&mut self, connection: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        // Fewer than before: the log was begun anew.
        self.woken_at = self.woken_at.min(pages);
        self.tried_at = self.tried_at.min(pages);
        // In a long log only the writer is at work: the two would keep each other from coming to an end.
        if (WORTHWHILE..LONG).contains(&pages) && pages >= self.woken_at + STEPS.0 {
            self.woken_at = pages;
            let _ = self.wake.try_send(()); // if it is at work it has been told already
        }
        if pages >= LONG && pages >= self.tried_at + STEPS.1 {
            self.tried_at = pages;
            if pages >= TOO_LONG {
                drop(self.work.lock().unwrap_or_else(PoisonError::into_inner));
            }
            if let Err(error) = begin_anew(connection) {
                tracing::debug!(%error, pages, "the journal's write-ahead log can't be begun anew yet");
            }
        }
    }

    /// Ends the thread.
    pub(super) fn stop(self) {
        drop(self.wake);
        let _ = self.thread.join(); // it has nothing to tell
    }
}

fn in_the_background(connection: &Connection, woken: &Receiver<()>, work: &Mutex<()>) {
    while woken.recv().is_ok() {
        let _at_work = work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = connection.wal_checkpoint_v2(Some("main"), CheckpointMode::PASSIVE) {
            tracing::debug!(%error, "a checkpoint of the journal failed");
        }
    }
}

/// Brings the rest of the log into the file, so that the next commit begins it anew. Fails rather than waits where a
/// long reading or the other thread is in the way.
fn begin_anew(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::ZERO)?;
    let begun = connection.wal_checkpoint_v2(Some("main"), CheckpointMode::RESTART);
    connection.busy_timeout(BUSY)?;
    begun.map(drop)
}

/// Brings all of the log into the file and empties it.
pub(super) fn write_out(connection: &Connection) -> rusqlite::Result<()> {
    connection.wal_checkpoint_v2(Some("main"), CheckpointMode::TRUNCATE).map(drop)
}

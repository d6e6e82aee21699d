//! Health endpoints: `/livez`, `/readyz` and `/health` of both listeners.
//!
//! A host is live if it answers at all. It is ready if it can accept an event and write it to disk: not while it
//! starts, not during shutdown, and not while its journal can't be written. A module that doesn't serve doesn't make
//! the host unready: its events wait on disk, and modules of other tenants are not affected. The endpoints read memory
//! only, so a probe is cheap and never waits for the disk.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout};

use modhost_storage::error::{StorageError, StorageErrorKind};
use modhost_storage::journal::{self, Journal, JournalError};

/// The intervals and the time limit of journal probes.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// Interval while the journal can be written; short enough to detect a full disk before an event is refused for it.
    probe_every: Duration,
    /// Interval while the journal can't be written.
    retry_every: Duration,
    /// Duration of a probe after which the disk counts as stuck.
    stuck_after: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            probe_every: Duration::from_secs(5),
            retry_every: Duration::from_secs(1),
            stuck_after: Duration::from_secs(10),
        }
    }
}

/// The part of the journal that [`Health`] uses.
#[async_trait]
pub trait Recorder: Send + Sync + 'static {
    /// Returns whether the journal can record events, as far as is known, without waiting.
    fn health(&self) -> journal::Result<()>;

    /// Tests whether the journal can record events.
    async fn probe(&self) -> journal::Result<()>;
}

#[async_trait]
impl Recorder for Arc<dyn Journal> {
    fn health(&self) -> journal::Result<()> {
        Journal::health(&**self)
    }

    async fn probe(&self) -> journal::Result<()> {
        Journal::probe(&**self).await
    }
}

/// The state of a host as reported to probes.
#[derive(Default)]
pub struct Health {
    started: AtomicBool,
    draining: AtomicBool,
    recorder: OnceLock<Box<dyn Recorder>>,
    /// The error of the last probe. It stays until a probe succeeds: on a full disk some small writes still succeed.
    probe_failed: ArcSwapOption<JournalError>,
    /// Whether a probe has been waiting for the disk for too long.
    stuck: AtomicBool,
    pace: Pace,
}

/// A reason why a host is not ready.
#[derive(Clone, Debug)]
pub enum NotReady {
    /// The host is starting.
    Starting,
    /// The host is shutting down.
    Draining,
    /// The journal can't record events.
    Journal(JournalError),
    /// The journal's disk doesn't respond.
    Stuck,
}

/// The JSON response to a probe.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// `ok`, `starting`, `draining` or `failing`.
    pub status: &'static str,
    /// The checks by name, each `ok` or `failing`.
    pub checks: Map<String, Value>,
    /// Why the host is not ready; empty if it is.
    pub reasons: Vec<String>,
}

impl NotReady {
    fn status(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Draining => "draining",
            Self::Journal(_) | Self::Stuck => "failing",
        }
    }

    fn check(&self) -> Check {
        match self {
            Self::Starting => Check::Startup,
            Self::Draining => Check::Shutdown,
            Self::Journal(_) | Self::Stuck => Check::Journal,
        }
    }

    /// Returns the reason for unauthenticated clients: it names no path, tenant or module.
    fn public(&self) -> String {
        let text = match self {
            Self::Starting => "the host is starting",
            Self::Draining => "the host is stopping: it takes no more events, and running deliveries finish",
            Self::Journal(JournalError::Storage(StorageError { kind: StorageErrorKind::Full, .. })) => {
                "the journal cannot be written: no room is left on the disk"
            }
            Self::Journal(_) => "the journal cannot be written; the host's log says why",
            Self::Stuck => "the journal cannot be written: its storage does not answer",
        };
        text.to_owned()
    }

    /// Returns the reason for operators.
    fn detailed(&self) -> String {
        match self {
            Self::Journal(error) => error.to_string(),
            _ => self.public(),
        }
    }
}

/// A condition for readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Check {
    /// The host has started.
    Startup,
    /// The host is not shutting down.
    Shutdown,
    /// The journal can record events.
    Journal,
}

impl Check {
    /// All checks.
    pub const ALL: [Self; 3] = [Self::Startup, Self::Shutdown, Self::Journal];

    /// Returns the name in responses and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Startup => "startup",
            Self::Shutdown => "shutdown",
            Self::Journal => "journal",
        }
    }
}

impl Health {
    /// Sets the journal to probe. Only the first call has an effect.
    pub fn set_recorder(&self, recorder: impl Recorder) {
        let _ = self.recorder.set(Box::new(recorder)); // a host has one journal and sets it once
    }

    /// Marks the host as started.
    pub fn set_started(&self) {
        self.started.store(true, Ordering::Relaxed);
    }

    /// Marks the host as shutting down.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Returns why the host is not ready; `None` if it is ready.
    pub fn not_ready(&self) -> Option<NotReady> {
        // The shutdown closes the journal, so its state doesn't matter any more.
        if self.draining.load(Ordering::Relaxed) {
            return Some(NotReady::Draining);
        }
        if !self.started.load(Ordering::Relaxed) {
            return Some(NotReady::Starting);
        }
        if self.stuck.load(Ordering::Relaxed) {
            return Some(NotReady::Stuck);
        }
        self.recorder.get().and_then(|recorder| self.failure(&**recorder)).map(NotReady::Journal)
    }

    /// Returns the error that prevents recording events.
    fn failure(&self, recorder: &dyn Recorder) -> Option<JournalError> {
        let probe_failed = || self.probe_failed.load_full().map(Arc::unwrap_or_clone);
        recorder.health().err().or_else(probe_failed)
    }

    /// Returns each check and whether it passes.
    pub fn checks(not_ready: Option<&NotReady>) -> [(Check, bool); 3] {
        let failing = not_ready.map(NotReady::check);
        Check::ALL.map(|check| (check, failing != Some(check)))
    }

    /// Returns the status and the body of the response to a probe. `detailed` reasons are for operators.
    pub fn report(&self, detailed: bool) -> (StatusCode, Report) {
        let not_ready = self.not_ready();
        let state = |passes: bool| Value::from(if passes { "ok" } else { "failing" });
        let checks = Self::checks(not_ready.as_ref());
        let checks = checks.into_iter().map(|(check, passes)| (check.name().to_owned(), state(passes))).collect();
        let reason = |it: &NotReady| if detailed { it.detailed() } else { it.public() };
        let status = not_ready.as_ref().map_or("ok", NotReady::status);
        let reasons = not_ready.iter().map(reason).collect();
        let code = if not_ready.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        (code, Report { status, checks, reasons })
    }

    /// Probes the journal until shutdown, so that a full disk and its recovery are detected without events.
    pub async fn watch(&self) {
        let Some(recorder) = self.recorder.get() else { return };
        let mut is_failing = false;
        let Pace { probe_every, retry_every, .. } = self.pace;
        let mut next_probe = Instant::now() + probe_every;
        loop {
            sleep(retry_every).await;
            // The shutdown closes the journal.
            if self.draining.load(Ordering::Relaxed) {
                return;
            }
            if self.failure(&**recorder).is_some() || Instant::now() >= next_probe {
                self.probe(&**recorder).await;
                next_probe = Instant::now() + probe_every;
            }
            match self.failure(&**recorder) {
                Some(error) if !is_failing => {
                    tracing::error!(%error, "cannot record events");
                    is_failing = true;
                }
                None if is_failing => {
                    tracing::info!("can record events again");
                    is_failing = false;
                }
                _ => {}
            }
        }
    }

    async fn probe(&self, recorder: &dyn Recorder) {
        let mut probe = recorder.probe();
        let after = self.pace.stuck_after;
        let ended = match timeout(after, &mut probe).await {
            Ok(ended) => ended,
            Err(_) => {
                tracing::error!(?after, "the journal's storage does not answer");
                self.stuck.store(true, Ordering::Relaxed);
                let ended = probe.await;
                self.stuck.store(false, Ordering::Relaxed);
                ended
            }
        };
        self.probe_failed.store(ended.err().map(Arc::new));
    }
}

/// Returns the routes `/livez` and `/readyz`, which need no authentication.
pub fn probe_routes(health: Arc<Health>) -> Router {
    Router::new().route("/livez", get(live)).route("/readyz", get(ready)).with_state(health)
}

/// `GET /livez`.
pub async fn live() -> Response {
    no_store(StatusCode::OK, Json(json!({ "status": "ok" })))
}

/// `GET /readyz`.
pub async fn ready(State(health): State<Arc<Health>>) -> Response {
    let (code, report) = health.report(false);
    no_store(code, Json(report))
}

/// Returns the routes of a listener while its host starts: the probes, and 503 with `Retry-After: 1` for everything
/// else.
pub fn startup_routes(health: Arc<Health>) -> Router {
    let retry_later = async || {
        let answer = Json(json!({ "success": false, "error": "the host is starting" }));
        (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], answer)
    };
    let health_route = Router::new().route("/health", get(public_health)).with_state(health.clone());
    probe_routes(health).merge(health_route).fallback(retry_later)
}

/// Returns the response of `/health` to unauthenticated clients: a shorter form of `/readyz`.
pub fn public_report(health: &Health) -> Response {
    let (code, Report { status, reasons, .. }) = health.report(false);
    let mut answer = json!({ "status": status });
    if !reasons.is_empty() {
        answer["reasons"] = reasons.into();
    }
    no_store(code, Json(answer))
}

/// `GET /health` of the public listener.
pub async fn public_health(State(health): State<Arc<Health>>) -> Response {
    public_report(&health)
}

/// Returns a response that must not be cached.
pub fn no_store(code: StatusCode, answer: impl IntoResponse) -> Response {
    (code, [(header::CACHE_CONTROL, "no-store")], answer).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// A journal on a simulated disk that a test can fill, free and block.
    #[derive(Default)]
    struct Disk {
        full: AtomicBool,
        blocked: AtomicBool,
        /// Whether small writes succeed although the disk is full.
        small_writes_fit: AtomicBool,
        known: Mutex<Option<JournalError>>,
        probe_routes: AtomicU32,
    }

    #[async_trait]
    impl Recorder for Arc<Disk> {
        fn health(&self) -> journal::Result<()> {
            self.known.lock().unwrap().clone().map_or(Ok(()), Err)
        }

        async fn probe(&self) -> journal::Result<()> {
            self.probe_routes.fetch_add(1, Ordering::Relaxed);
            while self.blocked.load(Ordering::Relaxed) {
                sleep(Duration::from_millis(1)).await;
            }
            let full =
                self.full.load(Ordering::Relaxed).then(|| StorageError::full("journal", "/secret/path is full").into());
            *self.known.lock().unwrap() = full.clone().filter(|_| !self.small_writes_fit.load(Ordering::Relaxed));
            full.map_or(Ok(()), Err)
        }
    }

    fn watched(disk: &Arc<Disk>) -> (Arc<Health>, tokio::task::JoinHandle<()>) {
        let ms = Duration::from_millis;
        let pace = Pace { probe_every: ms(5), retry_every: ms(1), stuck_after: ms(20) };
        let health = Arc::new(Health { pace, ..Health::default() });
        assert_eq!(status(&health), (503, "starting"));
        health.set_recorder(disk.clone());
        health.set_started();
        let watching = tokio::spawn({
            let health = health.clone();
            async move { health.watch().await }
        });
        (health, watching)
    }

    fn status(health: &Health) -> (u16, &'static str) {
        let (code, report) = health.report(false);
        (code.as_u16(), report.status)
    }

    /// Waits for a status, for at least a minute: enough for the slowest machine.
    async fn wait_for_status(health: &Health, wanted: (u16, &'static str)) {
        for _ in 0..60_000 {
            if status(health) == wanted {
                return;
            }
            sleep(Duration::from_millis(1)).await;
        }
        panic!("status is still {:?}, expected {wanted:?}", status(health));
    }

    #[tokio::test]
    async fn detects_a_full_disk_and_its_recovery_without_events() {
        let disk = Arc::new(Disk::default());
        let (health, watching) = watched(&disk);
        assert_eq!(status(&health), (200, "ok"));
        disk.full.store(true, Ordering::Relaxed);
        wait_for_status(&health, (503, "failing")).await;
        let (_, report) = health.report(false);
        assert_eq!(report.checks["journal"], "failing");
        assert_eq!(report.reasons, ["the journal cannot be written: no room is left on the disk"]);
        assert_eq!(health.report(true).1.reasons, ["the journal is full: /secret/path is full"]);
        disk.full.store(false, Ordering::Relaxed);
        wait_for_status(&health, (200, "ok")).await;
        health.set_draining();
        assert_eq!(status(&health), (503, "draining"));
        watching.abort();
    }

    #[tokio::test]
    async fn stays_failing_while_only_small_writes_succeed() {
        let disk = Arc::new(Disk::default());
        let (health, watching) = watched(&disk);
        disk.small_writes_fit.store(true, Ordering::Relaxed);
        disk.full.store(true, Ordering::Relaxed);
        wait_for_status(&health, (503, "failing")).await;
        let probe_routes = disk.probe_routes.load(Ordering::Relaxed);
        while disk.probe_routes.load(Ordering::Relaxed) < probe_routes + 3 {
            assert_eq!(status(&health), (503, "failing"));
            sleep(Duration::from_millis(1)).await;
        }
        disk.full.store(false, Ordering::Relaxed);
        wait_for_status(&health, (200, "ok")).await;
        watching.abort();
    }

    #[tokio::test]
    async fn stuck_disk_makes_the_host_unready_until_it_responds() {
        let disk = Arc::new(Disk::default());
        disk.blocked.store(true, Ordering::Relaxed);
        let (health, watching) = watched(&disk);
        wait_for_status(&health, (503, "failing")).await;
        assert!(matches!(health.not_ready(), Some(NotReady::Stuck)));
        assert_eq!(disk.probe_routes.load(Ordering::Relaxed), 1, "no second probe starts while the first one waits");
        disk.blocked.store(false, Ordering::Relaxed);
        wait_for_status(&health, (200, "ok")).await;
        watching.abort();
    }
}

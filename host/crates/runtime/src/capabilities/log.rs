//! The log of a guest and its standard streams: line by line, with module and delivery, within limits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use bytes::Bytes;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use modhost_core::event::{DeliveryId, Event, Name};
use modhost_core::limits::{Limits, Resource};
use modhost_core::memory_budget::{HeldMemory, MemoryBudget};
use modhost_core::sync::lock;
use modhost_core::text::prefix;
use modhost_storage::journal::LogLine;

use super::TenantLog;

/// Maximum length of a line, in bytes; longer lines are truncated.
const MAX_LINE: usize = 4096;

/// Maximum length of the context of a line, in bytes; longer contexts are truncated.
const MAX_CONTEXT: usize = 128;

/// Maximum size of one write to a standard stream, in bytes.
const MAX_WRITE: usize = 64 * 1024;

/// The number of last lines of standard error that are kept: a guest that panics reports the reason there.
const LAST_LINES: usize = 12;

/// Maximum size of the lines kept with a delivery, in bytes; further lines are only in the host's log.
const KEPT_BYTES: usize = 256 * 1024;

/// The log of one delivery.
#[derive(Clone)]
pub struct DeliveryLog(Arc<Inner>);

struct Inner {
    module: Name,
    delivery: DeliveryId,
    event: Arc<Event>,
    /// What the tenant may write to the host's log; none: everything.
    tenant_log: Option<Arc<TenantLog>>,
    state: Mutex<State>,
    /// The unterminated line of each stream.
    unfinished: [Mutex<Vec<u8>>; 2],
}

struct State {
    lines_left: u64,
    /// The remaining size of all lines together, in bytes.
    bytes_left: u64,
    /// Whether further lines are dropped.
    full: bool,
    last_errors: VecDeque<String>,
    kept: Vec<LogLine>,
    kept_left: usize,
    /// The memory of the lines that are kept.
    held: HeldMemory,
}

/// A standard stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl DeliveryLog {
    /// Creates the log of an event's delivery to a module, within its limits. The lines kept with the delivery count as
    /// `memory`.
    pub fn new(
        event: Arc<Event>,
        module: Name,
        delivery: DeliveryId,
        limits: &Limits,
        tenant_log: Option<Arc<TenantLog>>,
        memory: &MemoryBudget,
    ) -> Self {
        let state = State {
            lines_left: limits.amount(Resource::LogLines),
            bytes_left: limits.amount(Resource::LogBytes),
            full: false,
            last_errors: VecDeque::new(),
            kept: Vec::new(),
            kept_left: KEPT_BYTES,
            held: memory.hold(),
        };
        let (state, unfinished) = (Mutex::new(state), Default::default());
        Self(Arc::new(Inner { module, delivery, event, tenant_log, state, unfinished }))
    }

    /// Writes a text at a level, with the context the guest gave. Each line of the text becomes a log line of its own,
    /// so that a guest can't forge lines.
    pub fn text(&self, level: tracing::Level, context: &str, text: &str) {
        if text.is_empty() {
            self.line(level, context, "");
        }
        // Stops at the first line that doesn't fit: the text may have millions of lines.
        let _all = text.lines().try_for_each(|line| self.line(level, context, line).then_some(()));
    }

    /// Keeps a line with the delivery without writing it to the host's log, which has its own message for it.
    pub(super) fn keep_only(&self, level: tracing::Level, context: &str, line: &str) {
        let line = prefix(line, MAX_LINE);
        if self.reserve_line(context.len() + line.len()) {
            self.keep(level, context, line);
        }
    }

    /// Writes a line, unless a limit is reached. Returns whether the delivery has room for it. If the tenant logs too fast,
    /// the line is only kept with the delivery.
    fn line(&self, level: tracing::Level, context: &str, line: &str) -> bool {
        let (context, line) = (prefix(context, MAX_CONTEXT), prefix(line, MAX_LINE));
        if !self.reserve_line(context.len() + line.len()) {
            return false;
        }
        self.keep(level, context, line);
        let Inner { module, delivery, event, tenant_log, .. } = &*self.0;
        if tenant_log.as_ref().is_some_and(|log| !log.admits(&event.tenant, context.len() + line.len())) {
            return true;
        }
        let user = event.user_id.as_deref();
        match level {
            tracing::Level::ERROR => {
                tracing::error!(target: "module", parent: None, %module, %delivery, user, context, "{line}")
            }
            tracing::Level::WARN => {
                tracing::warn!(target: "module", parent: None, %module, %delivery, user, context, "{line}")
            }
            tracing::Level::INFO => {
                tracing::info!(target: "module", parent: None, %module, %delivery, user, context, "{line}")
            }
            tracing::Level::DEBUG => {
                tracing::debug!(target: "module", parent: None, %module, %delivery, user, context, "{line}")
            }
            tracing::Level::TRACE => {
                tracing::trace!(target: "module", parent: None, %module, %delivery, user, context, "{line}")
            }
        }
        true
    }

    /// Writes the bytes of a standard stream: each line once it is terminated.
    fn print(&self, stream: Stream, bytes: &[u8]) {
        let mut unfinished = self.unfinished(stream);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) => {
                    keep(&mut unfinished, end);
                    self.printed(stream, &unfinished);
                    unfinished.clear();
                }
                None => keep(&mut unfinished, piece),
            }
        }
    }

    /// Writes the unterminated lines when the guest has ended.
    pub fn finish(&self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let unfinished = std::mem::take(&mut *self.unfinished(stream));
            if !unfinished.is_empty() {
                self.printed(stream, &unfinished);
            }
        }
    }

    /// Writes a line of a standard stream.
    fn printed(&self, stream: Stream, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end_matches('\r');
        if stream == Stream::Stderr {
            let mut state = self.state();
            if state.last_errors.len() == LAST_LINES {
                state.last_errors.pop_front();
            }
            state.last_errors.push_back(prefix(line, MAX_LINE).to_owned());
        }
        match stream {
            Stream::Stdout => self.line(tracing::Level::INFO, "stdout", line),
            Stream::Stderr => self.line(tracing::Level::WARN, "stderr", line),
        };
    }

    /// Returns and removes the lines kept with the delivery.
    pub fn take(&self) -> Vec<LogLine> {
        let mut state = self.state();
        state.held.shrink(KEPT_BYTES);
        std::mem::take(&mut state.kept)
    }

    fn keep(&self, level: tracing::Level, context: &str, line: &str) {
        let mut state = self.state();
        let Some(left) = state.kept_left.checked_sub(line.len() + context.len()) else { return };
        if state.held.grow(line.len() + context.len()).is_err() {
            return;
        }
        state.kept_left = left;
        let at = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        state.kept.push(LogLine {
            at: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            level: level.as_str().to_ascii_lowercase(),
            context: context.to_owned(),
            text: line.to_owned(),
        });
    }

    /// Returns the last lines of standard error.
    pub fn last_errors(&self) -> Vec<String> {
        self.state().last_errors.iter().cloned().collect()
    }

    /// Returns whether another line of this size fits, and counts it. The first line that doesn't fit is replaced by a
    /// message that lines are dropped.
    fn reserve_line(&self, bytes: usize) -> bool {
        let mut state = self.state();
        if state.full {
            return false;
        }
        let left = (state.lines_left.checked_sub(1), state.bytes_left.checked_sub(bytes as u64));
        let more = match left {
            (Some(lines), Some(bytes)) => {
                (state.lines_left, state.bytes_left) = (lines, bytes);
                return true;
            }
            (None, _) => "more lines than `log_lines` allows: the rest is left out",
            (_, None) => "more text than `log_bytes` allows: the rest is left out",
        };
        state.full = true;
        drop(state);
        self.keep(tracing::Level::WARN, "", more);
        let (module, delivery) = (&self.0.module, &self.0.delivery);
        tracing::warn!(target: "module", parent: None, %module, %delivery, "{more}");
        false
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }

    fn unfinished(&self, stream: Stream) -> MutexGuard<'_, Vec<u8>> {
        lock(&self.0.unfinished[stream as usize])
    }
}

/// A standard stream of a guest, split into lines for the delivery's log.
#[derive(Clone)]
pub struct LineStream {
    log: DeliveryLog,
    stream: Stream,
}

impl LineStream {
    /// Creates a stream whose lines go to a log.
    pub fn new(log: DeliveryLog, stream: Stream) -> Self {
        Self { log, stream }
    }
}

/// Appends to a line up to [`MAX_LINE`] and 3 bytes more, so that a character truncated here is beyond the maximum and
/// is dropped later.
fn keep(line: &mut Vec<u8>, bytes: &[u8]) {
    let room = (MAX_LINE + 3).saturating_sub(line.len());
    line.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

impl IsTerminal for LineStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LineStream {
    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }

    fn async_stream(&self) -> Box<dyn tokio::io::AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }
}

impl OutputStream for LineStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > MAX_WRITE {
            return Err(StreamError::trap("the guest wrote more bytes to a stream than `check-write` allows"));
        }
        self.log.print(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_WRITE)
    }
}

#[async_trait::async_trait]
impl Pollable for LineStream {
    async fn ready(&mut self) {}
}

impl tokio::io::AsyncWrite for LineStream {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.log.print(self.stream, bytes);
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

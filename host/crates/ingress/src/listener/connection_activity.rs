//! Tracks whether the host waits for the client or the client for the host, and since when. Time limits use it, and so
//! does the choice of the connection to close when there are too many.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use modhost_config::ListenerLimits;
use modhost_core::sync::lock;

/// The activity of a connection.
pub(super) struct ConnectionActivity {
    state: Mutex<State>,
    leave: Notify,
}

struct State {
    /// What the host waits for while no request is in flight.
    idle_phase: IdlePhase,
    /// When the current wait began.
    since: Instant,
    /// The number of requests whose body is incomplete.
    arriving: u32,
    /// The number of complete requests that the host has not answered yet.
    owed: u32,
    /// Whether the connection is multiplexed (HTTP/2). Bytes read between requests then don't have to be the head of a
    /// new one.
    multiplexed: bool,
    /// Whether the connection was asked to close.
    leaving: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum IdlePhase {
    /// No request has started yet.
    Opening,
    /// All requests have been answered.
    Idle,
    /// The head of another request has started to arrive.
    Head,
}

/// The limit that a client exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// The head of a request did not arrive within `header_timeout`.
    Head,
    /// The client didn't read the last response and start a new request within `idle_timeout`.
    Idle,
}

impl ConnectionActivity {
    /// Creates the activity of a connection that has just been opened.
    pub fn new() -> Arc<Self> {
        let state = State {
            idle_phase: IdlePhase::Opening,
            since: Instant::now(),
            arriving: 0,
            owed: 0,
            multiplexed: false,
            leaving: false,
        };
        Arc::new(Self { state: Mutex::new(state), leave: Notify::new() })
    }

    /// Registers a request whose body is still to be read.
    pub fn start_request(self: &Arc<Self>, multiplexed: bool) -> Arc<RequestGuard> {
        let mut state = self.state();
        if state.arriving + state.owed == 0 {
            state.since = Instant::now();
        }
        state.arriving += 1;
        state.multiplexed = multiplexed;
        Arc::new(RequestGuard { activity: self.clone(), body_complete: AtomicBool::new(false) })
    }

    /// Returns since when the host has been waiting for the client; `None` while the host owes it a response or after
    /// the connection was asked to close.
    pub fn waiting_for_client_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.owed == 0 && !state.leaving).then_some(state.since)
    }

    /// Asks the connection to close, so that another one can be accepted.
    pub fn request_close(&self) {
        self.state().leaving = true;
        self.leave.notify_one();
    }

    /// Waits until the connection is asked to close and the host owes it no response.
    pub async fn close_requested(&self) {
        loop {
            self.leave.notified().await;
            let mut state = self.state();
            if state.owed == 0 {
                return;
            }
            // The body of a request was completed meanwhile, so the host owes a response: another connection has to be
            // closed.
            state.leaving = false;
        }
    }

    /// Waits until the client exceeds a time limit.
    pub async fn overdue(&self, limits: &ListenerLimits) -> Overdue {
        let mut sleep = pin!(sleep_until(Instant::now()));
        // Polled on every activity of the connection, since the deadline changes with it.
        poll_fn(|cx| {
            loop {
                let now = Instant::now();
                let (due, overdue) = self.due(limits, now);
                match overdue {
                    Some(overdue) if due <= now => return Poll::Ready(overdue),
                    _ => {}
                }
                if sleep.is_elapsed() || due < sleep.deadline() {
                    sleep.as_mut().reset(due);
                }
                ready!(sleep.as_mut().poll(cx));
            }
        })
        .await
    }

    /// Returns when the current wait ends and which limit that is; while a request is in flight, when to check again.
    fn due(&self, limits: &ListenerLimits, now: Instant) -> (Instant, Option<Overdue>) {
        let state = self.state();
        match state.idle_phase {
            _ if state.arriving + state.owed > 0 => (now + limits.header_timeout, None),
            IdlePhase::Opening | IdlePhase::Head => (state.since + limits.header_timeout, Some(Overdue::Head)),
            IdlePhase::Idle => (state.since + limits.idle_timeout, Some(Overdue::Idle)),
        }
    }

    fn has_read(&self) {
        let mut state = self.state();
        if state.idle_phase == IdlePhase::Idle && state.arriving + state.owed == 0 && !state.multiplexed {
            state.idle_phase = IdlePhase::Head;
            state.since = Instant::now();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// A request in flight, from its head until the last reference is dropped after the response.
pub(super) struct RequestGuard {
    activity: Arc<ConnectionActivity>,
    body_complete: AtomicBool,
}

impl RequestGuard {
    /// Records that the body is complete: from now on the client waits for the host.
    pub fn body_complete(&self) {
        if !self.body_complete.swap(true, Ordering::Relaxed) {
            let mut state = self.activity.state();
            state.arriving -= 1;
            state.owed += 1;
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        match *self.body_complete.get_mut() {
            true => state.owed -= 1,
            false => state.arriving -= 1,
        }
        state.idle_phase = IdlePhase::Idle;
        state.since = Instant::now();
    }
}

/// A stream that reports reads to the connection's activity.
pub(super) struct ActivityStream<S> {
    stream: S,
    activity: Arc<ConnectionActivity>,
}

impl<S> ActivityStream<S> {
    pub fn new(stream: S, activity: Arc<ConnectionActivity>) -> Self {
        Self { stream, activity }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ActivityStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        if buffer.filled().len() > before {
            self.activity.has_read();
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ActivityStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

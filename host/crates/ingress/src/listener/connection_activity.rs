//! Whose turn it is on a connection, and since when: what time limits and the choice of who makes room go by.

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

/// What happens on a connection.
pub(super) struct ConnectionActivity {
    state: Mutex<State>,
    leave: Notify,
}

struct State {
    /// What is waited for while no request is under way.
    silence: Silence,
    /// When the present wait began.
    since: Instant,
    /// Requests whose body is still coming.
    arriving: u32,
    /// Requests that have come, and whose answer the host owes.
    owed: u32,
    /// Whether several requests share the connection; what is read between them isn't necessarily a request then.
    multiplexed: bool,
    /// Whether it was asked to make room.
    leaving: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// Nothing was asked yet.
    Opening,
    /// All was answered.
    Idle,
    /// The head of another request has begun.
    Head,
}

/// What a client took too long for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// To say what it wants.
    Head,
    /// To ask for anything more.
    Idle,
}

impl ConnectionActivity {
    /// A connection that has just been opened.
    pub fn new() -> Arc<Self> {
        let state = State {
            silence: Silence::Opening,
            since: Instant::now(),
            arriving: 0,
            owed: 0,
            multiplexed: false,
            leaving: false,
        };
        Arc::new(Self { state: Mutex::new(state), leave: Notify::new() })
    }

    /// A request begins, whose body is still to come.
    pub fn begin(self: &Arc<Self>, multiplexed: bool) -> Arc<RequestGuard> {
        let mut state = self.state();
        if state.arriving + state.owed == 0 {
            state.since = Instant::now();
        }
        state.arriving += 1;
        state.multiplexed = multiplexed;
        Arc::new(RequestGuard { activity: self.clone(), has_come: AtomicBool::new(false) })
    }

    /// Since when the client keeps the host waiting; none while the host owes it an answer, or if it has been asked to
    /// leave.
    pub fn waits_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.owed == 0 && !state.leaving).then_some(state.since)
    }

    /// Asks the connection to make room.
    pub fn ask_to_leave(&self) {
        self.state().leaving = true;
        self.leave.notify_one();
    }

    /// Waits until the connection is asked to make room, and may.
    pub async fn asked_to_leave(&self) {
        loop {
            self.leave.notified().await;
            let mut state = self.state();
            if state.owed == 0 {
                return;
            }
            // A request came to its end meanwhile: another one has to go.
            state.leaving = false;
        }
    }

    /// Waits until the client has taken too long.
    pub async fn overdue(&self, limits: &ListenerLimits) -> Overdue {
        let mut sleep = pin!(sleep_until(Instant::now()));
        // Asked whenever anything happens on the connection, as what is waited for changes with it.
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

    /// When the present wait ends, and what it is for; while a request is under way, when to look again.
    fn due(&self, limits: &ListenerLimits, now: Instant) -> (Instant, Option<Overdue>) {
        let state = self.state();
        match state.silence {
            _ if state.arriving + state.owed > 0 => (now + limits.header_timeout, None),
            Silence::Opening | Silence::Head => (state.since + limits.header_timeout, Some(Overdue::Head)),
            Silence::Idle => (state.since + limits.idle_timeout, Some(Overdue::Idle)),
        }
    }

    fn has_read(&self) {
        let mut state = self.state();
        if state.silence == Silence::Idle && state.arriving + state.owed == 0 && !state.multiplexed {
            state.silence = Silence::Head;
            state.since = Instant::now();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// A request under way, from its head to its answer; it has its end when nobody holds it any more.
pub(super) struct RequestGuard {
    activity: Arc<ConnectionActivity>,
    has_come: AtomicBool,
}

impl RequestGuard {
    /// The whole body is here: from now on the client waits for the host.
    pub fn has_come(&self) {
        if !self.has_come.swap(true, Ordering::Relaxed) {
            let mut state = self.activity.state();
            state.arriving -= 1;
            state.owed += 1;
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut state = self.activity.state();
        match *self.has_come.get_mut() {
            true => state.owed -= 1,
            false => state.arriving -= 1,
        }
        state.silence = Silence::Idle;
        state.since = Instant::now();
    }
}

/// A stream that notes when something was read from it.
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

//! Runs calls to completion even if the guest that waits for them has ended.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Handle;

/// A call that runs in the guest's task. If the guest drops it before it completes, the rest runs in a task of its own.
///
/// Guests rarely end in the middle of a call, so no task is spawned up front.
pub(super) struct DetachOnDrop<T: Send + 'static>(Option<BoxFuture<'static, CallResult<T>>>);

/// The output of a call, or the payload of its panic.
type CallResult<T> = Result<T, Box<dyn Any + Send>>;

impl<T: Send + 'static> DetachOnDrop<T> {
    /// Wraps a call; it starts when it is first polled.
    pub(super) fn new(call: impl Future<Output = T> + Send + 'static) -> Self {
        // A panic must not end the delivery: finalizing still has to notify the user.
        Self(Some(Box::pin(AssertUnwindSafe(call).catch_unwind())))
    }
}

impl<T: Send + 'static> Future for DetachOnDrop<T> {
    type Output = CallResult<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<CallResult<T>> {
        // A completed future is not polled again.
        let Some(call) = &mut self.0 else { return Poll::Pending };
        let result = ready!(call.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(result)
    }
}

impl<T: Send + 'static> Drop for DetachOnDrop<T> {
    fn drop(&mut self) {
        let Some(call) = self.0.take() else { return };
        // Without a runtime the process is exiting, and the call ends with it.
        if let Ok(runtime) = Handle::try_current() {
            drop(runtime.spawn(call));
        }
    }
}

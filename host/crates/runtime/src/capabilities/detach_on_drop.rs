//! Calls that are carried to their end, whatever becomes of the guest that waits for them.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::Handle;

/// A call that is made where the guest waits for it, and goes on in a task of its own if the guest ends before it does.
///
/// Hardly a guest does, so that a task for each call would be paid for by all and needed by few.
pub(super) struct DetachOnDrop<T: Send + 'static>(Option<BoxFuture<'static, Ended<T>>>);

/// What a call comes to: its answer, or that the host broke while it was made, and with what.
type Ended<T> = Result<T, Box<dyn Any + Send>>;

impl<T: Send + 'static> DetachOnDrop<T> {
    /// A call that begins when it is waited for.
    pub(super) fn new(call: impl Future<Output = T> + Send + 'static) -> Self {
        // What breaks here must not end the delivery: the user would never hear of it.
        Self(Some(Box::pin(AssertUnwindSafe(call).catch_unwind())))
    }
}

impl<T: Send + 'static> Future for DetachOnDrop<T> {
    type Output = Ended<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Ended<T>> {
        // Nobody asks a call again that has ended.
        let Some(call) = &mut self.0 else { return Poll::Pending };
        let ended = ready!(call.as_mut().poll(context));
        self.0 = None;
        Poll::Ready(ended)
    }
}

impl<T: Send + 'static> Drop for DetachOnDrop<T> {
    fn drop(&mut self) {
        let Some(call) = self.0.take() else { return };
        // Without a runtime the process is at its end, and the call with it.
        if let Ok(runtime) = Handle::try_current() {
            drop(runtime.spawn(call));
        }
    }
}
